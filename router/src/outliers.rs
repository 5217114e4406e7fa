//! When a node that answers its monitor is taken out of rotation all the same: its connections keep being lost, or
//! none can be had.
//!
//! Only what says something about the node is counted here, never a slow statement or what a server answered. How many
//! may be out at once is for [`Evidence`](crate::evidence::Evidence) to say. Pure: the time is passed in.

use std::time::{Duration, Instant};

/// So many failures within [`WINDOW`] make an outlier.
const FAILURES: u32 = 5;
/// How long a failure counts.
const WINDOW: Duration = Duration::from_secs(10);
/// How long a node is out the first time; doubled each time.
const FIRST: Duration = Duration::from_secs(10);
/// How long it is out at most. After as long without another time it starts over.
const LONGEST: Duration = Duration::from_mins(5);

/// One node's failures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlier {
    /// The window's first failure, and how many there were since.
    window: Option<(Instant, u32)>,
    /// The last time out: how long it was, and its end.
    last: Option<(Duration, Instant)>,
}

impl Outlier {
    /// One more failure; says whether they make an outlier.
    pub(crate) fn failed(&mut self, now: Instant) -> bool {
        let window = self
            .window
            .filter(|(start, _)| now.saturating_duration_since(*start) < WINDOW);
        let (start, count) = window.unwrap_or((now, 0));
        self.window = Some((start, count.saturating_add(1)));
        count + 1 >= FAILURES
    }

    /// Takes the node out; says for how long.
    pub(crate) fn eject(&mut self, now: Instant) -> Duration {
        let recent = self
            .last
            .filter(|(_, end)| now.saturating_duration_since(*end) < LONGEST);
        let time = recent.map_or(FIRST, |(before, _)| (before * 2).min(LONGEST));
        self.last = Some((time, now + time));
        self.window = None;
        time
    }

    /// The node went away: what comes back is looked at anew.
    pub(crate) fn went_away(&mut self) {
        self.window = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn five_failures_within_ten_seconds_make_an_outlier_and_fewer_or_slower_do_not() {
        let now = Instant::now();
        let mut quick = Outlier::default();
        let verdicts = [0, 1, 2, 3, 9].map(|second| quick.failed(now + second * SECOND));
        assert_eq!(verdicts, [false, false, false, false, true]);
        let mut slow = Outlier::default();
        assert!((0..60).all(|turn| !slow.failed(now + turn * 3 * SECOND)));
    }

    #[test]
    fn each_time_out_is_twice_as_long_up_to_a_bound_and_a_good_while_starts_over() {
        let mut now = Instant::now();
        let mut outlier = Outlier::default();
        let mut times = Vec::new();
        for _ in 0..7 {
            let time = outlier.eject(now);
            times.push(time.as_secs());
            now += time + SECOND;
        }
        assert_eq!(times, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(outlier.eject(now + LONGEST), FIRST);
    }
}
