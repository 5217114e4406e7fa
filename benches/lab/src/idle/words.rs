//! What ships, written as a candidate: a bit for each slot, the gate in each word's top bit.
//!
//! It shows what the laboratory's door costs, beside the pool's own words that need none.

use pool_core::lab::IdleSet;

use super::gated::{Gated, Padded};
use super::{Candidate, Traits};

/// Slots of one word.
const PER_WORD: usize = 62;

/// See the module.
#[derive(Debug)]
pub struct Words(Gated<PER_WORD>);

impl Candidate for Words {
    const NAME: &'static str = "words (ours, through the door)";
    const TRAITS: Traits = Traits {
        order: "lowest slot",
        aba: "a bit is only its slot",
        middle: "one instruction",
    };

    fn of(slots: usize) -> Self {
        Self(Gated::of(slots.div_ceil(PER_WORD)))
    }

    fn bytes(slots: usize) -> usize {
        slots.div_ceil(PER_WORD) * size_of::<Padded>()
    }
}

impl IdleSet for Words {
    fn claim(&self) -> Option<usize> {
        (0..self.0.len()).find_map(|word| Some(word * PER_WORD + self.0.take(word)?))
    }

    fn give(&self, slot: usize) -> Result<(), usize> {
        let given = self.0.set(slot / PER_WORD, slot % PER_WORD);
        given.then_some(()).ok_or(slot)
    }

    fn put(&self, slot: usize) {
        self.0.put(slot / PER_WORD, slot % PER_WORD);
    }

    fn shut(&self) {
        self.0.shut();
    }

    fn open(&self) {
        self.0.open();
    }

    fn count(&self) -> usize {
        self.0.count()
    }

    fn claim_at(&self, slot: usize) -> bool {
        self.0.take_at(slot / PER_WORD, slot % PER_WORD)
    }
}
