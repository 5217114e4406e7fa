//! What holds whatever happens: order, hand-over, cancellation, and what a timeout tells.

use std::time::Duration;

use futures::future::join_all;
use pool_core::{ConnectError, Failure, GetError, PrePing};
use tokio::time::{Instant, advance, sleep};
use tokio_test::{assert_pending, assert_ready, task};

use crate::scripted::{Call, Gate, ScriptedBackend, Step, at_rest, tasks_run, timed_out};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn never_more_than_the_capacity_exist_those_opening_and_closing_counted() {
    let backend = ScriptedBackend::new();
    let (opening, closing) = (Gate::new(), Gate::new());
    let pool = backend.pool(1, 1);
    let held = pool.get().await.unwrap();
    backend.next(Call::Open, [Step::Slow(opening.clone())]);
    backend.next(Call::Close, [Step::Slow(closing.clone())]);
    let mut waiters: Vec<_> = (0..4).map(|_| task::spawn(pool.get())).collect();
    for waiter in &mut waiters {
        assert_pending!(waiter.poll());
    }
    held.invalidate();
    closing.arrived().await;
    opening.arrived().await;
    tasks_run().await;
    let status = pool.status();
    assert_eq!((status.connecting, status.closing), (1, 1));
    assert_eq!(
        (backend.opens(), backend.live()),
        (2, 2),
        "one opening, one closing: no room"
    );
    closing.open();
    tasks_run().await;
    assert!(waiters[0].is_woken(), "the room is offered to the queue");
    opening.open();
    let callers = join_all(
        waiters
            .into_iter()
            .map(|waiter| async move { drop(waiter.await) }),
    );
    callers.await;
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn no_newcomer_overtakes_while_somebody_waits() {
    let pool = ScriptedBackend::new().pool(2, 0);
    let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let mut first = task::spawn(pool.get());
    let mut second = task::spawn(pool.get());
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    drop(one);
    assert!(pool.try_get().is_none());
    let mut newcomer = task::spawn(pool.get());
    assert_pending!(newcomer.poll());
    drop(two);
    assert!(first.is_woken() && second.is_woken() && !newcomer.is_woken());
    let first = assert_ready!(first.poll()).unwrap();
    assert!(assert_ready!(second.poll()).is_ok());
    drop(first);
    assert!(assert_ready!(newcomer.poll()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_chosen_waiter_passes_its_turn_on() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    let held = pool.get().await.unwrap();
    let (mut first, mut second) = (task::spawn(pool.get()), task::spawn(pool.get()));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    drop(held); // The turn goes to `first`...
    assert!(first.is_woken() && !second.is_woken());
    drop(first); // ...which leaves without taking it.
    assert!(second.is_woken(), "the next in the queue must be told");
    assert_eq!(assert_ready!(second.poll()).unwrap().id, 1);
    assert_eq!(backend.opens(), 1);
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn dropping_a_waiter_that_was_told_to_open_passes_that_on() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    let held = pool.get().await.unwrap();
    let (mut first, mut second) = (task::spawn(pool.get()), task::spawn(pool.get()));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    drop(held.detach()); // Room, which `first` is told to use...
    assert!(first.is_woken() && !second.is_woken());
    drop(first); // ...and does not.
    assert!(
        second.is_woken(),
        "the room must not lie idle beside a waiter"
    );
    assert_eq!(second.await.unwrap().id, 2);
}

#[tokio::test(start_paused = true)]
async fn leaving_the_middle_of_the_queue_keeps_the_order_of_the_others() {
    let pool = ScriptedBackend::new().pool(1, 0);
    let held = pool.get().await.unwrap();
    let mut waiters: Vec<_> = (0..5).map(|_| Some(task::spawn(pool.get()))).collect();
    for waiter in waiters.iter_mut().flatten() {
        assert_pending!(waiter.poll());
    }
    waiters[0] = None;
    waiters[2] = None;
    waiters[4] = None;
    assert_eq!(pool.status().waiting, 2);
    drop(held);
    let (mut one, mut three) = (waiters[1].take().unwrap(), waiters[3].take().unwrap());
    assert_pending!(three.poll());
    drop(assert_ready!(one.poll()));
    drop(assert_ready!(three.poll()));
    drop(waiters);
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn cancelling_a_get_at_any_stage_leaves_the_full_capacity() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(2, 1, |b| b.pre_ping(PrePing::Always));
    // While it opens.
    let gate = Gate::new();
    backend.next(Call::Open, [Step::Slow(gate.clone())]);
    let mut opening = task::spawn(pool.get());
    assert_pending!(opening.poll());
    gate.arrived().await;
    drop(opening);
    gate.open();
    pool.assert_whole().await;
    // While it is pinged: nobody knows how far the ping came, so the connection goes.
    let gate = Gate::new();
    backend.next(Call::Ping, [Step::Slow(gate.clone())]);
    let mut pinging = task::spawn(pool.get());
    assert_pending!(pinging.poll());
    gate.arrived().await;
    let terminated = backend.calls("terminate");
    drop(pinging);
    assert_eq!(backend.calls("terminate"), terminated + 1);
    pool.assert_whole().await;
    // In the queue.
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pool.get().await.unwrap());
    }
    let mut waiting = task::spawn(pool.get());
    assert_pending!(waiting.poll());
    drop(waiting);
    drop(held);
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_timeout_tells_how_long_how_many_who_and_why() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(2, 1, |b| b.pool_timeout(2 * SECOND).max_connecting(1));
    let longest = pool.get().await.unwrap();
    let line = line!() - 1;
    advance(39 * SECOND).await;
    let _other = pool.get().await.unwrap();
    // The room that is left can't be used: opening fails, and then hangs.
    backend.next(
        Call::Open,
        [Step::Err(Failure::Transient), Step::after(4_000, Step::Ok)],
    );
    assert!(matches!(pool.get().await, Err(GetError::Connect(_))));
    let mut first = task::spawn(pool.get());
    let mut third = task::spawn(pool.get());
    assert_pending!(first.poll());
    let second = pool.get();
    assert_pending!(third.poll());
    let error = second.await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("no connection came free within 2")
            && text.contains("s: 2 of 3 in use, 1 opening, "),
        "{text}"
    );
    assert!(
        text.contains("waiting; longest held 41.0s, taken at "),
        "{text}"
    );
    assert!(
        text.contains(&format!(
            "{}:{line}; the last attempt to open one failed",
            file!()
        )),
        "{text}"
    );
    let error = timed_out(error);
    assert_eq!(error.waited.as_secs(), 2);
    assert_eq!((error.seen.in_use, error.seen.connecting), (2, 1));
    assert!(
        error.seen.waiting >= 1,
        "the first waits for what is being opened"
    );
    let holder = error.longest.unwrap();
    assert_eq!((holder.place.file(), holder.place.line()), (file!(), line));
    assert_eq!(holder.held.as_secs(), 41);
    assert!(matches!(
        error.last_connect_error,
        Some(ConnectError::Backend(_))
    ));
    drop((longest, first, third));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_does_not_name_a_holder_that_has_returned_its_connection() {
    let pool = ScriptedBackend::new().pool_with(1, 0, |b| b.pool_timeout(2 * SECOND));
    let held = pool.get().await.unwrap();
    let line = line!() - 1;
    advance(3600 * SECOND).await;
    let mut chosen = task::spawn(pool.get());
    assert_pending!(chosen.poll());
    drop(held); // Handed over to `chosen`, which is not polled yet.
    let error = timed_out(pool.get().await.unwrap_err());
    assert!(
        error
            .longest
            .is_none_or(|holder| holder.place.line() != line),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn each_way_of_checking_out_notes_its_callers_line() {
    let pool = ScriptedBackend::new().pool_with(1, 0, |b| b.pool_timeout(Duration::ZERO));
    let holder = async || {
        timed_out(pool.get().await.unwrap_err())
            .longest
            .unwrap()
            .place
            .line()
    };
    let (conn, line) = (pool.get().await.unwrap(), line!());
    assert_eq!(holder().await, line);
    drop(conn);
    let (conn, line) = (pool.get_owned().await.unwrap(), line!());
    assert_eq!(holder().await, line);
    drop(conn);
    let (conn, line) = (pool.try_get().unwrap(), line!());
    assert_eq!(holder().await, line);
    drop(conn);
    let (conn, line) = (pool.try_get_owned().unwrap(), line!());
    assert_eq!(holder().await, line);
    drop(conn);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_is_not_polled_keeps_nobody_else_from_its_timeout_or_its_turn() {
    let pool = ScriptedBackend::new().pool_with(1, 0, |b| b.pool_timeout(SECOND));
    let held = pool.get().await.unwrap();
    let mut sleeper = task::spawn(pool.get());
    assert_pending!(sleeper.poll()); // Once, and never again.
    let begun = Instant::now();
    timed_out(pool.get().await.unwrap_err());
    assert_eq!(begun.elapsed().as_secs(), 1);
    // Its own time is over too: what comes back is not kept for it.
    drop(held);
    let conn = pool.get().await.unwrap();
    let mut another = task::spawn(pool.get());
    assert_pending!(another.poll());
    drop(conn);
    drop(assert_ready!(another.poll()).unwrap());
    timed_out(assert_ready!(sleeper.poll()).unwrap_err());
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_was_told_to_open_and_is_not_polled_costs_the_others_one_connection_at_most()
{
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(2, 0, |b| b.pool_timeout(SECOND));
    let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let mut sleeper = task::spawn(pool.get());
    assert_pending!(sleeper.poll());
    drop((one.detach(), two.detach())); // Room, which the sleeper is told to use and does not.
    let newcomer = pool.get().await.unwrap(); // It opens for both.
    assert_eq!(backend.opens(), 4);
    let begun = Instant::now();
    timed_out(pool.get().await.unwrap_err());
    assert_eq!(begun.elapsed().as_secs(), 1);
    drop((sleeper, newcomer));
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn waiters_with_expired_deadlines_are_handed_nothing() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| b.pool_timeout(SECOND));
    let held = pool.get().await.unwrap();
    let mut late = task::spawn(pool.get());
    assert_pending!(late.poll());
    advance(SECOND + SECOND / 10).await;
    drop(held);
    let end = assert_ready!(late.poll());
    assert!(matches!(end, Err(GetError::TimedOut(_))));
    assert_eq!(pool.numbers(), (1, 1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_waiters_each_time_out_on_time_or_are_served() {
    let pool = ScriptedBackend::new().pool_with(4, 0, |b| b.pool_timeout(SECOND));
    let begun = Instant::now();
    let ends = join_all((0..1000).map(async |number: u64| {
        let end = pool.get().await;
        let after = begun.elapsed();
        match end {
            Ok(conn) => {
                sleep(Duration::from_millis(100)).await;
                drop(conn);
                true
            }
            Err(error) => {
                timed_out(error);
                assert!(
                    (SECOND..SECOND + SECOND / 50).contains(&after),
                    "{number}: {after:?}"
                );
                false
            }
        }
    }))
    .await;
    let served = ends.iter().filter(|served| **served).count();
    assert!((36..=44).contains(&served), "{served}");
    assert!(
        ends.windows(2).all(|pair| pair[0] >= pair[1]),
        "first come, first served"
    );
    at_rest(&pool).await;
    pool.assert_whole().await;
}
