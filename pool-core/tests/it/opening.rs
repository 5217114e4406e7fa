//! Opening that fails, hangs or loses the caller that wanted it.

use std::time::Duration;

use futures::future::join_all;
use pool_core::{ConnectError, EventKind, Failure, GetError};
use tokio::time::{Instant, sleep, timeout};
use tokio_test::{assert_pending, task};

use crate::scripted::{Call, Gate, ScriptedBackend, Step, at_rest, from_opening, tasks_run};

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn a_failed_opening_reaches_its_caller_unchanged_and_frees_the_room() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(2, 3);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pool.get().await.unwrap());
    }
    assert_eq!(pool.numbers(), (2, 0, 1, 3));
    backend.next(Call::Open, [Step::Err(Failure::Transient)]);
    let error = pool.get().await.unwrap_err();
    assert!(
        matches!(error, GetError::Connect(ConnectError::Backend(_))),
        "{error:?}"
    );
    assert_eq!(
        error.backend_error().unwrap().to_string(),
        "the script failed Open C4"
    );
    tasks_run().await;
    assert_eq!(pool.numbers(), (2, 0, 1, 3));
    assert_eq!(pool.status().connecting, 0);
    drop(held);
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_waiter_is_woken_the_moment_anothers_opening_fails() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 1, |b| b.pool_timeout(2000 * MS));
    let _c1 = pool.get().await.unwrap();
    backend.next(
        Call::Open,
        [Step::after(400, Step::Err(Failure::Transient))],
    );
    let begun = Instant::now();
    let a = async { (pool.get().await.unwrap_err(), begun.elapsed()) };
    let b = async {
        let conn = pool.get().await.unwrap();
        (conn.id, begun.elapsed(), conn)
    };
    let ((error, a_after), (id, b_after, _conn)) = futures::future::join(a, b).await;
    assert!(from_opening(&error), "{error:?}");
    assert!((400 * MS..410 * MS).contains(&a_after), "{a_after:?}");
    assert!(
        b_after < 410 * MS,
        "not after its own two seconds: {b_after:?}"
    );
    assert_eq!(id, 3, "its own opening, after the one that failed");
}

