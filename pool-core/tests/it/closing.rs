//! Closing a pool: who is refused, what is waited for, what is reported, and what is left.

use std::time::Duration;

use futures::future::join_all;
use pool_core::{GetError, Pool};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_test::{assert_pending, assert_ready, task};

use crate::scripted::{Call, Gate, ScriptedBackend, Step, at_rest, tasks_run};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn closing_refuses_newcomers_and_waiters_at_once() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    let held = pool.get().await.unwrap();
    let mut waiters: Vec<_> = (0..200).map(|_| task::spawn(pool.get())).collect();
    for waiter in &mut waiters {
        assert_pending!(waiter.poll());
    }
    let mut close = task::spawn(pool.close());
    assert_pending!(close.poll());
    for waiter in &mut waiters {
        assert!(waiter.is_woken());
        assert!(matches!(
            assert_ready!(waiter.poll()),
            Err(GetError::Closed)
        ));
    }
    assert!(matches!(pool.get().await, Err(GetError::Closed)));
    assert!(matches!(pool.get_owned().await, Err(GetError::Closed)));
    assert!(pool.try_get().is_none() && pool.status().closed);
    drop(held);
    let report = close.await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((backend.live(), pool.status().open), (0, 0));
    assert!(pool.try_get().is_none());
}

#[tokio::test(start_paused = true)]
async fn closing_closes_the_idle_and_waits_for_what_is_out() {
    let backend = ScriptedBackend::resetting();
    let pool = backend.pool(3, 0);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pool.get().await.unwrap());
    }
    drop(held.pop());
    at_rest(&pool).await;
    backend.log();
    let mut close = task::spawn(pool.close());
    assert_pending!(close.poll());
    at_rest(&pool).await;
    assert_eq!(backend.log(), ["close C3"]);
    drop(held.pop());
    tasks_run().await;
    assert_pending!(close.poll());
    drop(held.pop());
    assert!(close.await.is_clean());
    assert_eq!((backend.calls("close"), backend.live()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn closing_reports_who_still_holds_what_at_the_deadline() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(2, 0, |b| b.close_deadline(3 * SECOND));
    let held = pool.get().await.unwrap();
    let line = line!() - 1;
    drop(pool.get().await.unwrap());
    let begun = Instant::now();
    let report = pool.close().await;
    assert_eq!(begun.elapsed().as_secs(), 3);
    assert!(!report.is_clean());
    assert_eq!(report.still_held.len(), 1);
    let holder = report.still_held[0];
    assert_eq!((holder.place.file(), holder.place.line()), (file!(), line));
    assert_eq!(holder.held.as_secs(), 3);
    assert_eq!(backend.live(), 1);
    drop(held); // Late, and closed all the same.
    at_rest(&pool).await;
    assert_eq!(backend.live(), 0);
    assert!(
        pool.close().await.is_clean(),
        "closing again tells how it stands now"
    );
}

#[tokio::test(start_paused = true)]
async fn closing_from_many_tasks_ends_for_all_of_them_together() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(2, 0);
    let held = pool.get().await.unwrap();
    let closers = join_all((0..20).map(|_| pool.close()));
    let begun = Instant::now();
    let returning = async {
        tokio::time::sleep(SECOND).await;
        drop(held);
    };
    let (reports, ()) = futures::future::join(closers, returning).await;
    assert!(reports.iter().all(pool_core::CloseReport::is_clean));
    assert_eq!(begun.elapsed().as_secs(), 1);
    assert_eq!(backend.calls("close"), 1);
}

#[tokio::test(start_paused = true)]
async fn closing_drops_what_is_being_opened() {
    let backend = ScriptedBackend::new();
    let gate = Gate::new();
    backend.next(Call::Open, [Step::Slow(gate.clone())]);
    let pool = backend.pool(1, 0);
    let mut caller = task::spawn(pool.get());
    assert_pending!(caller.poll());
    gate.arrived().await;
    let begun = Instant::now();
    assert!(pool.close().await.is_clean());
    assert_eq!((begun.elapsed(), backend.live()), (Duration::ZERO, 0));
    assert!(matches!(
        assert_ready!(caller.poll()),
        Err(GetError::Closed)
    ));
}

#[tokio::test(start_paused = true)]
async fn closing_ends_the_probe_of_a_pool_that_is_down() {
    let backend =
        ScriptedBackend::new().always(Call::Open, Step::Err(pool_core::Failure::Transient));
    let pool = backend.pool(1, 0);
    for _ in 0..3 {
        assert!(pool.get().await.is_err());
    }
    assert_eq!(pool.status().connecting, 1);
    assert!(pool.close().await.is_clean());
    tasks_run().await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_hangs_is_abandoned_and_reported() {
    let backend = ScriptedBackend::new().always(Call::Close, Step::Never);
    let pool = backend.pool_with(1, 0, |b| b.close_timeout(2 * SECOND));
    drop(pool.get().await.unwrap());
    let begun = Instant::now();
    let report = pool.close().await;
    assert!(
        (2 * SECOND..2 * SECOND + SECOND / 10).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!((report.still_held.len(), report.abandoned), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_closes_the_idle_and_ends_every_task() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(2, 0);
    let (one, two) = (pool.get().await.unwrap(), pool.get_owned().await.unwrap());
    let mut waiter = task::spawn(pool.get());
    assert_pending!(waiter.poll());
    drop(waiter);
    drop(one);
    let another = Pool::clone(&pool);
    drop(pool);
    tasks_run().await;
    assert_eq!(backend.live(), 2, "a handle is left");
    drop(another);
    tasks_run().await;
    assert_eq!(backend.log(), ["open C1", "open C2", "close C1"]);
    drop(two); // Outlives its pool, and is closed when it comes back.
    tasks_run().await;
    assert_eq!((backend.live(), backend.calls("close")), (0, 1));
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
}
