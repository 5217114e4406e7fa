//! What is looked after without anybody asking.

use std::time::Duration;

use futures::StreamExt;
use pool_core::{Budget, CloseReason, EventKind, Failure, Pool, PrePing, TimeSource};
use tokio::runtime::{Builder, Handle};
use tokio::time::{Instant, advance, sleep};
use tokio_test::{assert_pending, task};

use crate::scripted::{Call, Gate, ScriptedBackend, Step, at_rest, tasks_run};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

// ---- min_idle ----

#[tokio::test(start_paused = true)]
async fn as_many_as_min_idle_are_kept_ready_from_the_first_checkout_on() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(5, 5, |b| b.min_idle(2));
    sleep(5 * SECOND).await;
    assert_eq!(backend.opens(), 0, "building opens nothing");
    let mut held = vec![pool.get().await.unwrap()];
    sleep(2 * SECOND).await;
    assert_eq!((pool.status().idle, backend.opens()), (2, 3));
    held.push(pool.get().await.unwrap());
    sleep(2 * SECOND).await;
    assert_eq!((pool.status().idle, backend.opens()), (2, 4));
    held.push(pool.get().await.unwrap());
    held.push(pool.get().await.unwrap());
    sleep(3 * SECOND).await;
    assert_eq!(
        (pool.status().idle, pool.status().open),
        (1, 5),
        "within pool_size"
    );
    pool.retain(|_, _| false);
    sleep(2 * SECOND).await;
    assert_eq!(
        (pool.status().idle, pool.status().open),
        (1, 5),
        "by the state, not by what was closed"
    );
}

#[tokio::test(start_paused = true)]
async fn after_failures_one_at_a_time_is_tried_to_keep_min_idle() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(6, 0, |b| b.min_idle(4).max_connecting(6).down_after(0));
    backend.next(Call::Open, [Step::Ok]);
    let held = pool.get().await.unwrap();
    let backend = backend.always(Call::Open, Step::after(100, Step::Err(Failure::Transient)));
    let mut most = 0;
    let failing = Instant::now();
    let mut settled = 0;
    while failing.elapsed() < 10 * SECOND {
        sleep(20 * MS).await;
        if failing.elapsed() > 2 * SECOND {
            most = most.max(pool.status().connecting);
            settled = settled.max(pool.status().connecting);
        }
    }
    assert_eq!((most, settled), (1, 1));
    let _backend = backend.always(Call::Open, Step::Ok);
    sleep(3 * SECOND).await;
    assert_eq!(pool.status().idle, 4);
    drop(held);
}

// ---- idle_timeout ----

#[tokio::test(start_paused = true)]
async fn connections_idle_for_too_long_are_closed_down_to_min_idle_a_quarter_at_a_time() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(16, 0, |b| b.idle_timeout(10 * SECOND).min_idle(3));
    pool.warm_up(16).await.unwrap();
    sleep(9 * SECOND + SECOND / 2).await;
    assert_eq!(pool.status().idle, 16);
    let mut seen = vec![16];
    for _ in 0..200 {
        sleep(50 * MS).await;
        let idle = pool.status().idle;
        if seen.last() != Some(&idle) {
            seen.push(idle);
        }
    }
    assert_eq!(seen, [16, 12, 9, 7, 6, 5, 4, 3]);
    assert_eq!(pool.stats().closed.by(CloseReason::Idle), 13);
    sleep(60 * SECOND).await;
    assert_eq!(
        (pool.status().idle, backend.opens()),
        (3, 16),
        "and those stay"
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_in_use_now_and_then_is_not_idle_for_too_long() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(2, 0, |b| b.idle_timeout(3 * SECOND));
    pool.warm_up(2).await.unwrap();
    for _ in 0..10 {
        sleep(SECOND).await;
        drop(pool.get().await.unwrap());
    }
    at_rest(&pool).await;
    assert_eq!((pool.numbers(), backend.opens()), ((2, 1, 0, 0), 2));
}

// ---- recycle ----

