//! What people are shown: each node's role, lag, pool and counts.
//!
//! With the feature `serde` it serializes, for a route that shows it: times are seconds, names in snake case, and what
//! is not known is null, never zero.

use std::fmt;
use std::time::{Duration, Instant};

use pool_core::Status;

use crate::lag::Lag;
use crate::orders::Reads;
use crate::sample::Role;
use crate::shared::Shared;
use crate::tally::Counts;
use crate::view::{Answers, Reason, View};

/// A database's nodes at one moment. `Display` gives one line a node.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DatabaseStatus {
    /// In the order they were given, the configured primary first.
    pub nodes: Vec<NodeStatus>,
    /// The index of the node that takes writes.
    pub primary: Option<usize>,
    /// The cluster (PostgreSQL's `system_identifier`). `None` until the primary of a database that was started lazily
    /// has answered.
    pub system_identifier: Option<u64>,
    /// The timeline that the primary is on.
    pub timeline: Option<u32>,
    /// Rises whenever another node takes writes or the timeline changes.
    pub epoch: u64,
    /// Where reads may go, by order.
    pub reads: Reads,
    /// How long writes still wait at most, if they are suspended.
    #[cfg_attr(feature = "serde", serde(serialize_with = "seconds::maybe"))]
    pub writes_suspended: Option<Duration>,
}

/// One node at one moment.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NodeStatus {
    /// Its part and its address.
    pub name: String,
    /// What it says it is.
    pub role: Option<Role>,
    /// Whether it answered when it was asked last.
    pub answers: Answers,
    /// The age of the data that it serves.
    pub lag: Lag,
    /// Whether reads are kept away from it by order.
    pub drained: bool,
    /// How long it is still out of rotation although it answers, if its connections kept failing.
    #[cfg_attr(feature = "serde", serde(serialize_with = "seconds::maybe"))]
    pub ejected: Option<Duration>,
    /// How many bytes of log it lacks, by the last looks at it and at the primary.
    pub lag_bytes: Option<u64>,
    /// Its pool.
    pub pool: Status,
    /// Transactions that are running on it for this database.
    pub outstanding: u32,
    /// The mean time to an answer.
    #[cfg_attr(feature = "serde", serde(serialize_with = "seconds::exactly"))]
    pub latency: Duration,
    /// How long ago its monitor's last answered question was sent. It is in [`lag`](Self::lag) already.
    #[cfg_attr(feature = "serde", serde(serialize_with = "seconds::maybe"))]
    pub last_look: Option<Duration>,
    /// How long the answer to that question took.
    #[cfg_attr(feature = "serde", serde(serialize_with = "seconds::maybe"))]
    pub round_trip: Option<Duration>,
    /// What it was used for.
    pub counts: Counts,
    /// The last failure of a look or of a connection, however long ago.
    pub last_error: Option<String>,
}

impl NodeStatus {
    /// One node of a view, at a moment.
    pub(crate) fn of(shared: &Shared, view: &View, index: usize, now: Instant) -> Self {
        let (parts, node) = (&shared.nodes[index], &view.nodes[index]);
        let sample = node.sample.as_ref();
        let lag_bytes = match (view.history.newest(), node.position()) {
            _ if view.primary == Some(index) => Some(0),
            (Some(primary), Some(ours)) if node.as_of.is_some() => Some(primary.bytes_since(ours)),
            _ => None,
        };
        Self {
            name: parts.name.to_string(),
            role: sample.map(|sample| sample.role),
            answers: node.answers,
            lag: view.lag(index, now),
            drained: view.orders.is_drained(index),
            ejected: view.ejected(index, now),
            lag_bytes,
            pool: parts.engine.status(),
            outstanding: parts.load.outstanding(),
            latency: parts.load.latency(),
            last_look: sample.map(|sample| now.saturating_duration_since(sample.asked_at)),
            round_trip: sample.map(|sample| sample.round_trip),
            counts: parts.tally.counts(),
            last_error: parts.tally.last_error(),
        }
    }

