//! One cap on connections over many pools.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use pool_core::{Budget, BuildError, Builder, CloseReason, Failure, FnBackend, GetError, Pool};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};
use tokio_test::{assert_pending, task};

use crate::scripted::{Call, Gate, ScriptedBackend, Step, all_wait, at_rest, tasks_run};

const MS: Duration = Duration::from_millis(1);

type ScriptedPool = Pool<ScriptedBackend>;

fn pool_of(
    backend: &ScriptedBackend,
    budget: &Budget,
    size: usize,
    settings: impl FnOnce(Builder<ScriptedBackend>) -> Builder<ScriptedBackend>,
) -> ScriptedPool {
    let builder = Pool::builder(backend.clone())
        .pool_size(size)
        .max_overflow(0)
        .budget(budget);
    settings(builder)
        .build()
        .expect("the test's settings are good")
}

fn plain(backend: &ScriptedBackend, budget: &Budget, size: usize) -> ScriptedPool {
    pool_of(backend, budget, size, |b| b)
}

/// A waiter that holds what it gets for a while, over and over, until told to stop.
async fn load(pool: &ScriptedPool, until: Instant, served: &Mutex<u32>) {
    while Instant::now() < until {
        let conn = pool.get().await.expect("everybody is served in time");
        *served.lock() += 1;
        sleep(Duration::from_millis(fastrand::u64(1..10))).await;
        drop(conn);
        if fastrand::u8(..) < 40 {
            sleep(Duration::from_millis(fastrand::u64(1..30))).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn three_pools_under_random_load_never_have_more_than_the_budget() {
    let (backend, budget) = (ScriptedBackend::new(), Budget::new(5));
    let pools: Vec<_> = (0..3).map(|_| plain(&backend, &budget, 4)).collect();
    let until = Instant::now() + Duration::from_secs(5);
    let served: Vec<_> = pools.iter().map(|_| Mutex::new(0)).collect();
    let all = pools.iter().zip(&served);
    join_all(all.flat_map(|(pool, served)| (0..6).map(move |_| load(pool, until, served)))).await;
    assert!(backend.most_live() <= 5, "{} at once", backend.most_live());
    for served in served {
        assert!(served.into_inner() > 200, "each pool has its share");
    }
    for pool in &pools {
        at_rest(pool).await;
    }
    let open: usize = pools.iter().map(|pool| pool.status().open).sum();
    let status = budget.status();
    assert_eq!((status.free, status.starving), (5 - open, 0));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_of_a_rich_pool_yields_to_anothers_waiter() {
    let (backend, budget) = (ScriptedBackend::new(), Budget::new(3));
    let (rich, poor) = (plain(&backend, &budget, 3), plain(&backend, &budget, 3));
    rich.warm_up(3).await.unwrap();
    let begun = Instant::now();
    let conn = poor.get().await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!((conn.id, rich.status().open), (4, 2), "one, and no more");
    assert_eq!(rich.stats().closed.by(CloseReason::Yielded), 1);
    assert_eq!(backend.most_live(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_rich_pools_return_goes_to_a_starving_one_although_its_own_callers_wait() {
    let (backend, budget) = (ScriptedBackend::new(), Budget::new(4));
    // It could open more than it has, so it starves as well.
    let (rich, poor) = (plain(&backend, &budget, 10), plain(&backend, &budget, 10));
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(rich.get().await.unwrap());
    }
    let mut own: Vec<_> = (0..3).map(|_| task::spawn(rich.get())).collect();
    all_wait(&mut own);
    let mut starving = task::spawn(poor.get());
    assert_pending!(starving.poll());
    drop(held.pop());
    tasks_run().await;
    assert!(starving.is_woken(), "{budget:?} {}", rich.status());
    let conn = timeout(MS, starving).await.expect("the room is its own");
    drop(conn.unwrap());
    assert_eq!(backend.most_live(), 4);
}

#[tokio::test(start_paused = true)]
async fn shares_follow_the_weights_when_all_want_more_than_there_is() {
    let (backend, budget) = (ScriptedBackend::new(), Budget::new(8));
    let heavy = pool_of(&backend, &budget, 8, |b| b.budget_weight(3));
    let light = plain(&backend, &budget, 8);
    let until = Instant::now() + Duration::from_secs(2);
    let hungry = |pool: ScriptedPool| async move {
        while Instant::now() < until {
            let conn = pool.get().await.expect("served in time");
            sleep(5 * MS).await;
            drop(conn);
        }
    };
    let watch = async {
        sleep(Duration::from_secs(1)).await;
        let mut sums = (0, 0);
        for _ in 0..100 {
            sleep(7 * MS).await;
            sums.0 += heavy.status().open;
            sums.1 += light.status().open;
        }
        sums
    };
    let tasks = (0..24).map(|n| {
        hungry(if n % 2 == 0 {
            heavy.clone()
        } else {
            light.clone()
        })
    });
    let (sums, _) = futures::future::join(watch, join_all(tasks)).await;
    let share =
        f64::from(u32::try_from(sums.0).unwrap()) / f64::from(u32::try_from(sums.1).unwrap());
    assert!(
        (2.0..4.5).contains(&share),
        "three to one, not {share} ({sums:?})"
    );
    let opened = heavy.stats().opened + light.stats().opened;
    assert!(
        opened < 200,
        "who has its share keeps its connections: {opened} opened"
    );
}

#[tokio::test(start_paused = true)]
async fn the_room_of_a_pool_that_is_down_serves_another() {
    let (dead, budget) = (ScriptedBackend::new(), Budget::new(1));
    let dead = dead.always(Call::Open, Step::Err(Failure::Transient));
    let (down, up) = (
        plain(&dead, &budget, 1),
        plain(&ScriptedBackend::new(), &budget, 1),
    );
    while !matches!(down.get().await, Err(GetError::Down { .. })) {}
    let conn = timeout(Duration::from_secs(10), up.get()).await;
    assert_eq!(conn.expect("a probe that rests gives way").unwrap().id, 1);
    assert!(down.get().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_leaves_gives_up_its_place() {
    let (backend, budget) = (ScriptedBackend::new(), Budget::new(1));
    let pools: Vec<_> = (0..3).map(|_| plain(&backend, &budget, 1)).collect();
    let held = pools[0].get().await.unwrap();
    let mut second = task::spawn(pools[1].get());
    let mut third = task::spawn(pools[2].get());
    assert_pending!(second.poll());
    assert_pending!(third.poll());
    assert_eq!(budget.status().starving, 2);
    drop(second);
    assert_eq!(budget.status().starving, 1);
    drop(held);
    tasks_run().await;
    assert!(third.is_woken());
    assert_eq!(timeout(MS, third).await.unwrap().unwrap().id, 2);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_leaves_with_its_room_granted_hands_it_on() {
    let (backend, budget) = (ScriptedBackend::new(), Budget::new(1));
    let pools: Vec<_> = (0..3).map(|_| plain(&backend, &budget, 1)).collect();
    let held = pools[0].get().await.unwrap();
    let mut second = task::spawn(pools[1].get());
    let mut third = task::spawn(pools[2].get());
    assert_pending!(second.poll());
    assert_pending!(third.poll());
    drop(held);
    while !second.is_woken() {
        yield_now().await;
    }
    drop(second); // It was told that there is room, and goes without looking.
    tasks_run().await;
    assert!(third.is_woken());
    assert_eq!(timeout(MS, third).await.unwrap().unwrap().id, 2);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_whose_time_is_over_gives_up_its_place() {
    let (backend, budget) = (ScriptedBackend::new(), Budget::new(1));
    let first = plain(&backend, &budget, 1);
    let second = pool_of(&backend, &budget, 1, |b| b.pool_timeout(50 * MS));
    let held = first.get().await.unwrap();
    assert!(matches!(second.get().await, Err(GetError::TimedOut(_))));
    assert_eq!((budget.status().starving, first.status().idle), (0, 0));
    drop(held);
    tasks_run().await;
    assert_eq!(first.status().idle, 1, "nobody wants it any more");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_pool_gives_everything_back() {
    let (backend, budget) = (ScriptedBackend::new(), Budget::new(3));
    let pool = plain(&backend, &budget, 3);
    let held = pool.get_owned().await.unwrap();
    drop(pool.get().await.unwrap());
    drop(pool);
    tasks_run().await;
    assert_eq!(
        (budget.status().free, budget.status().pools),
        (2, 1),
        "one is still in use"
    );
    drop(held);
    tasks_run().await;
    let status = budget.status();
    assert_eq!((status.free, status.pools, status.starving), (3, 0, 0));
}

#[test]
fn a_pool_whose_runtime_is_gone_gives_everything_back_when_it_is_dropped() {
    let budget = Budget::new(2);
    let pool = plain(&ScriptedBackend::new(), &budget, 2);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let held = runtime.block_on(async {
        drop(pool.get().await.unwrap());
        pool.warm_up(2).await.unwrap();
        pool.get_owned().await.unwrap()
    });
    drop(runtime);
    drop(pool);
    assert_eq!(budget.status().free, 1);
    drop(held);
    assert_eq!((budget.status().free, budget.status().pools), (2, 0));
}

/// Uses another pool of the same budget when it is dropped.
struct Entangled(Arc<Mutex<Option<ScriptedPool>>>);

impl Drop for Entangled {
    fn drop(&mut self) {
        let other = self.0.lock().clone();
        let Some(other) = other else { return };
        drop(other.try_get());
        let mut get = task::spawn(other.get_owned());
        let _ = get.poll(); // Joins the queue, or takes what there is; and leaves.
    }
}

#[tokio::test(start_paused = true)]
async fn a_destructor_may_use_another_pool_of_the_same_budget() {
    let (backend, budget) = (ScriptedBackend::new(), Budget::new(2));
    let other = Arc::new(Mutex::new(None));
    let entangled = {
        let other = Arc::clone(&other);
        FnBackend::new(move || {
            let other = Arc::clone(&other);
            async move { Ok::<_, std::convert::Infallible>(Entangled(other)) }
        })
    };
    let first = Pool::builder(entangled)
        .pool_size(2)
        .max_overflow(0)
        .budget(&budget)
        .build()
        .unwrap();
    let second = plain(&backend, &budget, 2);
    *other.lock() = Some(second.clone());
    for _ in 0..20 {
        let (one, two) = (first.get().await.unwrap(), first.get().await.unwrap());
        let mut waiter = task::spawn(second.get());
        assert_pending!(waiter.poll());
        drop(one);
        let conn = timeout(100 * MS, waiter)
            .await
            .expect("no deadlock, and its turn");
        two.invalidate();
        drop(conn.unwrap());
        tasks_run().await;
    }
    *other.lock() = None;
    drop((first, second));
    tasks_run().await;
    assert_eq!(budget.status().free, 2);
}

#[test]
fn min_idle_beyond_the_budget_is_refused_by_name() {
    let (backend, budget) = (ScriptedBackend::new(), Budget::new(5));
    let builder = || Pool::builder(backend.clone()).budget(&budget);
    let first = builder().min_idle(3).build().unwrap();
    let error = builder().min_idle(3).build().unwrap_err();
    let expected = BuildError::BudgetTooSmall {
        promised: 6,
        budget: 5,
    };
    assert_eq!(error, expected);
    let text = error.to_string();
    for part in [
        "min_idle",
        "adds up to 6",
        "only 5 connections",
        "enlarge the budget",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(builder().build().is_ok(), "who promises nothing may come");
    drop(first);
    assert!(
        builder().min_idle(3).build().is_ok(),
        "what was promised comes free with its pool"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_ready_is_not_taken_for_another_pools_waiter() {
    let (backend, budget) = (ScriptedBackend::new(), Budget::new(3));
    let ready = pool_of(&backend, &budget, 2, |b| b.min_idle(2));
    let other = pool_of(&backend, &budget, 3, |b| b.pool_timeout(50 * MS));
    ready.warm_up(2).await.unwrap();
    let _held = other.get().await.unwrap();
    assert!(matches!(other.get().await, Err(GetError::TimedOut(_))));
    assert_eq!(ready.status().idle, 2);
}

#[tokio::test(start_paused = true)]
async fn a_hung_connect_of_one_pool_costs_the_others_only_its_own_room() {
    let (backend, budget) = (ScriptedBackend::new(), Budget::new(2));
    let gate = Gate::new();
    backend.next(Call::Open, [Step::Slow(gate.clone())]);
    let (hung, other) = (plain(&backend, &budget, 2), plain(&backend, &budget, 2));
    let mut waiter = task::spawn(hung.get());
    assert_pending!(waiter.poll());
    gate.arrived().await;
    for _ in 0..10 {
        drop(other.get().await.unwrap());
    }
    assert!(matches!(other.get_owned().await, Ok(conn) if conn.id == 2));
    gate.open();
    assert_eq!(waiter.await.unwrap().id, 1);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_pool_wants_nothing_of_the_budget() {
    let (backend, budget) = (ScriptedBackend::new(), Budget::new(1));
    let (first, second) = (plain(&backend, &budget, 1), plain(&backend, &budget, 1));
    drop(first.get().await.unwrap());
    second.suspend();
    let mut waiter = task::spawn(second.get());
    assert_pending!(waiter.poll());
    tasks_run().await;
    assert_eq!((first.status().idle, budget.status().starving), (1, 0));
    second.resume();
    assert!(waiter.is_woken());
    assert_eq!(timeout(MS, waiter).await.unwrap().unwrap().id, 2);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_pools_idle_connection_yields_too() {
    let (backend, budget) = (ScriptedBackend::new(), Budget::new(1));
    let (first, second) = (plain(&backend, &budget, 1), plain(&backend, &budget, 1));
    drop(first.get().await.unwrap());
    first.suspend();
    assert_eq!(timeout(MS, second.get()).await.unwrap().unwrap().id, 2);
    first.resume();
    assert_eq!(timeout(MS, first.get()).await.unwrap().unwrap().id, 3);
}

#[test]
fn ten_thousand_pools_under_a_budget_of_fifty_are_all_served() {
    let (backend, budget) = (ScriptedBackend::new(), Budget::new(50));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let pools: Vec<_> = (0..10_000).map(|_| plain(&backend, &budget, 2)).collect();
    runtime.block_on(async {
        join_all(pools.iter().map(|pool| async {
            for _ in 0..fastrand::u32(1..=2) {
                let conn = pool.get().await.expect("served within pool_timeout");
                yield_now().await;
                drop(conn);
            }
        }))
        .await;
    });
    assert!(backend.most_live() <= 50, "{} at once", backend.most_live());
    assert_eq!(budget.status().starving, 0);
    drop(pools);
    runtime.block_on(async {
        for _ in 0..1_000 {
            tasks_run().await;
            if budget.status().pools == 0 {
                return;
            }
        }
    });
    assert_eq!((budget.status().free, budget.status().pools), (50, 0));
}
