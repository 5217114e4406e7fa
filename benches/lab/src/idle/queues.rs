//! crossbeam's queues: the bounded ring and the unbounded list of segments, each with a gate beside it.

use crossbeam_queue::{ArrayQueue, SegQueue};
use pool_core::lab::IdleSet;

use super::gate::Gate;
use super::{Candidate, Traits};

const QUEUE: Traits = Traits {
    order: "first in, first out",
    aba: "sequence numbers or epochs of the queue's own",
    middle: "takes all out and puts them back",
};

/// `ArrayQueue`.
pub struct Array {
    queue: ArrayQueue<u32>,
    gate: Gate,
}

/// `SegQueue`.
pub struct Segments {
    queue: SegQueue<u32>,
    gate: Gate,
}

impl Candidate for Array {
    const NAME: &'static str = "crossbeam ArrayQueue";
    const TRAITS: Traits = QUEUE;

    fn of(slots: usize) -> Self {
        Self {
            queue: ArrayQueue::new(slots),
            gate: Gate::new(),
        }
    }

    fn bytes(slots: usize) -> usize {
        // A sequence number and a value for each.
        size_of::<Self>() + slots * 2 * size_of::<usize>()
    }
}

impl Candidate for Segments {
    const NAME: &'static str = "crossbeam SegQueue";
    const TRAITS: Traits = QUEUE;

    fn of(_slots: usize) -> Self {
        Self {
            queue: SegQueue::new(),
            gate: Gate::new(),
        }
    }

    fn bytes(slots: usize) -> usize {
        // Segments of 31 with a value and a state for each.
        size_of::<Self>() + slots.div_ceil(31) * (31 * 16 + 8)
    }
}

fn number(slot: usize) -> u32 {
    u32::try_from(slot).expect("fewer than 2^32 slots")
}

macro_rules! by_queue {
    ($type:ty) => {
        impl IdleSet for $type {
            fn claim(&self) -> Option<usize> {
                self.queue.pop().map(|slot| slot as usize)
            }

            fn give(&self, slot: usize) -> Result<(), usize> {
                self.gate.give(slot, |slot| self.put(slot), || self.claim())
            }

            fn put(&self, slot: usize) {
                // There is room: each slot is in it once.
                let _ = self.queue.push(number(slot));
            }

            fn shut(&self) {
                self.gate.shut();
            }

            fn open(&self) {
                self.gate.open();
            }

            fn count(&self) -> usize {
                self.queue.len()
            }
        }
    };
}

by_queue!(Array);
by_queue!(Segments);
