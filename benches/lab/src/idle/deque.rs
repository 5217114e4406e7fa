//! A deque under a mutex: what most pools have.

use std::collections::VecDeque;

use parking_lot::Mutex;
use pool_core::lab::IdleSet;

use super::{Candidate, Traits};

/// See the module.
#[derive(Debug)]
pub struct Deque(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    idle: VecDeque<usize>,
    shut: bool,
}

impl Candidate for Deque {
    const NAME: &'static str = "mutexed deque";
    const TRAITS: Traits = Traits {
        order: "last in, first out, exact",
        aba: "none: a mutex",
        middle: "a search under the mutex",
    };

    fn of(slots: usize) -> Self {
        Self(Mutex::new(Inner {
            idle: VecDeque::with_capacity(slots),
            shut: false,
        }))
    }

    fn bytes(slots: usize) -> usize {
        size_of::<Self>() + slots * size_of::<usize>()
    }
}

impl IdleSet for Deque {
    fn claim(&self) -> Option<usize> {
        self.0.lock().idle.pop_back()
    }

    fn give(&self, slot: usize) -> Result<(), usize> {
        let mut inner = self.0.lock();
        if inner.shut {
            return Err(slot);
        }
        inner.idle.push_back(slot);
        Ok(())
    }

    fn put(&self, slot: usize) {
        self.0.lock().idle.push_back(slot);
    }

    fn shut(&self) {
        self.0.lock().shut = true;
    }

    fn open(&self) {
        self.0.lock().shut = false;
    }

    fn count(&self) -> usize {
        self.0.lock().idle.len()
    }

    fn claim_at(&self, slot: usize) -> bool {
        let idle = &mut self.0.lock().idle;
        let place = idle.iter().position(|other| *other == slot);
        place.and_then(|place| idle.remove(place)).is_some()
    }
}
