//! How long things took: counts by length, written without a lock.
//!
//! A histogram with buckets of equal width within each power of two, as Gil Tene's HdrHistogram has them: 32 to a
//! power, so that a bucket's upper end is at most a 32nd above all that is in it. Several threads record at a time,
//! which that library's does not allow without a mutex around it.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Timed;
use crate::stats::Distribution;

/// The longest time that is told apart, in microseconds: an hour.
const LONGEST: u64 = 3_600_000_000;
/// Buckets to a power of two, and its logarithm. Below, each number has its own.
const WIDTH: u64 = BUCKETS as u64;
const BUCKETS: usize = 1 << BITS;
const BITS: u32 = 5;
/// Up to 2^32, which is more than the longest.
const POWERS: usize = (32 - BITS + 1) as usize;

/// A histogram of microseconds.
struct Histogram([[AtomicU64; BUCKETS]; POWERS]);

/// One for each kind; made when the first value of it comes.
#[derive(Default)]
pub(crate) struct Times([OnceLock<Box<Histogram>>; 4]);

impl fmt::Debug for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Times").finish_non_exhaustive()
    }
}

/// Where a number is counted: its power's place, and the bucket there.
fn place(micros: u64) -> (usize, usize) {
    let power = (micros | (WIDTH - 1)).ilog2() + 1 - BITS;
    let shift = power.saturating_sub(1);
    ((power as usize), ((micros >> shift) & (WIDTH - 1)) as usize)
}

/// The smallest and the largest number counted in a bucket.
fn ends(power: usize, bucket: usize) -> (u64, u64) {
    if power == 0 {
        return (bucket as u64, bucket as u64);
    }
    let shift = power - 1;
    let lowest = (bucket as u64 | WIDTH) << shift;
    (lowest, lowest + (1_u64 << shift) - 1)
}

/// How often something within these ends was counted.
struct Counted {
    from: u64,
    to: u64,
    count: u64,
}

impl Histogram {
    fn new() -> Self {
        Self([const { [const { AtomicU64::new(0) }; BUCKETS] }; POWERS])
    }

    fn record(&self, micros: u64) {
        let (power, bucket) = place(micros.min(LONGEST));
        // Ordering: Relaxed; each count stands for itself.
        self.0[power][bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted, by length.
    fn counted(&self) -> Vec<Counted> {
        let mut counted = Vec::new();
        for (power, counts) in self.0.iter().enumerate() {
            for (bucket, count) in counts.iter().enumerate() {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let (from, to) = ends(power, bucket);
                    let to = to.min(LONGEST);
                    counted.push(Counted { from, to, count });
                }
            }
        }
        counted
    }
}

impl Times {
    pub(crate) fn record(&self, what: Timed, micros: u64) {
        let histogram = &self.0[what as usize];
        histogram
            .get_or_init(|| Box::new(Histogram::new()))
            .record(micros);
    }

    /// What was recorded, and so many times zero beside it.
    pub(crate) fn distribution(&self, what: Timed, zeros: u64) -> Distribution {
        let mut counted = match self.0[what as usize].get() {
            Some(histogram) => histogram.counted(),
            None => Vec::new(),
        };
        if zeros > 0 {
            let nothing = Counted {
                from: 0,
                to: 0,
                count: zeros,
            };
            counted.insert(0, nothing);
        }
        summarize(&counted)
    }
}

/// Quantiles and mean of what was counted, shortest first.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank among more than 2^53 values need not be exact"
)]
fn summarize(counted: &[Counted]) -> Distribution {
    let all: u64 = counted.iter().map(|bucket| bucket.count).sum();
    let Some(last) = counted.last() else {
        return Distribution::default();
    };
    let at = |quantile: f64| {
        let rank = ((quantile * all as f64).ceil() as u64).clamp(1, all);
        let mut seen = 0;
        let found = counted.iter().find(|bucket| {
            seen += bucket.count;
            seen >= rank
        });
        Duration::from_micros(found.unwrap_or(last).to)
    };
    let sum: f64 = counted
        .iter()
        .map(|bucket| (bucket.from + bucket.to) as f64 / 2.0 * bucket.count as f64)
        .sum();
    Distribution {
        count: all,
        mean: Duration::from_secs_f64(sum / all as f64 / 1e6),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: Duration::from_micros(last.to),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_number_of_the_first_powers_has_its_own_bucket() {
        for micros in 0..2 * WIDTH {
            let (power, bucket) = place(micros);
            assert_eq!(ends(power, bucket), (micros, micros));
        }
    }

    #[test]
    fn longer_than_an_hour_counts_as_an_hour() {
        let times = Times::default();
        times.record(Timed::Hold, u64::MAX);
        let seen = times.distribution(Timed::Hold, 0);
        assert_eq!(seen.count, 1);
        assert!(seen.max <= Duration::from_hours(1), "{:?}", seen.max);
        assert!(seen.max > Duration::from_mins(59), "{:?}", seen.max);
    }

    #[test]
    fn zeros_count_although_nobody_recorded_them() {
        let times = Times::default();
        assert_eq!(times.distribution(Timed::Wait, 0), Distribution::default());
        times.record(Timed::Wait, 50);
        let seen = times.distribution(Timed::Wait, 99);
        assert_eq!((seen.count, seen.p99), (100, Duration::ZERO));
        assert_eq!(seen.mean, Duration::from_nanos(500));
    }

    proptest! {
        #[test]
        fn a_number_is_counted_between_ends_that_are_a_32nd_apart(micros in 0..=LONGEST) {
            let (power, bucket) = place(micros);
            let (from, to) = ends(power, bucket);
            prop_assert!(from <= micros && micros <= to, "{micros}: {from} to {to}");
            prop_assert!((to - from) * 32 < from.max(32), "{micros}: {from} to {to}");
        }

        #[test]
        fn quantiles_are_at_most_a_32nd_above_those_of_the_numbers_themselves(
            mut all in prop::collection::vec(0..LONGEST, 1..400),
        ) {
            let times = Times::default();
            for micros in &all {
                times.record(Timed::Age, *micros);
            }
            all.sort_unstable();
            let seen = times.distribution(Timed::Age, 0);
            prop_assert_eq!(seen.count, all.len() as u64);
            for (quantile, found) in [(50, seen.p50), (90, seen.p90), (99, seen.p99), (100, seen.max)] {
                let rank = (quantile * all.len()).div_ceil(100).max(1);
                let (exact, found) = (all[rank - 1], micros_of(found));
                prop_assert!(exact <= found && (found - exact) * 32 <= exact, "p{quantile}: {found} for {exact}");
            }
        }
    }

    fn micros_of(span: Duration) -> u64 {
        u64::try_from(span.as_micros()).expect("at most an hour")
    }
}
