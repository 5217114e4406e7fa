//! What every idle structure must do, alone and in the pool that ships.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use pool_core::Pool;

use super::Candidate;
use crate::draw::{Arrivals, Holds};
use crate::every;
use crate::sim::{Numbers, Setup, run};

const SLOTS: usize = 130;

fn hands_out_what_it_was_given_once<S: Candidate>() {
    let set = S::of(SLOTS);
    assert_eq!((set.claim(), set.count()), (None, 0));
    for slot in [0, 7, 61, 62, 63, SLOTS - 1] {
        assert_eq!(set.give(slot), Ok(()));
    }
    assert_eq!(set.count(), 6);
    let all: BTreeSet<_> = std::iter::from_fn(|| set.claim()).collect();
    assert_eq!(all, BTreeSet::from([0, 7, 61, 62, 63, SLOTS - 1]));
    assert_eq!(set.count(), 0);
}

fn gives_nothing_while_the_gate_is_shut<S: Candidate>() {
    let set = S::of(SLOTS);
    set.give(5).expect("the gate is open");
    set.shut();
    assert_eq!(set.claim(), Some(5), "what is idle stays so");
    assert_eq!(set.give(5), Err(5));
    assert_eq!(set.count(), 0);
    set.put(9);
    assert_eq!(set.count(), 1, "the mutex's holder may");
    assert_eq!(set.claim(), Some(9));
    set.open();
    assert_eq!(set.give(5), Ok(()));
}

fn takes_one_out_of_the_middle<S: Candidate>() {
    let set = S::of(SLOTS);
    for slot in 0..SLOTS {
        set.put(slot);
    }
    assert!(set.claim_at(64));
    assert!(!set.claim_at(64));
    assert_eq!(set.count(), SLOTS - 1);
    let rest: BTreeSet<_> = std::iter::from_fn(|| set.claim()).collect();
    assert!(!rest.contains(&64) && rest.len() == SLOTS - 1);
}

/// Threads claim and give while another shuts the gate and opens it: no slot has two owners, none is lost, and
/// behind a gate that was shut and found nothing nobody gives.
fn keeps_each_slot_once_under_stress<S: Candidate>() {
    const THREADS: usize = 3;
    const ROUNDS: usize = 300;
    let set = S::of(SLOTS);
    let owners: Vec<AtomicUsize> = (0..SLOTS).map(|_| AtomicUsize::new(0)).collect();
    let stop = AtomicBool::new(false);
    let own = |slot: usize| {
        let before = owners[slot].fetch_add(1, Ordering::SeqCst);
        assert_eq!(before, 0, "slot {slot} has two owners");
    };
    let disown = |slot: usize| owners[slot].fetch_sub(1, Ordering::SeqCst);
    for slot in 0..6 {
        set.put(slot);
    }
    let left = thread::scope(|scope| {
        let work = || {
            let mut kept = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let Some(slot) = kept.pop().or_else(|| {
                    let slot = set.claim()?;
                    own(slot);
                    Some(slot)
                }) else {
                    thread::yield_now();
                    continue;
                };
                disown(slot);
                if let Err(slot) = set.give(slot) {
                    own(slot);
                    kept.push(slot);
                    thread::yield_now();
                }
            }
            kept
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for round in 0..ROUNDS {
            set.shut();
            let mut taken = Vec::new();
            while let Some(slot) = set.claim() {
                own(slot);
                taken.push(slot);
            }
            thread::yield_now();
            for slot in taken {
                disown(slot);
                set.put(slot);
            }
            if round % 3 == 0 {
                let slot = round % 6;
                if set.claim_at(slot) {
                    own(slot);
                    disown(slot);
                    set.put(slot);
                }
            }
            set.open();
            thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        let kept =
            |thread: thread::ScopedJoinHandle<'_, Vec<usize>>| thread.join().expect("it ends");
        threads.into_iter().flat_map(kept).collect::<Vec<_>>()
    });
    let idle = std::iter::from_fn(|| set.claim());
    let all: BTreeSet<_> = idle.chain(left).collect();
    assert_eq!(all, (0..6).collect(), "none is lost");
}

/// One shuts the gate and finds nothing while another gives: if that was given, it is seen.
fn leaves_nothing_behind_a_shut_gate<S: Candidate>() {
    for _ in 0..2_000 {
        let set = S::of(SLOTS);
        let (given, found) = thread::scope(|scope| {
            let giver = scope.spawn(|| set.give(3));
            set.shut();
            let found = set.claim();
            (giver.join().expect("it ends"), found)
        });
        assert_eq!(given.is_ok(), found.is_some(), "{given:?} {found:?}");
        assert_eq!(set.count(), 0);
    }
}

/// In the pool on several threads, with more tasks than connections and some in overflow: everybody is served.
fn serves_everybody_in_the_pool<S: Candidate>() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let builder = Pool::builder(Numbers::default()).pool_size(2);
        let pool = builder
            .max_overflow(1)
            .swap_idle_set(S::of)
            .build()
            .expect("the settings agree");
        let most = AtomicUsize::new(0);
        let most = &*Box::leak(Box::new(most));
        let mut tasks = Vec::new();
        for _ in 0..8 {
            let pool = pool.clone();
            tasks.push(tokio::spawn(async move {
                for _ in 0..500 {
                    let connection = pool.get().await.expect("everybody is served");
                    most.fetch_max(pool.status().in_use, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    drop(connection);
                }
            }));
        }
        for task in tasks {
            task.await.expect("it ends");
        }
        let seen = pool.status();
        assert_eq!((seen.in_use, seen.waiting), (0, 0), "{seen}");
        assert!(most.load(Ordering::Relaxed) <= 3);
        assert_eq!(pool.stats().checkouts, 4_000);
        pool.close().await;
        assert_eq!(pool.status().open, 0);
    });
}

/// In virtual time it changes nobody's wait: which connection serves is all that differs.
fn changes_no_wait_in_virtual_time<S: Candidate>() {
    let arrivals = Arrivals::Poisson { rate: 850.0 };
    let hold = Holds::Exponential(Duration::from_millis(10));
    let setup = Setup::new(arrivals, hold, 3_000, 11);
    let sized = |builder: pool_core::Builder<_>| builder.pool_size(10).max_overflow(0);
    let ours = run(&setup, sized);
    let theirs = run(&setup, |builder| sized(builder).swap_idle_set(S::of));
    assert_eq!(ours.waits, theirs.waits);
}

macro_rules! conforms {
    ($name:ident, $set:ty) => {
        mod $name {
            #[test]
            fn hands_out_what_it_was_given_once() {
                super::hands_out_what_it_was_given_once::<$set>();
            }
            #[test]
            fn gives_nothing_while_the_gate_is_shut() {
                super::gives_nothing_while_the_gate_is_shut::<$set>();
            }
            #[test]
            fn takes_one_out_of_the_middle() {
                super::takes_one_out_of_the_middle::<$set>();
            }
            #[test]
            fn keeps_each_slot_once_under_stress() {
                super::keeps_each_slot_once_under_stress::<$set>();
            }
            #[test]
            fn leaves_nothing_behind_a_shut_gate() {
                super::leaves_nothing_behind_a_shut_gate::<$set>();
            }
            #[test]
            fn serves_everybody_in_the_pool() {
                super::serves_everybody_in_the_pool::<$set>();
            }
            #[test]
            fn changes_no_wait_in_virtual_time() {
                super::changes_no_wait_in_virtual_time::<$set>();
            }
        }
    };
}

every!(conforms);