#[tokio::test(start_paused = true)]
async fn an_old_connection_in_use_lately_is_replaced_before_it_is_closed_where_there_is_room() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(2, 0, |b| b.recycle(20 * SECOND).idle_timeout(None));
    drop(pool.get().await.unwrap());
    sleep(18 * SECOND).await;
    drop(pool.get().await.unwrap());
    sleep(4 * SECOND).await;
    at_rest(&pool).await;
    assert_eq!(backend.log(), ["open C1", "open C2", "close C1"]);
    assert_eq!(pool.numbers().1, 1);
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_room_it_is_closed_first_and_then_replaced() {
    let backend = ScriptedBackend::new().always(Call::Close, Step::after(50, Step::Ok));
    let pool = backend.pool_with(1, 0, |b| b.recycle(20 * SECOND).idle_timeout(None));
    drop(pool.get().await.unwrap());
    sleep(18 * SECOND).await;
    drop(pool.get().await.unwrap());
    sleep(4 * SECOND).await;
    assert_eq!(backend.log(), ["open C1", "close C1", "open C2"]);
    assert_eq!(pool.numbers().1, 1);
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_that_nobody_uses_is_closed_and_not_replaced() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(2, 0, |b| b.recycle(20 * SECOND).idle_timeout(None));
    drop(pool.get().await.unwrap());
    sleep(22 * SECOND).await;
    assert_eq!(backend.log(), ["open C1", "close C1"]);
    assert_eq!(pool.stats().closed.by(CloseReason::Expired), 1);
}

/// When each of the connections opened together expired.
async fn ends(jitter: f64) -> Vec<Duration> {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(8, 0, |b| {
        b.recycle(100 * SECOND)
            .recycle_jitter(jitter)
            .idle_timeout(None)
    });
    pool.warm_up(8).await.unwrap();
    let begun = Instant::now();
    let mut ends = Vec::new();
    while ends.len() < 8 {
        sleep(100 * MS).await;
        for _ in 0..backend.calls("close") - ends.len() {
            ends.push(begun.elapsed());
        }
    }
    ends
}

#[tokio::test(start_paused = true)]
async fn connections_opened_together_do_not_end_together() {
    let ends = ends(0.5).await;
    assert!(ends[7] > ends[0] + 3 * SECOND, "{ends:?}");
    assert!(ends[0] > 49 * SECOND && ends[7] < 102 * SECOND, "{ends:?}");
}

#[tokio::test(start_paused = true)]
async fn without_jitter_they_end_at_their_age() {
    let ends = ends(0.0).await;
    let exact = |end: &Duration| (100 * SECOND..102 * SECOND).contains(end);
    assert!(ends.iter().all(exact), "{ends:?}");
}

// ---- keepalive ----

#[tokio::test(start_paused = true)]
async fn silent_connections_are_pinged_and_a_dead_one_is_closed() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(2, 0, |b| b.keepalive(10 * SECOND));
    pool.warm_up(2).await.unwrap();
    sleep(9 * SECOND).await;
    assert_eq!(backend.calls("ping"), 0);
    sleep(3 * SECOND).await;
    assert_eq!(backend.calls("ping"), 2);
    sleep(5 * SECOND).await;
    assert_eq!(backend.calls("ping"), 2, "again after as long");
    backend.next(Call::Ping, [Step::Err(Failure::Transient), Step::Ok]);
    sleep(6 * SECOND).await;
    assert_eq!((backend.calls("ping"), pool.status().idle), (4, 1));
    assert_eq!(pool.stats().closed.by(CloseReason::Broken), 1);
}

#[tokio::test(start_paused = true)]
async fn a_ping_to_keep_it_alive_is_no_use() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| b.keepalive(3 * SECOND).idle_timeout(20 * SECOND));
    drop(pool.get().await.unwrap());
    sleep(22 * SECOND).await;
    assert!(backend.calls("ping") >= 4);
    assert_eq!(pool.stats().closed.by(CloseReason::Idle), 1);
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_the_only_connection_is_being_kept_alive_waits_for_it() {
    let backend = ScriptedBackend::new();
    let gate = Gate::new();
    let pool = backend.pool_with(1, 0, |b| b.keepalive(3 * SECOND));
    drop(pool.get().await.unwrap());
    backend.next(Call::Ping, [Step::Slow(gate.clone())]);
    gate.arrived().await;
    let mut caller = task::spawn(pool.get());
    assert_pending!(caller.poll());
    gate.open();
    assert_eq!(caller.await.unwrap().id, 1);
}

// ---- overflow_linger ----

