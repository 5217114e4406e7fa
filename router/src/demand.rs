//! How often the monitors look: as often as the tightest promise asked for lately needs.
//!
//! A look every quarter of the tightest bound, between 50 and 500 ms; every 500 ms where no bound was asked
//! for within the last [`WINDOW`].

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// For how long, at least, a bound that was asked for keeps its effect.
const WINDOW: Duration = Duration::from_secs(5);
const SLOWEST: Duration = Duration::from_millis(500);
const FASTEST: Duration = Duration::from_millis(50);
const NONE: u32 = u32::MAX;

/// The bounds that reads have asked for.
#[derive(Debug)]
pub(crate) struct Demand {
    /// The tightest bound of this window, in milliseconds.
    tightest: AtomicU32,
    /// The bound that the interval in force serves, in milliseconds.
    served: AtomicU32,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    /// The tightest bound of the window before.
    before: u32,
}

impl Demand {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            tightest: AtomicU32::new(NONE),
            served: AtomicU32::new(NONE),
            window: Mutex::new(Window {
                began: now,
                before: NONE,
            }),
        }
    }

    /// A read asks for this bound; says whether the monitors should be woken to learn it.
    pub(crate) fn asked(&self, bound: Duration) -> bool {
        let millis = u32::try_from(bound.as_millis()).unwrap_or(NONE);
        // Relaxed throughout: a hint how often to look, and nothing is carried with it. The usual read finds
        // the same bound there already and writes nothing.
        if millis < self.tightest.load(Relaxed) {
            self.tightest.fetch_min(millis, Relaxed);
        }
        let served = self.served.load(Relaxed);
        interval_for(millis) < interval_for(served)
            && self
                .served
                .compare_exchange(served, millis, Relaxed, Relaxed)
                .is_ok()
    }

    /// How long to wait until the next look.
    pub(crate) fn interval(&self, now: Instant) -> Duration {
        let mut window = self.window.lock();
        if now.saturating_duration_since(window.began) > WINDOW {
            // Relaxed: see `asked`.
            *window = Window {
                began: now,
                before: self.tightest.swap(NONE, Relaxed),
            };
        }
        let tightest = window.before.min(self.tightest.load(Relaxed));
        self.served.store(tightest, Relaxed);
        interval_for(tightest)
    }
}

fn interval_for(bound_millis: u32) -> Duration {
    Duration::from_millis(u64::from(bound_millis / 4)).clamp(FASTEST, SLOWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_a_quarter_of_the_tightest_bound_within_limits() {
        let start = Instant::now();
        let demand = Demand::new(start);
        assert_eq!(demand.interval(start), SLOWEST, "nobody asks for anything");
        assert!(
            !demand.asked(Duration::from_secs(10)),
            "half a second is often enough for that"
        );
        assert!(
            demand.asked(Duration::from_secs(1)),
            "the monitors have to be told"
        );
        assert!(!demand.asked(Duration::from_secs(1)), "once");
        assert_eq!(demand.interval(start), Duration::from_millis(250));
        assert!(demand.asked(Duration::from_millis(1)));
        assert_eq!(demand.interval(start), FASTEST);
    }

    #[test]
    fn a_bound_that_is_no_longer_asked_for_loses_its_effect() {
        let start = Instant::now();
        let demand = Demand::new(start);
        demand.asked(Duration::from_secs(1));
        assert_eq!(
            demand.interval(start + WINDOW / 2),
            Duration::from_millis(250)
        );
        let later = start + WINDOW + WINDOW / 2;
        assert_eq!(
            demand.interval(later),
            Duration::from_millis(250),
            "at least a window"
        );
        assert_eq!(demand.interval(later + WINDOW + WINDOW / 2), SLOWEST);
    }
}
