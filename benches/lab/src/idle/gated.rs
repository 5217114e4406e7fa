//! Words with a bit for each slot, and above those the gate's: no bit is set while it is up, except by `put`.
//!
//! Which word and which bit are a slot's is for the structure to say.

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicU64, Ordering};

/// A word on a cache line of its own.
pub(super) type Padded = CachePadded<AtomicU64>;

/// So many words without a bit.
pub(super) fn zeros(count: usize) -> Box<[Padded]> {
    (0..count)
        .map(|_| CachePadded::new(AtomicU64::new(0)))
        .collect()
}

/// Words of so many slots each: at most 63.
#[derive(Debug)]
pub(super) struct Gated<const SLOTS: usize>(Box<[Padded]>);

impl<const SLOTS: usize> Gated<SLOTS> {
    const SHUT: u64 = 1 << SLOTS;

    /// So many words, no slot of them idle.
    pub(super) fn of(words: usize) -> Self {
        Self(zeros(words))
    }

    /// How many words.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes the lowest bit of a word.
    pub(super) fn take(&self, word: usize) -> Option<usize> {
        let word = &self.0[word];
        let mut seen = word.load(Ordering::Relaxed);
        while seen & !Self::SHUT != 0 {
            let bit = (seen & !Self::SHUT).trailing_zeros();
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

    /// Takes this bit of a word, if it is set.
    pub(super) fn take_at(&self, word: usize, bit: usize) -> bool {
        let mask = 1 << bit;
        self.0[word].fetch_and(!mask, Ordering::Acquire) & mask != 0
    }

    /// Sets a bit, unless the gate is shut.
    pub(super) fn set(&self, word: usize, bit: usize) -> bool {
        let word = &self.0[word];
        let mut seen = word.load(Ordering::Relaxed);
        while seen & Self::SHUT == 0 {
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

    /// Sets a bit, whether the gate is shut or not.
    pub(super) fn put(&self, word: usize, bit: usize) {
        self.0[word].fetch_or(1 << bit, Ordering::Release);
    }

    pub(super) fn shut(&self) {
        for word in &self.0 {
            word.fetch_or(Self::SHUT, Ordering::Relaxed);
        }
    }

    pub(super) fn open(&self) {
        for word in &self.0 {
            word.fetch_and(!Self::SHUT, Ordering::Relaxed);
        }
    }

    /// How many bits of a word are set.
    pub(super) fn count_in(&self, word: usize) -> usize {
        (self.0[word].load(Ordering::Relaxed) & !Self::SHUT).count_ones() as usize
    }

    /// How many bits are set in all.
    pub(super) fn count(&self) -> usize {
        (0..self.len()).map(|word| self.count_in(word)).sum()
    }
}
