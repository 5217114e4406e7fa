//! Engines: single statements, bare connections, closing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use pool_postgres::pool_core::{CloseReason, EventKind, OnReturn};
use pool_postgres::{
    Engine, Error, ErrorKind, IsolationLevel, ResetPolicy, SessionFactory, SessionOptions,
};

use crate::log;
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

/// An engine on whose connections a setting is made once, and how often that was done.
fn set_up(url: &str, policy: ResetPolicy) -> (Engine, Arc<AtomicUsize>) {
    let times = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&times);
    let engine = builder(url)
        .pool_size(1)
        .max_overflow(0)
        .reset_policy(policy)
        .after_connect(|connection| {
            Box::pin(async move {
                connection
                    .client()
                    .batch_execute("SET lock_timeout = '7s'")
                    .await?;
                Ok(())
            })
        })
        .after_connect(move |connection| {
            count.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                let first = connection
                    .client()
                    .query_one("SHOW lock_timeout", &[])
                    .await?;
                assert_eq!(first.get::<_, &str>(0), "7s", "in their order");
                Ok(())
            })
        })
        .build()
        .expect("good settings");
    (engine, times)
}

#[tokio::test]
async fn what_is_set_after_connect_is_done_once_for_each_connection_and_stays() {
    let db = database().await;
    let (engine, times) = set_up(&db.url(), ResetPolicy::Rollback);
    for _ in 0..3 {
        let limit: String = engine
            .query_scalar("SHOW lock_timeout", &[])
            .await
            .expect("set");
        assert_eq!(limit, "7s");
    }
    assert_eq!(times.load(Ordering::Relaxed), 1);
    engine.dispose();
    engine.ping().await.expect("another connection");
    assert_eq!(times.load(Ordering::Relaxed), 2);

    let (engine, _) = set_up(&db.url(), ResetPolicy::Full);
    for _ in 0..3 {
        let limit: String = engine
            .query_scalar("SHOW lock_timeout", &[])
            .await
            .expect("set");
        assert_eq!(limit, "7s", "a full reset sets it again");
        engine
            .execute("SET lock_timeout = '1s'", &[])
            .await
            .expect("changed");
    }
}

#[tokio::test]
async fn after_connect_that_fails_or_leaves_a_transaction_open_is_told() {
    let db = database().await;
    for (sql, part) in [
        ("SELECT 1/0", "failed"),
        ("BEGIN", "left a transaction open"),
    ] {
        let engine = builder(&db.url())
            .after_connect(move |connection| {
                Box::pin(async move { Ok(connection.client().batch_execute(sql).await?) })
            })
            .build()
            .expect("good settings");
        let error = engine.ping().await.expect_err("not set up");
        assert_eq!(error.kind(), ErrorKind::Hook, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_view_shares_the_pool_and_its_options_reach_nobody_else() {
    let db = database().await;
    let engine = one_connection(&db);
    let options = SessionOptions::default()
        .isolation(IsolationLevel::Serializable)
        .read_only();
    let view = engine.with_options(options);
    let sql = "SELECT current_setting('transaction_isolation') || ' ' \
               || current_setting('transaction_read_only') || ' ' || pg_backend_pid()";
    let mut session = view.session();
    let inside: String = session.query_scalar(sql, &[]).await.expect("a row");
    let _ = session.commit().await.expect("committed");
    let mut session = engine.session();
    let outside: String = session.query_scalar(sql, &[]).await.expect("a row");
    session.rollback().await.expect("rolled back");
    let pid = inside.rsplit(' ').next().expect("a pid");
    assert_eq!(inside, format!("serializable on {pid}"));
    assert_eq!(
        outside,
        format!("read committed off {pid}"),
        "the same connection"
    );

    // Single statements, `begin` and factories of the view heed it too.
    let insert = "INSERT INTO t VALUES (1)";
    let refused = view.execute(insert, &[]).await.expect_err("read only");
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    let refused = view.query(insert, &[]).await.expect_err("read only");
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    let refused = view
        .begin::<Error, _>(async |s| s.execute(insert, &[]).await)
        .await
        .expect_err("read only");
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    let factory = SessionFactory::new(view.clone());
    assert_eq!(factory.options(), options);
    engine
        .execute(insert, &[])
        .await
        .expect("the engine itself may write");
    view.dispose();
    let after: i32 = engine
        .query_scalar("SELECT pg_backend_pid()", &[])
        .await
        .expect("a pid");
    assert_ne!(
        after.to_string(),
        pid,
        "disposing the view replaced the pool's connections"
    );
}

#[tokio::test]
async fn an_engine_s_begin_commits_on_ok_and_rolls_back_on_err() {
    let db = database().await;
    let engine = one_connection(&db);
    let insert = "INSERT INTO t VALUES (1)";
    engine
        .begin::<Error, _>(async |s| s.execute(insert, &[]).await)
        .await
        .expect("committed");
    let error = engine
        .begin::<Error, ()>(async |s| {
            s.execute(insert, &[]).await?;
            Err(Error::new(ErrorKind::Usage, "no"))
        })
        .await
        .expect_err("passed on");
    assert_eq!(error.to_string(), "no");
    assert_eq!(count(&engine).await, 1);
    assert_eq!(engine.max_connections(), 1);
}

#[tokio::test]
async fn a_pool_larger_than_what_the_server_has_free_is_warned_of_once() {
    let db = database().await;
    let of_size = |size| {
        builder(&db.url())
            .pool_size(1)
            .max_overflow(size)
            .build()
            .expect("good settings")
    };
    log::listen();
    let small = of_size(9);
    small.ping().await.expect("well");
    assert_eq!(log::warnings(), Vec::<String>::new());
    let large = of_size(1000);
    assert_eq!(large.max_connections(), 1001);
    large.ping().await.expect("well");
    large.dispose();
    large.ping().await.expect("well");
    let warnings = log::warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in ["pool=1001", "server=300", "max_overflow"] {
        assert!(warnings[0].contains(part), "{warnings:?}");
    }
}

#[tokio::test]
async fn a_detached_connection_goes_on_and_the_pool_opens_another() {
    let db = database().await;
    let engine = one_connection(&db);
    let detached = engine.connect().await.expect("a connection").detach();
    let detached_pid = detached.process_id().expect("a server process");
    let pid: i32 = engine
        .query_scalar("SELECT pg_backend_pid()", &[])
        .await
        .expect("there is room for another");
    assert_ne!(pid, detached_pid);
    detached
        .client()
        .batch_execute("INSERT INTO t VALUES (1)")
        .await
        .expect("it goes on");
    drop(detached);
    until(
        &engine,
        &format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {detached_pid})"),
    )
    .await;
    assert_eq!(count(&engine).await, 1);
}
