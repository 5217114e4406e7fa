//! What one look at a node found.
//!
//! The monitor asks everything in one statement, so a sample is of one moment. What a server did not or
//! would not tell is `None` and stays so: nothing in this crate reads a missing fact as a good one.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use crate::lsn::{Lsn, WalGeometry};

/// What a node is: its answer to `pg_is_in_recovery()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Replays a primary's log.
    Replica,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        })
    }
}

/// Whether a replica goes on replaying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Replay {
    /// It replays what arrives.
    Running,
    /// It was paused, by somebody or by a change of settings on the primary, or is about to be.
    Paused,
}

/// A node's state at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// When the question was sent. The facts are of this moment or later.
    pub asked_at: Instant,
    /// How long the answer took.
    pub round_trip: Duration,
    /// Primary or replica.
    pub role: Role,
    /// Which cluster.
    pub system_identifier: Option<u64>,
    /// Which history of the cluster the node is known to have come to; it may have gone further.
    pub timeline: Option<u32>,
    /// On a replica: whether its receiver has told that timeline since the server started. Otherwise it is the last
    /// checkpoint's, which trails.
    pub told_timeline: bool,
    /// How far the log is safe on a primary (flushed), and how far it is replayed on a replica. Not within
    /// a page's header. While a replica's receiver is away this is no further than when it was there last: what was
    /// replayed since may be of a later timeline.
    pub position: Option<Lsn>,
    /// How the log is cut.
    pub geometry: Option<WalGeometry>,
    /// When the server started, by its own clock.
    pub started_at: Option<SystemTime>,
    /// On which port the server itself listens.
    pub server_port: Option<u16>,
    /// On a replica: whether it replays.
    pub replay: Option<Replay>,
    /// On a replica: whether it is receiving the log. `None` without `pg_monitor`.
    pub receiving: Option<bool>,
    /// What the server's clock said.
    pub server_time: Option<SystemTime>,
    /// Whether the user may see what members of `pg_monitor` may.
    pub may_monitor: Option<bool>,
}

impl Sample {
    /// When the answer was there. The facts are of this moment or earlier.
    pub fn answered_at(&self) -> Instant {
        self.asked_at + self.round_trip
    }

    /// Whether both samples are of one running server, whatever the addresses say.
    pub fn same_server(&self, other: &Self) -> bool {
        let identity = |sample: &Self| {
            Some((
                sample.system_identifier?,
                sample.started_at?,
                sample.server_port?,
            ))
        };
        identity(self).is_some_and(|ours| identity(other) == Some(ours))
    }

    /// A sample with nothing known but the role: for tests and examples of the pure functions.
    pub fn bare(role: Role, asked_at: Instant) -> Self {
        Self {
            asked_at,
            round_trip: Duration::ZERO,
            role,
            system_identifier: None,
            timeline: None,
            told_timeline: false,
            position: None,
            geometry: None,
            started_at: None,
            server_port: None,
            replay: None,
            receiving: None,
            server_time: None,
            may_monitor: None,
        }
    }
}
