//! Outside a runtime, on plain threads, across runtimes, and after a runtime's end.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use futures::executor::block_on;
use pool_core::{GetError, PrePing};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_test::{assert_pending, task};

use crate::scripted::{Call, Gate, ScriptedBackend, Step, at_rest, tasks_run};

const SECOND: Duration = Duration::from_secs(1);

/// A runtime of one thread, with a paused clock, that only moves inside `block_on`.
fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}

/// What must end within a minute by the paused clock.
async fn within_a_minute<T>(future: impl Future<Output = T>) -> T {
    let ended = timeout(60 * SECOND, future).await;
    ended.expect("waited a minute, with a timeout of a second")
}

#[test]
fn a_guard_may_be_dropped_outside_a_runtime_and_on_a_plain_thread() {
    let runtime = runtime();
    let pool = ScriptedBackend::resetting().pool(2, 0);
    let one = runtime.block_on(pool.get_owned()).unwrap();
    let two = runtime.block_on(pool.get_owned()).unwrap();
    drop(one);
    thread::spawn(move || drop(two)).join().unwrap();
    // Their resets are done by the runtime that was seen before, once it is driven.
    runtime.block_on(at_rest(&pool));
    assert_eq!(pool.numbers(), (2, 2, 0, 0));
    runtime.block_on(pool.assert_whole());
}

#[test]
fn a_guard_may_be_dropped_after_its_runtime_has_ended() {
    let backend = ScriptedBackend::resetting();
    let pool = backend.pool(1, 1);
    let ended = runtime();
    let one = ended.block_on(pool.get_owned()).unwrap();
    let two = ended.block_on(pool.get_owned()).unwrap();
    drop(ended);
    drop(one); // Nobody is there to reset it.
    two.invalidate(); // Nor to say goodbye.
    assert_eq!(
        backend.log(),
        ["open C1", "open C2", "terminate C1", "terminate C2"]
    );
    assert_eq!((pool.status().open, backend.live()), (0, 0));
    runtime().block_on(pool.assert_whole());
}

#[test]
fn a_runtime_that_ends_in_the_middle_of_everything_leaves_the_room_to_the_next() {
    let backend = ScriptedBackend::resetting();
    let pool = backend.pool_with(4, 0, |b| b.pre_ping(PrePing::Always));
    let ended = runtime();
    ended.block_on(async {
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(pool.get_owned().await.unwrap());
        }
        let (open, reset, close) = (Gate::new(), Gate::new(), Gate::new());
        backend.next(Call::Open, [Step::Slow(open.clone())]);
        backend.next(Call::Reset, [Step::Slow(reset.clone())]);
        backend.next(Call::Close, [Step::Slow(close.clone())]);
        let caller = pool.get_owned();
        tokio::spawn(async move { drop(caller.await) });
        open.arrived().await;
        drop(held.pop());
        reset.arrived().await;
        held.pop().unwrap().invalidate();
        close.arrived().await;
        let status = pool.status();
        assert_eq!(
            (status.connecting, status.resetting, status.closing),
            (1, 1, 1)
        );
    });
    drop(ended);
    assert_eq!(
        (pool.status().open, backend.live()),
        (0, 0),
        "{}",
        pool.status()
    );
    runtime().block_on(pool.assert_whole());
}

#[test]
fn waiters_of_two_runtimes_are_served_when_one_of_them_has_ended() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| b.pool_timeout(SECOND));
    let (ended, living) = (runtime(), runtime());
    let held = ended.block_on(pool.get_owned()).unwrap();
    let waiter = pool.get_owned();
    ended.block_on(async {
        tokio::spawn(async move { drop(waiter.await) });
        tasks_run().await;
    });
    assert_eq!(pool.status().waiting, 1);
    drop(ended); // And with it, its waiter and its timekeeper.
    assert_eq!(pool.status().waiting, 0);
    living.block_on(async {
        let end = within_a_minute(pool.get()).await;
        assert!(matches!(end, Err(GetError::TimedOut(_))));
        let mut waiter = task::spawn(pool.get());
        assert_pending!(waiter.poll());
        drop(held);
        assert_eq!(waiter.await.unwrap().id, 1);
        pool.assert_whole().await;
    });
}

