//! How a transaction ends: commit, rollback, and the end that nobody waits for.
//!
//! Only the success of `COMMIT` itself, its tag included, makes a [`Committed`]. An error that came with the
//! connection intact means rolled back; one without, after `COMMIT` was sent, means that nobody knows.

use futures_util::StreamExt;
use tokio::time::Instant;
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use super::Session;
use super::flight::simple;
use super::limits::{Limit, within};
use super::state::{Open, State};
use crate::committed::{Committed, Durability};
use crate::error::{Error, ErrorKind, Outcome};
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

    /// Takes note whether the transaction has lost against another one, before it ends.
    pub(crate) fn note_conflict(&mut self) {
        self.conflict = match &self.state {
            State::Open(open) => open
                .failed
                .as_ref()
                .is_some_and(|failed| failed.is_conflict),
            State::Lost(failure) => failure.is_conflict,
            State::Idle => false,
        };
    }

    /// Whether the last transaction lost against another one; asked once.
    pub(crate) fn take_conflict(&mut self) -> bool {
        std::mem::take(&mut self.conflict)
    }

    pub(crate) async fn commit_now(&mut self) -> Result<Committed, Error> {
        self.note_conflict();
        let committed = self.try_commit().await;
        self.conflict |= committed
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Serialization);
        committed
    }

    async fn try_commit(&mut self) -> Result<Committed, Error> {
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
            let message =
                "the connection broke before COMMIT was sent, so the transaction was rolled back";
            let error = match open.lease.connection.wire().end() {
                Some(end) => Error::from_source(ErrorKind::ConnectionLost, message, end),
                None => Error::new(ErrorKind::ConnectionLost, message),
            };
            let error = error.with_outcome(Outcome::NotApplied);
            open.lease.failed(&error);
            return Err(error);
        }
        open.start_clock(self.options).map_err(too_late)?;
        open.limit = Limit::of_end(self.options, Instant::now());
        if let Some(release) = open.lease.release() {
            return open.commit(&release, "RELEASE", None).await;
        }
        match open.lease.token_system.filter(|_| !self.options.read_only) {
            Some(system) => open.commit(COMMIT_WITH_TOKEN, "COMMIT", Some(system)).await,
            None => open.commit("COMMIT", "COMMIT", None).await,
        }
    }

    pub(crate) async fn rollback_now(&mut self) {
        self.savepoints.clear();
        self.named = 0;
        let State::Open(mut open) = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        let connection = &open.lease.connection;
        let unclear = !open.begun || open.in_flight || connection.wire().unanswered() > 0;
        if unclear || open.lease.is_joined() {
            // Rolled back at the return, behind what is still under way.
            return;
        }
        let limit = Limit::of_end(self.options, Instant::now());
        let rolled_back = within(limit, simple(connection.driver(), Some("ROLLBACK"))).await;
        if let Err(error) = rolled_back.and_then(|answered| answered) {
            tracing::debug!(%error, "a transaction could not be rolled back in time, or its connection broke");
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
        if clean && self.options.read_only && !open.lease.is_joined() {
            connection.end_unacknowledged("COMMIT");
        }
    }

    /// Ends what an autocommit session did for one statement, and keeps it.
    pub(super) fn end_alone(&mut self) {
        if let Some(open) = self.open()
            && let Some(release) = open.lease.release()
        {
            open.lease.connection.queue(&release);
        }
        self.end_quietly();
    }

    /// Counts and warns of work that is rolled back because nobody said what should become of it.
    ///
    /// What failed or was cancelled is not meant, nor what only read.
    pub(super) fn note_pending_work(&self) {
        let State::Open(open) = &self.state else {
            return;
        };
        let wire = open.lease.connection.wire();
        let pending = open.begun
            && !open.in_flight
            && open.failed.is_none()
            && !open.lease.is_joined()
            && !self.options.read_only
            && !self.options.autocommit
            && wire.transaction() == TransactionStatus::InTransaction
            && wire.since(open.mark).tags.iter().any(|tag| writes(tag));
        if pending {
            open.lease.connection.tally().dropped_with_work(open.place);
        }
    }
}

/// Whether a command that ended with this tag has changed something. What a function called by `SELECT` does is
/// not seen, nor is `SELECT INTO`.
fn writes(tag: &str) -> bool {
    let mut words = tag.split(' ');
    let command = words.next().unwrap_or_default();
    match command {
        "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "COPY" => words.next_back() != Some("0"),
        "CREATE" | "ALTER" | "DROP" | "TRUNCATE" | "GRANT" | "REVOKE" | "COMMENT" | "REFRESH" => {
            true
        }
        _ => false,
    }
}

/// What a commit gets whose transaction ran out of time before it was sent.
fn too_late(late: Error) -> Error {
    Error::from_source(
        ErrorKind::TransactionFailed,
        "COMMIT was not sent, and the transaction is rolled back",
        late,
    )
}

impl Open {
    /// Sends what commits, which the server acknowledges with this tag.
    async fn commit(
        &mut self,
        sql: &str,
        tag: &str,
        system: Option<u64>,
    ) -> Result<Committed, Error> {
        let connection = &self.lease.connection;
        let mark = connection.wire().mark();
        connection.sight().begin(self.place, sql, &[]);
        let mut messages = Vec::new();
        let ending = async {
            let answers = connection.driver().simple_query_raw(sql).await?;
            let mut answers = std::pin::pin!(answers);
            while let Some(message) = answers.next().await {
                messages.push(message?);
            }
            Ok::<(), tokio_postgres::Error>(())
        };
        let result = match within(self.limit, ending).await {
            Ok(ended) => ended.map_err(Error::from),
            Err(late) => Err(late),
        };
        let since = connection.wire().since(mark);
        if since.tags.iter().any(|seen| seen == tag) {
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
                let error = connection.explain(error);
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

/// A column as text; `None` also where the server gave fewer columns than were asked for.
fn text(row: &SimpleQueryRow, column: usize) -> Option<&str> {
    row.try_get(column).ok().flatten()
}

/// Reads the answers to `COMMIT_WITH_TOKEN`. `Ok(None)`: nothing was written; `Err`: it can't be known where.
fn token(system: u64, messages: &[SimpleQueryMessage]) -> Result<Option<CommitToken>, ()> {
    let mut rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let before = rows.next().ok_or(())?;
    if text(before, 0).is_none() {
        return Ok(None);
    }
    let strength = match text(before, 1) {
        Some("off" | "local") | None => Strength::Weak,
        Some(_) => Strength::Strong,
    };
    let after = rows.next().ok_or(())?;
    let position = text(after, 0).and_then(parse_lsn).ok_or(())?;
    // The name of a log file begins with the timeline, in eight hexadecimal digits.
    let timeline = text(after, 1)
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
