//! Waiting for a connection: who is served, in which order, and how long it may take.

use std::time::Duration;

use futures::future::join_all;
use pool_core::{ConnectError, Failure, GetError, PrePing};
use tokio::time::{Instant, advance, timeout};
use tokio_test::{assert_pending, assert_ready, task};

use crate::scripted::{Call, ScriptedBackend, Step, at_rest, from_opening, tasks_run, timed_out};

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn the_second_caller_of_a_full_pool_fails_after_pool_timeout() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| b.pool_timeout(200 * MS));
    let _held = pool.get().await.unwrap();
    let begun = Instant::now();
    let error = timed_out(pool.get().await.unwrap_err());
    assert!(
        (200 * MS..210 * MS).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        (200 * MS..210 * MS).contains(&error.waited),
        "{:?}",
        error.waited
    );
    assert_eq!(pool.numbers(), (1, 0, 0, 1));
    assert_eq!(pool.status().waiting, 0);
    assert_eq!(backend.opens(), 1);
}

#[tokio::test(start_paused = true)]
async fn with_timeout_zero_and_nothing_idle_a_caller_fails_at_once() {
    let pool = ScriptedBackend::new().pool_with(1, 0, |b| b.pool_timeout(Duration::ZERO));
    let _held = pool.get().await.unwrap();
    let begun = Instant::now();
    let error = timed_out(pool.get().await.unwrap_err());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(error.seen.in_use, 1);
}

#[tokio::test(start_paused = true)]
async fn with_timeout_zero_an_idle_connection_is_never_refused() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| {
        b.pool_timeout(Duration::ZERO).pre_ping(PrePing::Always)
    });
    drop(pool.get().await.unwrap());
    assert_eq!(pool.get().await.unwrap().id, 1);
    // Not even when it turns out dead: the caller had its turn, and gets what replaces it.
    backend.next(Call::Ping, [Step::Err(Failure::Transient)]);
    assert_eq!(pool.get().await.unwrap().id, 2);
}

#[tokio::test(start_paused = true)]
async fn with_timeout_zero_a_caller_whose_connection_is_too_old_gets_what_replaces_it() {
    let backend = ScriptedBackend::new().always(Call::Close, Step::after(300, Step::Ok));
    let pool = backend.pool_with(1, 0, |b| b.pool_timeout(Duration::ZERO).recycle(1000 * MS));
    drop(pool.get().await.unwrap());
    advance(2000 * MS).await;
    assert_eq!(
        pool.get().await.unwrap().id,
        2,
        "the room is its own, once the old one is closed"
    );
}

#[tokio::test(start_paused = true)]
async fn with_timeout_zero_a_caller_opens_where_there_is_room() {
    let backend = ScriptedBackend::new().always(Call::Open, Step::after(700, Step::Ok));
    let pool = backend.pool_with(1, 1, |b| b.pool_timeout(Duration::ZERO));
    let _one = pool.get().await.unwrap();
    let _two = pool.get().await.unwrap();
    assert!(matches!(pool.get().await, Err(GetError::TimedOut(_))));
}

#[tokio::test(start_paused = true)]
async fn without_a_timeout_a_caller_waits_for_ever() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| b.pool_timeout(None));
    let held = pool.get().await.unwrap();
    let mut waiter = task::spawn(pool.get());
    assert_pending!(waiter.poll());
    advance(Duration::from_hours(8760)).await;
    tasks_run().await;
    assert_pending!(waiter.poll());
    drop(held);
    assert!(waiter.is_woken());
    assert_eq!(assert_ready!(waiter.poll()).unwrap().id, 1);
    assert_eq!(backend.opens(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_returns_back_to_back_serve_two_waiters_at_once_and_close_nothing() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 1, |b| b.pool_timeout(1000 * MS));
    let (c1, c2) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let mut first = task::spawn(pool.get());
    let mut second = task::spawn(pool.get());
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    drop((c1, c2));
    let first = assert_ready!(first.poll()).unwrap();
    let second = assert_ready!(second.poll()).unwrap();
    assert_eq!((first.id, second.id), (1, 2));
    tasks_run().await;
    assert_eq!(backend.log(), ["open C1", "open C2"]);
}

