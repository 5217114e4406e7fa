//! Where a pool's counts are kept until somebody asks.
//!
//! Nothing here is touched on the fast way: checkouts are counted in their slots
//! ([`Facts::uses`](crate::entry::Facts::uses)), a wait of zero is what is left of them, and one checkout in 64
//! is timed.

mod times;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::stats::{CloseReason, Closed};

pub(crate) use times::Times;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timed {
    Wait,
    Hold,
    Connect,
    Age,
}

/// A number that is only ever raised. Ordering: Relaxed throughout; it stands for itself.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn raise(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) times: Times,
    closed: [Counter; CloseReason::ALL.len()],
    /// Of those who waited, how many were served.
    pub(crate) served_late: Counter,
    pub(crate) opened: Counter,
    pub(crate) connect_failures: Counter,
    pub(crate) timeouts: Counter,
    pub(crate) queue_full: Counter,
    pub(crate) gave_up: Counter,
    pub(crate) leaks_suspected: Counter,
    pub(crate) leaks_returned: Counter,
    pub(crate) held_too_long: Counter,
}

impl Tally {
    pub(crate) fn closed(&self, reason: CloseReason) {
        self.closed[reason as usize].raise();
    }

    pub(crate) fn closings(&self) -> Closed {
        Closed::from_counts(|reason| self.closed[reason as usize].get())
    }
}