    /// Whether it answered when it was asked last.
    pub fn is_up(&self) -> bool {
        self.answers == Answers::Yes
    }
}

impl DatabaseStatus {
    pub(crate) fn of(shared: &Shared) -> Self {
        let (view, now) = (shared.view(), Instant::now());
        let nodes = 0..shared.nodes.len();
        let nodes = nodes.map(|index| NodeStatus::of(shared, &view, index, now));
        Self {
            nodes: nodes.collect(),
            primary: view.primary,
            system_identifier: view.system_identifier,
            timeline: view.timeline,
            epoch: view.epoch,
            reads: view.orders.reads,
            writes_suspended: view.orders.writes_wait(now),
        }
    }

    /// How many reads ran on the primary although there are replicas, by the reason for which each replica was passed
    /// over; summed over the replicas.
    pub fn missed_replicas(&self) -> Vec<(Reason, u64)> {
        let counts = || self.nodes.iter().flat_map(|node| &node.counts.passed_over);
        let sum = |reason| {
            let of_it = counts().filter(|(other, _)| *other == reason);
            of_it.map(|(_, count)| count).sum::<u64>()
        };
        let sums = Reason::ALL.into_iter().map(|reason| (reason, sum(reason)));
        sums.filter(|(_, count)| *count > 0).collect()
    }
}

impl fmt::Display for DatabaseStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, node) in self.nodes.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            node.fmt(f)?;
        }
        if self.reads != Reads::Routed {
            write!(f, "\nreads go {}, by order", self.reads)?;
        }
        if let Some(left) = self.writes_suspended {
            write!(f, "\nwrites are suspended for {left:.1?} more at most")?;
        }
        Ok(())
    }
}

impl fmt::Display for NodeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = self
            .role
            .map_or_else(|| "role unknown".to_owned(), |role| role.to_string());
        let drained = if self.drained { ", drained" } else { "" };
        let Counts {
            reads,
            writes,
            refused,
            passed_over,
        } = &self.counts;
        write!(
            f,
            "{}: {}, {role}{drained}, {}; {reads} reads, {writes} writes, {refused} refused; {}",
            self.name, self.answers, self.lag, self.pool
        )?;
        if let Some(left) = self.ejected {
            write!(f, "; out for {left:.1?} more: its connections keep failing")?;
        }
        for (reason, count) in passed_over {
            write!(f, "; {count} reads went to the primary instead: {reason}")?;
        }
        Ok(())
    }
}

/// What [`Database::health`](crate::Database::health) found.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct HealthReport {
    /// Whether writes can be made: the primary answered just now.
    pub can_write: bool,
    /// Whether a read with the default promise can be served.
    pub can_read: bool,
    /// Everything known, looked at just now.
    pub status: DatabaseStatus,
}

impl HealthReport {
    /// Whether every node answers and both reads and writes can be served.
    pub fn is_whole(&self) -> bool {
        self.can_write && self.can_read && self.status.nodes.iter().all(NodeStatus::is_up)
    }
}

/// How [`Database::shutdown`](crate::Database::shutdown) ended, node by node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Each node's name and how its pool closed.
    pub nodes: Vec<(String, pool_core::CloseReport)>,
}

impl ShutdownReport {
    /// Whether everything came back and was closed.
    pub fn is_clean(&self) -> bool {
        self.nodes.iter().all(|(_, report)| report.is_clean())
    }
}

/// Times as seconds, with their fractions.
#[cfg(feature = "serde")]
#[allow(
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's signature"
)]
mod seconds {
    use std::time::Duration;

    use serde::Serializer;

    pub(super) fn exactly<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(time.as_secs_f64())
    }

    pub(super) fn maybe<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => to.serialize_some(&time.as_secs_f64()),
            None => to.serialize_none(),
        }
    }
}
