//! What a session sends, and what it sends together.
//!
//! The first statement of a transaction travels with everything that has to precede it: the source's guard,
//! `BEGIN`, the savepoints opened so far. All are queued before any answer is awaited, and their answers
//! are read side by side, so it is one round trip where the statement is prepared already and two where it
//! is not.

use std::fmt::Write as _;
use std::panic::Location;
use std::time::Instant;

use futures_util::future::join3;
use futures_util::{StreamExt, TryStreamExt};
use tokio_postgres::{Client, RowStream, SimpleQueryMessage, Statement};

use super::limits::{self, within};
use super::local::SET_LOCAL;
use super::scope::may_leave_something;
use super::state::{Failure, Level, Open, State};
use super::{Session, Values};
use crate::connection::PgConnection;
use crate::error::{Error, ErrorKind, Outcome};
use crate::seeing::End;
use crate::source::{Checkout, Guard, GuardRows};
use crate::sql_text::may_begin_with;
use crate::statements::Reuse;
use crate::unnamed::Plan;
use crate::wire::TransactionStatus;

/// How many leases of one transaction a source may have refused.
const MOST_ATTEMPTS: u32 = 8;

/// Why a flight did not arrive.
enum Setback {
    /// The connection was dead before it answered anything of the transaction.
    Dead(Error),
    /// The guard's verdict.
    Refused(Error),
    /// The connection's prepared statement has gone stale and was forgotten; nothing was done.
    Stale(Error),
    /// The statement's own failure.
    Failed(Error),
}

impl Setback {
    /// The same with more said of its error.
    fn map(self, say: impl FnOnce(Error) -> Error) -> Self {
        match self {
            Self::Dead(error) => Self::Dead(say(error)),
            Self::Refused(error) => Self::Refused(say(error)),
            Self::Stale(error) => Self::Stale(say(error)),
            Self::Failed(error) => Self::Failed(say(error)),
        }
    }
}

impl Session {
    /// Sends a statement, with what has to precede it, and returns once its rows begin to come.
    ///
    /// `in_flight` stands until `answered` or `stream_abandoned` is called.
    pub(super) async fn start(
        &mut self,
        place: &'static Location<'static>,
        sql: &str,
        params: Values<'_>,
    ) -> Result<RowStream, Error> {
        let (read_only, retry_dead) = (self.options.read_only, self.options.retry_dead);
        let reuse = if self.options.single_use {
            Reuse::Never
        } else {
            Reuse::Kept
        };
        let mut attempt = 0;
        let mut refused: Option<Error> = None;
        let mut died = false;
        loop {
            let request = Checkout {
                place,
                read_only,
                attempt,
                refused: refused.as_ref(),
            };
            let preamble = self.prepare_flight(request).await?;
            self.note_what_stays(sql);
            let Some(open) = self.open() else {
                return Err(Error::new(
                    ErrorKind::Usage,
                    "the session has no connection",
                ));
            };
            let first = !open.begun;
            let limit = open.limit;
            open.in_flight = true;
            open.may_end = may_end_transaction(sql);
            open.reuse = reuse;
            open.lease.connection.sight().begin(place, sql, params);
            let mut preceded = false;
            let flight = open.fly(preamble.as_deref(), sql, params, &mut preceded);
            let flown = within(limit, flight).await;
            if preceded {
                self.preceded(preamble.is_some());
            }
            let setback = match flown.unwrap_or_else(|late| Err(Setback::Failed(late))) {
                Ok(rows) => return Ok(rows),
                Err(setback) => {
                    let lost = |error| self.lost(error, preamble.is_some());
                    setback.map(|error| self.about(lost(error), sql, params))
                }
            };
            attempt += 1;
            let again = first && attempt < MOST_ATTEMPTS;
            let error = match setback {
                Setback::Dead(error) if again && !died && retry_dead => {
                    died = true;
                    error
                }
                Setback::Stale(error) if again && !died => {
                    died = true;
                    error
                }
                Setback::Refused(error) if again => error,
                Setback::Dead(error) | Setback::Refused(error) | Setback::Stale(error) => {
                    if first {
                        // Nothing of the transaction was shown to anybody: there is nothing to roll back.
                        self.discard(&error);
                        return Err(error);
                    }
                    return Err(self.failure(error));
                }
                Setback::Failed(error) => return Err(self.failure(error)),
            };
            self.discard(&error);
            refused = Some(error);
        }
    }

