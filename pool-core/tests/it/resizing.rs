//! Warming a pool up, and changing its limits while it is in use.

use std::time::Duration;

use futures::future::{join, join_all};
use pool_core::{BuildError, CloseReason, Failure, GetError, Pool, TimeSource};
use tokio::time::{Instant, sleep, timeout};
use tokio_test::{assert_pending, task};

use crate::scripted::{
    Call, Gate, ScriptedBackend, Step, all_wait, at_rest, from_opening, tasks_run, timed_out,
};

const MS: Duration = Duration::from_millis(1);

/// A pool that is not held to the capacity that it has at its end.
fn pool(backend: &ScriptedBackend, size: usize, overflow: usize) -> Pool<ScriptedBackend> {
    Pool::builder(backend.clone())
        .pool_size(size)
        .max_overflow(overflow)
        .time_source(TimeSource::Exact)
        .build()
        .unwrap()
}

// ---- warming up ----

#[tokio::test(start_paused = true)]
async fn warming_up_opens_as_many_at_a_time_as_max_connecting_says() {
    let backend = ScriptedBackend::new().always(Call::Open, Step::after(100, Step::Ok));
    let pool = backend.pool_with(10, 0, |b| b.max_connecting(3));
    let begun = Instant::now();
    let watch = async {
        let mut most = 0;
        while pool.status().open < 9 {
            most = most.max(pool.status().connecting);
            sleep(10 * MS).await;
        }
        most
    };
    let (warm, most) = join(pool.warm_up(9), watch).await;
    warm.unwrap();
    assert_eq!(most, 3);
    let took = begun.elapsed();
    assert!((300 * MS..320 * MS).contains(&took), "{took:?}");
    assert_eq!(pool.numbers(), (10, 9, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn warming_up_is_clamped_to_pool_size_and_counts_what_is_there() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(3, 5);
    let _held = pool.get().await.unwrap();
    pool.warm_up(usize::MAX).await.unwrap();
    assert_eq!((pool.numbers(), backend.opens()), ((3, 2, 0, 1), 3));
    pool.warm_up(3).await.unwrap();
    assert_eq!(backend.opens(), 3);
}

#[tokio::test(start_paused = true)]
async fn warming_up_fails_with_the_first_connect_that_fails_and_keeps_what_it_has() {
    let backend = ScriptedBackend::new();
    backend.next(
        Call::Open,
        [Step::Ok, Step::after(50, Step::Err(Failure::Transient))],
    );
    let pool = backend.pool(3, 0);
    let error = timeout(60 * MS, pool.warm_up(3))
        .await
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, GetError::Connect(_)) && from_opening(&error));
    assert_eq!(pool.status().idle, 2);
}

#[tokio::test(start_paused = true)]
async fn warming_up_waits_for_the_room_of_what_is_being_closed() {
    let backend = ScriptedBackend::new().always(Call::Close, Step::after(100, Step::Ok));
    let pool = backend.pool(2, 0);
    pool.warm_up(2).await.unwrap();
    pool.invalidate_all();
    let begun = Instant::now();
    pool.warm_up(2).await.unwrap();
    let took = begun.elapsed();
    assert!((100 * MS..120 * MS).contains(&took), "{took:?}");
    assert_eq!((pool.status().idle, backend.opens()), (2, 4));
}

#[tokio::test(start_paused = true)]
async fn warming_up_a_closed_pool_says_so_and_a_hung_one_times_out() {
    let backend = ScriptedBackend::new().always(Call::Open, Step::Never);
    let pool = backend.pool_with(1, 0, |b| b.pool_timeout(100 * MS));
    timed_out(pool.warm_up(1).await.unwrap_err());
    let (warm, _) = join(pool.warm_up(1), async { pool.close_now() }).await;
    assert!(matches!(warm, Err(GetError::Closed)));
    assert!(matches!(pool.warm_up(1).await, Err(GetError::Closed)));
}

// ---- resizing ----

#[tokio::test(start_paused = true)]
async fn growing_serves_those_who_wait_at_once() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    let _held = pool.get().await.unwrap();
    let mut waiters: Vec<_> = (0..5).map(|_| task::spawn(pool.get())).collect();
    all_wait(&mut waiters);
    pool.resize(2, 2).unwrap();
    assert!(
        waiters[0].is_woken(),
        "the first is told, and opens for all"
    );
    let begun = Instant::now();
    let last = waiters.split_off(3);
    let served = join_all(waiters).await;
    let ids: Vec<_> = served
        .iter()
        .map(|conn| conn.as_ref().unwrap().id)
        .collect();
    assert_eq!((ids, begun.elapsed()), (vec![2, 3, 4], Duration::ZERO));
    assert_eq!((pool.numbers(), pool.status().capacity), ((2, 0, 2, 4), 4));
    assert_eq!(pool.status().waiting, 2);
    drop((served, last));
}

