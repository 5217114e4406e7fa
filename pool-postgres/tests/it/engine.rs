//! Engines: single statements, bare connections, closing.

use std::time::Duration;

use futures_util::StreamExt;
use pool_postgres::pool_core::{CloseReason, EventKind, OnReturn};
use pool_postgres::{Engine, ErrorKind, SessionFactory};

use crate::support::{builder, count, database, one_connection, sessions, until};

#[tokio::test]
async fn building_an_engine_opens_nothing() {
    let engine = Engine::builder("postgresql://nobody:secret@127.0.0.1:1/none")
        .build()
        .expect("settings");
    assert_eq!(engine.status().open, 0);
    assert!(!format!("{engine:?}").contains("secret"));
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_with_the_remedy() {
    let error = Engine::builder("postgresql://localhost/db")
        .pool_size(0)
        .max_overflow(0)
        .build()
        .expect_err("no connection could ever exist");
    assert_eq!(error.kind(), ErrorKind::Config);
    let cause = std::error::Error::source(&error)
        .map(ToString::to_string)
        .unwrap_or_default();
    assert!(
        format!("{error}: {cause}").contains("raise one of them"),
        "{error}: {cause}"
    );
    let error = Engine::builder("mysql://localhost/db")
        .build()
        .expect_err("another database");
    assert_eq!(error.kind(), ErrorKind::Url);
}

#[tokio::test]
async fn single_statements_run_by_themselves() {
    let db = database().await;
    let engine = one_connection(&db);
    assert_eq!(
        engine
            .execute("INSERT INTO t VALUES (1), (2)", &[])
            .await
            .expect("inserted"),
        2
    );
    engine
        .execute("VACUUM t", &[])
        .await
        .expect("outside a transaction");
    assert_eq!(
        engine
            .query("SELECT n FROM t", &[])
            .await
            .expect("rows")
            .len(),
        2
    );
    assert!(
        engine
            .query_opt("SELECT n FROM t WHERE n > $1", &[&5_i64])
            .await
            .expect("none")
            .is_none()
    );
    let error = engine
        .query_one("SELECT n FROM t", &[])
        .await
        .expect_err("two rows");
    assert_eq!(error.kind(), ErrorKind::RowCount);
    engine
        .query("SELECT 1/0", &[])
        .await
        .expect_err("division by zero");
    engine.ping().await.expect("well");
    assert_eq!((engine.status().open, engine.status().in_use), (1, 0));
}

#[tokio::test]
async fn a_statement_whose_table_changed_meanwhile_is_prepared_anew() {
    let db = database().await;
    let engine = one_connection(&db);
    engine
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    assert_eq!(
        engine
            .query_one("SELECT * FROM t", &[])
            .await
            .expect("a row")
            .len(),
        1
    );
    engine
        .execute("ALTER TABLE t ADD COLUMN m text", &[])
        .await
        .expect("altered");
    assert_eq!(
        engine
            .query_one("SELECT * FROM t", &[])
            .await
            .expect("a row")
            .len(),
        2
    );
    engine
        .execute("ALTER TABLE t ADD COLUMN o text", &[])
        .await
        .expect("altered");
    let mut session = SessionFactory::new(engine.clone()).session();
    assert_eq!(
        session
            .query_one("SELECT * FROM t", &[])
            .await
            .expect("a row")
            .len(),
        3
    );
}

#[tokio::test]
async fn a_bare_connection_gives_the_drivers_client_and_is_checked_on_return() {
    let db = database().await;
    let engine = one_connection(&db);
    let mut connection = engine.connect().await.expect("a connection");
    let transaction = connection.client_mut().transaction().await.expect("begun");
    transaction
        .batch_execute("INSERT INTO t VALUES (1)")
        .await
        .expect("inserted");
    transaction.commit().await.expect("committed");
    connection
        .client()
        .batch_execute("BEGIN; INSERT INTO t VALUES (2)")
        .await
        .expect("left open");
    drop(connection);
    crate::support::assert_next_borrower_is_at_ease(&engine, "an open transaction").await;
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn a_closed_pool_refuses_newcomers_and_says_so() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    engine.ping().await.expect("well");
    let report = engine.close().await;
    assert!(report.is_clean(), "{report:?}");
    let mut session = sessions.session();
    for error in [
        engine.query("SELECT 1", &[]).await.expect_err("closed"),
        session.query("SELECT 1", &[]).await.expect_err("closed"),
        engine.connect().await.map(drop).expect_err("closed"),
    ] {
        assert_eq!(error.kind(), ErrorKind::PoolClosed);
        assert!(error.to_string().contains("closed"), "{error}");
    }
}

#[tokio::test]
async fn closing_reports_who_still_holds_what() {
    let db = database().await;
    let engine = builder(&db.url())
        .pool_size(1)
        .close_deadline(Duration::ZERO)
        .build()
        .expect("good settings");
    let mut session = SessionFactory::new(engine.clone()).session();
    let line = line!() + 2;
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let report = engine.close().await;
    let held = report.still_held.first().expect("one is held");
    assert!(held.place.file().ends_with("engine.rs"), "{held}");
    assert_eq!(held.place.line(), line);
    let _ = session.commit().await.expect("what runs may end");
    assert_eq!(count(&one_connection(&db)).await, 1);
}

#[tokio::test]
async fn disposing_replaces_connections_and_leaves_running_transactions_alone() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let before = crate::support::pid(&mut session).await;
    engine.dispose();
    let _ = session.commit().await.expect("committed");
    until(
        &engine,
        &format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {before})"),
    )
    .await;
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn hooks_and_settings_of_the_pool_alone_reach_an_engine() {
    let database = database().await;
    let engine = builder(&database.url())
        .pool_size(1)
        .max_overflow(0)
        .pool_with(|pool| {
            let pool = pool.on_connect(|conn| {
                Box::pin(async move {
                    let set = "SET application_name = 'set up'";
                    conn.client().batch_execute(set).await?;
                    Ok(())
                })
            });
            pool.on_return(|_| OnReturn::Close)
        })
        .build()
        .expect("good settings");
    let mut events = engine.pool().events();
    let row = engine
        .query_one("SELECT current_setting('application_name')", &[])
        .await
        .expect("a row");
    assert_eq!(
        row.get::<_, String>(0),
        "set up",
        "once for each connection"
    );
    let reason = loop {
        let event = events.next().await.expect("the pool is open");
        if let EventKind::Closed { reason, .. } = event.kind {
            break reason;
        }
    };
    assert_eq!(reason, CloseReason::Refused);
}

