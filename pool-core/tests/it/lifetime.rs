//! How connections end: invalidated, outdated with their generation, over their age, found dead by a ping.

use std::time::Duration;

use pool_core::{Failure, GetError, PrePing};
use tokio::time::{advance, sleep};
use tokio_test::{assert_pending, task};

use crate::scripted::{Call, Fault, Gate, ScriptedBackend, Step, at_rest, from_opening, tasks_run};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn an_invalidated_connection_is_closed_without_a_reset_and_its_slot_opens_anew() {
    let backend = ScriptedBackend::resetting();
    let pool = backend.pool(1, 0);
    pool.get().await.unwrap().invalidate(); // Consumes the guard: it can't be used or closed again.
    at_rest(&pool).await;
    assert_eq!(pool.numbers(), (1, 0, 0, 0));
    assert_eq!(backend.log(), ["open C1", "close C1"]);
    assert_eq!(pool.get().await.unwrap().id, 2);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_panics_or_hangs_still_frees_the_slot() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| b.close_timeout(3 * SECOND));
    backend.next(Call::Close, [Step::Panic, Step::Never]);
    pool.get().await.unwrap().invalidate();
    at_rest(&pool).await;
    assert_eq!((pool.status().open, pool.status().abandoned), (0, 0));
    pool.get().await.unwrap().invalidate();
    tasks_run().await;
    sleep(2 * SECOND).await;
    assert_eq!(
        pool.status().closing,
        1,
        "its room is not free before the other side let go"
    );
    sleep(2 * SECOND).await;
    assert_eq!((pool.status().closing, pool.status().abandoned), (0, 1));
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_reported_disconnect_closes_the_generation_in_use_and_checks_the_idle_side_by_side() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(5, 0, |b| b.pre_ping(PrePing::Never));
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(pool.get().await.unwrap());
    }
    held.truncate(2); // C3 and C4 are idle.
    let (mut c1, mut c2) = (held.remove(0), held.remove(0));
    backend.log();
    backend.next(Call::Ping, [Step::Ok, Step::Err(Failure::Transient)]);
    assert_eq!(
        c1.report(&Fault::of(Failure::Generation)),
        Failure::Generation
    );
    at_rest(&pool).await;
    assert_eq!(backend.log(), ["ping C3", "ping C4", "terminate C4"]);
    assert_eq!(pool.numbers(), (5, 1, 0, 2));
    // C2 is of the same age: its report moves nothing, and what was opened or checked since is spared.
    let c3 = pool.get().await.unwrap();
    let c5 = pool.get().await.unwrap();
    assert_eq!((c3.id, c5.id), (3, 5));
    c2.report(&Fault::of(Failure::Generation));
    drop((c3, c5));
    at_rest(&pool).await;
    assert_eq!(backend.log(), ["open C5"]);
    drop((c1, c2));
    at_rest(&pool).await;
    assert_eq!(backend.log(), ["close C1", "close C2"]);
    assert_eq!(pool.numbers(), (5, 2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_connection_in_use_at_a_disconnect_of_its_generation_keeps_working_until_returned() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(2, 0);
    let (mut c1, c2) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    c1.report(&Fault::of(Failure::Generation));
    drop(c1);
    at_rest(&pool).await;
    assert_eq!(c2.id, 2);
    drop(c2);
    at_rest(&pool).await;
    assert_eq!(
        backend.log(),
        ["open C1", "open C2", "close C1", "close C2"]
    );
}

#[tokio::test(start_paused = true)]
async fn other_reports_change_nothing() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    let mut conn = pool.get().await.unwrap();
    conn.report(&Fault::of(Failure::Transient));
    conn.report(&Fault::of(Failure::Permanent));
    drop(conn);
    assert_eq!(pool.get().await.unwrap().id, 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_recycled_once_it_is_strictly_older_than_the_limit() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| b.recycle(30 * SECOND).pre_ping(PrePing::Never));
    drop(pool.get().await.unwrap());
    advance(30 * SECOND).await;
    assert_eq!(pool.try_get().unwrap().id, 1);
    assert_eq!(pool.get().await.unwrap().id, 1);
    advance(SECOND / 2).await;
    let found = pool.try_get().map(|conn| conn.id);
    assert_ne!(found, Some(1), "try_get skips what is to be recycled");
    assert_eq!(pool.get().await.unwrap().id, 2);
    assert_eq!(backend.log(), ["open C1", "close C1", "open C2"]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_held_beyond_its_age_is_closed_when_it_comes_back() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| b.recycle(30 * SECOND));
    let held = pool.get().await.unwrap();
    advance(3600 * SECOND).await;
    drop(held);
    at_rest(&pool).await;
    assert_eq!(backend.log(), ["open C1", "close C1"]);
    assert_eq!(pool.numbers(), (1, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn recycling_needs_no_ping_and_what_it_opens_is_pinged_from_the_next_checkout_on() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| b.recycle(30 * SECOND).pre_ping(PrePing::Always));
    drop(pool.get().await.unwrap());
    advance(31 * SECOND).await;
    drop(pool.get().await.unwrap());
    assert_eq!(backend.log(), ["open C1", "close C1", "open C2"]);
    drop(pool.get().await.unwrap());
    assert_eq!(backend.log(), ["ping C2"]);
}

#[tokio::test(start_paused = true)]
async fn pre_ping_pings_once_at_each_checkout_but_the_first() {
    let backend = ScriptedBackend::resetting();
    let pool = backend.pool_with(1, 0, |b| b.pre_ping(PrePing::Always));
    for _ in 0..3 {
        drop(pool.get().await.unwrap());
        at_rest(&pool).await;
    }
    assert_eq!(
        backend.log(),
        [
            "open C1", "reset C1", "ping C1", "reset C1", "ping C1", "reset C1"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_dead_ping_all_idle_connections_are_checked_and_no_caller_sees_an_error() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(5, 0, |b| b.pre_ping(PrePing::Always));
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pool.get().await.unwrap());
    }
    drop(held);
    backend.log();
    let dead = Step::Err(Failure::Transient);
    backend.next(Call::Ping, [dead.clone(), dead.clone(), dead]);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pool.get().await.unwrap());
    }
    at_rest(&pool).await;
    assert_eq!((backend.calls("ping"), backend.calls("terminate")), (3, 3));
    let ids: Vec<_> = held.iter().map(|conn| conn.id).collect();
    assert_eq!(ids, [4, 5, 6], "{:?}", backend.log());
    assert_eq!(pool.numbers(), (5, 0, 0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_always_fails_never_becomes_an_error() {
    let backend = ScriptedBackend::new().always(Call::Ping, Step::Err(Failure::Transient));
    let pool = backend.pool_with(1, 0, |b| b.pre_ping(PrePing::Always));
    for number in 1..=4 {
        assert_eq!(pool.get().await.unwrap().id, number);
    }
    assert_eq!(
        backend.log()[..4],
        ["open C1", "ping C1", "terminate C1", "open C2"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_dead_ping_and_a_failed_opening_give_the_openers_error() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(2, 1, |b| b.pre_ping(PrePing::Always));
    let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop((one, two));
    let backend = backend
        .always(Call::Ping, Step::Err(Failure::Transient))
        .always(Call::Open, Step::Err(Failure::Transient));
    assert!(from_opening(&pool.get().await.unwrap_err()));
    at_rest(&pool).await;
    assert_eq!(pool.numbers(), (2, 0, 0, 0), "the other was found dead too");
    let pings = backend.calls("ping");
    assert!(from_opening(&pool.get().await.unwrap_err()));
    assert_eq!(
        backend.calls("ping"),
        pings,
        "there was nothing left to ping"
    );
    let backend = backend
        .always(Call::Open, Step::Ok)
        .always(Call::Ping, Step::Ok);
    at_rest(&pool).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pool.get().await.unwrap());
    }
    assert_eq!((pool.numbers(), backend.live()), ((2, 0, 1, 3), 3));
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_fails_for_good_is_the_callers_error_and_spares_the_others() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(2, 0, |b| b.pre_ping(PrePing::Always));
    let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop((one, two));
    backend.log();
    backend.next(Call::Ping, [Step::Err(Failure::Permanent)]);
    let error = pool.get().await.unwrap_err();
    assert!(matches!(error, GetError::Ping(_)), "{error:?}");
    assert_eq!(backend.log(), ["ping C1", "terminate C1"]);
    assert_eq!(pool.numbers(), (2, 1, 0, 0));
    assert_eq!(pool.get().await.unwrap().id, 2);
}

#[tokio::test(start_paused = true)]
async fn without_pre_ping_the_first_use_fails_and_its_report_has_the_others_checked() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(2, 0, |b| b.pre_ping(PrePing::Never));
    let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop((one, two));
    let backend = backend.always(Call::Ping, Step::Err(Failure::Transient));
    let mut conn = pool.get().await.unwrap(); // The server is gone, and nobody has noticed.
    conn.report(&Fault::of(Failure::Generation));
    drop(conn);
    at_rest(&pool).await;
    assert_eq!(pool.numbers(), (2, 0, 0, 0));
    assert_eq!(pool.get().await.unwrap().id, 3);
    assert_eq!(backend.live(), 1);
}

#[tokio::test(start_paused = true)]
async fn invalidating_all_closes_the_idle_now_and_those_in_use_when_they_return() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(2, 0);
    let (c1, c2) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop(c1);
    pool.invalidate_all();
    at_rest(&pool).await;
    assert_eq!(pool.numbers(), (2, 0, 0, 1), "who is out stays counted");
    drop(c2);
    at_rest(&pool).await;
    assert_eq!(
        backend.log(),
        ["open C1", "open C2", "close C1", "close C2"]
    );
    assert_eq!(pool.get().await.unwrap().id, 3);
}