#[tokio::test(start_paused = true)]
async fn overflow_stays_open_for_as_long_as_it_may_linger() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 3, |b| b.overflow_linger(5 * SECOND));
    let held = (pool.get().await, pool.get().await, pool.get().await);
    drop(held);
    at_rest(&pool).await;
    assert_eq!(pool.numbers(), (1, 3, 2, 0));
    sleep(4 * SECOND).await;
    drop((pool.get().await, pool.get().await)); // Two are spared a connect.
    assert_eq!((pool.status().idle, backend.opens()), (3, 3));
    sleep(3 * SECOND).await;
    assert_eq!(pool.status().idle, 2, "the third has stood for long enough");
    sleep(3 * SECOND).await;
    assert_eq!(pool.numbers(), (1, 1, 0, 0));
    assert_eq!(pool.stats().closed.by(CloseReason::Overflow), 2);
}

// ---- a task that waits for itself ----

#[cfg(debug_assertions)]
#[tokio::test(start_paused = true)]
async fn a_task_that_waits_while_it_holds_a_connection_is_told_where_it_took_that() {
    let pool = ScriptedBackend::new().pool_with(1, 0, |b| b.pool_timeout(SECOND));
    let mut events = pool.events();
    let nested = {
        let pool = pool.clone();
        tokio::spawn(async move {
            let (held, line) = (pool.get(), line!());
            let held = held.await.unwrap();
            let error = pool.get().await.expect_err("the only one is held");
            drop(held);
            (error.to_string(), line)
        })
    };
    let (error, line) = nested.await.unwrap();
    let place = format!("taken at {}:{line}", file!());
    assert!(
        error.contains("the waiting task itself holds one"),
        "{error}"
    );
    assert!(error.contains(&place), "{error}");
    let mut told = 0;
    while let Some(event) = events.try_next() {
        if let EventKind::WaitsWhileHolding { place, holder } = event.kind {
            assert_eq!((holder.place.line(), place.line()), (line, line + 2));
            told += 1;
        }
    }
    assert_eq!(told, 1);

    // Another task's connection is none of its own.
    let held = pool.get().await.unwrap();
    let other = pool.clone();
    let waits = tokio::spawn(async move { other.get().await.map(drop).map_err(|e| e.to_string()) });
    let error = waits.await.unwrap().expect_err("held elsewhere");
    assert!(!error.contains("itself"), "{error}");
    drop(held);
}

// ---- leaks ----

