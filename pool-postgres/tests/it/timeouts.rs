//! How long statements and transactions may take, and what is left behind: nothing.

use std::time::Duration;

use pool_postgres::{Error, ErrorKind, SessionFactory};

use crate::round_trips::behind_a_proxy;
use crate::support::{
    assert_next_borrower_is_at_ease, count, database, one_connection, pid, sessions, until,
};

const SLEEP: &str = "SELECT pg_sleep(1000)";
/// Longer than anything quick takes on a busy machine.
const SHORT: Duration = Duration::from_millis(300);
/// Longer than several quick things take there.
const LONG: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn the_server_ends_a_statement_that_takes_too_long_and_only_in_that_transaction() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let mut session = sessions.statement_timeout(SHORT).session();
    session.query("SELECT 1", &[]).await.expect("quick");
    let slow = session
        .nested::<Error, _>(async |s| s.query(SLEEP, &[]).await)
        .await
        .expect_err("too slow");
    assert_eq!(
        (slow.kind(), slow.sqlstate()),
        (ErrorKind::Cancelled, Some("57014"))
    );
    session
        .query("SELECT 1", &[])
        .await
        .expect("the savepoint held it");
    let server = pid(&mut session).await;
    drop(session);
    let mut next = sessions.session();
    assert_eq!(pid(&mut next).await, server, "the same connection");
    let limit: String = next
        .query_scalar("SELECT current_setting('statement_timeout')", &[])
        .await
        .expect("a setting");
    assert_eq!(limit, "0");
}

#[tokio::test]
async fn a_statement_on_a_server_that_hangs_is_given_up_a_little_later() {
    let db = database().await;
    let (engine, proxy) = behind_a_proxy(&db).await;
    let sessions = SessionFactory::new(engine.clone()).statement_timeout(SHORT);
    let mut session = sessions.session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    proxy.black_hole(true);
    let error = session
        .query("SELECT 1", &[])
        .await
        .expect_err("nothing comes");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        error.to_string().contains("statement_timeout (300ms)"),
        "{error}"
    );
    let error = session
        .query("SELECT 1", &[])
        .await
        .expect_err("roll back first");
    assert_eq!(error.kind(), ErrorKind::TransactionFailed);
    proxy.black_hole(false);
    drop(session);
    assert_next_borrower_is_at_ease(&engine, "a statement given up").await;
    assert_eq!(count(&engine).await, 0);
}

#[tokio::test]
async fn rows_that_stop_coming_are_given_up_too() {
    let db = database().await;
    let (engine, proxy) = behind_a_proxy(&db).await;
    let sessions = SessionFactory::new(engine.clone());
    let mut session = sessions.statement_timeout(LONG).session();
    let sql = "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)";
    {
        let mut rows = session.query_stream(sql, &[]).await.expect("a stream");
        rows.next().await.expect("a row").expect("no error");
        proxy.black_hole(true);
        let error = loop {
            match rows.next().await.expect("an end that is an error") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(rows.next().await.is_none());
    }
    proxy.black_hole(false);
    drop(session);
    assert_next_borrower_is_at_ease(&engine, "a stream given up").await;
}

#[tokio::test]
async fn without_a_transaction_the_session_keeps_the_limit_and_the_statement_is_cancelled() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.autocommit().statement_timeout(SHORT).session();
    let error = session.query(SLEEP, &[]).await.expect_err("too slow");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_next_borrower_is_at_ease(&engine, "a statement given up").await;
    session
        .query("SELECT 1", &[])
        .await
        .expect("each stands alone");
    let sleeping = "SELECT count(*) = 0 FROM pg_stat_activity WHERE state = 'active' \
                    AND query LIKE 'SELECT pg_sleep%' AND datname = current_database()";
    until(&engine, sleeping).await;
}

#[tokio::test]
async fn a_transaction_that_takes_too_long_is_given_up_at_its_statement_or_before_the_next() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let limited = sessions.transaction_timeout(LONG);
    let mut session = limited.session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let error = session.query(SLEEP, &[]).await.expect_err("too slow");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        error.to_string().contains("transaction_timeout (1.5s)"),
        "{error}"
    );
    let error = session.commit().await.expect_err("lost");
    assert_eq!(error.kind(), ErrorKind::TransactionFailed);

    let elsewhere = one_connection(&db);
    for commits in [false, true] {
        session
            .execute("INSERT INTO t VALUES (2)", &[])
            .await
            .expect("a new transaction");
        elsewhere
            .query("SELECT pg_sleep(1.6)", &[])
            .await
            .expect("time passes");
        if commits {
            let error = session.commit().await.expect_err("too late");
            assert_eq!(error.kind(), ErrorKind::TransactionFailed);
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            assert!(
                cause.is_some_and(|cause| cause.contains("transaction_timeout")),
                "{error}"
            );
        } else {
            let error = session.query("SELECT 1", &[]).await.expect_err("too late");
            assert_eq!(error.kind(), ErrorKind::Timeout);
            session.rollback().await.expect("rolled back");
        }
    }
    assert_eq!(count(&engine).await, 0);
}

#[tokio::test]
async fn a_lock_that_is_not_had_in_time_is_refused() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let mut holder = SessionFactory::new(one_connection(&db)).session();
    holder.batch("LOCK TABLE t").await.expect("locked");
    let mut session = sessions.lock_timeout(SHORT).session();
    let error = session
        .query("SELECT n FROM t", &[])
        .await
        .expect_err("locked");
    assert_eq!(error.sqlstate(), Some("55P03"));
    assert!(error.connection_is_good());
}

#[tokio::test]
async fn a_transaction_that_stands_idle_too_long_is_ended_by_the_server_and_nothing_is_kept() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.idle_in_transaction_timeout(SHORT).session();
    let server = pid(&mut session).await;
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let gone = format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {server})");
    until(&one_connection(&db), &gone).await;
    let error = session.query("SELECT 1", &[]).await.expect_err("ended");
    assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{error}");
    session.rollback().await.expect("nothing left to undo");
    session
        .query("SELECT 1", &[])
        .await
        .expect("a new transaction");
    drop(session);
    assert_eq!(count(&engine).await, 0);
}

#[tokio::test]
async fn a_commit_that_gets_no_answer_in_time_is_of_unknown_outcome() {
    let db = database().await;
    let (engine, proxy) = behind_a_proxy(&db).await;
    let mut session = SessionFactory::new(engine)
        .statement_timeout(SHORT)
        .session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    proxy.black_hole(true);
    let error = session.commit().await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    proxy.black_hole(false);
}

#[tokio::test]
async fn the_end_of_a_savepoint_and_a_rollback_wait_no_longer_than_a_statement() {
    let db = database().await;
    let (engine, proxy) = behind_a_proxy(&db).await;
    let sessions = SessionFactory::new(engine.clone()).statement_timeout(SHORT);
    for inside in [true, false] {
        let mut session = sessions.session();
        let mut savepoint = session.begin_nested();
        savepoint
            .execute("INSERT INTO t VALUES (1)", &[])
            .await
            .expect("inserted");
        if inside {
            proxy.black_hole(true);
            let error = savepoint.rollback().await.expect_err("no answer");
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            session
                .rollback()
                .await
                .expect("nothing is waited for any more");
        } else {
            savepoint.commit().await.expect("kept");
            proxy.black_hole(true);
            session.rollback().await.expect("the pool sees to it");
        }
        assert!(!session.in_transaction());
        proxy.black_hole(false);
        assert_next_borrower_is_at_ease(&engine, "a rollback without an answer").await;
    }
    assert_eq!(count(&engine).await, 0);
}