    /// Borrows a connection for what is never sent twice, and tells what has to precede it.
    ///
    /// What follows may have effects that no rollback undoes, so the source's guard is heard first. `in_flight`
    /// stands from here on.
    pub(super) async fn ready(
        &mut self,
        place: &'static Location<'static>,
    ) -> Result<Option<String>, Error> {
        let read_only = self.options.read_only;
        let mut attempt = 0;
        let mut refused: Option<Error> = None;
        loop {
            let request = Checkout {
                place,
                read_only,
                attempt,
                refused: refused.as_ref(),
            };
            let preamble = self.prepare_flight(request).await?;
            let Some(open) = self.open() else {
                return Err(Error::new(
                    ErrorKind::Usage,
                    "the session has no connection",
                ));
            };
            open.in_flight = true;
            let Some(guard) = open.lease.guard.take() else {
                return Ok(preamble);
            };
            let limit = open.limit;
            let heard = within(limit, hear(&open.lease.connection, guard)).await;
            let Err(error) = heard.and_then(|verdict| verdict) else {
                return Ok(preamble);
            };
            self.discard(&error);
            attempt += 1;
            if attempt >= MOST_ATTEMPTS || !error.connection_is_good() {
                return Err(error);
            }
            refused = Some(error);
        }
    }

    /// Takes note of a statement of a confined session that may leave something on its connection.
    pub(super) fn note_what_stays(&mut self, sql: &str) {
        let confined = self.scope().is_some();
        if confined
            && sql != SET_LOCAL
            && may_leave_something(sql)
            && let Some(open) = self.open()
        {
            open.lease.connection.demand_full_reset();
        }
    }

    /// Takes note that the server has been told what preceded a statement.
    pub(super) fn preceded(&mut self, begun: bool) {
        if let Some(open) = self.open() {
            open.begun |= begun;
        }
        self.savepoints
            .iter_mut()
            .for_each(|level| level.sent = true);
    }

    /// Sends several statements as one simple query.
    pub(crate) async fn run_batch(
        &mut self,
        place: &'static Location<'static>,
        sql: &str,
    ) -> Result<(), Error> {
        let preamble = self.ready(place).await?;
        self.note_what_stays(sql);
        let Some(open) = self.open() else {
            return Ok(());
        };
        let limit = open.limit;
        open.may_end = true;
        open.lease.connection.sight().begin(place, sql, &[]);
        let driver = open.lease.connection.driver();
        let before = simple(driver, preamble.as_deref());
        let both = async { futures_util::join!(before, simple(driver, Some(sql))) };
        let (before, batch) = match within(limit, both).await {
            Ok(answers) => answers,
            Err(late) => return Err(self.failure(late).with_statement(sql, None)),
        };
        self.preceded(preamble.is_some() && before.is_ok());
        match before.and(batch) {
            Ok(_) => self.answered(Ok(())),
            Err(error) => Err(self.failure(error).with_statement(sql, None)),
        }
    }

    /// Borrows a connection if there is none, and tells what has to precede the next statement.
    async fn prepare_flight(&mut self, request: Checkout<'_>) -> Result<Option<String>, Error> {
        if self.options.autocommit && !self.savepoints.is_empty() {
            return Err(Error::new(
                ErrorKind::Usage,
                "a savepoint needs a transaction, and this session is in autocommit mode",
            ));
        }
        let forgotten = matches!(&self.state, State::Open(open) if open.in_flight);
        if self.options.autocommit && forgotten {
            // Dropped half-way, and nothing to do with the next one.
            self.end_quietly();
        }
        if let Some(locals) = &self.locals {
            locals.check(!self.options.is_alone())?;
        }
        match &self.state {
            State::Lost(failure) => return Err(failure.explain()),
            State::Open(open) => {
                if let Some(refusal) = open.refusal() {
                    return Err(refusal);
                }
            }
            State::Idle => {
                let lease = self.source.checkout(request).await?;
                let apart = self.locals.as_ref().and_then(|locals| locals.apart());
                lease.connection.statements().are_for(apart);
                self.state = State::Open(Open::new(lease, request.place));
            }
        }
        let (options, locals) = (self.options, self.locals.clone());
        let mut preamble = String::new();
        if let Some(open) = self.open() {
            if let Err(late) = open.start_clock(options) {
                return Err(self.failure(late));
            }
            if !open.begun {
                match open.lease.savepoint() {
                    Some(savepoint) => {
                        preamble.push_str(&savepoint);
                        if options.read_only {
                            preamble.push_str(";SET TRANSACTION READ ONLY");
                        }
                    }
                    None if options.is_alone() => {}
                    None => preamble.push_str(options.begin()),
                }
                if !preamble.is_empty() {
                    limits::set_local(options, &mut preamble);
                    if let Some(locals) = &locals {
                        locals.write(&mut preamble);
                    }
                }
            }
        }
        for Level { number, .. } in self.savepoints.iter().filter(|level| !level.sent) {
            if !preamble.is_empty() {
                preamble.push(';');
            }
            let _ = write!(preamble, "SAVEPOINT sp_{number}");
        }
        Ok((!preamble.is_empty()).then_some(preamble))
    }

