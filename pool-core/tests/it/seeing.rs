//! What a pool tells of itself: events, statistics, and the report of its end.

use std::time::Duration;

use futures::StreamExt;
use futures::future::join;
use pool_core::{
    Budget, CloseReason, EventKind, Events, Failure, GetError, GetOptions, Health, OnReturn,
    PrePing, QueueDiscipline, Shed, Stats,
};
use tokio::runtime::{Builder, Handle};
use tokio::time::{sleep, timeout};
use tokio_test::{assert_pending, task};

use crate::scripted::{Call, ScriptedBackend, Step, all_wait, at_rest, tasks_run};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// The events so far, in short.
fn told(events: &mut Events) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(event) = events.try_next() {
        all.push(match event.kind {
            EventKind::Connected { connection, .. } => format!("connected {connection}"),
            EventKind::ConnectFailed { failures, .. } => format!("failed {failures}"),
            EventKind::CheckedOut { connection } => format!("out {connection}"),
            EventKind::Returned { connection, .. } => format!("back {connection}"),
            EventKind::Detached { connection } => format!("detached {connection}"),
            EventKind::Closed { connection, reason } => format!("closed {connection} {reason}"),
            EventKind::Resized {
                pool_size,
                capacity,
            } => format!("resized {pool_size} {capacity}"),
            EventKind::TimedOut { .. } => "timed out".to_owned(),
            EventKind::Renewing { over } => format!("renewing {over:?}"),
            other => format!("{other:?}").to_lowercase(),
        });
    }
    all
}

// ---- events ----