#[tokio::test]
async fn a_pool_in_which_nobody_may_wait_is_overloaded_at_once() {
    let database = database().await;
    let engine = builder(&database.url())
        .pool_size(1)
        .max_overflow(0)
        .pool_with(|pool| pool.max_waiting(0))
        .build()
        .expect("good settings");
    let held = engine.connect().await.expect("room for one");
    let error = engine.connect().await.expect_err("nobody may wait");
    assert_eq!(error.kind(), ErrorKind::PoolOverload);
    assert!(error.is_retryable());
    drop(held);
}

#[tokio::test]
async fn an_engine_whose_pool_is_suspended_says_so_when_the_time_is_over() {
    let database = database().await;
    let engine = one_connection(&database);
    engine.pool().suspend();
    let error = engine.ping().await.expect_err("suspended");
    assert_eq!(error.kind(), ErrorKind::PoolSuspended);
    engine.pool().resume();
    engine.ping().await.expect("handed out again");
}

#[tokio::test]
async fn a_hook_that_fails_is_told_with_its_cause() {
    let database = database().await;
    let engine = builder(&database.url())
        .pool_with(|pool| pool.on_connect(|_| Box::pin(async { Err("no luck".into()) })))
        .build()
        .expect("good settings");
    let error = engine.ping().await.expect_err("the hook fails");
    assert_eq!(error.kind(), ErrorKind::Hook);
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    assert_eq!(cause.as_deref(), Some("no luck"));
}
