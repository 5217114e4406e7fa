//! What callers get wrong, and what they are told.

use std::time::Duration;

use pool_postgres::{Engine, ErrorKind, Outcome, SessionFactory};
use testbed::Side;

use crate::round_trips::behind_a_proxy;
use crate::support::{builder, count, database, one_connection, sessions};

#[tokio::test]
async fn a_parameter_of_the_wrong_type_names_its_number_both_types_and_the_cure() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let error = session
        .query("SELECT $1::text, $2::int8", &[&"a", &1_i32])
        .await
        .expect_err("an i32 is no int8");
    let text = error.to_string();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Parameter, Outcome::NotSent)
    );
    for part in ["$2", "int8", "i32", "i64"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    let _ = session.commit().await.expect("usable");
    // On an engine, and of types that have no counterpart by default.
    let cases: [(&str, &(dyn pool_postgres::types::ToSql + Sync), &str); 5] = [
        ("SELECT $1::uuid", &"x", "feature `uuid`"),
        ("SELECT $1::jsonb", &"x", "feature `json`"),
        ("SELECT $1::numeric", &1.5_f64, "feature `decimal`"),
        ("SELECT $1::timestamptz", &"x", "feature `chrono`"),
        ("SELECT $1::int8[]", &vec![1_i32], "Vec<i64>"),
    ];
    for (sql, value, cure) in cases {
        let error = engine.query(sql, &[value]).await.expect_err("no fit");
        assert_eq!(error.kind(), ErrorKind::Parameter);
        let text = error.to_string();
        assert!(text.contains("$1") && text.contains(cure), "{text}");
    }
}

#[tokio::test]
async fn too_many_and_too_few_parameters_are_counted() {
    let db = database().await;
    let engine = one_connection(&db);
    for (given, told) in [
        (0, "2 parameters ($1 to $2), and none was given"),
        (3, "and 3 were given"),
    ] {
        let values: [&(dyn pool_postgres::types::ToSql + Sync); 3] = [&1_i64, &2_i64, &3_i64];
        let error = engine
            .query("SELECT $1::int8 + $2::int8", &values[..given])
            .await
            .expect_err("another number");
        assert_eq!(error.kind(), ErrorKind::Parameter);
        assert!(error.to_string().contains(told), "{error}");
    }
    let error = engine
        .query("SELECT 1", &[&1_i64])
        .await
        .expect_err("it takes none");
    assert!(error.to_string().contains("no parameters"), "{error}");
}

#[tokio::test]
async fn two_statements_in_one_are_pointed_to_batch() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let two = "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)";
    let error = engine.execute(two, &[]).await.expect_err("two statements");
    assert_eq!(error.sqlstate(), Some("42601"));
    assert!(format!("{error:#}").contains("batch"), "{error:#}");
    let mut session = sessions.session();
    session.batch(two).await.expect("as a batch");
    let _ = session.commit().await.expect("committed");
    assert_eq!(count(&engine).await, 2);
}

#[tokio::test]
async fn a_nul_in_a_statement_is_refused_here_and_in_a_text_by_the_server() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    engine.ping().await.expect("well");
    let mut session = sessions.session();
    for error in [
        session.query("SELECT '\0'", &[]).await.expect_err("a NUL"),
        session.batch("SELECT 1;\0").await.expect_err("a NUL"),
    ] {
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::Usage, Outcome::NotSent)
        );
        assert!(
            error.to_string().contains("NUL") && error.connection_is_good(),
            "{error}"
        );
    }
    session
        .query("SELECT 1", &[])
        .await
        .expect("nothing was sent");
    let error = session
        .query("SELECT $1::text", &[&"a\0b"])
        .await
        .expect_err("a NUL");
    assert_eq!(error.sqlstate(), Some("22021"));
    drop(session);
    engine
        .query("SELECT $1::bytea", &[&&b"a\0b"[..]])
        .await
        .expect("bytes may be any");
    assert_eq!(
        engine.status().open,
        1,
        "the connection is as good as before"
    );
}

