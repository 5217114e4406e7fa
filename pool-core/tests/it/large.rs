//! Pools of several words: all taken, all waiting served, trimmed on return. And how large a `get` is.

use futures::future::join_all;
use tokio_test::{assert_pending, task};

use crate::scripted::{ScriptedBackend, at_rest, tasks_run};

async fn taken_waited_for_and_trimmed(size: usize, overflow: usize) {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(size, overflow);
    let capacity = size + overflow;
    let held: Vec<_> = join_all((0..capacity).map(|_| pool.get())).await;
    let held: Vec<_> = held.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        (pool.numbers(), backend.live()),
        ((size, 0, overflow, capacity), capacity)
    );
    let mut ids: Vec<_> = held.iter().map(|conn| conn.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), capacity, "no connection is held twice");

    let mut waiters: Vec<_> = (0..capacity).map(|_| task::spawn(pool.get())).collect();
    for waiter in &mut waiters {
        assert_pending!(waiter.poll());
    }
    let mut next = waiters.iter_mut();
    for conn in held {
        drop(conn);
        assert!(
            next.next().unwrap().is_woken(),
            "each return serves the first in the queue"
        );
    }
    let held: Vec<_> = join_all(waiters).await;
    assert!(held.iter().all(Result::is_ok));
    assert_eq!(
        (pool.numbers().3, backend.opens() as usize),
        (capacity, capacity)
    );

    let mut returned = 0;
    for conn in held {
        drop(conn);
        returned += 1;
        assert_eq!(
            pool.status().idle,
            returned.min(size),
            "after {returned} returns"
        );
    }
    at_rest(&pool).await;
    assert_eq!((pool.numbers(), backend.live()), ((size, size, 0, 0), size));
    assert_eq!(backend.calls("close"), overflow);
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_of_a_hundred_and_fifty_slots_is_taken_waited_for_and_trimmed() {
    taken_waited_for_and_trimmed(100, 50).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_of_a_thousand_and_two_hundred_slots_is_taken_waited_for_and_trimmed() {
    taken_waited_for_and_trimmed(1_000, 200).await;
}

#[tokio::test(start_paused = true)]
async fn in_a_pool_of_several_words_without_overflow_each_return_serves_the_queue() {
    taken_waited_for_and_trimmed(300, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_of_many_words_without_overflow_keeps_all() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(300, 0);
    drop(join_all((0..300).map(|_| pool.get())).await);
    tasks_run().await;
    assert_eq!(
        (pool.numbers(), backend.calls("close")),
        ((300, 300, 0, 0), 0)
    );
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_get_stays_small_however_large_the_pool() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1_000, 200);
    drop(join_all((0..200).map(|_| pool.get())).await);
    let (borrowed, owned) = (pool.get(), pool.get_owned());
    assert!(size_of_val(&borrowed) < 1024, "{}", size_of_val(&borrowed));
    assert!(size_of_val(&owned) < 1024, "{}", size_of_val(&owned));
    assert!(size_of_val(&pool.try_get()) <= 64);
    drop((borrowed.await, owned.await));
}
