//! A bitmap of two levels: words of slots, and above them words that say which of those are not empty.
//!
//! The upper level is a hint that may lag: a bit there may stand over an empty word, and then it is lowered. Whoever
//! sets a slot's bit raises the upper one after it, and whoever lowers an upper one looks at the word again. A claim
//! that finds no hint looks through the words themselves before it says that there is nothing, so nothing is
//! overlooked while the gate is being shut.

use crossbeam_utils::CachePadded;
use pool_core::lab::IdleSet;

use super::words::{set, take};
use super::{Candidate, Traits};
use crate::sync::{AtomicU64, Ordering};

const SHUT: u64 = 1 << 63;
/// Slots of one word.
const PER_WORD: usize = 63;

/// See the module.
#[derive(Debug)]
pub struct Bitmap {
    hints: Box<[CachePadded<AtomicU64>]>,
    words: Box<[CachePadded<AtomicU64>]>,
}

fn some(count: usize) -> Box<[CachePadded<AtomicU64>]> {
    (0..count)
        .map(|_| CachePadded::new(AtomicU64::new(0)))
        .collect()
}

impl Bitmap {
    fn hint(&self, index: usize) {
        let (hint, mask) = (&self.hints[index / 64], 1 << (index % 64));
        // Most times it is up already: then the line stays shared.
        if hint.load(Ordering::Relaxed) & mask == 0 {
            hint.fetch_or(mask, Ordering::Relaxed);
        }
    }

    fn is_empty(&self, index: usize) -> bool {
        self.words[index].load(Ordering::Relaxed) & !SHUT == 0
    }

    fn claim_in(&self, index: usize) -> Option<usize> {
        Some(index * PER_WORD + take(&self.words[index], SHUT)?)
    }
}

impl Candidate for Bitmap {
    const NAME: &'static str = "hierarchical bitmap";
    const TRAITS: Traits = Traits {
        order: "lowest slot, about",
        aba: "a bit is only its slot",
        middle: "one instruction",
    };

    fn of(slots: usize) -> Self {
        let words = slots.div_ceil(PER_WORD);
        Self {
            hints: some(words.div_ceil(64)),
            words: some(words),
        }
    }

    fn bytes(slots: usize) -> usize {
        let words = slots.div_ceil(PER_WORD);
        (words + words.div_ceil(64)) * size_of::<CachePadded<AtomicU64>>()
    }
}

impl IdleSet for Bitmap {
    fn claim(&self) -> Option<usize> {
        for (group, hints) in self.hints.iter().enumerate() {
            let mut seen = hints.load(Ordering::Relaxed);
            while seen != 0 {
                let bit = seen.trailing_zeros() as usize;
                seen &= seen - 1;
                let index = group * 64 + bit;
                if let Some(slot) = self.claim_in(index) {
                    return Some(slot);
                }
                hints.fetch_and(!(1 << bit), Ordering::Relaxed);
                if !self.is_empty(index) {
                    self.hint(index);
                }
            }
        }
        (0..self.words.len()).find_map(|index| self.claim_in(index))
    }

    fn give(&self, slot: usize) -> Result<(), usize> {
        let index = slot / PER_WORD;
        if !set(&self.words[index], slot % PER_WORD, SHUT) {
            return Err(slot);
        }
        self.hint(index);
        Ok(())
    }

    fn put(&self, slot: usize) {
        let index = slot / PER_WORD;
        self.words[index].fetch_or(1 << (slot % PER_WORD), Ordering::Release);
        self.hint(index);
    }

    fn shut(&self) {
        for word in &self.words {
            word.fetch_or(SHUT, Ordering::Relaxed);
        }
    }

    fn open(&self) {
        for word in &self.words {
            word.fetch_and(!SHUT, Ordering::Relaxed);
        }
    }

    fn count(&self) -> usize {
        let bits = |word: &CachePadded<AtomicU64>| {
            (word.load(Ordering::Relaxed) & !SHUT).count_ones() as usize
        };
        self.words.iter().map(bits).sum()
    }

    fn claim_at(&self, slot: usize) -> bool {
        let mask = 1 << (slot % PER_WORD);
        self.words[slot / PER_WORD].fetch_and(!mask, Ordering::Acquire) & mask != 0
    }
}
