//! Which connections were open when a standby refused a write: those that lead to a standby are not used again.
//!
//! What always holds: a connection that is opened later is spared. So a name that still leads to a standby costs one
//! replacement of the pool's connections for each refused write, and none beyond.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a backend's connections know of refused writes. All its orderings are Relaxed: a ping may as well learn of a
/// refusal a moment later.
#[derive(Debug, Default)]
pub(crate) struct Demotions {
    /// How many connections were opened.
    opened: AtomicU64,
    /// How many of them had been at the last refusal.
    refused_at: AtomicU64,
}

/// A connection's place among those of its backend.
#[derive(Debug)]
pub(crate) struct Rank {
    demotions: Arc<Demotions>,
    /// From 1, in the order of opening.
    number: u64,
}

impl Demotions {
    /// The place of a new connection.
    pub(crate) fn rank(self: &Arc<Self>) -> Rank {
        Rank {
            demotions: Arc::clone(self),
            number: self.opened.fetch_add(1, Relaxed) + 1,
        }
    }
}

impl Rank {
    /// A standby has refused a write.
    pub(crate) fn refused(&self) {
        let opened = self.demotions.opened.load(Relaxed);
        self.demotions.refused_at.store(opened, Relaxed);
    }

    /// Whether the connection is of those that were open when a standby last refused a write.
    pub(crate) fn was_there(&self) -> bool {
        self.number <= self.demotions.refused_at.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_concerns_those_that_are_open_and_none_that_comes_after() {
        let demotions = Arc::new(Demotions::default());
        let (first, second) = (demotions.rank(), demotions.rank());
        assert!(!first.was_there());
        first.refused();
        let later = demotions.rank();
        assert!(first.was_there() && second.was_there() && !later.was_there());
        later.refused();
        assert!(later.was_there() && !demotions.rank().was_there());
    }
}