#[tokio::test(start_paused = true)]
async fn shrinking_closes_the_idle_now_and_those_in_use_when_they_come_back() {
    let backend = ScriptedBackend::new();
    let pool = pool(&backend, 6, 0);
    pool.warm_up(6).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(pool.get().await.unwrap());
    }
    pool.resize(2, 0).unwrap();
    at_rest(&pool).await;
    assert_eq!((pool.status().idle, pool.status().in_use), (0, 4));
    held.truncate(2);
    at_rest(&pool).await;
    assert_eq!((pool.status().idle, pool.status().in_use), (0, 2));
    drop(held);
    at_rest(&pool).await;
    assert_eq!((pool.status().idle, pool.status().open), (2, 2));
    let stats = pool.stats();
    assert_eq!(stats.closed.by(CloseReason::Resized), 4);
    assert_eq!(stats.closed.total(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_to_a_pool_made_smaller_serves_nobody_until_it_fits() {
    let backend = ScriptedBackend::new();
    let pool = pool(&backend, 3, 0);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pool.get().await.unwrap());
    }
    pool.resize(1, 0).unwrap();
    let mut waiter = task::spawn(pool.get());
    assert_pending!(waiter.poll());
    held.truncate(1);
    tasks_run().await;
    assert!(!waiter.is_woken() && backend.opens() == 3);
    let first = held[0].id;
    drop(held);
    assert_eq!(waiter.await.unwrap().id, first);
    at_rest(&pool).await;
    assert_eq!(pool.status().open, 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_being_opened_when_the_pool_was_made_smaller_is_not_kept() {
    let backend = ScriptedBackend::new();
    let gate = Gate::new();
    backend.next(
        Call::Open,
        [Step::Ok, Step::Slow(gate.clone()), Step::Slow(gate.clone())],
    );
    let pool = pool(&backend, 3, 0);
    let held = pool.get().await.unwrap();
    let mut waiters = [task::spawn(pool.get()), task::spawn(pool.get())];
    all_wait(&mut waiters);
    gate.arrived().await;
    gate.arrived().await;
    pool.resize(1, 0).unwrap();
    gate.open();
    at_rest(&pool).await;
    assert_eq!(pool.status().open, 1, "{}", pool.status());
    let [one, two] = waiters;
    drop(held);
    drop(timeout(MS, one).await.unwrap().unwrap());
    drop(timeout(MS, two).await.unwrap().unwrap());
    assert_eq!(pool.status().open, 1);
}

#[tokio::test(start_paused = true)]
async fn resizing_down_and_up_again_never_lets_more_out_than_the_larger() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(10, 0);
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(pool.get_owned().await.unwrap());
    }
    pool.resize(5, 0).unwrap();
    held.truncate(7);
    pool.resize(10, 0).unwrap();
    let mut waiters: Vec<_> = (0..20).map(|_| task::spawn(pool.get_owned())).collect();
    all_wait(&mut waiters);
    at_rest(&pool).await;
    let served = waiters.iter().filter(|waiter| waiter.is_woken()).count();
    assert_eq!((served, pool.status().in_use), (3, 10));
    assert_eq!(backend.most_live(), 10);
    drop(waiters);
    drop(held);
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn resizing_over_and_over_under_load_loses_no_room_and_exceeds_none() {
    let backend = ScriptedBackend::new();
    let pool = pool(&backend, 8, 0);
    let until = Instant::now() + Duration::from_secs(3);
    let users = (0..24).map(|_| async {
        while Instant::now() < until {
            let conn = pool.get().await.unwrap();
            sleep(Duration::from_millis(fastrand::u64(1..8))).await;
            drop(conn);
        }
    });
    let resizing = async {
        while Instant::now() < until {
            let (size, overflow) = (fastrand::usize(1..=8), fastrand::usize(0..=4));
            pool.resize(size, overflow).unwrap();
            sleep(Duration::from_millis(fastrand::u64(1..20))).await;
        }
        pool.resize(3, 1).unwrap();
    };
    join(join_all(users), resizing).await;
    assert!(backend.most_live() <= 12, "{}", backend.most_live());
    at_rest(&pool).await;
    let status = pool.status();
    assert!(status.idle <= 3 && status.open == status.idle, "{status}");
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(
            timeout(MS, pool.get())
                .await
                .expect("the full capacity")
                .unwrap(),
        );
    }
    assert!(pool.try_get().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_looks_at_the_pool_is_woken_without_a_lock() {
    use std::sync::Arc;
    use std::task::{Context, Wake, Waker};
    struct Looks(Pool<ScriptedBackend>);
    impl Wake for Looks {
        fn wake(self: Arc<Self>) {
            assert_eq!(self.0.status().capacity, 2);
        }
    }
    let pool = pool(&ScriptedBackend::new(), 1, 0);
    let held = pool.get().await.unwrap();
    let mut waiter = std::pin::pin!(pool.get());
    let waker = Waker::from(Arc::new(Looks(pool.clone())));
    assert!(
        waiter
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    pool.resize(2, 0).unwrap();
    drop(held);
    assert!(waiter.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn impossible_sizes_are_refused_and_change_nothing() {
    let pool = ScriptedBackend::new().pool_with(4, 2, |b| b.min_idle(2));
    assert_eq!(pool.resize(0, 0), Err(BuildError::NoCapacity));
    let too_many = pool.resize(usize::MAX, usize::MAX);
    assert!(matches!(too_many, Err(BuildError::TooMany { .. })));
    let min_idle = BuildError::MinIdle {
        min_idle: 2,
        pool_size: 1,
    };
    assert_eq!(pool.resize(1, 5), Err(min_idle));
    assert_eq!((pool.status().size, pool.status().capacity), (4, 6));
}

#[tokio::test(start_paused = true)]
async fn with_overflow_a_size_of_zero_is_fine_and_keeps_nothing() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(2, 0);
    pool.warm_up(2).await.unwrap();
    pool.resize(0, 2).unwrap();
    at_rest(&pool).await;
    assert_eq!(pool.status().open, 0);
    drop(pool.get().await.unwrap());
    at_rest(&pool).await;
    assert_eq!(pool.status().open, 0);
}
