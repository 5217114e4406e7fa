//! Prepared statements: how many are kept, and what takes them away.

use pool_postgres::{Engine, Error, ErrorKind, Session, SessionFactory};
use testbed::TestDatabase;

use crate::support::{builder, database, one_connection, poll_then_drop, sessions};

const ALL: &str = "SELECT * FROM t";

/// How many statements the engine's one connection has prepared, by what the text begins with.
async fn prepared(engine: &Engine, start: &str) -> i64 {
    let connection = engine.connect().await.expect("a connection");
    let sql = format!(
        "SELECT count(*) FROM pg_prepared_statements WHERE starts_with(statement, '{start}')"
    );
    let answer = connection
        .client()
        .simple_query(&sql)
        .await
        .expect("a count");
    let count = answer.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    count.expect("a row").parse().expect("a number")
}

fn keeping(db: &TestDatabase, statements: usize) -> Engine {
    builder(&db.url())
        .pool_size(1)
        .max_overflow(0)
        .statement_cache(statements)
        .build()
        .expect("good settings")
}

#[tokio::test]
async fn a_connection_keeps_so_many_statements_the_least_recently_used_go_first() {
    let db = database().await;
    let engine = keeping(&db, 3);
    for n in [1, 2, 3, 1, 4, 1, 5] {
        let sql = format!("SELECT {n} AS kept");
        engine.query_one(&sql, &[]).await.expect("a row");
    }
    assert_eq!(prepared(&engine, "SELECT").await, 3);
    for n in [1, 4, 5] {
        assert_eq!(
            prepared(&engine, &format!("SELECT {n} AS kept")).await,
            1,
            "{n}"
        );
    }
}

#[tokio::test]
async fn statements_of_single_use_leave_nothing_and_drive_nothing_out() {
    let db = database().await;
    let nothing = keeping(&db, 0);
    for n in 1..5 {
        nothing
            .query_one(&format!("SELECT {n}"), &[])
            .await
            .expect("a row");
    }
    assert_eq!(prepared(&nothing, "SELECT").await, 0);

    let engine = keeping(&db, 2);
    engine
        .query_one("SELECT 1 AS kept", &[])
        .await
        .expect("a row");
    let mut session = SessionFactory::new(engine.clone()).single_use().session();
    for n in 1..5_i32 {
        let sql = format!("SELECT {n} + $1 AS passing");
        let row = session.query_one(&sql, &[&1_i32]).await.expect("a row");
        assert_eq!(row.get::<_, i32>(0), n + 1);
    }
    session.close().await.expect("closed");
    assert_eq!(prepared(&engine, "SELECT 1 AS kept").await, 1);
    assert_eq!(prepared(&engine, "SELECT").await, 1);
}

/// Uses a statement on the connections of two engines, then changes its table behind the first one's back.
async fn moved(db: &TestDatabase, engine: &Engine) {
    let held = [
        engine.connect().await.expect("a connection"),
        engine.connect().await.expect("a connection"),
    ];
    drop(held);
    let (mut first, mut second) = {
        let sessions = SessionFactory::new(engine.clone());
        (sessions.session(), sessions.session())
    };
    first.query(ALL, &[]).await.expect("rows");
    second.query(ALL, &[]).await.expect("rows");
    drop((first, second));
    one_connection(db)
        .execute("ALTER TABLE t ADD COLUMN more text DEFAULT 'yes'", &[])
        .await
        .expect("altered");
}

fn two_connections(db: &TestDatabase) -> Engine {
    builder(&db.url())
        .pool_size(2)
        .max_overflow(0)
        .build()
        .expect("good settings")
}

#[tokio::test]
async fn a_statement_whose_table_has_changed_is_prepared_anew_where_nothing_was_done_yet() {
    let db = database().await;
    let engine = two_connections(&db);
    moved(&db, &engine).await;
    engine
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let row = engine.query_one(ALL, &[]).await.expect("prepared anew");
    assert_eq!(row.len(), 2);
    // One connection's finding is every connection's, so each may be the first to meet it.
    let sessions = SessionFactory::new(engine);
    let (mut first, mut second) = (sessions.session(), sessions.session());
    assert_eq!(first.query_one(ALL, &[]).await.expect("a row").len(), 2);
    assert_eq!(second.query_one(ALL, &[]).await.expect("a row").len(), 2);
}

#[tokio::test]
async fn a_change_that_is_met_in_the_middle_of_a_transaction_is_an_error_that_may_be_tried_again() {
    let db = database().await;
    let engine = two_connections(&db);
    moved(&db, &engine).await;
    let sessions = SessionFactory::new(engine);
    let work = async || {
        let mut session = sessions.session();
        session.execute("INSERT INTO t VALUES (1)", &[]).await?;
        let row = session.query_one(ALL, &[]).await?;
        Ok::<_, Error>(row.len())
    };
    let error = work().await.expect_err("the server refused it");
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
    assert_eq!(error.sqlstate(), Some("0A000"));
    assert!(error.is_retryable() && error.connection_is_good());
    assert!(
        error.to_string().contains("after it was prepared"),
        "{error}"
    );
    assert_eq!(work().await.expect("prepared anew"), 2);
}