    pub(super) fn open(&mut self) -> Option<&mut Open> {
        match &mut self.state {
            State::Open(open) => Some(open),
            State::Idle | State::Lost(_) => None,
        }
    }

    /// Gives back a connection on which nothing happened that anybody was shown.
    fn discard(&mut self, error: &Error) {
        if let State::Open(mut open) = std::mem::replace(&mut self.state, State::Idle) {
            open.lease.connection.sight().end(End::Failed(error));
            if error.connection_is_good() {
                open.lease.connection.settled();
            }
            open.lease.failed(error);
        }
        self.savepoints
            .iter_mut()
            .for_each(|level| level.sent = false);
    }

    /// Takes note of a statement's end.
    pub(crate) fn answered<T>(
        &mut self,
        result: Result<T, tokio_postgres::Error>,
    ) -> Result<T, Error> {
        let value = result.map_err(|error| self.failure(Error::from(error)))?;
        let autocommit = self.options.autocommit;
        let Some(open) = self.open() else {
            return Ok(value);
        };
        open.in_flight = false;
        open.lease.connection.settled();
        if autocommit {
            self.end_alone();
        } else if open.begun
            && open.lease.connection.wire().transaction() == TransactionStatus::Idle
        {
            self.end_quietly();
            self.savepoints.clear();
            return Err(Error::new(
                ErrorKind::Usage,
                "the statement ended the transaction by itself; what came before it has been committed or \
                 rolled back as it said: use the session's commit and rollback instead",
            ));
        }
        Ok(value)
    }

    /// Takes note of a statement's failure and passes it on.
    pub(crate) fn failure(&mut self, error: Error) -> Error {
        let error = self.lost(error, false);
        let error = match &self.locals {
            Some(locals) => locals.explain(error),
            None => error,
        };
        let (autocommit, read_only) = (self.options.autocommit, self.options.read_only);
        let Some(open) = self.open() else {
            return error;
        };
        open.in_flight = false;
        open.lease.connection.sight().end(End::Failed(&error));
        if error.connection_is_good() {
            open.lease.connection.settled();
        }
        open.lease.failed(&error);
        if !read_only && open.lease.connection.was_demoted(&error) {
            open.lease.connection.report(&error);
        }
        if autocommit {
            self.end_quietly();
        } else if !error.connection_is_good() {
            self.state = State::Lost(Failure::of(&error));
        } else if error.sqlstate().is_some() {
            open.begun = true;
            open.failed.get_or_insert_with(|| Failure::of(&error));
        }
        error
    }

    /// Says why the connection was lost, if it was; and that the server rolls back what was not committed, if a
    /// transaction is begun or was about to be.
    fn lost(&self, error: Error, about_to_begin: bool) -> Error {
        let State::Open(open) = &self.state else {
            return error;
        };
        let error = open.lease.connection.explain(error);
        let begun = (open.begun && !self.options.autocommit) || about_to_begin;
        let lost = matches!(error.kind(), ErrorKind::ConnectionLost | ErrorKind::Timeout);
        if lost && begun && !open.may_end {
            return error.with_outcome(Outcome::NotApplied);
        }
        error
    }

    /// An error with the statement that it is about.
    pub(super) fn about(&self, error: Error, sql: &str, params: Values<'_>) -> Error {
        let shown = matches!(&self.state, State::Open(open)
            if open.lease.connection.conduct().show_parameters);
        error.with_statement(sql, shown.then_some(params))
    }

    /// Takes note that a row stream was dropped with rows unread.
    pub(crate) fn stream_abandoned(&mut self) {
        if let Some(open) = self.open() {
            open.in_flight = false;
            open.lease.connection.settled();
        }
        if self.options.autocommit {
            self.end_alone();
        }
    }
}