#[tokio::test(start_paused = true)]
async fn with_the_backend_down_all_callers_get_the_openers_error_and_none_a_timeout() {
    let down = Step::after(200, Step::Err(Failure::Transient));
    let backend = ScriptedBackend::new().always(Call::Open, down);
    let pool = backend.pool_with(2, 0, |b| b.pool_timeout(2000 * MS));
    let begun = Instant::now();
    let errors = join_all((0..6).map(|_| pool.get())).await;
    for error in errors {
        let error = error.unwrap_err();
        assert!(from_opening(&error), "{error:?}");
    }
    assert!(begun.elapsed() < 610 * MS, "{:?}", begun.elapsed());
    // Down: newcomers get the cause at once, and one probe goes on until it succeeds.
    sleep(300 * MS).await;
    let asked = Instant::now();
    let error = pool.get().await.unwrap_err();
    assert!(
        matches!(error, GetError::Down { failures, .. } if failures >= 3),
        "{error:?}"
    );
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert!(pool.status().connecting <= 1, "{}", pool.status());
    let backend = backend.always(Call::Open, Step::Ok);
    at_rest(&pool).await;
    assert_eq!(pool.status().idle, 1, "what the probe opened is kept");
    assert_eq!(backend.live(), 1);
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_without_room_is_waited_for_while_a_connection_may_come_back() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(2, 0, |b| b.pool_timeout(2000 * MS));
    let mut events = pool.events();
    let held = pool.get().await.unwrap();
    let backend = backend.always(Call::Open, Step::Err(Failure::Full));
    let mut waiter = task::spawn(pool.get());
    assert_pending!(waiter.poll());
    sleep(1000 * MS).await;
    assert_pending!(waiter.poll(), "no failure that it should learn of");
    assert!(backend.opens() > 2, "tried again: {}", backend.opens());
    drop(held);
    assert!(waiter.is_woken(), "what comes back is its");
    let conn = waiter.await.unwrap();
    assert_eq!(conn.id, 1);
    let mut full = 0;
    while let Some(event) = events.try_next() {
        assert!(
            !matches!(event.kind, EventKind::ConnectFailed { .. }),
            "{event:?}"
        );
        full += usize::from(matches!(event.kind, EventKind::Full { open: 1, .. }));
    }
    assert!(full > 1, "{full}");

    // Its time is bounded, and the error says why nothing was opened.
    let begun = Instant::now();
    let error = pool.get().await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 2);
    let GetError::TimedOut(timed_out) = error else {
        panic!("{error:?}");
    };
    assert!(timed_out.last_connect_error.is_some());
    drop(conn);
    drop(backend.always(Call::Open, Step::Ok));
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_without_room_is_a_failure_where_nothing_can_come_back() {
    let backend = ScriptedBackend::new().always(Call::Open, Step::Err(Failure::Full));
    let pool = backend.pool_with(2, 0, |b| b.pool_timeout(2000 * MS));
    let begun = Instant::now();
    let error = pool.get().await.unwrap_err();
    assert!(from_opening(&error), "{error:?}");
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_inherits_the_opening_of_a_caller_that_left() {
    let backend = ScriptedBackend::new();
    backend.next(Call::Open, [Step::after(5000, Step::Ok)]);
    let pool = backend.pool_with(1, 0, |b| {
        b.connect_timeout(10_000 * MS).pool_timeout(1000 * MS)
    });
    let begun = Instant::now();
    let a = timeout(100 * MS, pool.get());
    let b = async {
        let conn = pool.get().await.unwrap();
        (conn.id, begun.elapsed())
    };
    let (a, (id, after)) = futures::future::join(a, b).await;
    assert!(a.is_err());
    assert_eq!(
        (id, backend.opens()),
        (1, 1),
        "what is being opened serves the next"
    );
    assert!((5000 * MS..5010 * MS).contains(&after), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn an_opening_whose_caller_left_is_finished_and_kept() {
    let backend = ScriptedBackend::new();
    let gate = Gate::new();
    backend.next(Call::Open, [Step::Slow(gate.clone())]);
    let pool = backend.pool(1, 0);
    let mut caller = task::spawn(pool.get());
    assert_pending!(caller.poll());
    gate.arrived().await;
    drop(caller);
    assert_eq!(pool.status().connecting, 1);
    gate.open();
    at_rest(&pool).await;
    assert_eq!(pool.numbers(), (1, 1, 0, 0));
    assert_eq!(pool.try_get().unwrap().id, 1);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_reaches_every_waiter_at_once() {
    let backend = ScriptedBackend::new();
    let gate = Gate::new();
    backend.next(Call::Open, [Step::Slow(gate.clone())]);
    let pool = backend.pool_with(1, 0, |b| b.pool_timeout(30_000 * MS));
    let begun = Instant::now();
    let callers = join_all((0..5).map(|_| pool.get()));
    let refusal = async {
        gate.arrived().await;
        gate.open_with(Step::Err(Failure::Permanent));
    };
    let (ends, ()) = futures::future::join(callers, refusal).await;
    for end in ends {
        assert!(from_opening(&end.unwrap_err()));
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(
        backend.opens(),
        1,
        "nothing is gained by trying again for each"
    );
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_than_max_connecting_are_opening_at_a_time() {
    let backend = ScriptedBackend::new();
    let gate = Gate::new();
    let backend = backend.always(Call::Open, Step::Slow(gate.clone()));
    let pool = backend.pool_with(10, 0, |b| b.max_connecting(3));
    let mut callers: Vec<_> = (0..10).map(|_| task::spawn(pool.get())).collect();
    for caller in &mut callers {
        assert_pending!(caller.poll());
    }
    tasks_run().await;
    assert_eq!((pool.status().connecting, backend.live()), (3, 3));
    gate.open();
    tasks_run().await;
    for caller in &mut callers {
        assert!(caller.is_woken());
    }
    assert_eq!(backend.opens(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_takes_what_is_returned_while_its_own_is_being_opened() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(2, 0);
    let c1 = pool.get().await.unwrap();
    backend.next(Call::Open, [Step::after(1000, Step::Ok)]);
    let begun = Instant::now();
    let returning = async {
        sleep(100 * MS).await;
        drop(c1);
    };
    let (got, ()) = futures::future::join(pool.get(), returning).await;
    assert_eq!(got.unwrap().id, 1);
    assert!(begun.elapsed() < 110 * MS, "{:?}", begun.elapsed());
    at_rest(&pool).await;
    assert_eq!(
        pool.numbers(),
        (2, 2, 0, 0),
        "the one that was opened is kept"
    );
}
