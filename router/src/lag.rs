//! The age of the data that a replica serves.
//!
//! Three answers, and no number stands for "I don't know": fresh, stale by so much, unknown.

use std::fmt;
use std::time::{Duration, Instant};

use crate::history::History;
use crate::lsn::Lsn;

/// A replica that had replayed everything counts as fresh while our last look at the primary is younger
/// than this; after that the age of that look is its lag.
const LOOK_IS_CURRENT: Duration = Duration::from_secs(1);

/// The age of the data that a node serves.
///
/// An upper bound: the time between our looks at the primary is in it. It grows while the primary doesn't
/// answer, for nobody can say then what a replica lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lag {
    /// It has everything that the primary had when we looked, less than a second ago. However long nothing
    /// has been written: an idle primary leaves its replicas fresh.
    Fresh,
    /// Its data may be this old.
    Stale(Duration),
    /// It cannot be said, and it is not taken for fresh. The node has not answered, it has not told its
    /// position or timeline, it is of another timeline than the primary, or it lags further behind than our
    /// knowledge of the primary goes back.
    Unknown,
}

impl Lag {
    /// The lag of a node that had replayed up to `replayed`, which `as_of` says is the data of that moment.
    pub(crate) fn of(
        replayed: Option<Lsn>,
        as_of: Option<Instant>,
        history: &History,
        now: Instant,
    ) -> Self {
        let (Some(replayed), Some(as_of)) = (replayed, as_of) else {
            return Self::Unknown;
        };
        let age = now.saturating_duration_since(as_of);
        let has_everything = history.newest().is_some_and(|newest| replayed >= newest);
        if has_everything && age < LOOK_IS_CURRENT {
            Self::Fresh
        } else {
            Self::Stale(age)
        }
    }
}

/// `{"state": "fresh"}`, `{"state": "stale", "seconds": 0.25}` or `{"state": "unknown"}`.
#[cfg(feature = "serde")]
impl serde::Serialize for Lag {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut lag = to.serialize_struct("Lag", 2)?;
        let (state, seconds) = match self {
            Self::Fresh => ("fresh", None),
            Self::Stale(age) => ("stale", Some(age.as_secs_f64())),
            Self::Unknown => ("unknown", None),
        };
        lag.serialize_field("state", state)?;
        match seconds {
            Some(seconds) => lag.serialize_field("seconds", &seconds)?,
            None => lag.skip_field("seconds")?,
        }
        lag.end()
    }
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => f.write_str("fresh"),
            Self::Stale(age) => write!(f, "stale by up to {age:.1?}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lag(history: &History, replayed: Option<u64>, now: Instant) -> Lag {
        let replayed = replayed.map(Lsn);
        Lag::of(
            replayed,
            replayed.and_then(|at| history.as_of(at)),
            history,
            now,
        )
    }

    #[test]
    fn a_gap_of_zero_is_fresh_only_while_our_look_at_the_primary_is() {
        let start = Instant::now();
        let mut history = History::default();
        history.note(1, 1, Lsn(100), start);
        assert_eq!(lag(&history, Some(100), start + SECOND / 2), Lag::Fresh);
        // The primary is gone and nobody knows what it wrote before: the last look's age is the lag.
        assert_eq!(
            lag(&history, Some(100), start + 10 * SECOND),
            Lag::Stale(10 * SECOND)
        );
    }

    #[test]
    fn what_is_missing_is_unknown_and_never_zero() {
        let start = Instant::now();
        let mut history = History::default();
        assert_eq!(
            lag(&history, Some(100), start),
            Lag::Unknown,
            "the primary was never seen"
        );
        history.note(1, 1, Lsn(100), start);
        assert_eq!(
            lag(&history, None, start),
            Lag::Unknown,
            "the replica told no position"
        );
        assert_eq!(
            lag(&history, Some(99), start),
            Lag::Unknown,
            "older than all we know"
        );
    }

    #[test]
    fn a_replica_that_stands_still_grows_stale_from_its_last_moment() {
        let start = Instant::now();
        let mut history = History::default();
        for second in 0..5_u32 {
            history.note(1, 1, Lsn(100 + u64::from(second)), start + second * SECOND);
        }
        assert_eq!(
            lag(&history, Some(101), start + 5 * SECOND),
            Lag::Stale(4 * SECOND)
        );
    }
}
