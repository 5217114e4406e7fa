//! Transactions in one call.

use std::panic::AssertUnwindSafe;

use anyhow::Context;
use futures_util::FutureExt;
use pool_postgres::{Engine, Error, ErrorKind, Session, SessionFactory};

use crate::support::{assert_next_borrower_is_at_ease, count, database, poll_then_drop, sessions};

#[derive(Debug, thiserror::Error)]
enum AppError {
    #[error("the database failed")]
    Database(#[from] Error),
    #[error("the application thought better of it")]
    ChangedItsMind,
}

#[test]
fn handles_can_be_shared_and_sessions_sent() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<Engine>();
    shared::<SessionFactory>();
    sent::<Session>();
}

#[tokio::test]
async fn begin_commits_on_ok_and_rolls_back_on_err() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let three = sessions
        .begin::<AppError, _>(async |s| {
            s.execute("INSERT INTO t VALUES (1)", &[]).await?;
            Ok(3)
        })
        .await
        .expect("committed");
    assert_eq!((three, count(&engine).await), (3, 1));
    let error = sessions
        .begin::<AppError, ()>(async |s| {
            s.execute("INSERT INTO t VALUES (2)", &[]).await?;
            Err(AppError::ChangedItsMind)
        })
        .await
        .expect_err("its own error comes through");
    assert!(matches!(error, AppError::ChangedItsMind));
    assert_eq!(engine.status().in_use, 0);
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn begin_reports_a_failure_that_its_work_swallowed() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let error = sessions
        .begin::<Error, _>(async |s| {
            s.execute("INSERT INTO t VALUES (1)", &[]).await?;
            let _swallowed = s.execute("INSERT INTO t VALUES (1/0)", &[]).await;
            Ok(())
        })
        .await
        .expect_err("nothing was committed");
    assert_eq!(error.kind(), ErrorKind::TransactionFailed);
    assert!(error.to_string().contains("division by zero"), "{error}");
    assert_eq!(count(&engine).await, 0);
}

#[tokio::test]
async fn the_work_of_begin_cannot_end_the_transaction_itself() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    sessions
        .begin::<Error, _>(async |s| {
            s.execute("INSERT INTO t VALUES (1)", &[]).await?;
            for error in [
                s.commit().await.expect_err("inside begin"),
                s.rollback().await.expect_err("inside begin"),
                s.close().await.expect_err("inside begin"),
            ] {
                assert_eq!(error.kind(), ErrorKind::Usage);
                assert!(
                    error.to_string().contains("SessionFactory::begin"),
                    "{error}"
                );
            }
            s.execute("INSERT INTO t VALUES (2)", &[]).await
        })
        .await
        .expect("the transaction went on");
    assert_eq!(count(&engine).await, 2);
}

#[tokio::test]
async fn a_panic_inside_begin_rolls_back_and_frees_the_connections_room() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let work = sessions.begin::<Error, ()>(async |s| {
        s.execute("INSERT INTO t VALUES (1)", &[]).await?;
        panic!("on purpose");
    });
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .expect_err("the panic comes through");
    assert_next_borrower_is_at_ease(&engine, "a panic").await;
    assert_eq!(count(&engine).await, 0);
}

#[tokio::test]
async fn begin_dropped_half_way_rolls_back() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut polls = 0;
    let done = loop {
        let work = sessions.begin::<Error, _>(async |s| {
            s.execute("INSERT INTO t VALUES ($1)", &[&1_i64]).await?;
            s.execute("INSERT INTO t VALUES ($1)", &[&2_i64]).await
        });
        let done = poll_then_drop(polls, work).await;
        assert_next_borrower_is_at_ease(&engine, &format!("begin dropped after {polls} polls"))
            .await;
        // Both rows or none; both only if the commit was under way already.
        assert_eq!(count(&engine).await % 2, 0, "after {polls} polls");
        match done {
            Some(done) => break done,
            None => polls += 1,
        }
    };
    assert_eq!(done.expect("committed"), 1);
    assert!(polls > 3, "dropped at {polls} points only");
    assert!(count(&engine).await >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn begin_can_be_spawned_with_an_error_of_thiserror_and_of_anyhow() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let (one, two) = (sessions.clone(), sessions.clone());
    let name = String::from("seven");
    let first = tokio::spawn(async move {
        one.begin::<AppError, _>(async |s| {
            s.nested::<AppError, _>(async |s| {
                s.execute("INSERT INTO t VALUES (length($1))", &[&name])
                    .await?;
                Ok(())
            })
            .await
        })
        .await
    });
    let second = tokio::spawn(async move {
        two.begin::<anyhow::Error, _>(async |s| {
            s.execute("INSERT INTO missing VALUES (1)", &[])
                .await
                .context("inserting")?;
            Ok(())
        })
        .await
    });
    first.await.expect("no panic").expect("committed");
    let error = second
        .await
        .expect("no panic")
        .expect_err("there is no such table");
    assert_eq!(error.to_string(), "inserting");
    let cause = error.downcast_ref::<Error>().expect("ours beneath");
    assert_eq!(cause.sqlstate(), Some("42P01"));
    assert_eq!(count(&engine).await, 1);
}
