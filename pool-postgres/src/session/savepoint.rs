//! Savepoints: parts of a transaction that can be rolled back by themselves.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::Session;
use super::flight::simple;
use super::limits::within;
use super::state::{Level, State};
use crate::error::{Error, ErrorKind};

/// A savepoint that is open; made by [`Session::begin_nested`].
///
/// Dereferences to the [`Session`], which it holds alone: neither the transaction nor an outer savepoint can
/// end before it does. Dropped, it rolls back to the savepoint without waiting.
#[must_use = "a savepoint that is dropped rolls back"]
pub struct Savepoint<'s> {
    session: &'s mut Session,
    /// How many savepoints were open outside this one.
    depth: usize,
    done: bool,
}

impl<'s> Savepoint<'s> {
    pub(super) fn open(session: &'s mut Session) -> Self {
        let depth = session.savepoints.len();
        session.named += 1;
        session.savepoints.push(Level {
            number: session.named,
            sent: false,
        });
        Self {
            session,
            depth,
            done: false,
        }
    }

    /// Keeps what was done since the savepoint, as part of the transaction. Without a statement inside, it
    /// sends nothing.
    ///
    /// # Cancel safety
    /// Dropped half-way, the transaction can only be rolled back.
    ///
    /// # Errors
    /// [`ErrorKind::TransactionFailed`] if a statement inside had failed: the savepoint is rolled back and
    /// the transaction goes on.
    pub async fn commit(mut self) -> Result<(), Error> {
        self.done = true;
        let failed = match &mut self.session.state {
            State::Open(open) if !open.in_flight => {
                open.failed.as_ref().map(super::state::Failure::explain)
            }
            _ => None,
        };
        if let Some(error) = failed {
            self.end(|name| format!("ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}"))
                .await?;
            return Err(error);
        }
        self.end(|name| format!("RELEASE SAVEPOINT {name}")).await
    }

    /// Undoes what was done since the savepoint; the transaction goes on. Without a statement inside, it
    /// sends nothing.
    ///
    /// # Cancel safety
    /// Dropped half-way, the transaction can only be rolled back.
    ///
    /// # Errors
    /// The server's, or a connection that broke.
    pub async fn rollback(mut self) -> Result<(), Error> {
        self.done = true;
        self.end(|name| format!("ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}"))
            .await
    }

    /// Takes the savepoint, and any forgotten inside it, off the list; names it if the server knows it.
    fn leave(&mut self) -> Option<String> {
        let level = self.session.savepoints.drain(self.depth..).next()?;
        level.sent.then(|| format!("sp_{}", level.number))
    }

    async fn end(&mut self, sql: impl FnOnce(&str) -> String) -> Result<(), Error> {
        let Some(name) = self.leave() else {
            return Ok(());
        };
        let options = self.session.options;
        let open = match &mut self.session.state {
            State::Open(open) => open,
            State::Lost(failure) => return Err(failure.explain()),
            State::Idle => return Ok(()),
        };
        if open.in_flight {
            return Err(open
                .refusal()
                .unwrap_or_else(|| Error::new(ErrorKind::Usage, "savepoint is busy")));
        }
        if let Err(late) = open.start_clock(options) {
            return Err(self.session.failure(late));
        }
        open.in_flight = true;
        let (limit, sql) = (open.limit, sql(&name));
        let answer = within(limit, simple(open.lease.connection.driver(), Some(&sql))).await;
        open.in_flight = false;
        match answer.and_then(|answered| answered) {
            Ok(_) => {
                open.lease.connection.settled();
                open.failed = None;
                Ok(())
            }
            Err(error) => Err(self.session.failure(error)),
        }
    }
}

impl Drop for Savepoint<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let Some(name) = self.leave() else { return };
        if let State::Open(open) = &mut self.session.state
            && !open.in_flight
        {
            // Queued in order before whatever comes next; should it fail, so will all that follows.
            open.lease.connection.queue(&format!(
                "ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}"
            ));
            open.failed = None;
        }
    }
}

impl Deref for Savepoint<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session
    }
}

impl DerefMut for Savepoint<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        self.session
    }
}

impl fmt::Debug for Savepoint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Savepoint")
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}
