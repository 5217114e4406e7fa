//! Advisory locks: who has them, until when, and that none is ever left behind.

use std::time::Duration;

use pool_postgres::{Engine, ErrorKind, LockMode, SessionFactory};
use tokio::time::timeout;

use crate::support::{
    SOON, assert_next_borrower_is_at_ease, builder, count, database, one_connection,
    poll_then_drop, until,
};

const FREE: &str = "SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory' AND database = \
                    (SELECT oid FROM pg_database WHERE datname = current_database())";

/// Waits until nobody holds an advisory lock in this database.
async fn free(engine: &Engine) {
    until(engine, FREE).await;
}

#[tokio::test]
async fn a_lock_is_had_once_until_it_is_released() {
    let db = database().await;
    let engine = builder(&db.url())
        .pool_size(3)
        .build()
        .expect("good settings");
    let lock = engine.advisory_lock("report").await.expect("locked");
    let other = engine.try_advisory_lock("report").await.expect("an answer");
    assert!(other.is_none(), "two have it");
    let different = engine.try_advisory_lock((1, 2)).await.expect("an answer");
    assert!(different.is_some());
    assert_eq!(engine.status().in_use, 2, "each holds a slot");
    lock.release().await.expect("released");
    let again = engine.try_advisory_lock("report").await.expect("an answer");
    again
        .expect("it is free")
        .release()
        .await
        .expect("released");
}

#[tokio::test]
async fn shared_locks_stand_together_and_keep_exclusive_ones_out() {
    let db = database().await;
    let engine = builder(&db.url())
        .pool_size(3)
        .build()
        .expect("good settings");
    let one = engine
        .advisory_lock_in(LockMode::Shared, 7_i64)
        .await
        .expect("locked");
    let two = engine.try_advisory_lock_in(LockMode::Shared, 7_i64).await;
    let two = two.expect("an answer").expect("shared");
    assert!(
        engine
            .try_advisory_lock(7_i64)
            .await
            .expect("an answer")
            .is_none()
    );
    one.release().await.expect("released");
    two.release().await.expect("released");
    free(&engine).await;
}

#[tokio::test]
async fn a_dropped_lock_is_given_up_and_its_connection_kept() {
    let db = database().await;
    let engine = one_connection(&db);
    drop(engine.advisory_lock(7_i64).await.expect("locked"));
    free(&engine).await; // On the pool's only connection.
    assert_eq!(engine.pool().stats().opened, 1);
}

#[tokio::test]
async fn a_lock_dropped_outside_a_runtime_ends_with_its_connection() {
    let db = database().await;
    let engine = one_connection(&db);
    let lock = engine.advisory_lock(7_i64).await.expect("locked");
    std::thread::spawn(move || drop(lock))
        .join()
        .expect("no panic");
    free(&engine).await;
}

#[tokio::test]
async fn asking_for_a_lock_can_be_dropped_at_every_await_and_leaves_none() {
    let db = database().await;
    let watcher = builder(&db.url()).build().expect("good settings");
    for polls in 0.. {
        let engine = one_connection(&db);
        let got = poll_then_drop(polls, engine.advisory_lock(7_i64)).await;
        let done = got.is_some();
        drop(got);
        free(&watcher).await;
        assert_next_borrower_is_at_ease(&engine, &format!("after {polls} polls")).await;
        free(&watcher).await;
        if done {
            assert!(polls >= 2, "only {polls} awaits");
            return;
        }
    }
}

#[tokio::test]
async fn whoever_stops_waiting_for_a_lock_never_gets_it() {
    let db = database().await;
    let engine = builder(&db.url())
        .pool_size(2)
        .max_overflow(0)
        .build()
        .expect("good settings");
    let watcher = builder(&db.url()).build().expect("good settings");
    let lock = engine.advisory_lock(7_i64).await.expect("locked");
    let waiting = async {
        let waits = "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'advisory' \
                     AND datname = current_database()";
        until(&watcher, waits).await;
    };
    tokio::select! {
        _ = engine.advisory_lock(7_i64) => panic!("two have it"),
        () = waiting => {}
    }
    lock.release().await.expect("released");
    free(&watcher).await;
}

#[tokio::test]
async fn a_lock_whose_connection_breaks_tells_so() {
    let db = database().await;
    let engine = one_connection(&db);
    let watcher = builder(&db.url()).build().expect("good settings");
    let lock = engine.advisory_lock(7_i64).await.expect("locked");
    assert!(!lock.is_lost());
    let early = timeout(Duration::ZERO, lock.lost()).await;
    assert!(early.is_err(), "it is not lost");
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    watcher.query(kill, &[]).await.expect("killed");
    timeout(SOON, lock.lost()).await.expect("nobody told");
    assert!(lock.is_lost());
    let error = lock.release().await.expect_err("it was lost");
    assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{error}");
}

#[tokio::test]
async fn a_sessions_lock_ends_with_its_transaction() {
    let db = database().await;
    let engine = builder(&db.url())
        .pool_size(3)
        .build()
        .expect("good settings");
    let sessions = SessionFactory::new(engine.clone());
    let mut one = sessions.session();
    let mut two = sessions.session();
    one.advisory_lock("report").await.expect("locked");
    one.execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    assert!(!two.try_advisory_lock("report").await.expect("an answer"));
    let _ = one.commit().await.expect("committed");
    assert!(two.try_advisory_lock("report").await.expect("an answer"));
    assert!(
        two.try_advisory_lock_in(LockMode::Shared, (1, 2))
            .await
            .expect("an answer")
    );
    two.rollback().await.expect("rolled back");
    free(&engine).await;
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn a_lock_that_would_exclude_nobody_is_refused() {
    let db = database().await;
    let engine = one_connection(&db);
    let sessions = SessionFactory::new(engine.clone());
    for factory in [sessions.read_only(), sessions.autocommit()] {
        let error = factory.session().advisory_lock(7_i64).await;
        let error = error.expect_err("it would exclude nobody");
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    }
    assert_eq!(engine.status().open, 0, "nothing was asked for");
}
