//! Renewing, invalidating and choosing connections, all at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use pool_core::{CloseReason, Failure, Reuse};
use tokio::time::{advance, sleep};
use tokio_test::{assert_pending, task};

use crate::scripted::{Call, Fault, Gate, ScriptedBackend, Step, at_rest, tasks_run};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn renewing_replaces_every_idle_connection_within_the_span_before_it_is_closed() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(8, 2);
    pool.warm_up(8).await.unwrap();
    pool.renew_all(20 * SECOND);
    let mut last = 0;
    for second in 1..=22 {
        sleep(SECOND).await;
        assert!(pool.status().idle >= 8, "replaced before it is closed");
        let renewed = backend.opens() - 8;
        assert!(
            renewed - last <= 2,
            "{renewed} by second {second}, and {last} before"
        );
        last = renewed;
    }
    at_rest(&pool).await;
    assert_eq!((backend.opens(), pool.status().open), (16, 8));
    assert_eq!(pool.stats().closed.by(CloseReason::Expired), 8);
    sleep(60 * SECOND).await;
    assert_eq!(backend.opens(), 16, "once is enough");
}

#[tokio::test(start_paused = true)]
async fn renewing_many_within_a_short_span_replaces_them_all_at_the_pace_of_opening() {
    let backend = ScriptedBackend::new().always(Call::Open, Step::after(20, Step::Ok));
    let pool = backend.pool_with(100, 10, |b| b.max_connecting(2));
    pool.warm_up(100).await.unwrap();
    pool.renew_all(2 * SECOND);
    for _ in 0..50 {
        sleep(100 * MS).await;
        assert!(pool.status().open >= 100, "{}", pool.status());
    }
    at_rest(&pool).await;
    assert_eq!((backend.opens(), pool.status().idle), (200, 100));
}

#[tokio::test(start_paused = true)]
async fn renewing_at_once_replaces_all_before_they_are_closed() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(4, 1);
    pool.warm_up(3).await.unwrap();
    advance(SECOND / 3).await;
    pool.renew_all(Duration::ZERO);
    for _ in 0..50 {
        sleep(100 * MS).await;
        assert!(pool.status().open >= 3, "{:?}", backend.log());
    }
    at_rest(&pool).await;
    assert_eq!((backend.opens(), pool.status().idle), (6, 3));
}

