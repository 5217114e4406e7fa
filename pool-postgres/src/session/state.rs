//! What a session knows of its transaction.

use crate::error::{Error, ErrorKind};
use crate::source::Lease;

/// Where a session stands between two calls.
pub(super) enum State {
    /// No transaction: the next statement borrows a connection.
    Idle,
    /// A connection is borrowed; a transaction is begun on it, or about to be.
    Open(Open),
    /// The connection broke in the middle of a transaction and is given back. Only a rollback (or a commit,
    /// which fails) leads on.
    Lost(Failure),
}

/// A borrowed connection and what was done with it.
pub(super) struct Open {
    pub(super) lease: Lease,
    /// Whether the server acknowledged `BEGIN`.
    pub(super) begun: bool,
    /// Something was sent, or is about to be, whose answer nobody has seen. Found standing at the next
    /// call, its future was dropped half-way.
    pub(super) in_flight: bool,
    /// The first error that the server answered with, if it has not been rolled back since.
    pub(super) failed: Option<Failure>,
}

impl Open {
    pub(super) fn new(lease: Lease) -> Self {
        Self {
            lease,
            begun: false,
            in_flight: false,
            failed: None,
        }
    }

    /// Why the transaction takes no more statements, if it does not.
    pub(super) fn refusal(&self) -> Option<Error> {
        if self.in_flight {
            return Some(Error::new(
                ErrorKind::TransactionFailed,
                "an earlier statement of this transaction was dropped before its answer came, so nobody \
                 knows whether it ran: roll back and begin again",
            ));
        }
        self.failed.as_ref().map(Failure::explain)
    }
}

/// The failure that made a transaction useless, kept to be named later.
#[derive(Debug)]
pub(super) struct Failure(String);

impl Failure {
    pub(super) fn of(error: &Error) -> Self {
        Self(error.to_string())
    }

    /// What a statement or a commit gets after the failure.
    pub(super) fn explain(&self) -> Error {
        Error::new(
            ErrorKind::TransactionFailed,
            format!(
                "the transaction failed earlier and can only be rolled back (25P02); its first failure \
                 was: {}",
                self.0
            ),
        )
    }
}

/// A savepoint that is open.
pub(super) struct Level {
    /// Its name is `sp_` and this number.
    pub(super) number: u32,
    /// Whether the server has been told. Until then there is nothing to undo.
    pub(super) sent: bool,
}
