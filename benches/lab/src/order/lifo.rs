//! First come, first served, until the queue is long; then last come, first served, so that whoever is served still
//! has a use for it ("adaptive LIFO": Maurer, "Fail at Scale", 2015).

use std::collections::BTreeSet;

use pool_core::lab::{WaitQueue, Waiter};

/// See the module.
#[derive(Debug)]
pub struct AdaptiveLifo {
    waiting: BTreeSet<u64>,
    /// From how many waiters on the last is served first.
    long: usize,
}

impl AdaptiveLifo {
    /// Turns round where so many or more wait.
    pub fn new(long: usize) -> Self {
        Self {
            waiting: BTreeSet::new(),
            long,
        }
    }
}

impl WaitQueue for AdaptiveLifo {
    fn join(&mut self, waiter: Waiter) {
        self.waiting.insert(waiter.ticket);
    }

    fn leave(&mut self, ticket: u64) {
        self.waiting.remove(&ticket);
    }

    fn first(&self) -> Option<u64> {
        if self.waiting.len() < self.long {
            self.waiting.first().copied()
        } else {
            self.waiting.last().copied()
        }
    }
}