#[tokio::test(start_paused = true)]
async fn a_connections_life_is_told_in_order() {
    let backend = ScriptedBackend::resetting();
    let pool = backend.pool(1, 0);
    let mut events = pool.events();
    for _ in 0..2 {
        drop(pool.get().await.unwrap());
        at_rest(&pool).await;
    }
    pool.get().await.unwrap().invalidate();
    at_rest(&pool).await;
    let expected = [
        "connecting",
        "connected 1",
        "out 1",
        "back 1",
        "out 1",
        "back 1",
        "out 1",
        "closed 1 invalidated",
    ];
    assert_eq!(told(&mut events), expected);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_handed_over_or_detached_is_told_of_too() {
    let pool = ScriptedBackend::new().pool(1, 0);
    let mut events = pool.events();
    let held = pool.get().await.unwrap();
    let mut waiter = task::spawn(pool.get());
    assert_pending!(waiter.poll());
    drop(held);
    let conn = waiter.await.unwrap().detach();
    tasks_run().await;
    let expected = [
        "connecting",
        "connected 1",
        "out 1",
        "back 1",
        "out 1",
        "detached 1",
    ];
    assert_eq!(told(&mut events), expected);
    drop(conn);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_from_its_beginning_to_its_end() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| b.down_after(2));
    let mut events = pool.events();
    let steps = [Step::Err(Failure::Transient), Step::Err(Failure::Transient)];
    backend.next(Call::Open, steps);
    while !matches!(pool.get().await, Err(GetError::Down { .. })) {
        tasks_run().await;
    }
    sleep(5 * SECOND).await;
    let expected = [
        "connecting",
        "failed 1",
        "connecting",
        "failed 2",
        "down",
        "connecting",
        "connected 1",
        "recovered",
    ];
    let mut seen = told(&mut events);
    seen.retain(|event| event != "timed out");
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn what_concerns_the_whole_pool_is_told_as_well() {
    let pool = ScriptedBackend::new().pool_with(1, 0, |b| b.pool_timeout(10 * MS));
    let mut events = pool.events();
    pool.resize(2, 1).unwrap();
    pool.suspend();
    assert!(pool.get().await.is_err());
    pool.resume();
    pool.renew_all(SECOND);
    pool.invalidate_all();
    assert!(pool.close().await.is_clean());
    assert!(pool.close().await.is_clean());
    let expected = [
        "resized 2 3",
        "suspended",
        "timed out",
        "resumed",
        "renewing 1s",
        "generationended",
        "poolclosed",
    ];
    assert_eq!(told(&mut events), expected);
}

#[tokio::test(start_paused = true)]
async fn the_stream_ends_when_the_pool_is_closed_and_its_last_connection_with_it() {
    let pool = ScriptedBackend::new().pool(1, 0);
    let mut events = pool.events();
    let held = pool.get_owned().await.unwrap();
    let (last, ()) = join(
        async {
            let mut last = None;
            while let Some(event) = events.next().await {
                last = Some(event.kind);
            }
            last
        },
        async {
            drop(timeout(MS, pool.close()).await);
            drop(held);
        },
    )
    .await;
    let reason = CloseReason::PoolClosed;
    assert!(
        matches!(last, Some(EventKind::Closed { connection: 1, reason: why }) if why == reason)
    );
    assert!(
        pool.events().next().await.is_none(),
        "nor is there anything to come"
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_observer_loses_the_oldest_events_and_knows_how_many() {
    let pool = ScriptedBackend::new().pool(1, 0);
    let (mut slow, mut quick) = (pool.events(), pool.events());
    let mut read = 0;
    for _ in 0..1_000 {
        drop(pool.get().await.unwrap());
        read += told(&mut quick).len();
    }
    assert_eq!((read, quick.dropped()), (2_002, 0));
    assert_eq!(slow.dropped(), 2_002 - 1_024);
    assert_eq!(told(&mut slow).len(), 1_024);
    assert_eq!(told(&mut slow).len(), 0);
    drop(pool.get().await.unwrap());
    assert_eq!(told(&mut slow), ["out 1", "back 1"]);
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_waits_is_woken_and_one_that_leaves_costs_nothing_more() {
    let pool = ScriptedBackend::new().pool(1, 0);
    let mut events = pool.events();
    let mut next = task::spawn(events.next());
    assert_pending!(next.poll());
    drop(pool.get().await.unwrap());
    assert!(next.is_woken());
    drop(next);
    drop(events);
    drop(pool.get().await.unwrap());
    pool.assert_whole().await;
}

// ---- statistics ----

#[tokio::test(start_paused = true)]
async fn waits_are_recorded_whatever_comes_of_them() {
    let shed = Shed::new(100 * MS).interval(600 * MS);
    let pool = ScriptedBackend::new().pool_with(1, 0, |b| {
        b.max_waiting(3).queue(QueueDiscipline::Shed(shed))
    });
    let options = |limit: Duration| GetOptions::new().timeout(limit);
    let held = pool.get().await.unwrap(); // Opened for it: it waited, for nothing.
    let timed_out = pool.get_with(options(50 * MS)).await;
    assert!(matches!(timed_out, Err(GetError::TimedOut(_))));
    let mut leaves = task::spawn(pool.get());
    assert_pending!(leaves.poll());
    sleep(20 * MS).await;
    drop(leaves);
    let mut served = task::spawn(pool.get());
    assert_pending!(served.poll());
    let mut others = [task::spawn(pool.get()), task::spawn(pool.get())];
    all_wait(&mut others);
    assert!(matches!(pool.get().await, Err(GetError::QueueFull { .. })));
    sleep(30 * MS).await;
    drop(held);
    let held = served.await.unwrap();
    sleep(600 * MS).await;
    let [mut one, mut two] = others;
    assert!(one.is_woken() && two.is_woken(), "both are shed");
    assert!(matches!(
        one.poll(),
        std::task::Poll::Ready(Err(GetError::Shed { .. }))
    ));
    assert!(matches!(
        two.poll(),
        std::task::Poll::Ready(Err(GetError::Shed { .. }))
    ));
    drop(held);
    drop(pool.get().await.unwrap()); // At once.
    let stats = pool.stats();
    assert_eq!((stats.checkouts, stats.timeouts, stats.gave_up), (3, 1, 1));
    assert_eq!((stats.queue_full, stats.shed), (1, 2));
    assert_eq!(stats.wait.count, 3 + 1 + 1 + 1 + 2);
    assert!(
        stats.wait.max >= 600 * MS && stats.wait.max < 700 * MS,
        "{}",
        stats.wait
    );
    assert!(stats.wait.p50 >= 15 * MS, "{}", stats.wait);
}

#[tokio::test(start_paused = true)]
async fn times_of_connecting_holding_and_living_are_recorded() {
    let backend = ScriptedBackend::new().always(Call::Open, Step::after(200, Step::Ok));
    let pool = backend.pool(1, 0);
    for _ in 0..128 {
        let held = pool.get().await.unwrap();
        sleep(50 * MS).await;
        drop(held);
    }
    pool.retain(|_, _| false);
    at_rest(&pool).await;
    let stats = pool.stats();
    let about =
        |value: Duration, expected: Duration| value >= expected && value < expected + expected / 10;
    assert_eq!(
        (
            stats.connect.count,
            stats.hold.count,
            stats.age_at_close.count
        ),
        (1, 2, 1)
    );
    assert!(about(stats.connect.max, 200 * MS), "{}", stats.connect);
    assert!(about(stats.hold.p50, 50 * MS), "{}", stats.hold);
    assert!(
        about(stats.age_at_close.max, 128 * 50 * MS),
        "{}",
        stats.age_at_close
    );
    let text = stats.to_string();
    assert!(text.starts_with("128 checkouts, wait p50 "), "{text}");
    assert!(
        text.contains("1 opened, 1 closed, 0 timeouts") && !text.contains('\n'),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn failed_attempts_to_connect_are_counted() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    backend.next(Call::Open, [Step::Err(Failure::Transient), Step::Panic]);
    assert!(pool.get().await.is_err() && pool.get().await.is_err());
    drop(pool.get().await.unwrap());
    let stats = pool.stats();
    assert_eq!((stats.opened, stats.connect_failures), (1, 2));
    assert_eq!(stats.connect.count, 1);
}

/// That one connection was closed, for this reason.
async fn only(stats: impl AsyncFnOnce() -> Stats, reason: CloseReason) {
    let stats = stats().await;
    for (other, count) in stats.closed.iter() {
        assert_eq!(
            count,
            u64::from(other == reason),
            "{other}, expected {reason}"
        );
    }
    assert_eq!(
        (stats.closed.total(), stats.age_at_close.count),
        (1, 1),
        "{reason}"
    );
}

#[tokio::test(start_paused = true)]
async fn each_reason_to_close_a_connection_for_itself_is_counted_once() {
    let backend = ScriptedBackend::new;
    only(
        async || {
            let backend = backend();
            let pool = backend.pool(1, 0);
            backend.next(Call::Back, [Step::Say(Health::Broken)]);
            drop(pool.get().await.unwrap());
            pool.stats()
        },
        CloseReason::Broken,
    )
    .await;
    only(
        async || {
            let backend = backend();
            let pool = backend.pool_with(1, 0, |b| b.pre_ping(PrePing::Always));
            backend.next(Call::Ping, [Step::Err(Failure::Transient)]);
            drop(pool.get().await.unwrap());
            drop(pool.get().await.unwrap());
            pool.stats()
        },
        CloseReason::Broken,
    )
    .await;
    only(
        async || {
            let pool = backend().pool_with(1, 0, |b| b.recycle(SECOND));
            drop(pool.get().await.unwrap());
            sleep(4 * SECOND).await;
            pool.stats()
        },
        CloseReason::Expired,
    )
    .await;
    only(
        async || {
            let pool = backend().pool_with(1, 0, |b| b.idle_timeout(SECOND));
            drop(pool.get().await.unwrap());
            sleep(3 * SECOND).await;
            pool.stats()
        },
        CloseReason::Idle,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn each_reason_to_close_a_connection_for_its_pools_sake_is_counted_once() {
    let backend = ScriptedBackend::new;
    only(
        async || {
            let pool = backend().pool(1, 1);
            drop((pool.get().await.unwrap(), pool.get().await.unwrap()));
            at_rest(&pool).await;
            pool.stats()
        },
        CloseReason::Overflow,
    )
    .await;
    only(
        async || {
            let backend = ScriptedBackend::resetting();
            let pool = backend.pool(1, 0);
            backend.next(Call::Reset, [Step::Err(Failure::Transient)]);
            drop(pool.get().await.unwrap());
            at_rest(&pool).await;
            pool.stats()
        },
        CloseReason::ResetFailed,
    )
    .await;
    only(
        async || {
            let pool = backend().pool(1, 0);
            pool.get().await.unwrap().invalidate();
            at_rest(&pool).await;
            pool.stats()
        },
        CloseReason::Invalidated,
    )
    .await;
    only(
        async || {
            let pool = backend().pool(2, 0);
            pool.warm_up(2).await.unwrap();
            pool.resize(1, 1).unwrap();
            at_rest(&pool).await;
            pool.stats()
        },
        CloseReason::Resized,
    )
    .await;
    only(
        async || {
            let budget = Budget::new(1);
            let pool = backend().pool_with(1, 0, |b| b.budget(&budget));
            let other = backend().pool_with(1, 0, |b| b.budget(&budget));
            drop(pool.get().await.unwrap());
            drop(other.get().await.unwrap());
            pool.stats()
        },
        CloseReason::Yielded,
    )
    .await;
    only(
        async || {
            let pool = backend().pool_with(1, 0, |b| b.on_return(|_| OnReturn::Close));
            drop(pool.get().await.unwrap());
            at_rest(&pool).await;
            pool.stats()
        },
        CloseReason::Refused,
    )
    .await;
    only(
        async || {
            let pool = backend().pool_with(1, 0, |b| b.max_hold(SECOND));
            let held = pool.get().await.unwrap();
            sleep(3 * SECOND).await;
            drop(held);
            at_rest(&pool).await;
            pool.stats()
        },
        CloseReason::HeldTooLong,
    )
    .await;
    only(
        async || {
            let pool = backend().pool(1, 0);
            drop(pool.get().await.unwrap());
            pool.close().await;
            pool.stats()
        },
        CloseReason::PoolClosed,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_holders_are_named_longest_first() {
    let pool = ScriptedBackend::new().pool(3, 0);
    let (first, line) = (pool.get(), line!());
    let _first = first.await.unwrap();
    sleep(SECOND).await;
    let _second = pool.get_owned().await.unwrap();
    let holders = pool.holders();
    assert_eq!((holders.len(), holders[0].place.line()), (2, line));
    assert!(holders[0].held == SECOND && holders[1].held == Duration::ZERO);
    let text = holders[0].to_string();
    assert_eq!(text, format!("1.0s, taken at {}:{line}", file!()));
}

// ---- the end ----

#[tokio::test(start_paused = true)]
async fn closing_now_waits_for_nobody_and_names_who_still_holds_what() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(3, 0);
    pool.warm_up(3).await.unwrap();
    let (held, line) = (pool.get(), line!());
    let held = held.await.unwrap();
    sleep(2 * SECOND).await;
    let report = pool.close_now();
    assert_eq!((backend.calls("terminate"), backend.live()), (2, 1));
    let [holder] = report.still_held[..] else {
        panic!("{report:?}")
    };
    assert_eq!((holder.place.line(), holder.held), (line, 2 * SECOND));
    assert!(!report.is_clean());
    assert!(matches!(pool.get().await, Err(GetError::Closed)));
    drop(held);
    at_rest(&pool).await;
    assert!(pool.close_now().is_clean() && backend.live() == 0);
}

#[test]
fn dropping_the_last_handle_after_its_runtime_is_gone_closes_everything() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(3, 0, |b| b.min_idle(2));
    let mut events = pool.events();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        pool.warm_up(3).await.unwrap();
        assert!(Handle::current().metrics().num_alive_tasks() > 0);
    });
    drop(runtime);
    drop(pool);
    assert_eq!((backend.live(), backend.calls("terminate")), (0, 3));
    let seen = told(&mut events);
    assert_eq!(
        seen.iter()
            .filter(|event| event.ends_with("pool_closed"))
            .count(),
        3
    );
}