#[tokio::test(start_paused = true)]
async fn a_connection_in_use_while_all_are_renewed_is_closed_when_it_comes_back() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(2, 0);
    let held = pool.get().await.unwrap();
    pool.renew_all(SECOND);
    sleep(3 * SECOND).await;
    assert_eq!(pool.status().in_use, 1);
    drop(held);
    at_rest(&pool).await;
    assert_eq!(pool.stats().closed.by(CloseReason::Expired), 1);
    assert_eq!(pool.get().await.unwrap().id, 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_being_opened_when_all_were_renewed_is_renewed_as_well() {
    let backend = ScriptedBackend::new();
    let gate = Gate::new();
    backend.next(Call::Open, [Step::Slow(gate.clone())]);
    let pool = backend.pool(1, 1);
    let mut caller = task::spawn(pool.get());
    assert_pending!(caller.poll());
    gate.arrived().await;
    advance(MS).await;
    pool.renew_all(2 * SECOND);
    advance(MS).await;
    gate.open();
    drop(caller.await.unwrap());
    sleep(6 * SECOND).await;
    at_rest(&pool).await;
    assert_eq!(backend.log(), ["open C1", "open C2", "close C1"]);
}

#[tokio::test(start_paused = true)]
async fn in_a_full_pool_a_renewed_connection_is_closed_first_and_then_opened_again() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    pool.warm_up(1).await.unwrap();
    pool.renew_all(SECOND);
    sleep(4 * SECOND).await;
    at_rest(&pool).await;
    assert_eq!(backend.log(), ["open C1", "close C1", "open C2"]);
    assert_eq!(pool.numbers(), (1, 1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_replacement_is_begun_once() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(4, 4);
    pool.warm_up(1).await.unwrap();
    backend.next(Call::Open, [Step::after(4500, Step::Ok)]);
    pool.renew_all(20 * SECOND);
    sleep(25 * SECOND).await;
    at_rest(&pool).await;
    assert_eq!(backend.log(), ["open C1", "open C2", "close C1"]);
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_fails_is_tried_again_and_the_old_one_stays_meanwhile() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(2, 2);
    pool.warm_up(1).await.unwrap();
    backend.next(Call::Open, [Step::Err(Failure::Transient)]);
    pool.renew_all(10 * SECOND);
    sleep(13 * SECOND).await;
    at_rest(&pool).await;
    assert_eq!(backend.log(), ["open C1", "open C2", "open C3", "close C1"]);
}

#[tokio::test(start_paused = true)]
async fn renewing_and_invalidating_an_empty_pool_does_nothing() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(2, 0);
    pool.renew_all(SECOND);
    pool.invalidate_all();
    sleep(3 * SECOND).await;
    assert_eq!(backend.opens(), 0);
    advance(MS).await;
    drop(pool.get().await.unwrap());
    sleep(30 * SECOND).await;
    assert_eq!(backend.opens(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_being_checked_when_all_are_invalidated_does_not_survive() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(3, 0);
    let mut held = pool.get().await.unwrap();
    pool.warm_up(3).await.unwrap();
    held.report(&Fault::of(Failure::Generation));
    pool.invalidate_all(); // Before anybody has begun to ping them.
    drop(held);
    at_rest(&pool).await;
    assert_eq!(
        (pool.status().open, backend.calls("close")),
        (0, 3),
        "{:?}",
        backend.log()
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_ping_is_under_way_when_all_are_invalidated_does_not_survive() {
    let backend = ScriptedBackend::new();
    let gate = Gate::new();
    let pool = backend.pool_with(1, 0, |b| b.keepalive(10 * SECOND));
    drop(pool.get().await.unwrap());
    backend.next(Call::Ping, [Step::Slow(gate.clone())]);
    gate.arrived().await; // By keeping it alive.
    pool.invalidate_all();
    gate.open();
    tasks_run().await;
    at_rest(&pool).await;
    assert_eq!(pool.status().open, 0, "{:?}", backend.log());
}

// ---- retain ----

#[tokio::test(start_paused = true)]
async fn retaining_closes_those_idle_that_are_not_wanted_and_tells_how_many() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(4, 0);
    pool.warm_up(3).await.unwrap();
    let held = pool.get().await.unwrap();
    advance(5 * SECOND).await;
    let mut seen = Vec::new();
    let closed = pool.retain(|conn, info| {
        seen.push((conn.id, info.age, info.idle));
        conn.id != 2
    });
    seen.sort_unstable();
    assert_eq!(
        seen,
        [(2, 5 * SECOND, 5 * SECOND), (3, 5 * SECOND, 5 * SECOND)]
    );
    assert_eq!(closed, 1);
    at_rest(&pool).await;
    assert_eq!(pool.numbers(), (4, 1, 0, 1));
    assert_eq!(pool.stats().closed.by(CloseReason::Refused), 1);
    drop(held);
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn being_looked_at_is_no_use_and_moves_nobody_in_the_order() {
    for (order, expected) in [(Reuse::Fifo, [1, 2, 3]), (Reuse::Lifo, [3, 2, 1])] {
        let pool = ScriptedBackend::new().pool_with(3, 0, |b| b.reuse(order));
        let held = (pool.get().await, pool.get().await, pool.get().await);
        drop(held);
        advance(SECOND).await;
        pool.retain(|_, info| {
            assert_eq!(info.idle, SECOND);
            true
        });
        let mut held = Vec::new();
        for id in expected {
            held.push(pool.get().await.unwrap());
            assert_eq!(held.last().unwrap().id, id, "{order:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_retaining_closes_the_one_looked_at_and_puts_back_the_rest() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(3, 0);
    pool.warm_up(3).await.unwrap();
    let mut looked = 0;
    let retained = catch_unwind(AssertUnwindSafe(|| {
        pool.retain(|_, _| {
            looked += 1;
            assert!(looked < 2, "in the closure");
            true
        })
    }));
    assert!(retained.is_err());
    at_rest(&pool).await;
    assert_eq!(pool.numbers(), (3, 2, 0, 0));
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_comes_while_all_are_looked_at_waits_for_one() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    pool.warm_up(1).await.unwrap();
    let mut caller = task::spawn(pool.get());
    pool.retain(|_, _| {
        assert_pending!(caller.poll());
        true
    });
    assert_eq!(caller.await.unwrap().id, 1);
}
