//! Why a [`Database`](crate::Database) could not be started, and why a read or write found no node.

use std::error::Error as StdError;
use std::fmt;

use pool_postgres::{Error, ErrorKind};

use crate::plan::Refusal;
use crate::proof::Unproved;

/// Why [`Builder::connect`](crate::Builder::connect) gave no database.
///
/// Each names the node and the remedy; what the node itself said is the `source()`.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// Neither [`Builder::primary`](crate::Builder::primary) nor [`Builder::nodes`](crate::Builder::nodes) was called.
    NoPrimary,
    /// None of [`Builder::nodes`](crate::Builder::nodes) that answered is a primary.
    NoPrimaryAmong {
        /// The ones that did not answer, and why.
        missing: Vec<StartError>,
    },
    /// Two of [`Builder::nodes`](crate::Builder::nodes) are primaries on one timeline.
    TwoPrimaries {
        /// The first.
        first: String,
        /// The second.
        second: String,
    },
    /// A node's weight is zero.
    ZeroWeight {
        /// The node.
        node: String,
    },
    /// A node's URL or a setting of its pool is wrong.
    Settings {
        /// The node.
        node: String,
        /// What is wrong.
        cause: Box<Error>,
    },
    /// A node that must answer did not, or refused us.
    Unreachable {
        /// The node.
        node: String,
        /// What it said.
        cause: Box<Error>,
    },
    /// A node did not answer within this time.
    NoAnswer {
        /// The node.
        node: String,
        /// How long we waited.
        waited: std::time::Duration,
    },
    /// Fewer replicas answered than were required.
    TooFewReplicas {
        /// How many were required.
        required: usize,
        /// How many answered.
        answered: usize,
        /// The ones that did not, and why.
        missing: Vec<StartError>,
    },
    /// More replicas are required than there are.
    RequiresMore {
        /// How many were required.
        required: usize,
        /// How many there are.
        given: usize,
    },
    /// The URL given as the primary's leads to a replica.
    PrimaryIsReplica {
        /// The node.
        node: String,
    },
    /// The URL given as a replica's leads to a primary.
    ReplicaIsPrimary {
        /// The node.
        node: String,
    },
    /// Two URLs lead to the same server.
    SameServer {
        /// The first.
        first: String,
        /// The second.
        second: String,
    },
    /// A replica is not of the primary's cluster.
    OtherCluster {
        /// The replica.
        node: String,
        /// Its system identifier.
        theirs: u64,
        /// The primary's.
        ours: u64,
    },
    /// A node does not tell what routing needs.
    MissingFacts {
        /// The node.
        node: String,
        /// What it does not tell.
        what: &'static str,
    },
}

impl StartError {
    /// Whether it may go away by itself: the node is away, rather than wrong.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { cause, .. } => !matches!(
                cause.kind(),
                ErrorKind::Url
                    | ErrorKind::Config
                    | ErrorKind::Authentication
                    | ErrorKind::Tls
                    | ErrorKind::NoSuchDatabase
            ),
            Self::NoAnswer { .. } => true,
            // The primary may be among those that are away.
            Self::NoPrimaryAmong { missing } => missing.iter().any(Self::may_pass),
            _ => false,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPrimary => {
                f.write_str("no primary was given: call primary(url), or nodes([url, …])")
            }
            Self::NoPrimaryAmong { missing } => {
                f.write_str("none of the nodes that answered is a primary")?;
                for (index, error) in missing.iter().enumerate() {
                    write!(f, "{} {error}", if index == 0 { ":" } else { ";" })?;
                }
                Ok(())
            }
            Self::TwoPrimaries { first, second } => write!(
                f,
                "{first} and {second} are both primaries on one timeline: find out which one is meant, and give it \
                 with primary(url)"
            ),
            Self::ZeroWeight { node } => write!(
                f,
                "the weight of {node} is 0: give it at least 1, and keep reads away by drain"
            ),
            Self::Settings { node, .. } => write!(f, "the settings of {node} are wrong"),
            Self::Unreachable { node, .. } => write!(f, "{node} could not be reached"),
            Self::NoAnswer { node, waited } => {
                write!(
                    f,
                    "{node} did not answer within {waited:?}: is the address right, and the server up?"
                )
            }
            Self::TooFewReplicas {
                required,
                answered,
                missing,
            } => {
                write!(
                    f,
                    "{answered} of the {required} replicas that are required answered:"
                )?;
                for (index, error) in missing.iter().enumerate() {
                    write!(f, "{} {error}", if index == 0 { "" } else { ";" })?;
                }
                f.write_str(" (degraded_start(true) goes on without them)")
            }
            Self::RequiresMore { required, given } => write!(
                f,
                "min_replicas({required}) with {given} replicas given: add replica(url) or require fewer"
            ),
            Self::PrimaryIsReplica { node } => write!(
                f,
                "{node} was given as the primary and is a replica: give it with replica(url), and the \
                 primary's address with primary(url)"
            ),
            Self::ReplicaIsPrimary { node } => write!(
                f,
                "{node} was given as a replica and is a primary: give a replica's address, or leave it out"
            ),
            Self::SameServer { first, second } => {
                write!(
                    f,
                    "{first} and {second} are the same server: give each node once"
                )
            }
            Self::OtherCluster { node, theirs, ours } => write!(
                f,
                "{node} is of cluster {theirs}, and the primary is of cluster {ours}: a replica must be a \
                 copy of the primary"
            ),
            Self::MissingFacts { node, what } => write!(f, "{node} does not tell its {what}"),
        }
    }
}

impl StartError {
    /// A node's URL or a setting of its pool is wrong.
    pub(crate) fn of_settings(node: &str, cause: Error) -> Self {
        Self::Settings {
            node: node.to_owned(),
            cause: Box::new(cause),
        }
    }
}

impl StdError for StartError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Settings { cause, .. } | Self::Unreachable { cause, .. } => Some(&**cause),
            Self::TooFewReplicas { missing, .. } | Self::NoPrimaryAmong { missing } => {
                missing.first().map(|error| error as &dyn StdError)
            }
            _ => None,
        }
    }
}

/// Why a session found no node. The `source()` of the [`Error`] that the session gives.
#[derive(Debug)]
#[non_exhaustive]
pub enum RouteError {
    /// No node can keep the promise.
    Refused(Refusal),
    /// A node could not prove the promise on the connection.
    Unproved {
        /// The node's index in [`DatabaseStatus::nodes`](crate::DatabaseStatus::nodes).
        node: usize,
        /// Its name.
        name: String,
        /// What it failed in.
        why: Unproved,
    },
}

impl RouteError {
    /// The routing failure behind a session's error, if it is one.
    pub fn behind(error: &Error) -> Option<&Self> {
        error.source().and_then(|cause| cause.downcast_ref())
    }
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Unproved {
                why: Unproved::Token(refusal),
                ..
            } => refusal.fmt(f),
            Self::Unproved { name, why, .. } => {
                write!(f, "{name} could not keep the promise: {why}")
            }
        }
    }
}

impl StdError for RouteError {}
