//! What a session knows of its transaction.

use std::panic::Location;

use tokio::time::Instant;

use super::limits::Limit;
use super::options::SessionOptions;
use crate::error::{Error, ErrorKind};
use crate::source::Lease;
use crate::statements::Reuse;

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
    /// The statement that was sent last may end the transaction by itself.
    pub(super) may_end: bool,
    /// Whether statements are prepared for the next time too.
    pub(super) reuse: Reuse,
    /// The first error that the server answered with, if it has not been rolled back since.
    pub(super) failed: Option<Failure>,
    /// The line that borrowed the connection.
    pub(super) place: &'static Location<'static>,
    /// Where in the wire's record the transaction begins.
    pub(super) mark: usize,
    /// When the transaction has to be over.
    ends: Option<Instant>,
    /// When the statement that runs, or ran last, is given up.
    pub(super) limit: Option<Limit>,
}

impl Open {
    pub(super) fn new(lease: Lease, place: &'static Location<'static>) -> Self {
        let mark = lease.connection.wire().mark();
        Self {
            lease,
            begun: false,
            in_flight: false,
            may_end: false,
            reuse: Reuse::Kept,
            failed: None,
            place,
            mark,
            ends: None,
            limit: None,
        }
    }

    /// Sets the limit of a statement that starts now.
    ///
    /// Fails if the transaction's time is over.
    pub(super) fn start_clock(&mut self, options: SessionOptions) -> Result<(), Error> {
        if options.statement_timeout.is_none() && options.transaction_timeout.is_none() {
            return Ok(());
        }
        let now = Instant::now();
        let in_transaction = !options.is_alone();
        if in_transaction && !self.begun {
            self.ends = options
                .transaction_timeout
                .filter(|limit| !limit.is_zero())
                .and_then(|limit| now.checked_add(limit));
        }
        self.limit = Limit::of_statement(options, in_transaction, self.ends, now);
        Limit::check(self.limit, now)
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
pub(super) struct Failure {
    text: String,
    /// Whether the transaction lost against another one, so that it can be tried again.
    pub(super) is_conflict: bool,
}

impl Failure {
    pub(super) fn of(error: &Error) -> Self {
        Self {
            text: error.to_string(),
            is_conflict: error.kind() == ErrorKind::Serialization,
        }
    }

    /// What a statement or a commit gets after the failure.
    pub(super) fn explain(&self) -> Error {
        Error::new(
            ErrorKind::TransactionFailed,
            format!(
                "the transaction failed earlier and can only be rolled back (25P02); its first failure \
                 was: {}",
                self.text
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
