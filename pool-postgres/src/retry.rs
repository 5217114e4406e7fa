//! Whether and when a transaction that lost against another is begun again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// How often and after which pauses a transaction is tried again; taken by
/// [`SessionFactory::begin_retrying`](crate::SessionFactory::begin_retrying).
///
/// The pauses double, and are spread at random between one and two times their length, so that those who met
/// once do not meet again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it does nothing until it is given to `begin_retrying`"]
pub struct Retry {
    attempts: usize,
    shortest: Duration,
    longest: Duration,
}

impl Retry {
    /// Tries again what failed by a conflict with other transactions: 40001 (serialization failure) and 40P01
    /// (deadlock). At most 5 attempts, with pauses from 5 ms to 500 ms.
    ///
    /// Says nothing of the isolation level: that is the sessions' own (see
    /// [`SessionFactory::isolation`](crate::SessionFactory::isolation)).
    pub fn serializable() -> Self {
        Self {
            attempts: 5,
            shortest: Duration::from_millis(5),
            longest: Duration::from_millis(500),
        }
    }

    /// How often the transaction is tried at most, the first time included. Default 5; 1 and 0 mean once.
    pub fn attempts(mut self, attempts: usize) -> Self {
        self.attempts = attempts;
        self
    }

    /// The shortest and the longest pause between two attempts. Default 5 ms and 500 ms; a longest that is
    /// shorter than the shortest counts as equal to it.
    pub fn backoff(mut self, shortest: Duration, longest: Duration) -> Self {
        self.shortest = shortest;
        self.longest = longest.max(shortest);
        self
    }

    /// The pauses, one before each further attempt.
    pub(crate) fn pauses(self) -> ExponentialBackoff {
        ExponentialBuilder::default()
            .with_min_delay(self.shortest)
            .with_max_delay(self.longest)
            .with_factor(2.0)
            .with_max_times(self.attempts.saturating_sub(1))
            .with_jitter()
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_pause_before_each_further_attempt_and_none_is_too_short() {
        let millis = Duration::from_millis;
        let pauses: Vec<_> = Retry::serializable().pauses().collect();
        assert_eq!(pauses.len(), 4);
        let retry = Retry::serializable()
            .attempts(7)
            .backoff(millis(10), millis(30));
        let pauses: Vec<_> = retry.pauses().collect();
        assert_eq!(pauses.len(), 6);
        assert!(
            pauses
                .iter()
                .all(|pause| (millis(10)..=millis(60)).contains(pause)),
            "{pauses:?}"
        );
        for once in [0, 1] {
            assert_eq!(Retry::serializable().attempts(once).pauses().count(), 0);
        }
    }
}
