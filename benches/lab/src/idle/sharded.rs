//! Words of few bits, one for each processor, with stealing: each thread begins at its own, and takes from the
//! others when that is empty. A slot belongs to one word for ever.

use pool_core::lab::IdleSet;

use super::gated::{Gated, Padded};
use super::{Candidate, Traits};

/// Slots of one word at most.
const PER_WORD: usize = 63;
/// Among how many words the slots are spread at least.
const SHARDS: usize = 8;

/// See the module.
#[derive(Debug)]
pub struct Sharded(Gated<PER_WORD>);

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
        Self(Gated::of(words(slots)))
    }

    fn bytes(slots: usize) -> usize {
        words(slots) * size_of::<Padded>()
    }
}

impl IdleSet for Sharded {
    fn claim(&self) -> Option<usize> {
        let words = self.0.len();
        let home = home() % words;
        (home..words)
            .chain(0..home)
            .find_map(|word| Some(self.0.take(word)? * words + word))
    }

    fn give(&self, slot: usize) -> Result<(), usize> {
        let words = self.0.len();
        let given = self.0.set(slot % words, slot / words);
        given.then_some(()).ok_or(slot)
    }

    fn put(&self, slot: usize) {
        let words = self.0.len();
        self.0.put(slot % words, slot / words);
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
        let words = self.0.len();
        self.0.take_at(slot % words, slot / words)
    }
}