#[tokio::test]
async fn a_statement_after_an_error_is_told_which_one_and_what_to_do() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    session
        .query("SELECT * FROM missing", &[])
        .await
        .expect_err("no such table");
    let error = session.query("SELECT 1", &[]).await.expect_err("25P02");
    let text = error.to_string();
    for part in ["25P02", "rolled back", "missing"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
}

#[tokio::test]
async fn more_rows_than_are_collected_are_an_error_that_advises_a_stream() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let sql = "SELECT generate_series(1, $1::int)";
    let error = engine
        .query(sql, &[&1_000_001_i32])
        .await
        .expect_err("too many");
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::RowCount, Outcome::Applied)
    );
    assert!(error.to_string().contains("query_stream"), "{error}");
    let mut session = sessions.max_rows(10).session();
    assert_eq!(
        session.query(sql, &[&10_i32]).await.expect("as many").len(),
        10
    );
    let error = session
        .query(sql, &[&11_i32])
        .await
        .expect_err("one too many");
    assert!(error.to_string().contains("more than 10 rows"), "{error}");
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("usable");
    let _ = session.commit().await.expect("committed");
    let rows = session
        .pipeline()
        .statement(sql, &[&11_i32])
        .statement("SELECT 1", &[]);
    let results = rows.run_each().await;
    assert_eq!(
        results[0].as_ref().expect_err("too many").kind(),
        ErrorKind::RowCount
    );
    results[1].as_ref().expect("the next runs");
    drop(session);
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_may_be_sent_from_task_to_task() {
    let db = database().await;
    let engine: Engine = builder(&db.url())
        .pool_size(1)
        .max_overflow(0)
        .build()
        .expect("settings");
    let mut session = SessionFactory::new(engine.clone()).session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let mut session = tokio::spawn(async move {
        session
            .execute("INSERT INTO t VALUES (2)", &[])
            .await
            .expect("inserted");
        session
    })
    .await
    .expect("no panic");
    let committed = tokio::spawn(async move { session.commit().await });
    let _ = committed.await.expect("no panic").expect("committed");
    assert_eq!(count(&engine).await, 2);
}

#[tokio::test]
async fn a_dead_connection_is_not_replaced_where_that_was_declined() {
    let db = database().await;
    let (engine, proxy) = behind_a_proxy(&db).await;
    let sessions = SessionFactory::new(engine.clone());
    for again in [true, false] {
        engine
            .query("SELECT 1", &[])
            .await
            .expect("an idle connection");
        proxy.cut_after(Side::Client, 0); // Dies of what is sent to it, as one does whose server is gone.
        let answer = sessions
            .retry_dead(again)
            .session()
            .query("SELECT 1", &[])
            .await;
        match answer {
            Ok(rows) => assert!(again && rows.len() == 1),
            Err(error) => assert!(
                !again && error.kind() == ErrorKind::ConnectionLost,
                "{again}: {error}"
            ),
        }
    }
}

#[tokio::test]
async fn the_users_own_error_is_not_hidden_by_a_connection_that_breaks_while_cleaning_up() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let killer = one_connection(&db);
    let error = sessions
        .begin::<anyhow::Error, ()>(async |s| {
            s.execute("INSERT INTO t VALUES (1)", &[]).await?;
            let victim = crate::support::pid(s).await;
            killer
                .execute("SELECT pg_terminate_backend($1, 10000)", &[&victim])
                .await?;
            anyhow::bail!("my own")
        })
        .await
        .expect_err("its own");
    assert_eq!(error.to_string(), "my own");
    assert_eq!(engine.status().in_use, 0);
    let limit = Duration::from_secs(10);
    let counted = tokio::time::timeout(limit, count(&engine))
        .await
        .expect("a new connection");
    assert_eq!(counted, 0);
}
