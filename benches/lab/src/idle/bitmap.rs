//! A bitmap of two levels: words of slots, and above them words that say which of those are not empty.
//!
//! The upper level is a hint that may lag: a bit there may stand over an empty word, and then it is lowered. Whoever
//! sets a slot's bit raises the upper one after it, and whoever lowers an upper one looks at the word again. A claim
//! that finds no hint looks through the words themselves before it says that there is nothing, so nothing is
//! overlooked while the gate is being shut.

use pool_core::lab::IdleSet;

use super::gated::{Gated, Padded, zeros};
use super::{Candidate, Traits};
use crate::sync::Ordering;

/// Slots of one word.
const PER_WORD: usize = 63;

/// See the module.
#[derive(Debug)]
pub struct Bitmap {
    hints: Box<[Padded]>,
    words: Gated<PER_WORD>,
}

impl Bitmap {
    fn hint(&self, index: usize) {
        let (hint, mask) = (&self.hints[index / 64], 1 << (index % 64));
        // Most times it is up already: then the line stays shared.
        if hint.load(Ordering::Relaxed) & mask == 0 {
            hint.fetch_or(mask, Ordering::Relaxed);
        }
    }

    fn claim_in(&self, index: usize) -> Option<usize> {
        Some(index * PER_WORD + self.words.take(index)?)
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
            hints: zeros(words.div_ceil(64)),
            words: Gated::of(words),
        }
    }

    fn bytes(slots: usize) -> usize {
        let words = slots.div_ceil(PER_WORD);
        (words + words.div_ceil(64)) * size_of::<Padded>()
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
                if self.words.count_in(index) > 0 {
                    self.hint(index);
                }
            }
        }
        (0..self.words.len()).find_map(|index| self.claim_in(index))
    }

    fn give(&self, slot: usize) -> Result<(), usize> {
        let index = slot / PER_WORD;
        if !self.words.set(index, slot % PER_WORD) {
            return Err(slot);
        }
        self.hint(index);
        Ok(())
    }

    fn put(&self, slot: usize) {
        let index = slot / PER_WORD;
        self.words.put(index, slot % PER_WORD);
        self.hint(index);
    }

    fn shut(&self) {
        self.words.shut();
    }

    fn open(&self) {
        self.words.open();
    }

    fn count(&self) -> usize {
        self.words.count()
    }

    fn claim_at(&self, slot: usize) -> bool {
        self.words.take_at(slot / PER_WORD, slot % PER_WORD)
    }
}