#[test]
fn a_waiter_times_out_and_is_served_beside_a_runtime_that_is_never_driven_again() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| b.pool_timeout(SECOND));
    let (stalled, living) = (runtime(), runtime());
    let held = stalled.block_on(pool.get_owned()).unwrap();
    let waiter = pool.get_owned();
    let mut tasks = JoinSet::new();
    stalled.block_on(async {
        tasks.spawn(async move { drop(waiter.await) });
        tasks_run().await;
    });
    // From here on the first runtime, with its waiter and its timekeeper, stands still.
    living.block_on(async {
        let end = within_a_minute(pool.get()).await;
        assert!(matches!(end, Err(GetError::TimedOut(_))));
    });
    tasks.abort_all();
    stalled.block_on(tasks_run());
    living.block_on(async {
        let mut waiter = task::spawn(pool.get());
        assert_pending!(waiter.poll());
        drop(held);
        assert_eq!(waiter.await.unwrap().id, 1);
        pool.assert_whole().await;
    });
}

#[test]
fn an_opening_on_a_runtime_that_is_never_driven_again_keeps_no_waiter_from_its_timeout() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| b.pool_timeout(SECOND).connect_timeout(2 * SECOND));
    let (stalled, living) = (runtime(), runtime());
    let gate = Gate::new();
    backend.next(Call::Open, [Step::Slow(gate.clone())]);
    stalled.block_on(async {
        let mut caller = task::spawn(pool.get());
        assert_pending!(caller.poll());
        gate.arrived().await;
    });
    // The caller has left, and its opening stands still with its runtime.
    let end = living.block_on(within_a_minute(pool.get()));
    assert!(end.is_err());
    gate.open();
    stalled.block_on(at_rest(&pool));
    living.block_on(pool.assert_whole());
}

#[test]
fn closing_on_a_runtime_that_is_never_driven_again_does_not_hold_up_returns_elsewhere() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(2, 0, |b| b.pool_timeout(10 * SECOND));
    let (stalled, living) = (runtime(), runtime());
    let gate = Gate::new();
    backend.next(Call::Close, [Step::Slow(gate.clone())]);
    stalled.block_on(async {
        let (one, _two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
        one.invalidate();
        gate.arrived().await;
    });
    // The one that closes stands still with its runtime; the other can be used, closed and replaced.
    living.block_on(async {
        for _ in 0..3 {
            let conn = pool.get().await.expect("there is room, or soon will be");
            conn.invalidate();
        }
    });
    gate.open();
    stalled.block_on(at_rest(&pool));
    living.block_on(pool.assert_whole());
}

#[test]
fn outside_any_runtime_what_is_idle_is_had_and_the_rest_is_a_clear_error() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    let error = block_on(pool.get()).unwrap_err();
    assert!(matches!(error, GetError::NoRuntime), "{error:?}");
    runtime().block_on(async { drop(pool.get().await.unwrap()) });
    assert_eq!(block_on(pool.get()).unwrap().id, 1);
    assert_eq!(pool.try_get().unwrap().id, 1);
}

#[test]
fn outside_any_runtime_a_waiter_is_served_by_a_return() {
    let pool = ScriptedBackend::new().pool(1, 0);
    let runtime = runtime();
    let held = runtime.block_on(pool.get_owned()).unwrap();
    let (joined, has_joined) = mpsc::channel();
    let waiter = thread::spawn({
        let get = pool.get_owned();
        move || {
            let mut get = std::pin::pin!(get);
            block_on(futures::future::poll_fn(|cx| {
                let turn = get.as_mut().poll(cx);
                let _ = joined.send(());
                turn
            }))
            .map(|conn| conn.id)
        }
    });
    has_joined.recv().unwrap();
    drop(held);
    assert_eq!(waiter.join().unwrap().unwrap(), 1);
    runtime.block_on(pool.assert_whole());
}

#[test]
fn outside_any_runtime_after_the_only_one_has_ended_a_get_ends_with_an_error() {
    let pool = ScriptedBackend::new().pool(1, 0);
    let ended = runtime();
    ended.block_on(async { pool.get().await.unwrap().invalidate() });
    drop(ended);
    let (send, end) = mpsc::channel();
    let get = pool.get_owned();
    thread::spawn(move || send.send(block_on(get).is_err()));
    let failed = end
        .recv_timeout(20 * SECOND)
        .expect("it neither ends nor fails");
    assert!(failed);
}