#[tokio::test(start_paused = true)]
async fn a_suspected_leak_is_told_once_with_its_line_and_counted_when_it_comes_back() {
    let pool = ScriptedBackend::new().pool_with(1, 0, |b| b.leak_threshold(10 * SECOND));
    let mut events = pool.events();
    let (held, line) = (pool.get(), line!());
    let held = held.await.unwrap();
    sleep(30 * SECOND).await;
    let mut told = Vec::new();
    while let Some(event) = events.try_next() {
        if let EventKind::LeakSuspected { holder } = event.kind {
            told.push(holder);
        }
    }
    let [holder] = told[..] else {
        panic!("once, not {told:?}")
    };
    assert_eq!((holder.place.file(), holder.place.line()), (file!(), line));
    assert!(
        (10 * SECOND..12 * SECOND).contains(&holder.held),
        "{holder}"
    );
    let stats = pool.stats();
    assert_eq!((stats.leaks_suspected, stats.leaks_returned), (1, 0));
    drop(held);
    sleep(2 * SECOND).await;
    assert_eq!(pool.stats().leaks_returned, 1);
    let _held = pool.get().await.unwrap();
    sleep(12 * SECOND).await;
    let stats = pool.stats();
    assert_eq!((stats.leaks_suspected, stats.leaks_returned), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_suspected_leak_that_ends_with_its_connection_has_come_back_as_well() {
    let pool = ScriptedBackend::new().pool_with(1, 0, |b| b.leak_threshold(10 * SECOND));
    let held = pool.get().await.unwrap();
    sleep(15 * SECOND).await;
    held.invalidate();
    sleep(2 * SECOND).await;
    assert_eq!(pool.stats().leaks_returned, 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_ping_of_what_was_idle_for_long_is_no_leak_and_no_long_hold() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| {
        b.leak_threshold(20 * SECOND)
            .max_hold(20 * SECOND)
            .idle_timeout(None)
            .pre_ping(PrePing::IdleFor(SECOND))
            .ping_timeout(10 * SECOND)
    });
    drop(pool.get().await.unwrap());
    sleep(60 * SECOND).await;
    backend.next(Call::Ping, [Step::after(5_000, Step::Ok)]);
    drop(pool.get().await.unwrap());
    sleep(2 * SECOND).await;
    let stats = pool.stats();
    assert_eq!((stats.leaks_suspected, stats.held_too_long), (0, 0));
    assert_eq!(pool.status().idle, 1);
}

// ---- max_hold ----

#[tokio::test(start_paused = true)]
async fn a_connection_held_for_too_long_is_told_of_and_closed_when_it_comes_back() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(2, 0, |b| b.max_hold(4 * SECOND));
    let mut events = pool.events();
    let long = pool.get().await.unwrap();
    let short = pool.get().await.unwrap();
    sleep(2 * SECOND).await;
    drop(short);
    sleep(4 * SECOND).await;
    assert_eq!(pool.stats().held_too_long, 1);
    drop(long);
    at_rest(&pool).await;
    assert_eq!(backend.log(), ["open C1", "open C2", "close C1"]);
    assert_eq!(pool.stats().closed.by(CloseReason::HeldTooLong), 1);
    let mut told = 0;
    while let Some(event) = events.try_next() {
        told += usize::from(matches!(event.kind, EventKind::HeldTooLong { .. }));
    }
    assert_eq!(told, 1);
}

// ---- the task ----

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_connection_and_starts_with_the_next() {
    let backend = ScriptedBackend::new();
    // Without a timeout, lest the timer of the queue be counted.
    let pool = backend.pool_with(2, 0, |b| b.pool_timeout(None));
    let tasks = || Handle::current().metrics().num_alive_tasks();
    assert_eq!((tasks(), pool.stats().maintenance_age), (0, None));
    for _ in 0..3 {
        let held = pool.get().await.unwrap();
        sleep(3 * SECOND).await;
        assert_eq!(tasks(), 1, "a pool with connections has one task");
        let age = pool.stats().maintenance_age.expect("it has been at work");
        assert!(age <= SECOND, "{age:?}");
        held.invalidate();
        sleep(3 * SECOND).await;
        assert_eq!((tasks(), pool.stats().maintenance_age), (0, None));
    }
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_pool() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(2, 0, |b| b.min_idle(1));
    pool.warm_up(2).await.unwrap();
    assert_eq!(tasks(), 1);
    drop(pool);
    tasks_run().await;
    assert_eq!((tasks(), backend.live()), (0, 0));
}

#[test]
fn the_task_starts_again_on_another_runtime_after_its_own_has_ended() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(2, 0, |b| b.idle_timeout(10 * SECOND));
    let runtime = || {
        let builder = &mut Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    let first = runtime();
    first.block_on(async { drop(pool.get().await.unwrap()) });
    drop(first);
    runtime().block_on(async {
        let held = (pool.get().await.unwrap(), pool.get().await.unwrap());
        drop(held);
        sleep(20 * SECOND).await;
        assert_eq!((pool.status().open, backend.opens()), (0, 2));
    });
}

#[test]
fn a_runtime_that_stands_still_shows_in_the_age_of_the_last_round() {
    let backend = ScriptedBackend::new();
    let pool = Pool::builder(backend)
        .time_source(TimeSource::Exact)
        .idle_timeout(40 * MS)
        .build()
        .unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let held = pool.get().await.unwrap();
        let mut events = Box::pin(tokio::time::interval(5 * MS));
        while pool.stats().maintenance_age.is_none() {
            events.tick().await;
        }
        drop(held);
    });
    // Nobody drives it from here on.
    let begun = std::time::Instant::now();
    while begun.elapsed() < 30 * MS {
        std::thread::yield_now();
    }
    assert!(pool.stats().maintenance_age.unwrap() >= 30 * MS);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_ready_comes_from_the_budget_only_as_far_as_that_has_room() {
    let (backend, budget) = (ScriptedBackend::new(), Budget::new(2));
    let pool = backend.pool_with(4, 0, |b| b.min_idle(2).budget(&budget));
    let _held = pool.get().await.unwrap();
    sleep(5 * SECOND).await;
    assert_eq!(
        (
            pool.status().open,
            budget.status().free,
            budget.status().starving
        ),
        (2, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn dropping_the_pool_ends_its_events() {
    let pool = ScriptedBackend::new().pool(1, 0);
    let mut events = pool.events();
    drop(pool.get().await.unwrap());
    drop(pool);
    let mut count = 0;
    while events.next().await.is_some() {
        count += 1;
    }
    assert!(count >= 5);
    advance(MS).await;
}
