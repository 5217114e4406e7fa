//! What went wrong in other pools and is no rule of ours that another file tests already.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pool_core::{Failure, GetError, Health, OnCheckout};
use tokio::time::{Instant, sleep};
use tokio_test::{assert_pending, assert_ready, task};

use crate::scripted::{Call, ScriptedBackend, Step, at_rest, tasks_run};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_slot_left_empty_by_a_refused_checkout_displaces_no_live_connection() {
    let refuses = std::sync::Arc::new(AtomicBool::new(false));
    let told = std::sync::Arc::clone(&refuses);
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 1, |b| {
        b.on_checkout(move |_| {
            if told.load(Ordering::Relaxed) {
                OnCheckout::Refuse("not this one".into())
            } else {
                OnCheckout::Keep
            }
        })
    });
    let held = pool.get().await.unwrap();
    refuses.store(true, Ordering::Relaxed);
    assert!(matches!(pool.get().await, Err(GetError::Refused(Some(_)))));
    refuses.store(false, Ordering::Relaxed);
    assert_eq!(pool.numbers(), (1, 0, 0, 1));
    drop(held);
    at_rest(&pool).await;
    assert_eq!(pool.numbers(), (1, 1, 0, 0));
    assert_eq!(pool.get().await.unwrap().id, 1);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_opens_at_once_when_a_broken_connection_comes_back() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    let held = pool.get().await.unwrap();
    let mut waiter = task::spawn(pool.get());
    assert_pending!(waiter.poll());
    backend.next(Call::Back, [Step::Say(Health::Broken)]);
    drop(held);
    assert!(waiter.is_woken(), "room is free, and somebody waits for it");
    assert_pending!(waiter.poll());
    tasks_run().await;
    assert_eq!(assert_ready!(waiter.poll()).unwrap().id, 2);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_gets_a_new_connection_at_once_when_one_over_its_age_comes_back() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| b.recycle(SECOND));
    let held = pool.get().await.unwrap();
    let before = Instant::now();
    let (got, ()) = tokio::join!(pool.get(), async {
        sleep(2 * SECOND).await;
        drop(held);
    });
    assert_eq!(got.unwrap().id, 2);
    assert_eq!(before.elapsed(), 2 * SECOND);
    assert_eq!(backend.calls("close C1"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_is_served_at_once_when_all_are_invalidated_and_the_last_comes_back() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    let held = pool.get().await.unwrap();
    let before = Instant::now();
    let (got, ()) = tokio::join!(pool.get(), async {
        tasks_run().await;
        pool.invalidate_all();
        drop(held);
    });
    assert_eq!(got.unwrap().id, 2);
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(backend.calls("close C1"), 1);
}

/// However many ask, and however fast the backend refuses.
#[tokio::test(start_paused = true)]
async fn a_backend_that_is_down_is_tried_seldom() {
    let backend = ScriptedBackend::new().always(Call::Open, Step::Err(Failure::Transient));
    let pool = backend.pool_with(5, 5, |b| b.backoff(SECOND / 10, SECOND));
    let end = Instant::now() + 100 * SECOND;
    let mut refused = 0;
    while Instant::now() < end {
        assert!(pool.get().await.is_err());
        refused += 1;
        sleep(SECOND / 20).await;
    }
    // Three at once until it counts as down, then one after another with half a second between them on average.
    let opens = backend.opens();
    assert!(refused > 1_500, "{refused} were told at once");
    assert!((50..600).contains(&opens), "{opens} attempts in 100 s");
}

#[tokio::test(start_paused = true)]
async fn connections_that_do_not_close_are_given_up_side_by_side() {
    let backend = ScriptedBackend::new().always(Call::Close, Step::Never);
    let pool = backend.pool_with(10, 0, |b| b.close_timeout(5 * SECOND));
    pool.warm_up(10).await.unwrap();
    pool.invalidate_all();
    let before = Instant::now();
    let got = pool.get().await.unwrap();
    assert!((5 * SECOND..6 * SECOND).contains(&before.elapsed()));
    assert_eq!(got.id, 11);
    assert_eq!(pool.status().abandoned, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_read_while_others_come_and_go_are_never_below_zero() {
    let pool = ScriptedBackend::new().pool(3, 2);
    let (users, reader) = (pool.pool.clone(), pool.pool.clone());
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let users: Vec<_> = (0..4)
        .map(|_| {
            let (pool, done) = (users.clone(), std::sync::Arc::clone(&done));
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    drop(pool.get_owned().await.unwrap());
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for _ in 0..20_000 {
        let seen = reader.status();
        assert!(seen.idle + seen.in_use <= seen.open, "{seen}");
        assert!(seen.open + seen.connecting <= seen.capacity, "{seen}");
    }
    done.store(true, Ordering::Relaxed);
    for user in users {
        user.await.unwrap();
    }
}
