//! What is known of the nodes at one moment, as a value that never changes.
//!
//! A view is made whole by [`Evidence`](crate::evidence::Evidence) and swapped whole, so a reader sees one
//! state of affairs and takes no lock. Times in it are points, so it ages by being read later.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::choose::Choosing;
use crate::floor::Fork;
use crate::history::History;
use crate::lag::Lag;
use crate::load::Load;
use crate::lsn::Lsn;
use crate::orders::Orders;
use crate::sample::{Role, Sample};

/// The nodes and what is known of them.
#[derive(Clone, Debug)]
pub struct View {
    /// In the order they were given: the configured primary first.
    pub nodes: Vec<Node>,
    /// The index of the node that takes writes: the primary on the highest timeline seen so far.
    pub primary: Option<usize>,
    /// The cluster. `None` until the primary of a database that was started lazily has answered.
    pub system_identifier: Option<u64>,
    /// The highest timeline that a primary was seen on.
    pub timeline: Option<u32>,
    /// Rises whenever another node takes writes or the timeline changes.
    pub epoch: u64,
    /// Timelines that ended.
    pub forks: Vec<Fork>,
    /// Where the primary stood over time.
    pub history: Arc<History>,
    /// What people have told the router to do.
    pub orders: Orders,
    /// What the choice among fit replicas goes by, beside their loads.
    pub choosing: Choosing,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    /// What people call it: its part and its address.
    pub name: Arc<str>,
    /// Whether it answers.
    pub answers: Answers,
    /// What it said last.
    pub sample: Option<Sample>,
    /// The moment whose data it shows, at least. `None` where that is not known.
    pub as_of: Option<Instant>,
    /// Since when it answers again or is back in rotation, if it ever went away or was out.
    pub since: Option<Instant>,
    /// Until when it is out of rotation although it answers, if its connections kept failing.
    pub ejected_until: Option<Instant>,
    /// The zone that it is in, if that was said.
    pub zone: Option<Arc<str>>,
    /// How busy it is.
    pub load: Arc<Load>,
}

/// Whether a node answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Answers {
    /// It was not asked yet.
    NotAsked,
    /// Yes, when it was asked last.
    Yes,
    /// Not when it was asked last, or a connection to it was lost since.
    No,
}

/// Why a replica was not used for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Reason {
    /// It has not answered yet.
    NotSeen,
    /// It does not answer.
    NotAnswering,
    /// It is of another cluster.
    OtherCluster,
    /// It is on a lower timeline than the primary, or calls itself a primary beside it.
    OtherTimeline,
    /// Its timeline is not known.
    TimelineUnknown,
    /// The age of its data is not known.
    LagUnknown,
    /// Its data is older than the read allows.
    TooStale,
    /// It has not replayed up to the token.
    BehindToken,
    /// The token is weak, which only the primary can honour.
    WeakToken,
    /// It could not prove the promise on the connection.
    ProofFailed,
    /// No connection to it could be had.
    NoConnection,
    /// Reads are kept away from it by order.
    Drained,
    /// By order, all reads go to the primary.
    PrimaryOnly,
    /// It answers, but connections to it keep being lost, or none can be had: it is out for a while.
    Ejected,
}

impl Reason {
    /// All of them, in the order of their numbers (`as usize`).
    pub const ALL: [Self; 14] = [
        Self::NotSeen,
        Self::NotAnswering,
        Self::OtherCluster,
        Self::OtherTimeline,
        Self::TimelineUnknown,
        Self::LagUnknown,
        Self::TooStale,
        Self::BehindToken,
        Self::WeakToken,
        Self::ProofFailed,
        Self::NoConnection,
        Self::Drained,
        Self::PrimaryOnly,
        Self::Ejected,
    ];
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSeen => "has not answered yet",
            Self::NotAnswering => "does not answer",
            Self::OtherCluster => "is of another cluster",
            Self::OtherTimeline => "is on another timeline than the primary",
            Self::TimelineUnknown => "its timeline is not known",
            Self::LagUnknown => "the age of its data is not known",
            Self::TooStale => "its data is too old",
            Self::BehindToken => "has not replayed up to the token",
            Self::WeakToken => "cannot honour a weak token",
            Self::ProofFailed => "could not prove the promise",
            Self::NoConnection => "gave no connection",
            Self::Drained => "is drained",
            Self::PrimaryOnly => "all reads go to the primary by order",
            Self::Ejected => "is out for a while: its connections keep failing",
        })
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yes => "up",
            Self::No => "down",
            Self::NotAsked => "not seen",
        })
    }
}

impl Node {
    /// Where it stood when it was looked at last: flushed on a primary, replayed on a replica.
    pub fn position(&self) -> Option<Lsn> {
        self.sample.as_ref().and_then(|sample| sample.position)
    }
}

impl View {
    /// Whether reads can go anywhere but to the primary.
    pub fn has_replicas(&self) -> bool {
        self.nodes.len() > 1
    }

    /// Whether a node takes writes, and answered when it was asked last.
    pub fn is_led(&self) -> bool {
        self.primary
            .is_some_and(|primary| self.nodes[primary].answers == Answers::Yes)
    }

    /// How long a node is still out of rotation although it answers.
    pub fn ejected(&self, node: usize, now: Instant) -> Option<Duration> {
        let until = self.nodes[node].ejected_until?;
        until
            .checked_duration_since(now)
            .filter(|left| !left.is_zero())
    }

    /// Whether a sample is of this cluster; of an unknown one none is.
    pub fn is_of_ours(&self, sample: &Sample) -> bool {
        sample.system_identifier.is_some() && sample.system_identifier == self.system_identifier
    }

    /// The lag of a node's data at a moment; the primary has none.
    pub fn lag(&self, node: usize, now: Instant) -> Lag {
        if self.primary == Some(node) {
            return Lag::Fresh;
        }
        let node = &self.nodes[node];
        Lag::of(node.position(), node.as_of, &self.history, now)
    }

    /// Whether a node takes reads at all: it answers, it is a replica, and it is of the primary's cluster and
    /// timeline.
    ///
    /// # Errors
    /// Why not.
    pub fn replica(&self, node: usize) -> Result<&Sample, Reason> {
        let node = &self.nodes[node];
        let sample = match (node.answers, &node.sample) {
            (Answers::No, _) => return Err(Reason::NotAnswering),
            (Answers::NotAsked, _) | (_, None) => return Err(Reason::NotSeen),
            (Answers::Yes, Some(sample)) => sample,
        };
        if !self.is_of_ours(sample) {
            return Err(Reason::OtherCluster);
        }
        if sample.role == Role::Primary {
            return Err(Reason::OtherTimeline);
        }
        match (sample.timeline, self.timeline) {
            (Some(theirs), Some(ours)) if theirs == ours => Ok(sample),
            (Some(_), Some(_)) => Err(Reason::OtherTimeline),
            _ => Err(Reason::TimelineUnknown),
        }
    }
}
