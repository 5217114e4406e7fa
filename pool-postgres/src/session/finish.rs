//! How a transaction ends: commit, rollback, and the end that nobody waits for.
//!
//! Only the success of `COMMIT` itself, its tag included, makes a [`Committed`]. An error that came with the
//! connection intact means rolled back; one without, after `COMMIT` was sent, means that nobody knows.

use futures_util::StreamExt;
use tokio_postgres::SimpleQueryMessage;

use super::Session;
use super::state::{Open, State};
use crate::committed::{Committed, Durability};
use crate::error::{Error, ErrorKind};
use crate::token::{CommitToken, Strength, parse_lsn};
use crate::wire::TransactionStatus;

/// Commits and tells where: one round trip. The position is read after `COMMIT`, because inside the
/// transaction it would lie below the commit's own record.
const COMMIT_WITH_TOKEN: &str = "SELECT pg_current_xact_id_if_assigned(), \
     current_setting('synchronous_commit'); COMMIT; \
     SELECT pg_current_wal_flush_lsn(), pg_walfile_name(pg_current_wal_flush_lsn())";

impl Session {
    /// Refuses to end a transaction that somebody else ends.
    pub(super) fn may_end(&self, call: &str) -> Result<(), Error> {
        let owner = if !self.savepoints.is_empty() {
            "a savepoint: end the savepoint first"
        } else if self.managed {
            "SessionFactory::begin, which commits on Ok and rolls back on Err"
        } else {
            return Ok(());
        };
        Err(Error::new(
            ErrorKind::Usage,
            format!("{call} was called inside {owner}"),
        ))
    }

    pub(crate) fn set_managed(&mut self) {
        self.managed = true;
    }

    pub(crate) async fn commit_now(&mut self) -> Result<Committed, Error> {
        self.savepoints.clear();
        self.named = 0;
        // From here on the lease is this future's: dropped half-way, it goes back with COMMIT unanswered.
        let mut open = match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => return Ok(Committed::nothing()),
            State::Lost(failure) => return Err(failure.explain()),
            State::Open(open) => open,
        };
        if let Some(refusal) = open.refusal() {
            return Err(refusal);
        }
        if !open.begun {
            return Ok(Committed::nothing());
        }
        if open.lease.connection.is_closed() {
            let error = Error::new(
                ErrorKind::ConnectionLost,
                "the connection broke before COMMIT was sent, so the transaction was rolled back",
            );
            open.lease.failed(&error);
            return Err(error);
        }
        let system = open.lease.token_system.filter(|_| !self.options.read_only);
        open.commit(system).await
    }

    pub(crate) async fn rollback_now(&mut self) {
        self.savepoints.clear();
        self.named = 0;
        let State::Open(mut open) = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        let connection = &open.lease.connection;
        if !open.begun || open.in_flight || connection.wire().unanswered() > 0 {
            // The pool's clean-up rolls back behind what is still under way.
            return;
        }
        if let Err(error) = super::flight::simple(connection.driver(), Some("ROLLBACK")).await {
            tracing::debug!(%error, "the connection broke while rolling back");
            open.lease.failed(&error);
        } else {
            connection.settled();
        }
    }

    /// Ends the transaction without waiting and gives the connection back. What has to be rolled back is
    /// rolled back by the backend at the return.
    pub(super) fn end_quietly(&mut self) {
        self.savepoints.clear();
        self.named = 0;
        let State::Open(open) = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        let connection = &open.lease.connection;
        let wire = connection.wire();
        let clean = open.begun
            && !open.in_flight
            && open.failed.is_none()
            && wire.unanswered() == 0
            && wire.transaction() == TransactionStatus::InTransaction;
        if clean && self.options.read_only {
            connection.end_unacknowledged("COMMIT");
        }
    }
}

impl Open {
    async fn commit(&mut self, system: Option<u64>) -> Result<Committed, Error> {
        let connection = &self.lease.connection;
        let mark = connection.wire().mark();
        let sql = if system.is_some() {
            COMMIT_WITH_TOKEN
        } else {
            "COMMIT"
        };
        let mut messages = Vec::new();
        let result = match connection.driver().simple_query_raw(sql).await {
            Ok(answers) => {
                let mut answers = std::pin::pin!(answers);
                loop {
                    match answers.next().await {
                        Some(Ok(message)) => messages.push(message),
                        Some(Err(error)) => break Err(Error::from(error)),
                        None => break Ok(()),
                    }
                }
            }
            Err(error) => Err(Error::from(error)),
        };
        let since = connection.wire().since(mark);
        if since.tags.iter().any(|tag| tag == "COMMIT") {
            let durability = if since.notices.iter().any(|code| code == "01000") {
                Durability::LocalOnly
            } else {
                Durability::Durable
            };
            let mut committed = Committed {
                token: None,
                durability,
                token_lost: false,
            };
            if let Some(system) = system {
                match token(system, &messages) {
                    Ok(token) => committed.token = token,
                    Err(()) => committed.token_lost = true,
                }
            }
            match result {
                Ok(()) => connection.settled(),
                Err(error) => self.lease.failed(&error),
            }
            return Ok(committed);
        }
        match result {
            Ok(()) => {
                connection.settled();
                Err(Error::new(
                    ErrorKind::TransactionFailed,
                    "the server answered COMMIT with ROLLBACK: a statement of the transaction had failed",
                ))
            }
            Err(error) => {
                self.lease.failed(&error);
                if error.connection_is_good() {
                    return Err(rejected(error));
                }
                Err(Error::from_source(
                    ErrorKind::OutcomeUnknown,
                    "the connection broke after COMMIT was sent and before its answer came: the \
                     transaction may have been committed or not, so look before you try again",
                    error,
                ))
            }
        }
    }
}

/// What the server's refusal of a commit means.
fn rejected(error: Error) -> Error {
    if error.sqlstate() == Some("25P02") {
        return Error::from_source(
            ErrorKind::TransactionFailed,
            "a statement of the transaction had failed, so it was rolled back instead of committed",
            error,
        );
    }
    error
}

/// Reads the answers to `COMMIT_WITH_TOKEN`. `Ok(None)`: nothing was written; `Err`: it can't be known where.
fn token(system: u64, messages: &[SimpleQueryMessage]) -> Result<Option<CommitToken>, ()> {
    let mut rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let before = rows.next().ok_or(())?;
    if before.get(0).is_none() {
        return Ok(None);
    }
    let strength = match before.get(1) {
        Some("off" | "local") | None => Strength::Weak,
        Some(_) => Strength::Strong,
    };
    let after = rows.next().ok_or(())?;
    let position = after.get(0).and_then(parse_lsn).ok_or(())?;
    // The name of a log file begins with the timeline, in eight hexadecimal digits.
    let timeline = after
        .get(1)
        .and_then(|name| name.get(..8))
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .ok_or(())?;
    Ok(Some(CommitToken {
        system_identifier: system,
        timeline,
        position,
        strength,
    }))
}
