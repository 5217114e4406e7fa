//! Transactions that lost against another one, tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pool_postgres::{Error, ErrorKind, IsolationLevel, Retry, SessionFactory};
use testbed::Side;

use crate::round_trips::behind_a_proxy;
use crate::support::{count, database, one_connection, sessions};

#[derive(Debug, thiserror::Error)]
enum AppError {
    #[error("the database failed")]
    Database(#[from] Error),
    #[error("something of our own")]
    Own,
}

fn quick() -> Retry {
    Retry::serializable().backoff(Duration::from_millis(1), Duration::from_millis(2))
}

#[tokio::test]
async fn a_transaction_that_loses_against_another_is_run_again_in_a_new_one() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    engine
        .execute("INSERT INTO t VALUES (0)", &[])
        .await
        .expect("a row");
    let other = one_connection(&db);
    let sessions = sessions.isolation(IsolationLevel::Serializable);
    let mut attempts = 0;
    let seen = sessions
        .begin_retrying::<AppError, i64>(quick(), async |s| {
            attempts += 1;
            let seen = s.query_scalar("SELECT max(n) FROM t", &[]).await?;
            if attempts == 1 {
                other.execute("UPDATE t SET n = n + 10", &[]).await?;
            }
            // The first time, against what the other did; the error is turned into our own.
            s.execute("UPDATE t SET n = n + 1", &[])
                .await
                .map_err(|_| AppError::Own)?;
            Ok(seen)
        })
        .await
        .expect("the second time");
    assert_eq!((attempts, seen), (2, 10));
    let n: i64 = engine
        .query_scalar("SELECT n FROM t", &[])
        .await
        .expect("a row");
    assert_eq!(n, 11);
}

#[tokio::test]
async fn a_conflict_met_by_the_commit_or_swallowed_by_the_work_counts_too() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    engine
        .batch(
            "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN RAISE EXCEPTION USING ERRCODE = ''40001''; END';
             CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW WHEN (NEW.n < 2) EXECUTE FUNCTION lose()",
        )
        .await
        .expect("a trigger");
    let mut n = 0_i64;
    sessions
        .begin_retrying::<Error, _>(quick(), async |s| {
            n += 1;
            s.execute("INSERT INTO t VALUES ($1)", &[&n]).await
        })
        .await
        .expect("the second time");
    assert_eq!((n, count(&engine).await), (2, 1));
    let mut attempts = 0;
    sessions
        .begin_retrying::<Error, _>(quick(), async |s| {
            attempts += 1;
            if attempts == 1 {
                let deadlock = "DO 'BEGIN RAISE EXCEPTION USING ERRCODE = ''40P01''; END'";
                let _swallowed = s.batch(deadlock).await;
            }
            Ok(())
        })
        .await
        .expect("the second time");
    assert_eq!(attempts, 2);
}

#[tokio::test]
async fn attempts_are_bounded_and_other_failures_are_passed_on_at_once() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let lose = "DO 'BEGIN RAISE EXCEPTION USING ERRCODE = ''40001''; END'";
    let mut attempts = 0;
    let error = sessions
        .begin_retrying::<Error, ()>(quick().attempts(3), async |s| {
            attempts += 1;
            s.batch(lose).await
        })
        .await
        .expect_err("it always loses");
    assert_eq!((attempts, error.kind()), (3, ErrorKind::Serialization));
    let mut attempts = 0;
    let error = sessions
        .begin_retrying::<AppError, ()>(quick(), async |s| {
            attempts += 1;
            // Held by a savepoint: no reason to begin again.
            s.nested::<Error, _>(async |s| s.batch(lose).await)
                .await
                .expect_err("it loses");
            Err(AppError::Own)
        })
        .await
        .expect_err("its own");
    assert!(matches!(error, AppError::Own));
    assert_eq!(attempts, 1);
    let mut attempts = 0;
    sessions
        .begin_retrying::<Error, _>(quick(), async |s| {
            attempts += 1;
            s.execute("SELECT 1/0", &[]).await
        })
        .await
        .expect_err("division by zero");
    assert_eq!((attempts, engine.status().in_use), (1, 0));
}

#[tokio::test]
async fn what_may_have_happened_is_not_tried_again() {
    let db = database().await;
    let (engine, proxy) = behind_a_proxy(&db).await;
    let sessions = SessionFactory::new(engine);
    let mut attempts = 0;
    let error = sessions
        .begin_retrying::<Error, _>(quick(), async |s| {
            attempts += 1;
            s.execute("INSERT INTO t VALUES (1)", &[]).await?;
            proxy.cut_after(Side::Server, 0); // The answer to COMMIT does not come through.
            Ok(())
        })
        .await
        .expect_err("nobody knows");
    assert_eq!((attempts, error.kind()), (1, ErrorKind::OutcomeUnknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_meet_in_serializable_transactions_lose_nothing() {
    let db = database().await;
    let engine = crate::support::builder(&db.url())
        .pool_size(8)
        .build()
        .expect("settings");
    engine
        .execute("INSERT INTO t VALUES (0)", &[])
        .await
        .expect("a row");
    let sessions = SessionFactory::new(engine.clone()).isolation(IsolationLevel::Serializable);
    let attempts = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..8_i64)
        .map(|task| {
            let (sessions, attempts) = (sessions.clone(), Arc::clone(&attempts));
            // The form that can be spawned: `async move`, and clones inside.
            tokio::spawn(async move {
                let retry = quick().attempts(1000);
                sessions
                    .begin_retrying::<Error, _>(retry, async move |s| {
                        attempts.fetch_add(1, Ordering::Relaxed);
                        let n: i64 = s.query_scalar("SELECT n FROM t", &[]).await?;
                        let next = n + 1;
                        s.execute("UPDATE t SET n = $1", &[&next]).await?;
                        Ok(task)
                    })
                    .await
            })
        })
        .collect();
    for (number, task) in tasks.into_iter().enumerate() {
        let task = task.await.expect("no panic").expect("in the end");
        assert_eq!(usize::try_from(task), Ok(number));
    }
    let n: i64 = engine
        .query_scalar("SELECT n FROM t", &[])
        .await
        .expect("a row");
    assert_eq!(n, 8);
    assert!(attempts.load(Ordering::Relaxed) >= 8);
}
