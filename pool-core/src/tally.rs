//! Where a pool's counts are kept until somebody asks.
//!
//! Nothing here is touched on the fast way: checkouts are counted in their slots
//! ([`Facts::uses`](crate::entry::Facts::uses)), a wait of zero is what is left of them, and one checkout in 64
//! is timed.

mod times;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock;
use crate::stats::{CloseReason, Closed, Held, USES};

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

    fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// When counting began, by the exact clock.
struct Begun(u64);

impl Default for Begun {
    fn default() -> Self {
        Self(clock::exact())
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) times: Times,
    uses: [(Counter, Counter); USES],
    begun: Begun,
    closed: [Counter; CloseReason::ALL.len()],
    /// Of those who waited, how many were served.
    pub(crate) served_late: Counter,
    pub(crate) opened: Counter,
    /// Taken out of the pool for good.
    pub(crate) detached: Counter,
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

    /// Records how long a connection was held, and how many were in use with it.
    pub(crate) fn held(&self, in_use: usize, micros: u64) {
        let (count, sum) = &self.uses[(in_use.max(1).ilog2() as usize).min(USES - 1)];
        count.raise();
        sum.add(micros);
    }

    /// About how many connections exist.
    pub(crate) fn exist(&self) -> usize {
        let closed = self.closed.iter().map(Counter::get).sum::<u64>();
        let gone = closed + self.detached.get();
        usize::try_from(self.opened.get().saturating_sub(gone)).unwrap_or(usize::MAX)
    }

    /// How long connections were held, by how many were in use.
    pub(crate) fn by_use(&self) -> [Held; USES] {
        std::array::from_fn(|class| {
            let (count, sum) = &self.uses[class];
            let count = count.get();
            let mean = Duration::from_micros(sum.get().checked_div(count).unwrap_or(0));
            Held { count, mean }
        })
    }

    /// For how long it has counted.
    pub(crate) fn watched(&self) -> Duration {
        Duration::from_micros(clock::exact().saturating_sub(self.begun.0))
    }

    pub(crate) fn closings(&self) -> Closed {
        Closed::from_counts(|reason| self.closed[reason as usize].get())
    }
}