#[tokio::test(start_paused = true)]
async fn connections_of_the_old_generation_count_until_they_are_closed() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(2, 0);
    let (c1, c2) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    pool.invalidate_all();
    let mut waiter = task::spawn(pool.get());
    assert_pending!(waiter.poll());
    tasks_run().await;
    assert_eq!(
        (backend.opens(), backend.live()),
        (2, 2),
        "no room before one is closed"
    );
    drop((c1, c2));
    assert_eq!(waiter.await.unwrap().id, 3);
    at_rest(&pool).await;
    assert_eq!(pool.numbers().1, 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_being_opened_when_all_were_invalidated_is_not_handed_out() {
    let backend = ScriptedBackend::new();
    backend.next(Call::Open, [Step::after(100, Step::Ok)]);
    let pool = backend.pool(1, 0);
    let invalidation = async {
        sleep(SECOND / 20).await;
        pool.invalidate_all();
    };
    let (conn, ()) = futures::future::join(pool.get(), invalidation).await;
    assert_eq!(conn.unwrap().id, 2);
    assert_eq!(backend.log(), ["open C1", "close C1", "open C2"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_being_opened_for_nobody_when_all_were_invalidated_is_not_kept() {
    let backend = ScriptedBackend::new();
    let gate = Gate::new();
    backend.next(Call::Open, [Step::Slow(gate.clone())]);
    let pool = backend.pool(1, 0);
    let mut caller = task::spawn(pool.get());
    assert_pending!(caller.poll());
    gate.arrived().await;
    drop(caller);
    pool.invalidate_all();
    gate.open();
    at_rest(&pool).await;
    assert_eq!(backend.log(), ["open C1", "close C1"]);
    assert_eq!(pool.numbers(), (1, 0, 0, 0));
}
