//! Where reads and writes went, and why not to a replica.
//!
//! Counts only rise. They are for people and dashboards; nothing is decided by them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::view::Reason;

/// One node's counts.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    reads: AtomicU64,
    writes: AtomicU64,
    refused: AtomicU64,
    passed_over: [AtomicU64; Reason::ALL.len()],
    last_error: Mutex<Option<String>>,
}

impl Tally {
    // Relaxed throughout: each count stands alone and carries nothing.

    pub(crate) fn read(&self) {
        self.reads.fetch_add(1, Relaxed);
    }

    pub(crate) fn write(&self) {
        self.writes.fetch_add(1, Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn passed_over(&self, reason: Reason) {
        self.passed_over[reason as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn failed(&self, error: String) {
        *self.last_error.lock() = Some(error);
    }

    pub(crate) fn counts(&self) -> Counts {
        let passed_over = Reason::ALL.into_iter().filter_map(|reason| {
            let count = self.passed_over[reason as usize].load(Relaxed);
            (count > 0).then_some((reason, count))
        });
        Counts {
            reads: self.reads.load(Relaxed),
            writes: self.writes.load(Relaxed),
            refused: self.refused.load(Relaxed),
            passed_over: passed_over.collect(),
        }
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }
}

/// What a node was used for since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Counts {
    /// Read transactions that ran on it.
    pub reads: u64,
    /// Write transactions that ran on it.
    pub writes: u64,
    /// Read transactions that it could not prove its promise to, and that went on elsewhere.
    pub refused: u64,
    /// Reads that ran on the primary although this replica is there, by the reason.
    pub passed_over: Vec<(Reason, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_place_of_its_own() {
        let tally = Tally::default();
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            tally.passed_over(reason);
        }
        assert_eq!(tally.counts().passed_over.len(), Reason::ALL.len());
    }
}
