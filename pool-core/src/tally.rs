//! Where a pool's counts are kept until somebody asks.
//!
//! Nothing here is touched on the fast way: checkouts are counted in their slots
//! ([`Facts::uses`](crate::entry::Facts::uses)), a wait of zero is what is left of them, and one checkout in 64
//! is timed. The histograms are made when the first value comes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::stats::{CloseReason, Closed, Distribution};

/// The longest time that a histogram tells apart, in microseconds.
const LONGEST: u64 = 3_600_000_000;

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
    times: [Mutex<Option<Box<Histogram<u32>>>>; 4],
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
    pub(crate) fn record(&self, what: Timed, micros: u64) {
        let mut slot = self.times[what as usize].lock();
        let histogram = slot.get_or_insert_with(|| {
            let made = Histogram::new_with_bounds(1, LONGEST, 2);
            Box::new(made.expect("the bounds are in order"))
        });
        histogram.saturating_record(micros.min(LONGEST));
    }

    pub(crate) fn closed(&self, reason: CloseReason) {
        self.closed[reason as usize].raise();
    }

    pub(crate) fn closings(&self) -> Closed {
        Closed::from_counts(|reason| self.closed[reason as usize].get())
    }

    /// What was recorded, and so many times zero beside it.
    pub(crate) fn distribution(&self, what: Timed, zeros: u64) -> Distribution {
        let mut all = match &*self.times[what as usize].lock() {
            Some(histogram) => {
                let mut all = Histogram::<u64>::new_with_bounds(1, LONGEST, 2)
                    .expect("the bounds are in order");
                for step in histogram.iter_recorded() {
                    // Every value fits: it was recorded within the same bounds.
                    let count = u64::from(step.count_at_value());
                    let _ = all.record_n(step.value_iterated_to(), count);
                }
                all
            }
            None if zeros == 0 => return Distribution::default(),
            None => Histogram::new_with_bounds(1, LONGEST, 2).expect("the bounds are in order"),
        };
        let _ = all.record_n(0, zeros);
        if all.is_empty() {
            return Distribution::default();
        }
        let at = |quantile| Duration::from_micros(all.value_at_quantile(quantile));
        Distribution {
            count: all.len(),
            mean: Duration::from_secs_f64(all.mean() / 1e6),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: Duration::from_micros(all.max()),
        }
    }
}
