//! What a read asks for.

use std::fmt;
use std::time::Duration;

use pool_postgres::CommitToken;

use crate::floor::TokenRefusal;
use crate::proof::Unproved;

/// After so many refusals of one read only the primary is asked.
const REFUSALS_BEFORE_PRIMARY: u32 = 2;

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
    /// Nothing older than the place in the log that this token names. Proved as [`ReadYourWrites`](Self::ReadYourWrites)
    /// is.
    ///
    /// The two differ for a weak token ([`Strength`](pool_postgres::Strength)), whose commit may lie beyond its place:
    /// a read that must see that commit goes to the primary, and one that must only not go back may use any replica
    /// that has reached the place. A transaction that wrote nothing gives no token, so keep the one that you had.
    Monotonic(CommitToken),
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
            Self::Monotonic(token) => write!(f, "nothing older than {token}"),
            Self::Strong => f.write_str("what the primary has now"),
        }
    }
}

/// How long a read that follows a token may wait for a replica to reach it.
///
/// A read waits only where no replica is known to have reached the token. It is woken by the monitors' looks, which
/// come every 50 ms while anybody waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitPolicy {
    /// Not at all: it goes to the primary at once.
    #[default]
    Never,
    /// This long at most, then it goes to the primary, or is refused where that is forbidden.
    ///
    /// It does not wait for what will not come in time: a replica whose replay is paused, or which at the rate of its
    /// replay would take longer. Where the primary is forbidden it waits for those as well.
    UpTo(Duration),
}

/// What a read wants: a promise, how long it may wait for a replica, and whether the primary may serve it.
///
/// A plain value; a [`Consistency`] alone turns into one.
///
/// ```
/// use std::time::Duration;
/// use pool_router::{CommitToken, Consistency, ReadOptions, WaitPolicy};
///
/// let token: CommitToken = "1.66fa1b2c3d4e5f60.1.3000148.s".parse()?;
/// let options = ReadOptions::new(Consistency::ReadYourWrites(token))
///     .wait(WaitPolicy::UpTo(Duration::from_millis(200)))
///     .forbid_primary();
/// # let _ = options;
/// # Ok::<(), pool_router::TokenError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadOptions {
    /// What it promises. By default data of at most ten seconds of age, whatever the database's own default is.
    pub consistency: Consistency,
    /// How long it may wait for a replica to reach its token. By default not at all; without a token it means
    /// nothing.
    pub wait: WaitPolicy,
    /// Whether it is refused where no replica can serve it. By default the primary serves it then.
    pub forbid_primary: bool,
}

impl ReadOptions {
    /// A promise, without waiting, and with the primary to fall back on.
    pub fn new(consistency: Consistency) -> Self {
        Self {
            consistency,
            ..Self::default()
        }
    }

    /// Sets how long it may wait for a replica to reach its token.
    #[must_use]
    pub fn wait(mut self, wait: WaitPolicy) -> Self {
        self.wait = wait;
        self
    }

    /// Keeps it from the primary: where no replica can serve it, it is refused with
    /// [`Refusal::PrimaryForbidden`](crate::plan::Refusal::PrimaryForbidden).
    #[must_use]
    pub fn forbid_primary(mut self) -> Self {
        self.forbid_primary = true;
        self
    }
}

impl From<Consistency> for ReadOptions {
    fn from(consistency: Consistency) -> Self {
        Self::new(consistency)
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
    /// The primary may not serve it.
    pub forbid_primary: bool,
}

impl Request {
    /// A first attempt.
    pub fn new(consistency: Consistency) -> Self {
        Self {
            consistency,
            avoid: None,
            primary_only: false,
            forbid_primary: false,
        }
    }

    /// A read's attempt after so many that came to nothing. `refused` is the node that failed last to prove the
    /// promise, and what it failed in.
    ///
    /// # Errors
    /// If it is the token that cannot be honoured: no other node will know better.
    pub(crate) fn attempt(
        options: ReadOptions,
        attempt: u32,
        refused: Option<(usize, &Unproved)>,
    ) -> Result<Self, TokenRefusal> {
        if let Some((_, Unproved::Token(refusal))) = refused {
            return Err(*refusal);
        }
        Ok(Self {
            avoid: refused.map(|(node, _)| node),
            primary_only: attempt >= REFUSALS_BEFORE_PRIMARY,
            ..Self::from(options)
        })
    }
}

/// Without the wait: a decision is of one moment.
impl From<ReadOptions> for Request {
    fn from(options: ReadOptions) -> Self {
        Self {
            forbid_primary: options.forbid_primary,
            ..Self::new(options.consistency)
        }
    }
}
