//! A panic in the backend's code, or in the code that holds a guard, costs one connection and no room.

use std::panic::{AssertUnwindSafe, catch_unwind};

use futures::FutureExt;
use pool_core::{ConnectError, GetError, Health, PrePing};

use crate::scripted::{Call, ScriptedBackend, Step, at_rest};

#[tokio::test(start_paused = true)]
async fn a_panic_while_opening_is_that_callers_error() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    backend.next(Call::Open, [Step::Panic]);
    let error = pool.get().await.unwrap_err();
    assert!(
        matches!(error, GetError::Connect(ConnectError::Panicked)),
        "{error:?}"
    );
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_pinging_counts_as_a_dead_connection() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 1, |b| b.pre_ping(PrePing::Always));
    drop(pool.get().await.unwrap());
    backend.next(Call::Ping, [Step::Panic]);
    assert_eq!(pool.get().await.unwrap().id, 2);
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_resetting_frees_the_room() {
    let backend = ScriptedBackend::resetting();
    let pool = backend.pool(1, 0);
    backend.next(Call::Reset, [Step::Panic]);
    drop(pool.get().await.unwrap());
    at_rest(&pool).await;
    assert_eq!(backend.log(), ["open C1", "reset C1", "terminate C1"]);
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_closing_frees_the_room() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    backend.next(Call::Close, [Step::Panic]);
    pool.get().await.unwrap().invalidate();
    at_rest(&pool).await;
    assert_eq!(backend.live(), 0);
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_check_reaches_the_caller_and_frees_the_room() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 1);
    let conn = pool.get().await.unwrap();
    backend.next(Call::Back, [Step::Panic]);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(conn))).is_err());
    assert_eq!((pool.numbers(), backend.live()), ((1, 0, 0, 0), 0));

    drop(pool.get().await.unwrap());
    backend.next(Call::Look, [Step::Panic]);
    assert!(AssertUnwindSafe(pool.get()).catch_unwind().await.is_err());
    assert_eq!((pool.numbers(), backend.live()), ((1, 0, 0, 0), 0));

    drop(pool.get().await.unwrap());
    backend.next(Call::Look, [Step::Panic]);
    assert!(catch_unwind(AssertUnwindSafe(|| pool.try_get().is_none())).is_err());
    assert_eq!((pool.numbers(), backend.live()), ((1, 0, 0, 0), 0));
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_terminating_goes_no_further_and_frees_the_room() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    let conn = pool.get().await.unwrap();
    backend.next(Call::Back, [Step::Say(Health::Broken)]);
    backend.next(Call::Terminate, [Step::Panic]);
    drop(conn);
    assert_eq!((pool.numbers(), backend.live()), ((1, 0, 0, 0), 0));
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_guard_dropped_while_its_task_panics_closes_its_connection() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    let work = async {
        let _conn = pool.get().await.unwrap();
        panic!("the caller's own");
    };
    assert!(AssertUnwindSafe(work).catch_unwind().await.is_err());
    at_rest(&pool).await;
    assert_eq!(
        backend.log(),
        ["open C1", "close C1"],
        "nobody knows what state it is in"
    );
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_on_top_of_a_panicking_holder_does_not_abort() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    backend.next(Call::Close, [Step::Panic]);
    backend.next(Call::Back, [Step::Panic]);
    backend.next(Call::Terminate, [Step::Panic]);
    let conn = pool.get_owned().await.unwrap();
    let thread = std::thread::spawn(move || {
        let _conn = conn;
        panic!("the caller's own");
    });
    assert!(thread.join().is_err());
    at_rest(&pool).await;
    assert_eq!(backend.live(), 0);
    backend.forget_next();
    pool.assert_whole().await;
}
