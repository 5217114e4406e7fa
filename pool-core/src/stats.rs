//! What a pool has done since it was built: counts and distributions, summed when somebody asks.

use std::fmt;
use std::time::Duration;

use crate::tally::{Timed, Times};

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum CloseReason {
    /// Found broken, by `Backend::check`, by a ping, or held by a task that panicked.
    Broken,
    /// Over its age (`recycle`), or renewed.
    Expired,
    /// Idle for longer than `idle_timeout`.
    Idle,
    /// More were idle than the pool keeps.
    Overflow,
    /// Its reset failed or took too long.
    ResetFailed,
    /// Invalidated, alone or with its generation.
    Invalidated,
    /// The pool was made smaller.
    Resized,
    /// Another pool under the same budget had more need of its room.
    Yielded,
    /// A hook or `retain` did not want it.
    Refused,
    /// Held for longer than `max_hold`.
    HeldTooLong,
    /// The pool was closed.
    PoolClosed,
}

impl CloseReason {
    pub(crate) const ALL: [Self; 11] = [
        Self::Broken,
        Self::Expired,
        Self::Idle,
        Self::Overflow,
        Self::ResetFailed,
        Self::Invalidated,
        Self::Resized,
        Self::Yielded,
        Self::Refused,
        Self::HeldTooLong,
        Self::PoolClosed,
    ];

    /// Its name in metrics, logs and serialized statistics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Expired => "expired",
            Self::Idle => "idle",
            Self::Overflow => "overflow",
            Self::ResetFailed => "reset_failed",
            Self::Invalidated => "invalidated",
            Self::Resized => "resized",
            Self::Yielded => "yielded",
            Self::Refused => "refused",
            Self::HeldTooLong => "held_too_long",
            Self::PoolClosed => "pool_closed",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How connections were closed, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Closed([u64; CloseReason::ALL.len()]);

impl Closed {
    pub(crate) fn from_counts(count: impl Fn(CloseReason) -> u64) -> Self {
        Self(CloseReason::ALL.map(count))
    }

    /// How many were closed for this reason.
    pub fn by(&self, reason: CloseReason) -> u64 {
        self.0[reason as usize]
    }

    /// How many were closed in all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (CloseReason, u64)> + '_ {
        CloseReason::ALL
            .into_iter()
            .map(|reason| (reason, self.by(reason)))
    }
}

/// A distribution of times: quantiles at most 3% above the truth, from one microsecond up to an hour.
/// Longer ones count as an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Distribution {
    /// How many values it was made from. All others are zero where this is.
    pub count: u64,
    /// The mean.
    pub mean: Duration,
    /// Half of the values are no longer than this.
    pub p50: Duration,
    /// 90% are no longer than this.
    pub p90: Duration,
    /// 99% are no longer than this.
    pub p99: Duration,
    /// 99.9% are no longer than this.
    pub p999: Duration,
    /// The longest.
    pub max: Duration,
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:.1?}, p99 {:.1?}, max {:.1?} of {}",
            self.p50, self.p99, self.max, self.count
        )
    }
}

/// How long connections were held while so many were in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Held {
    /// How many checkouts were timed.
    pub count: u64,
    /// Their mean.
    pub mean: Duration,
}

/// What a pool has done since it was built: [`Pool::stats`](crate::Pool::stats).
///
/// Each number is exact; numbers read while others work may be a moment apart. `Display` gives one line.
///
/// The pools of a [`PoolMap`](crate::PoolMap) keep their times together: the distributions of each are empty, and
/// those of [`PoolMap::stats`](crate::PoolMap::stats) are of all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Stats {
    /// Connections handed out.
    pub checkouts: u64,
    /// How long callers waited, whatever came of it: served at once (zero), served later, timed out, refused, or
    /// gone before their turn.
    pub wait: Distribution,
    /// How long connections were held. One checkout in 64 of each slot is timed.
    pub hold: Distribution,
    /// The same by about how many connections were in use at the return: 1, 2 to 3, 4 to 7 and so on, the last from 128
    /// on. A hold that grows with them says that the database is at its limit.
    #[cfg_attr(feature = "serde", serde(default))]
    pub hold_by_use: [Held; USES],
    /// For how long all this was counted: since the pool opened its first connection.
    #[cfg_attr(feature = "serde", serde(default))]
    pub watched: Duration,
    /// How long opening took, failed attempts not counted.
    pub connect: Distribution,
    /// How old connections were when they were closed, exact to about 100 ms.
    pub age_at_close: Distribution,
    /// Connections closed, by reason.
    pub closed: Closed,
    /// Connections opened.
    pub opened: u64,
    /// Attempts to open one that failed.
    pub connect_failures: u64,
    /// Callers whose time was over.
    pub timeouts: u64,
    /// Callers refused because the queue was full.
    pub queue_full: u64,
    /// Callers sent away because the queue stood for too long; in shadow mode those that would have been.
    pub shed: u64,
    /// Callers that left before their turn.
    pub gave_up: u64,
    /// Checkouts suspected of a leak (`leak_threshold`).
    pub leaks_suspected: u64,
    /// Of those, how many came back after all.
    pub leaks_returned: u64,
    /// Checkouts longer than `max_hold`.
    pub held_too_long: u64,
    /// How long ago maintenance looked at the pool last; `None` where nothing is open or there is nothing to
    /// look after. More than a few seconds says that its runtime stands still.
    pub maintenance_age: Option<Duration>,
}

/// Into how many classes of use holds are divided.
pub(crate) const USES: usize = 8;

impl Stats {
    /// Fills in the distributions, with so many checkouts that did not wait.
    pub(crate) fn timed(&mut self, times: &Times, at_once: u64) {
        self.wait = times.distribution(Timed::Wait, at_once);
        self.hold = times.distribution(Timed::Hold, 0);
        self.connect = times.distribution(Timed::Connect, 0);
        self.age_at_close = times.distribution(Timed::Age, 0);
    }

    /// Adds another pool's counts.
    #[allow(clippy::cast_precision_loss, reason = "fewer than 2^53 checkouts")]
    pub(crate) fn add(&mut self, other: &Self) {
        self.checkouts += other.checkouts;
        for (sum, more) in self.closed.0.iter_mut().zip(other.closed.0) {
            *sum += more;
        }
        for (sum, more) in self.hold_by_use.iter_mut().zip(other.hold_by_use) {
            let count = sum.count + more.count;
            if count > 0 {
                let all = sum.mean.as_secs_f64() * sum.count as f64
                    + more.mean.as_secs_f64() * more.count as f64;
                sum.mean = Duration::from_secs_f64(all / count as f64);
            }
            sum.count = count;
        }
        self.watched = self.watched.max(other.watched);
        self.opened += other.opened;
        self.connect_failures += other.connect_failures;
        self.timeouts += other.timeouts;
        self.queue_full += other.queue_full;
        self.shed += other.shed;
        self.gave_up += other.gave_up;
        self.leaks_suspected += other.leaks_suspected;
        self.leaks_returned += other.leaks_returned;
        self.held_too_long += other.held_too_long;
        // The one that was not looked at for longest.
        self.maintenance_age = self.maintenance_age.max(other.maintenance_age);
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} checkouts, wait {}, hold {}, {} opened, {} closed, {} timeouts, {} leaks suspected",
            self.checkouts,
            self.wait,
            self.hold,
            self.opened,
            self.closed.total(),
            self.timeouts,
            self.leaks_suspected
        )
    }
}
