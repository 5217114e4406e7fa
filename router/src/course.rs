//! What a monitor knows between two looks, and what follows from it: how long to pause, and what else to ask.
//!
//! Pure: the time and the dice are passed in. [`monitor`](crate::monitor) carries it out on real connections, the
//! simulation on simulated ones.
//!
//! What always holds: the history of a primary's timelines is asked for until it has been answered once.

use std::time::{Duration, Instant};

use crate::demand::Demand;
use crate::sample::{Role, Sample};

/// How long a look may take before the node counts as silent. With the longest pause between two looks this
/// stays below a second.
pub(crate) const LIMIT: Duration = Duration::from_millis(400);
/// How long an answer that is late already is waited for, so that a node which was only held up returns with
/// that answer. After that the connection is given up.
pub(crate) const LATE: Duration = Duration::from_secs(5);
/// How long opening the monitor's connection may take.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// The pause after a failed attempt: doubled each time from the first to the last, a random part waited.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// What one node's monitor goes by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Course {
    last: Option<Sample>,
    failures: u32,
    /// The timeline whose history file was read.
    history_of: Option<u32>,
}

impl Course {
    /// Goes on from a first look, or from nothing if there was none.
    pub(crate) fn new(first: Option<Sample>) -> Self {
        Self {
            last: first,
            ..Self::default()
        }
    }

    /// What the node said last.
    pub(crate) fn last(&self) -> Option<&Sample> {
        self.last.as_ref()
    }

    /// Whether the last look failed, or the attempt to make one.
    pub(crate) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// How long to wait for the next look, unless somebody rings. `chance` is a random number from zero to one.
    pub(crate) fn pause(&self, demand: &Demand, now: Instant, chance: f64) -> Duration {
        match self.failures {
            0 => demand.interval(now),
            failures => backoff(failures, chance),
        }
    }

    /// The timeline whose history is to be read before this answer is passed on.
    pub(crate) fn unread_history(&self, sample: &Sample) -> Option<u32> {
        sample.timeline.filter(|timeline| {
            let news = self.history_of != Some(*timeline);
            news && *timeline > 1 && sample.role == Role::Primary
        })
    }

    /// The history of a timeline was read, or the server has said that we may not.
    pub(crate) fn read_history(&mut self, timeline: u32) {
        self.history_of = Some(timeline);
    }

    /// The node answered.
    pub(crate) fn answered(&mut self, sample: Sample) {
        self.failures = 0;
        self.last = Some(sample);
    }

    /// The node did not answer, or could not be asked.
    pub(crate) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }
}

/// Full jitter, but never at once: half of the pause is always waited.
fn backoff(failures: u32, chance: f64) -> Duration {
    let (first, last) = PAUSE;
    let pause = first.saturating_mul(1 << (failures - 1).min(10)).min(last);
    pause / 2 + pause.mul_f64(chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(timeline: u32) -> Sample {
        Sample {
            timeline: Some(timeline),
            ..Sample::bare(Role::Primary, Instant::now())
        }
    }

    #[test]
    fn a_history_is_asked_for_until_it_was_read() {
        let mut course = Course::new(None);
        assert_eq!(course.unread_history(&primary(1)), None);
        assert_eq!(course.unread_history(&primary(2)), Some(2));
        course.answered(primary(2));
        assert_eq!(course.unread_history(&primary(2)), Some(2));
        course.read_history(2);
        assert_eq!(course.unread_history(&primary(2)), None);
        assert_eq!(course.unread_history(&primary(3)), Some(3));
    }

    #[test]
    fn attempts_to_reach_a_dead_node_spread_out_and_never_stop() {
        for failures in [1, 2, 5, 100, u32::MAX] {
            for chance in [0.0, 0.5, 1.0] {
                let pause = backoff(failures, chance);
                assert!(
                    pause >= PAUSE.0 / 2 && pause <= PAUSE.1,
                    "{failures}: {pause:?}"
                );
            }
        }
        assert!(backoff(100, 0.0) >= PAUSE.1 / 2);
    }

    #[test]
    fn only_an_answer_ends_the_pauses_of_a_node_that_failed() {
        let (now, mut course) = (Instant::now(), Course::new(None));
        let demand = Demand::new(now);
        course.failed();
        assert!(course.has_failed() && course.pause(&demand, now, 1.0) == PAUSE.0);
        course.answered(primary(1));
        assert!(!course.has_failed() && course.pause(&demand, now, 1.0) != PAUSE.0);
    }

    #[test]
    fn a_silent_node_is_noticed_within_a_second() {
        let now = Instant::now();
        assert!(Demand::new(now).interval(now) + LIMIT < Duration::from_secs(1));
    }
}
