//! What can go wrong while servers are run, each with the node or program it happened to.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::install::NotFound;

/// Why a server, a lever or a set-up step failed.
///
/// `Display` says what was being done; the cause is in `source()`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no PostgreSQL to run.
    #[error(transparent)]
    NotFound(#[from] NotFound),

    /// A file, folder or process could not be handled.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// What was being done, as a verb: "create", "copy", "start".
        doing: &'static str,
        /// The file, folder or program.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// One of PostgreSQL's programs, or one of the system's, reported failure.
    #[error("{program} failed ({status}): {output}")]
    Program {
        /// Its name.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it printed.
        output: String,
    },

    /// A server ended, or never became ready, after it was started.
    #[error("{node} did not start: {reason}; the end of its log:\n{log}")]
    NotStarted {
        /// The node's name.
        node: String,
        /// What was seen.
        reason: String,
        /// The last lines of the server's log.
        log: String,
    },

    /// A statement that a lever needs was refused, or the node could not be reached.
    #[error("{node}: could not {doing}")]
    Sql {
        /// The node's name.
        node: String,
        /// What the statement was for.
        doing: String,
        /// What the driver said.
        source: tokio_postgres::Error,
    },

    /// What was waited for did not happen within its bound.
    #[error("{node}: {waiting_for} did not happen within {waited:?}")]
    TimedOut {
        /// The node's name.
        node: String,
        /// The event.
        waiting_for: String,
        /// The bound.
        waited: Duration,
    },

    /// The request makes no sense for this node or cluster.
    #[error("{0}")]
    Refused(String),

    /// A certificate could not be made.
    #[error("could not make the {0} certificate")]
    Certificate(&'static str, #[source] rcgen::Error),

    /// A TLS setting was not accepted.
    #[error("could not set up TLS")]
    Tls(#[source] rustls::Error),
}

impl Error {
    /// Turns an [`io::Error`] about `path` into an [`Error`], for `map_err`.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }

    /// Turns a driver error of `node` into an [`Error`], for `map_err`.
    pub(crate) fn sql(node: &str, doing: &str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let (node, doing) = (node.to_owned(), doing.to_owned());
        move |source| Self::Sql {
            node,
            doing,
            source,
        }
    }
}