impl Open {
    /// Sends guard, preamble and statement together; returns once the statement's rows begin to come. Tells by
    /// `preceded` that the preamble was carried out, whatever became of the statement.
    async fn fly(
        &mut self,
        preamble: Option<&str>,
        sql: &str,
        params: Values<'_>,
        preceded: &mut bool,
    ) -> Result<RowStream, Setback> {
        let sent = self.lease.observer.is_some().then(Instant::now);
        let guard = self.lease.guard.take();
        let connection: &PgConnection = &self.lease.connection;
        // Outside a transaction nothing can be taken back, so the guard is heard first.
        let guard = match guard {
            Some(guard) if preamble.is_none() => {
                hear(connection, guard).await.map_err(Setback::Refused)?;
                None
            }
            other => other,
        };
        let (driver, reuse) = (connection.driver(), self.reuse);
        let plan = connection
            .plan(sql, reuse, params)
            .map_err(Setback::Failed)?;
        let rows = if guard.is_none() && preamble.is_none() {
            let plan = match plan {
                Some(plan) => plan,
                // Nothing is executed yet: a connection that is found dead here is dead before all.
                None => match connection.prepare_for(sql, reuse).await {
                    Ok(statement) => Plan::Named(statement),
                    Err(error) if error.connection_is_good() => return Err(Setback::Failed(error)),
                    Err(error) => return Err(Setback::Dead(error)),
                },
            };
            plan.send(driver, sql, params).await
        } else {
            let first = take_off(connection, guard, preamble, plan, (sql, reuse), params).await?;
            *preceded = true;
            match first.map_err(Setback::Failed)? {
                Begun::Rows(rows) => rows,
                Begun::Prepared(statement) => {
                    Plan::Named(statement).send(driver, sql, params).await
                }
            }
        };
        match rows {
            Ok(rows) => {
                if let Some(sent) = sent {
                    self.lease.answered(sent.elapsed());
                }
                Ok(rows)
            }
            Err(error) => {
                let error = Error::from(error);
                if is_stale(&error) {
                    connection.forget(&error);
                    return Err(Setback::Stale(error));
                }
                Err(Setback::Failed(error))
            }
        }
    }
}

/// What the first flight of a transaction brought.
enum Begun {
    Rows(Result<RowStream, tokio_postgres::Error>),
    Prepared(Statement),
}

/// Sends the guard, then the preamble, then the statement (or its preparation), and reads all answers. The inner
/// result is the statement's own, behind a preamble that was carried out.
async fn take_off(
    connection: &PgConnection,
    guard: Option<Guard>,
    preamble: Option<&str>,
    plan: Option<Plan<'_>>,
    (sql, reuse): (&str, Reuse),
    params: Values<'_>,
) -> Result<Result<Begun, Error>, Setback> {
    let driver = connection.driver();
    let statement = async {
        match plan {
            Some(plan) => Ok(Begun::Rows(plan.send(driver, sql, params).await)),
            None => connection
                .prepare_for(sql, reuse)
                .await
                .map(Begun::Prepared),
        }
    };
    let guard_sql = guard.as_ref().map(|guard| guard.sql.clone());
    let (guarded, begun, statement) = join3(
        simple(driver, guard_sql.as_deref()),
        simple(driver, preamble),
        statement,
    )
    .await;
    if let Some(guard) = guard {
        match guarded {
            Ok(messages) => (guard.verify)(&text_rows(messages)).map_err(Setback::Refused)?,
            Err(error) if error.connection_is_good() => return Err(Setback::Refused(error)),
            Err(error) => return Err(Setback::Dead(error)),
        }
    }
    if let Err(error) = begun {
        if !error.connection_is_good() {
            return Err(Setback::Dead(error));
        }
        // Without its BEGIN the statement behind it ran by itself.
        return Err(Setback::Failed(match statement {
            Ok(Begun::Rows(Ok(_))) => Error::from_source(
                ErrorKind::OutcomeUnknown,
                "the transaction could not be begun, and the statement that was sent with it ran outside",
                error,
            ),
            _ => error,
        }));
    }
    Ok(statement)
}

/// Sends a guard alone and hears its verdict.
async fn hear(connection: &PgConnection, guard: Guard) -> Result<(), Error> {
    let messages = simple(connection.driver(), Some(&guard.sql)).await?;
    (guard.verify)(&text_rows(messages))
}

/// Sends a simple query, queued at the first poll, and reads its answers; `None` sends nothing.
pub(super) async fn simple(
    driver: &Client,
    sql: Option<&str>,
) -> Result<Vec<SimpleQueryMessage>, Error> {
    let Some(sql) = sql else {
        return Ok(Vec::new());
    };
    let messages = driver.simple_query_raw(sql).await.map_err(Error::from)?;
    messages.try_collect().await.map_err(Error::from)
}

/// Reads a statement to its end and tells how many rows it affected.
pub(crate) async fn affected(rows: RowStream) -> Result<u64, tokio_postgres::Error> {
    let mut rows = std::pin::pin!(rows);
    while let Some(row) = rows.next().await {
        row?;
    }
    Ok(rows.rows_affected().unwrap_or(0))
}

/// The rows of simple query messages, as text.
fn text_rows(messages: Vec<SimpleQueryMessage>) -> GuardRows {
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|column| row.get(column).map(str::to_owned))
                .collect(),
        ),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

/// Whether a statement by itself may end a transaction, so that nobody knows where it stands if the answer is lost.
pub(super) fn may_end_transaction(sql: &str) -> bool {
    may_begin_with(sql, &["commit", "end", "prepare"])
}

/// Whether the error says that a prepared statement no longer fits its tables, or is gone.
pub(crate) fn is_stale(error: &Error) -> bool {
    error.kind() == ErrorKind::Stale
}
