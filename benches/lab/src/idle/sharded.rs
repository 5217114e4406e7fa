//! Words of few bits, one for each processor, with stealing: each thread begins at its own, and takes from the
//! others when that is empty. A slot belongs to one word for ever.

use crossbeam_utils::CachePadded;
use pool_core::lab::IdleSet;

use super::words::{set, take};
use super::{Candidate, Traits};
use crate::sync::{AtomicU64, Ordering};

const SHUT: u64 = 1 << 63;
/// Slots of one word at most.
const PER_WORD: usize = 63;
/// Among how many words the slots are spread at least.
const SHARDS: usize = 8;

/// See the module.
#[derive(Debug)]
pub struct Sharded(Box<[CachePadded<AtomicU64>]>);

#[cfg(not(pool_loom))]
fn home() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static HOME: usize = THREADS.fetch_add(1, Ordering::Relaxed);
    }
    HOME.with(|home| *home)
}

/// All threads of a model start at the same word: that is where they meet.
#[cfg(pool_loom)]
fn home() -> usize {
    0
}

fn words(slots: usize) -> usize {
    slots.div_ceil(PER_WORD).max(SHARDS.min(slots))
}

impl Candidate for Sharded {
    const NAME: &'static str = "sharded words, stealing";
    const TRAITS: Traits = Traits {
        order: "this thread's own shard first",
        aba: "a bit is only its slot",
        middle: "one instruction",
    };

    fn of(slots: usize) -> Self {
        let words = words(slots);
        Self(
            (0..words)
                .map(|_| CachePadded::new(AtomicU64::new(0)))
                .collect(),
        )
    }

    fn bytes(slots: usize) -> usize {
        words(slots) * size_of::<CachePadded<AtomicU64>>()
    }
}

impl IdleSet for Sharded {
    fn claim(&self) -> Option<usize> {
        let words = self.0.len();
        let home = home() % words;
        (home..words)
            .chain(0..home)
            .find_map(|index| Some(take(&self.0[index], SHUT)? * words + index))
    }

    fn give(&self, slot: usize) -> Result<(), usize> {
        let words = self.0.len();
        let given = set(&self.0[slot % words], slot / words, SHUT);
        given.then_some(()).ok_or(slot)
    }

    fn put(&self, slot: usize) {
        let words = self.0.len();
        self.0[slot % words].fetch_or(1 << (slot / words), Ordering::Release);
    }

    fn shut(&self) {
        for word in &self.0 {
            word.fetch_or(SHUT, Ordering::Relaxed);
        }
    }

    fn open(&self) {
        for word in &self.0 {
            word.fetch_and(!SHUT, Ordering::Relaxed);
        }
    }

    fn count(&self) -> usize {
        let bits = |word: &CachePadded<AtomicU64>| {
            (word.load(Ordering::Relaxed) & !SHUT).count_ones() as usize
        };
        self.0.iter().map(bits).sum()
    }

    fn claim_at(&self, slot: usize) -> bool {
        let words = self.0.len();
        let mask = 1 << (slot / words);
        self.0[slot % words].fetch_and(!mask, Ordering::Acquire) & mask != 0
    }
}