#[tokio::test(start_paused = true)]
async fn five_waiters_are_served_in_the_order_of_their_arrival() {
    let pool = ScriptedBackend::new().pool(1, 0);
    let mut held = Some(pool.get().await.unwrap());
    let mut waiters: Vec<_> = (0..5).map(|_| task::spawn(pool.get())).collect();
    for waiter in &mut waiters {
        assert_pending!(waiter.poll());
    }
    for turn in 0..waiters.len() {
        drop(held.take());
        for later in &mut waiters[turn + 1..] {
            assert!(!later.is_woken(), "only the first in the queue is told");
            assert_pending!(later.poll());
        }
        held = Some(assert_ready!(waiters[turn].poll()).unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_returns_and_takes_again_queues_behind_those_who_wait() {
    let pool = ScriptedBackend::new().pool(1, 0);
    let held = pool.get().await.unwrap();
    let mut waiter = task::spawn(pool.get());
    assert_pending!(waiter.poll());
    drop(held);
    assert!(pool.try_get().is_none(), "it is handed over already");
    let mut again = task::spawn(pool.get());
    assert_pending!(again.poll());
    let served = assert_ready!(waiter.poll()).unwrap();
    assert_pending!(again.poll());
    drop(served);
    assert!(assert_ready!(again.poll()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn pool_timeout_covers_the_wait_and_not_the_opening() {
    let backend = ScriptedBackend::new().always(Call::Open, Step::after(1000, Step::Ok));
    let pool = backend.pool_with(1, 0, |b| b.pool_timeout(500 * MS));
    let begun = Instant::now();
    let _held = pool.get().await.unwrap();
    assert!(
        (1000 * MS..1010 * MS).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn opening_has_a_timeout_of_its_own() {
    let backend = ScriptedBackend::new();
    backend.next(Call::Open, [Step::Never]);
    let pool = backend.pool_with(1, 0, |b| {
        b.connect_timeout(3000 * MS).pool_timeout(500 * MS)
    });
    let begun = Instant::now();
    let error = pool.get().await.unwrap_err();
    assert!(
        matches!(error, GetError::Connect(ConnectError::TimedOut(limit)) if limit == 3000 * MS)
    );
    assert!(
        (3000 * MS..3010 * MS).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn pinging_has_a_timeout_of_its_own() {
    let backend = ScriptedBackend::new();
    backend.next(Call::Ping, [Step::Never]);
    let pool = backend.pool_with(1, 0, |b| {
        b.pre_ping(PrePing::Always)
            .ping_timeout(700 * MS)
            .pool_timeout(500 * MS)
    });
    drop(pool.get().await.unwrap());
    let begun = Instant::now();
    assert_eq!(
        pool.get().await.unwrap().id,
        2,
        "what does not answer is replaced"
    );
    assert!(
        (700 * MS..710 * MS).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_waiter_leaves_no_trace() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    let held = pool.get().await.unwrap();
    assert!(timeout(100 * MS, pool.get()).await.is_err());
    assert_eq!(pool.numbers(), (1, 0, 0, 1));
    assert_eq!(pool.status().waiting, 0);
    drop(held);
    assert_eq!(pool.get().await.unwrap().id, 1);
    assert_eq!(backend.opens(), 1);
}

#[tokio::test(start_paused = true)]
async fn waiters_that_inherit_a_slot_get_the_openers_error_each_and_no_timeout() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| b.pool_timeout(30_000 * MS));
    let held = pool.get().await.unwrap();
    let backend = backend.always(Call::Open, Step::Err(Failure::Transient));
    let begun = Instant::now();
    let ends = join_all((0..3).map(async |_| {
        let error = pool.get().await.unwrap_err();
        (error, begun.elapsed())
    }));
    let holder = async {
        tokio::time::sleep(200 * MS).await;
        held.invalidate();
    };
    let (ends, ()) = futures::future::join(ends, holder).await;
    for (error, after) in &ends {
        assert!(from_opening(error), "{error:?}");
        // The first failure at once; a short pause begins with the second.
        assert!((200 * MS..310 * MS).contains(after), "{after:?}");
    }
    assert!(
        ends[0].1 < 210 * MS,
        "the first learns at once, not after {:?}",
        ends[0].1
    );
    drop(backend.always(Call::Open, Step::Ok));
    at_rest(&pool).await;
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn callers_are_served_while_one_opening_hangs() {
    let backend = ScriptedBackend::new();
    let hanging = Step::after(2000, Step::Ok);
    backend.next(Call::Open, [Step::Ok, Step::Ok, hanging]);
    let pool = backend.pool(2, 3);
    let callers = (0..5).map(|number| {
        let pool = &pool;
        async move {
            tokio::time::sleep(number * 200 * MS).await;
            let asked = Instant::now();
            let conn = pool.get().await.unwrap();
            (asked.elapsed(), conn)
        }
    });
    let served = join_all(callers).await;
    let waited: Vec<_> = served.iter().map(|(waited, _)| *waited).collect();
    // The third takes what the fourth has opened, and so on: only the last waits for the one that hangs.
    assert!(
        waited[..2].iter().all(|waited| *waited < 10 * MS),
        "{waited:?}"
    );
    assert!(
        waited[2..4].iter().all(|waited| *waited < 210 * MS),
        "{waited:?}"
    );
    assert!(waited[4] < 1700 * MS, "{waited:?}");
    assert_eq!(backend.opens(), 5);
}
