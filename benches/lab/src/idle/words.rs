//! What ships, written as a candidate: a bit for each slot, the gate in each word's top bit.
//!
//! It shows what the laboratory's door costs, beside the pool's own words that need none.

use crossbeam_utils::CachePadded;
use pool_core::lab::IdleSet;

use super::{Candidate, Traits};
use crate::sync::{AtomicU64, Ordering};

const SHUT: u64 = 1 << 62;
const PER_WORD: usize = 62;

/// See the module.
#[derive(Debug)]
pub struct Words(Box<[CachePadded<AtomicU64>]>);

/// Takes the lowest bit of a word.
pub(super) fn take(word: &AtomicU64, shut: u64) -> Option<usize> {
    let mut seen = word.load(Ordering::Relaxed);
    while seen & !shut != 0 {
        let bit = (seen & !shut).trailing_zeros();
        match word.compare_exchange_weak(
            seen,
            seen & !(1 << bit),
            Ordering::Acquire,
            Ordering::Relaxed,
        ) {
            Ok(_) => return Some(bit as usize),
            Err(now) => seen = now,
        }
    }
    None
}

/// Sets a bit, unless the word is shut.
pub(super) fn set(word: &AtomicU64, bit: usize, shut: u64) -> bool {
    let mut seen = word.load(Ordering::Relaxed);
    while seen & shut == 0 {
        match word.compare_exchange_weak(
            seen,
            seen | 1 << bit,
            Ordering::Release,
            Ordering::Relaxed,
        ) {
            Ok(_) => return true,
            Err(now) => seen = now,
        }
    }
    false
}

impl Candidate for Words {
    const NAME: &'static str = "words (ours, through the door)";
    const TRAITS: Traits = Traits {
        order: "lowest slot",
        aba: "a bit is only its slot",
        middle: "one instruction",
    };

    fn of(slots: usize) -> Self {
        let words = slots.div_ceil(PER_WORD);
        Self(
            (0..words)
                .map(|_| CachePadded::new(AtomicU64::new(0)))
                .collect(),
        )
    }

    fn bytes(slots: usize) -> usize {
        slots.div_ceil(PER_WORD) * size_of::<CachePadded<AtomicU64>>()
    }
}

impl IdleSet for Words {
    fn claim(&self) -> Option<usize> {
        self.0
            .iter()
            .enumerate()
            .find_map(|(index, word)| Some(index * PER_WORD + take(word, SHUT)?))
    }

    fn give(&self, slot: usize) -> Result<(), usize> {
        let given = set(&self.0[slot / PER_WORD], slot % PER_WORD, SHUT);
        given.then_some(()).ok_or(slot)
    }

    fn put(&self, slot: usize) {
        self.0[slot / PER_WORD].fetch_or(1 << (slot % PER_WORD), Ordering::Release);
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
        let mask = 1 << (slot % PER_WORD);
        self.0[slot / PER_WORD].fetch_and(!mask, Ordering::Acquire) & mask != 0
    }
}