#[tokio::test]
async fn what_a_transaction_changes_itself_does_not_make_its_statements_stale() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    for change in [
        "ALTER TABLE t ADD COLUMN more int",
        "ALTER TABLE t DROP COLUMN more",
        "DEALLOCATE ALL",
    ] {
        session.query_one(ALL, &[]).await.expect("before");
        session.execute(change, &[]).await.expect(change);
        session.query_one(ALL, &[]).await.expect(change);
        session.query_one(ALL, &[]).await.expect("and again");
    }
    let _ = session.commit().await.expect("committed");
}

#[tokio::test]
async fn what_goes_away_half_way_through_a_pipeline_is_prepared_anew_behind_it() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let run = async |session: &mut Session| {
        session
            .pipeline()
            .statement("INSERT INTO t VALUES (1)", &[])
            .statement(ALL, &[])
            .statement("DEALLOCATE ALL", &[])
            .statement(ALL, &[])
            .statement("ALTER TABLE t ADD COLUMN IF NOT EXISTS more int", &[])
            .statement(ALL, &[])
            .statement("CREATE TEMP TABLE IF NOT EXISTS scratch (n int)", &[])
            .statement("SELECT * FROM scratch", &[])
            .run()
            .await
    };
    for sessions in [sessions.clone(), sessions.clone(), sessions.autocommit()] {
        let mut session = sessions.session();
        let answers = run(&mut session).await.expect("all of them");
        assert_eq!(answers[5].rows()[0].len(), 2);
        let _ = session.commit().await.expect("committed");
    }
}

#[tokio::test]
async fn a_statement_that_vanished_unseen_is_prepared_anew_where_nothing_was_done_yet() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let unseen = "DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$";
    engine.query(ALL, &[]).await.expect("prepared");
    engine.execute(unseen, &[]).await.expect("gone");
    engine.query(ALL, &[]).await.expect("prepared anew");
    engine.execute(unseen, &[]).await.expect("gone");
    let mut session = sessions.session();
    session.query(ALL, &[]).await.expect("prepared anew");
    session.execute(unseen, &[]).await.expect("gone");
    let error = session.query(ALL, &[]).await.expect_err("in the middle");
    assert_eq!(
        (error.kind(), error.sqlstate()),
        (ErrorKind::Stale, Some("26000")),
        "{error}"
    );
    assert!(error.is_retryable());
    session.rollback().await.expect("rolled back");
    session.query(ALL, &[]).await.expect("prepared anew");
}

#[tokio::test]
async fn a_statement_that_was_prepared_for_nobody_is_not_used_and_does_not_stay_for_ever() {
    let db = database().await;
    let engine = one_connection(&db);
    for n in 0..60 {
        let sql = format!("SELECT {n} AS orphan");
        poll_then_drop(1, engine.query_one(&sql, &[])).await;
        let row = engine
            .query_one(&sql, &[])
            .await
            .expect("prepared by its owner");
        assert_eq!(row.get::<_, i32>(0), n);
    }
    // 60 have an owner; of the others those that were lost last may be there.
    let left = prepared(&engine, "SELECT").await;
    assert!(left <= 60 + 16, "{left} are left");
}

#[tokio::test]
async fn a_schema_that_changes_while_statements_fly_makes_none_of_them_fail_for_good() {
    let db = database().await;
    let engine = builder(&db.url())
        .pool_size(3)
        .max_overflow(0)
        .build()
        .expect("good settings");
    engine
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let (done, over) = tokio::sync::watch::channel(false);
    let readers = (0..3).map(|_| {
        let (engine, over) = (engine.clone(), over.clone());
        tokio::spawn(async move {
            let sessions = SessionFactory::new(engine.clone());
            let mut read = 0_u32;
            while !*over.borrow() {
                let alone = engine.query_one(ALL, &[]).await;
                let mut session = sessions.session();
                let first = session.query_one(ALL, &[]).await;
                let second = session.query_one(ALL, &[]).await;
                for (place, row) in [alone, first, second].into_iter().enumerate() {
                    match row {
                        Ok(row) => assert!(matches!(row.len(), 1 | 2)),
                        // Two changes in a row may meet the same statement.
                        Err(error) => assert!(
                            error.is_retryable() || error.kind() == ErrorKind::TransactionFailed,
                            "statement {place}: {error}"
                        ),
                    }
                }
                read += 1;
            }
            read
        })
    });
    let readers: Vec<_> = readers.collect();
    let admin = one_connection(&db);
    for _ in 0..25 {
        for change in ["ADD COLUMN more int", "DROP COLUMN more"] {
            admin
                .execute(&format!("ALTER TABLE t {change}"), &[])
                .await
                .expect("altered");
        }
    }
    done.send(true).expect("they listen");
    for reader in readers {
        assert!(reader.await.expect("no panic") > 0);
    }
    assert_eq!(engine.query_one(ALL, &[]).await.expect("a row").len(), 1);
}
