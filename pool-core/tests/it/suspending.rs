//! A pool that hands out nothing for a while.

use std::time::Duration;

use pool_core::{GetError, GetOptions, Reuse};
use tokio::time::{Instant, timeout};
use tokio_test::{assert_pending, assert_ready, task};

use crate::scripted::{Call, Gate, ScriptedBackend, Step, all_wait, at_rest, tasks_run};

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn while_suspended_callers_wait_and_try_get_finds_nothing() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(3, 0);
    pool.warm_up(2).await.unwrap();
    pool.suspend();
    assert!(pool.try_get().is_none() && pool.status().suspended);
    assert_eq!(pool.status().idle, 2, "they are there all the same");
    let mut waiters: Vec<_> = (0..3).map(|_| task::spawn(pool.get())).collect();
    all_wait(&mut waiters);
    tasks_run().await;
    assert_eq!(backend.opens(), 2, "nothing is opened either");
    pool.resume();
    assert!(
        waiters.iter().all(task::Spawn::is_woken),
        "two are served, one may open"
    );
    let mut ids = Vec::new();
    let mut held = Vec::new();
    for waiter in waiters {
        let conn = timeout(MS, waiter).await.unwrap().unwrap();
        ids.push(conn.id);
        held.push(conn);
    }
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
    drop(held);
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_time_is_over_meanwhile_learns_that_the_pool_was_suspended() {
    let pool = ScriptedBackend::new().pool_with(2, 0, |b| b.pool_timeout(200 * MS));
    pool.warm_up(2).await.unwrap();
    pool.suspend();
    let begun = Instant::now();
    let error = pool.get().await.unwrap_err();
    assert!(matches!(error, GetError::Suspended { waited } if waited >= 200 * MS));
    assert!(error.is_retryable() && begun.elapsed() < 210 * MS);
    let text = error.to_string();
    assert!(
        text.starts_with("the pool was suspended all the time, for 200"),
        "{text}"
    );
    assert_eq!(pool.stats().timeouts, 1);
    pool.resume();
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_wait_fails_at_once() {
    let pool = ScriptedBackend::new().pool(2, 0);
    pool.warm_up(1).await.unwrap();
    pool.suspend();
    let options = GetOptions::new().timeout(Duration::ZERO);
    let error = timeout(MS, pool.get_with(options)).await.unwrap();
    assert!(matches!(error, Err(GetError::Suspended { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_wait_and_whose_connection_lands_meanwhile_is_not_stuck() {
    let backend = ScriptedBackend::new();
    let gate = Gate::new();
    backend.next(Call::Open, [Step::Slow(gate.clone())]);
    let pool = backend.pool(2, 0);
    let options = GetOptions::new().timeout(Duration::ZERO);
    let mut before = task::spawn(pool.get_with(options));
    assert_pending!(before.poll());
    gate.arrived().await;
    pool.suspend();
    let after = timeout(MS, pool.get_with(options)).await.unwrap();
    assert!(matches!(after, Err(GetError::Suspended { .. })));
    gate.open();
    let begun = Instant::now();
    assert!(matches!(before.await, Err(GetError::Suspended { .. })));
    assert!(
        begun.elapsed() <= Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(pool.status().idle, 1);
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_and_what_was_being_opened_is_kept() {
    let backend = ScriptedBackend::resetting();
    let gate = Gate::new();
    backend.next(Call::Open, [Step::Ok, Step::Slow(gate.clone())]);
    let pool = backend.pool(2, 0);
    let held = pool.get().await.unwrap();
    let mut waiter = task::spawn(pool.get());
    assert_pending!(waiter.poll());
    gate.arrived().await;
    pool.suspend();
    drop(held);
    gate.open();
    at_rest(&pool).await;
    assert_pending!(waiter.poll());
    assert_eq!(pool.numbers(), (2, 2, 0, 0));
    pool.resume();
    drop(timeout(MS, waiter).await.unwrap().unwrap());
    assert_eq!(backend.opens(), 2);
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_too_many_when_handing_out_begins_again_is_closed_then() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 2);
    let held = (pool.get().await, pool.get().await, pool.get().await);
    pool.suspend();
    drop(held);
    assert_eq!(pool.status().idle, 3);
    pool.resume();
    at_rest(&pool).await;
    assert_eq!(pool.numbers(), (1, 1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn suspending_twice_is_suspending_once_and_resuming_twice_is_harmless() {
    let pool = ScriptedBackend::new().pool(1, 0);
    pool.resume();
    drop(pool.get().await.unwrap());
    pool.suspend();
    pool.suspend();
    pool.resume();
    assert_eq!(pool.try_get().unwrap().id, 1);
    pool.resume();
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn closing_a_suspended_pool_refuses_who_waits_and_closes_what_is_idle() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(2, 0);
    pool.warm_up(2).await.unwrap();
    pool.suspend();
    let mut waiter = task::spawn(pool.get());
    assert_pending!(waiter.poll());
    assert!(pool.close().await.is_clean());
    assert!(matches!(
        assert_ready!(waiter.poll()),
        Err(GetError::Closed)
    ));
    assert_eq!(backend.live(), 0);
    pool.resume();
    assert!(pool.try_get().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_suspended_pool_can_be_resized_and_invalidated() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(4, 0);
    pool.warm_up(4).await.unwrap();
    pool.suspend();
    pool.invalidate_all();
    at_rest(&pool).await;
    assert_eq!((pool.status().open, backend.opens()), (0, 4));
    let mut waiter = task::spawn(pool.get());
    assert_pending!(waiter.poll());
    pool.resize(5, 0).unwrap();
    tasks_run().await;
    assert_eq!(backend.opens(), 4);
    pool.resume();
    assert!(waiter.is_woken());
    assert_eq!(timeout(MS, waiter).await.unwrap().unwrap().id, 5);
}

#[tokio::test(start_paused = true)]
async fn the_order_of_reuse_survives_a_suspension() {
    for (order, expected) in [(Reuse::Fifo, [1, 2, 3]), (Reuse::Lifo, [3, 2, 1])] {
        let pool = ScriptedBackend::new().pool_with(3, 0, |b| b.reuse(order));
        let held = (pool.get().await, pool.get().await, pool.get().await);
        drop(held);
        pool.suspend();
        pool.resume();
        let mut held = Vec::new();
        for id in expected {
            held.push(pool.get().await.unwrap());
            assert_eq!(held.last().unwrap().id, id, "{order:?}");
        }
    }
}
