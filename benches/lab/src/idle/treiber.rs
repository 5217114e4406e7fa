//! Treiber's stack over slot numbers, with a tag against ABA and the gate in the head.
//!
//! Treiber, "Systems Programming: Coping with Parallelism", 1986. The head holds a tag of 31 bits that grows with
//! every change, whether the gate is shut, and the number of the first slot plus one; each slot has a place for the
//! number below it. A claim whose head was taken and put back meanwhile fails by the tag.

use pool_core::lab::IdleSet;

use super::{Candidate, Traits};
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

const FIRST: u64 = (1 << 32) - 1;
const SHUT: u64 = 1 << 32;
const ONE_MORE: u64 = 1 << 33;

/// See the module.
#[derive(Debug)]
pub struct Treiber {
    head: AtomicU64,
    below: Box<[AtomicU32]>,
    count: AtomicUsize,
}

impl Treiber {
    fn push(&self, slot: usize, even_shut: bool) -> bool {
        let first = u32::try_from(slot + 1).expect("fewer than 2^32 slots");
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head & SHUT != 0 && !even_shut {
                return false;
            }
            let below = u32::try_from(head & FIRST).expect("32 bits");
            self.below[slot].store(below, Ordering::Relaxed);
            let next = (head & !FIRST).wrapping_add(ONE_MORE) | u64::from(first);
            // Ordering: Release hands over what is below.
            match self
                .head
                .compare_exchange_weak(head, next, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => {
                    self.count.fetch_add(1, Ordering::Relaxed);
                    return true;
                }
                Err(now) => head = now,
            }
        }
    }
}

impl Candidate for Treiber {
    const NAME: &'static str = "Treiber stack, tagged";
    const TRAITS: Traits = Traits {
        order: "last in, first out",
        aba: "a tag of 31 bits in the head",
        middle: "takes all out and puts them back",
    };

    fn of(slots: usize) -> Self {
        Self {
            head: AtomicU64::new(0),
            below: (0..slots).map(|_| AtomicU32::new(0)).collect(),
            count: AtomicUsize::new(0),
        }
    }

    fn bytes(slots: usize) -> usize {
        size_of::<Self>() + slots * size_of::<AtomicU32>()
    }
}

impl IdleSet for Treiber {
    fn claim(&self) -> Option<usize> {
        // Ordering: Acquire takes over what is below.
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let first = usize::try_from(head & FIRST).expect("32 bits");
            if first == 0 {
                return None;
            }
            let below = self.below[first - 1].load(Ordering::Relaxed);
            let next = (head & !FIRST).wrapping_add(ONE_MORE) | u64::from(below);
            match self
                .head
                .compare_exchange_weak(head, next, Ordering::Acquire, Ordering::Acquire)
            {
                Ok(_) => {
                    self.count.fetch_sub(1, Ordering::Relaxed);
                    return Some(first - 1);
                }
                Err(now) => head = now,
            }
        }
    }

    fn give(&self, slot: usize) -> Result<(), usize> {
        self.push(slot, false).then_some(()).ok_or(slot)
    }

    fn put(&self, slot: usize) {
        self.push(slot, true);
    }

    fn shut(&self) {
        self.head.fetch_or(SHUT, Ordering::AcqRel);
    }

    fn open(&self) {
        self.head.fetch_and(!SHUT, Ordering::AcqRel);
    }

    fn count(&self) -> usize {
        // A claim may have counted before the give whose slot it took.
        let count = self.count.load(Ordering::Relaxed);
        if count > self.below.len() { 0 } else { count }
    }
}
