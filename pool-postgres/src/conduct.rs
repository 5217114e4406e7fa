//! How an engine's connections behave, apart from where they go: what its builder sets and each carries along.

use crate::error::{Error, ErrorKind};
use crate::reset::ResetPolicy;
use crate::seeing;

/// The longest message that a PostgreSQL server sends.
const LONGEST_MESSAGE: usize = 1 << 30;
/// The lowest limit of messages: an error with all that it has to say fits.
const SHORTEST_LIMIT: usize = 64 * 1024;

#[derive(Clone, Debug)]
pub(crate) struct Conduct {
    pub(crate) reset: ResetPolicy,
    /// How many prepared statements a connection keeps.
    pub(crate) statements: usize,
    /// How many scopes with statements of their own a connection serves before it is closed.
    pub(crate) most_scopes: usize,
    /// The longest message that is taken from the server, in bytes.
    pub(crate) longest_message: usize,
    /// Whether errors carry the parameters of their statements.
    pub(crate) show_parameters: bool,
    /// What is logged of statements.
    pub(crate) seeing: seeing::Options,
}

impl Default for Conduct {
    fn default() -> Self {
        Self {
            reset: ResetPolicy::default(),
            statements: 256,
            most_scopes: 256,
            longest_message: LONGEST_MESSAGE,
            show_parameters: false,
            seeing: seeing::Options::default(),
        }
    }
}

impl Conduct {
    /// The same, if it can be used.
    pub(crate) fn checked(&self) -> Result<Self, Error> {
        if !(SHORTEST_LIMIT..=LONGEST_MESSAGE).contains(&self.longest_message) {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "max_message is {} bytes: it must be from {SHORTEST_LIMIT} (64 KiB) to {LONGEST_MESSAGE} (1 GiB)",
                    self.longest_message
                ),
            ));
        }
        if self.seeing.slow.is_some_and(|slow| slow.is_zero()) {
            return Err(Error::new(
                ErrorKind::Config,
                "log_slow is zero: log_statements logs every statement, and None switches it off",
            ));
        }
        Ok(self.clone())
    }
}
