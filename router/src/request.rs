//! What a read asks for.

use std::fmt;
use std::time::Duration;

use pool_postgres::CommitToken;

/// What a read promises about the data it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consistency {
    /// Data of any age, from any replica that answers and belongs to the primary's timeline.
    Eventual,
    /// Data of at most this age. Proved on the connection that is used, by our own looks at the primary.
    BoundedStaleness(Duration),
    /// Everything up to this commit. Proved on the connection that is used, before the snapshot is taken.
    ReadYourWrites(CommitToken),
    /// What the primary has now: goes to the primary, which proves to be one.
    Strong,
}

/// Data of at most ten seconds of age.
impl Default for Consistency {
    fn default() -> Self {
        Self::BoundedStaleness(Duration::from_secs(10))
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eventual => f.write_str("data of any age"),
            Self::BoundedStaleness(age) => write!(f, "data at most {age:?} old"),
            Self::ReadYourWrites(token) => write!(f, "everything up to {token}"),
            Self::Strong => f.write_str("what the primary has now"),
        }
    }
}

/// One read as [`plan`](crate::plan::plan) sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it promises.
    pub consistency: Consistency,
    /// A node that has just refused this very read.
    pub avoid: Option<usize>,
    /// Replicas have refused it often enough.
    pub primary_only: bool,
}

impl Request {
    /// A first attempt.
    pub fn new(consistency: Consistency) -> Self {
        Self {
            consistency,
            avoid: None,
            primary_only: false,
        }
    }
}
