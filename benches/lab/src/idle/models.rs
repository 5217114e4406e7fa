//! The structures that are atomics alone, in every order that the memory model allows (up to a bound on
//! preemptions): `RUSTFLAGS="--cfg pool_loom" cargo test -p lab --release --lib models`. Those over crossbeam or a
//! mutex of another crate are invisible to the checker.

use loom::sync::Arc;
use loom::thread;

use super::gate::Gate;
use super::{Bitmap, Candidate, Sharded, Treiber, Words};
use crate::sync::{AtomicBool, Ordering};

fn explore(story: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(story);
}

/// Two claim and give at the same time: no slot has two owners, none is lost.
fn keeps_each_slot_once<S: Candidate>() {
    explore(|| {
        let set = Arc::new(S::of(3));
        let used = Arc::new([
            AtomicBool::new(false),
            AtomicBool::new(false),
            AtomicBool::new(false),
        ]);
        set.put(0);
        set.put(1);
        let work = |set: Arc<S>, used: Arc<[AtomicBool; 3]>| {
            for _ in 0..2 {
                if let Some(slot) = set.claim() {
                    assert!(!used[slot].swap(true, Ordering::Relaxed), "two owners");
                    used[slot].store(false, Ordering::Relaxed);
                    assert_eq!(set.give(slot), Ok(()));
                }
            }
        };
        let other = thread::spawn({
            let (set, used) = (set.clone(), used.clone());
            move || work(set, used)
        });
        work(set.clone(), used.clone());
        other.join().expect("it ends");
        let mut left: Vec<_> = std::iter::from_fn(|| set.claim()).collect();
        left.sort_unstable();
        assert_eq!(left, [0, 1]);
    });
}

/// One shuts the gate and finds nothing while another gives: if that was given, it is seen.
fn leaves_nothing_behind_a_shut_gate<S: Candidate>() {
    explore(|| {
        let set = Arc::new(S::of(3));
        let giver = thread::spawn({
            let set = set.clone();
            move || set.give(2)
        });
        set.shut();
        let found = set.claim();
        let given = giver.join().expect("it ends");
        assert_eq!(given.is_ok(), found.is_some());
    });
}

macro_rules! models {
    ($name:ident, $set:ty) => {
        mod $name {
            #[test]
            fn keeps_each_slot_once() {
                super::keeps_each_slot_once::<$set>();
            }
            #[test]
            fn leaves_nothing_behind_a_shut_gate() {
                super::leaves_nothing_behind_a_shut_gate::<$set>();
            }
        }
    };
}

models!(words, super::Words);
models!(treiber, super::Treiber);
models!(sharded, super::Sharded);
models!(bitmap, super::Bitmap);

/// The gate beside a structure, which is one bit here: it changes by read-modify-write only, for the checker lets a
/// plain store slip in between what a swap reads and what it writes.
#[test]
fn a_gate_of_its_own_leaves_nothing_behind() {
    explore(|| {
        let both = Arc::new((Gate::new(), AtomicBool::new(false)));
        let claim = |bit: &AtomicBool| bit.swap(false, Ordering::AcqRel).then_some(1);
        let giver = thread::spawn({
            let both = both.clone();
            move || {
                let (gate, bit) = &*both;
                let put = |_| {
                    bit.swap(true, Ordering::Release);
                };
                gate.give(1, put, || claim(bit))
            }
        });
        let (gate, bit) = &*both;
        gate.shut();
        let found = claim(bit);
        let given = giver.join().expect("it ends");
        assert_eq!(given.is_ok(), found.is_some());
    });
}
