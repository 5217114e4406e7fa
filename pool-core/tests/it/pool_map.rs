//! One pool for each key.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use pool_core::{Budget, BuildError, GetError, Pool, PoolMap};
use tokio_test::{assert_pending, task};

use crate::scripted::{ScriptedBackend, tasks_run};

type Backends = Arc<Mutex<HashMap<u32, ScriptedBackend>>>;

/// A map, the backends of its pools, and how many were built.
fn map(most: usize) -> (PoolMap<u32, ScriptedBackend>, Backends, Arc<AtomicUsize>) {
    let (backends, built) = (Backends::default(), Arc::new(AtomicUsize::new(0)));
    let made = (Arc::clone(&backends), Arc::clone(&built));
    let map = PoolMap::new(move |key| {
        made.1.fetch_add(1, Ordering::SeqCst);
        let backend = ScriptedBackend::new();
        made.0.lock().insert(*key, backend.clone());
        Pool::builder(backend).pool_size(2).max_overflow(0)
    });
    (map.max_pools(most), backends, built)
}

fn keys(map: &PoolMap<u32, ScriptedBackend>) -> Vec<u32> {
    let mut keys: Vec<_> = map.snapshot().into_iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn concurrent_first_users_of_one_key_build_one_pool() {
    let (map, _, built) = map(10);
    let barrier = Barrier::new(8);
    let threads: Vec<_> = std::thread::scope(|scope| {
        let users: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    std::ptr::from_ref(map.pool(&7).unwrap().backend()) as usize
                })
            })
            .collect();
        users.into_iter().map(|user| user.join().unwrap()).collect()
    });
    assert!(threads.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!((built.load(Ordering::SeqCst), map.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_pools_keep_their_times_together_and_their_counts_apart() {
    let (map, _, _) = map(10);
    for (key, cycles) in [(1, 3), (2, 5)] {
        let pool = map.pool(&key).unwrap();
        for _ in 0..cycles {
            drop(pool.get().await.unwrap());
        }
        let stats = pool.stats();
        assert_eq!((stats.checkouts, stats.opened), (cycles, 1));
        assert_eq!((stats.connect.count, stats.wait.count), (0, 0));
    }
    let all = map.stats();
    assert_eq!((all.checkouts, all.opened), (8, 2));
    assert_eq!((all.connect.count, all.wait.count), (2, 8));
    map.remove(&1);
    let rest = map.stats();
    assert_eq!((rest.checkouts, rest.connect.count), (5, 2));
}

#[test]
fn a_key_that_is_being_built_holds_up_nobody_elses() {
    let (entered, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let slow = (Arc::clone(&entered), Arc::clone(&go_on));
    let map = PoolMap::new(move |key: &u32| {
        if *key == 0 {
            slow.0.wait();
            slow.1.wait();
        }
        Pool::builder(ScriptedBackend::new())
    });
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| map.pool(&0).map(|_| ()));
        entered.wait();
        assert!(map.pool(&1).is_ok() && map.len() == 2);
        assert_eq!(keys(&map), [1], "what is not there yet is not shown");
        go_on.wait();
        slow.join().unwrap().unwrap();
    });
    assert_eq!(keys(&map), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn beyond_max_pools_the_least_recently_used_is_closed() {
    let (map, backends, built) = map(3);
    for key in [1, 2, 3] {
        drop(map.pool(&key).unwrap().get().await.unwrap());
    }
    drop(map.pool(&1).unwrap()); // Now 2 is the one that was used longest ago.
    drop(map.pool(&4).unwrap());
    assert_eq!(keys(&map), [1, 3, 4]);
    tasks_run().await;
    assert_eq!(
        backends.lock()[&2].live(),
        0,
        "its connection is closed with it"
    );
    drop(map.pool(&2).unwrap());
    assert_eq!(
        (keys(&map), built.load(Ordering::SeqCst)),
        (vec![1, 2, 4], 5)
    );
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_in_use_is_never_closed() {
    let (map, _, _) = map(1);
    let out = map.pool(&1).unwrap().get_owned().await.unwrap();
    let handle = map.pool(&2).unwrap();
    let waited_for = map.pool(&3).unwrap();
    let held = (
        waited_for.get_owned().await.unwrap(),
        waited_for.get_owned().await.unwrap(),
    );
    let mut waiter = task::spawn(waited_for.get_owned());
    assert_pending!(waiter.poll());
    drop(waited_for);
    drop(map.pool(&4).unwrap());
    assert_eq!(keys(&map), [1, 2, 3, 4]);
    drop(out);
    drop(map.pool(&5).unwrap());
    assert_eq!(keys(&map), [2, 3, 5], "1 and 4 are free to go");
    drop((handle, held));
    drop(waiter.await.unwrap());
    tasks_run().await;
    drop(map.pool(&6).unwrap());
    assert_eq!(keys(&map), [6]);
}

#[test]
fn a_key_whose_settings_are_refused_is_forgotten_and_asked_for_again() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let map = PoolMap::new(move |_: &u32| {
        let size = counted.fetch_add(1, Ordering::SeqCst);
        Pool::builder(ScriptedBackend::new())
            .pool_size(size)
            .max_overflow(0)
    });
    assert_eq!(map.pool(&1).unwrap_err(), BuildError::NoCapacity);
    assert!(map.is_empty());
    assert!(map.pool(&1).is_ok());
    assert_eq!((tries.load(Ordering::SeqCst), map.len()), (2, 1));
}

#[test]
fn a_key_whose_builder_panics_is_asked_for_again_and_does_not_stay_for_ever() {
    let tries = AtomicUsize::new(0);
    let map = PoolMap::new(move |key: &u32| {
        assert!(
            *key != 1 || tries.fetch_add(1, Ordering::SeqCst) > 0,
            "in the builder"
        );
        Pool::builder(ScriptedBackend::new())
    });
    let map = map.max_pools(1);
    assert!(catch_unwind(AssertUnwindSafe(|| map.pool(&1).map(|_| ()))).is_err());
    drop(map.pool(&2).unwrap());
    assert_eq!((map.len(), keys(&map)), (1, vec![2]));
    drop(map.pool(&1).unwrap());
    assert_eq!(keys(&map), [1]);
}

#[tokio::test(start_paused = true)]
async fn closing_closes_every_pool_and_forgets_them() {
    let (map, backends, _) = map(10);
    let mut pools = Vec::new();
    for key in 0..5 {
        let pool = map.pool(&key).unwrap();
        drop(pool.get().await.unwrap());
        pools.push(pool);
    }
    map.close().await;
    assert!(map.is_empty());
    for pool in &pools {
        assert!(matches!(pool.get().await, Err(GetError::Closed)));
    }
    let live: usize = backends.lock().values().map(ScriptedBackend::live).sum();
    assert_eq!(live, 0);
    assert!(
        map.pool(&1).unwrap().get().await.is_ok(),
        "a key may be used anew"
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_removed_lives_on_while_somebody_holds_its_pool() {
    let (map, backends, _) = map(10);
    let held = map.pool(&1).unwrap().get_owned().await.unwrap();
    let pool = map.remove(&1).unwrap();
    assert!(map.remove(&1).is_none() && map.is_empty());
    drop(pool.get().await.unwrap());
    drop(pool);
    drop(held);
    tasks_run().await;
    assert_eq!(backends.lock()[&1].live(), 0);
}

#[tokio::test(start_paused = true)]
async fn many_keys_share_one_budget() {
    let (budget, backend) = (Budget::new(3), ScriptedBackend::new());
    let map = {
        let (budget, backend) = (budget.clone(), backend.clone());
        PoolMap::new(move |_: &u32| Pool::builder(backend.clone()).budget(&budget))
    };
    for round in 0..3 {
        for key in 0..50 {
            let conn = map.pool(&key).unwrap().get_owned().await;
            assert!(conn.is_ok(), "{round} {key}");
        }
    }
    assert_eq!((backend.most_live(), budget.status().pools), (3, 50));
    map.close().await;
    drop(map);
    tasks_run().await;
    assert_eq!((budget.status().free, budget.status().pools), (3, 0));
}
