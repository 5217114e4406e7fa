//! Sessions: one task's unit of work.
//!
//! A session borrows a connection with its first statement and gives it back at the end of each
//! transaction. The files here: `options` (how a transaction begins), `limits` (how long it may take), `state`
//! (what is known of the one that runs), `flight` (what is sent together), `finish` (commit and rollback),
//! `savepoint`, `pipeline` (many statements in one round trip), `typed` (rows as tuples and structs), `local`
//! (settings for one transaction), `scope` (what each transaction is confined to), `copies`,
//! `held` (who owns a session while its rows come).
//!
//! # What always holds
//! A transaction never changes its connection. Whatever was sent and not yet answered is marked before it
//! is sent (`Open::in_flight`) and cleared by the answer, so a future that is dropped half-way leaves the
//! mark standing; such a transaction can only be rolled back. A connection that goes back is judged by the
//! backend from what went over the wire, never from what a session believes.

mod copies;
mod finish;
mod flight;
mod held;
mod limits;
mod local;
mod options;
mod pipeline;
mod savepoint;
mod scope;
mod state;
mod typed;

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use futures_util::StreamExt;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::committed::Committed;
use crate::copy::{CopyIn, CopyOut};
use crate::error::{Error, ErrorKind};
use crate::source::ConnectionSource;
use crate::stream::RowStream;

pub(crate) use flight::{affected, is_stale};
pub(crate) use held::Held;
pub(crate) use limits::{Limit, within};
pub use options::{IsolationLevel, SessionOptions, UnknownIsolationLevel};
pub use pipeline::{Answer, Pipeline};
pub use savepoint::Savepoint;
pub(crate) use scope::Locals;
pub use scope::Scope;
use state::{Level, State};

/// One task's unit of work: statements in a transaction, on a connection borrowed for as long as it lasts.
///
/// A session borrows nothing until its first statement; `BEGIN` travels with that statement. After
/// [`commit`](Self::commit), [`rollback`](Self::rollback) or [`close`](Self::close) the connection is back
/// in the pool and the next statement begins a new transaction. Dropping the session rolls back (a
/// read-only transaction without error ends with `COMMIT`, which has the same effect and raises no
/// alert) and returns the connection, without waiting.
///
/// After an error from the server the transaction takes no more statements until it is rolled back;
/// recover from expected errors with a savepoint ([`nested`](Self::nested)).
///
/// ```no_run
/// use pool_postgres::{Error, Session, SessionFactory};
///
/// /// Serves a request, a savepoint and a script alike.
/// async fn rename(s: &mut Session, id: i64, name: &str) -> Result<bool, Error> {
///     Ok(s.execute("UPDATE users SET name = $2 WHERE id = $1", &[&id, &name]).await? == 1)
/// }
///
/// # async fn example(sessions: SessionFactory) -> Result<(), Error> {
/// let mut session = sessions.session();
/// if rename(&mut session, 7, "Ada").await? {
///     let _token = session.commit().await?.token;
/// }
/// # Ok(()) }
/// ```
#[must_use = "a session that is dropped rolls back"]
pub struct Session {
    source: Arc<dyn ConnectionSource>,
    options: SessionOptions,
    /// What is set for each transaction.
    locals: Option<Arc<Locals>>,
    /// Whether `SessionFactory::begin` ends the transaction.
    managed: bool,
    state: State,
    /// The savepoints that are open, outermost first. Not all need be known to the server yet.
    savepoints: Vec<Level>,
    /// How many savepoints this transaction has had: they are never named alike.
    named: u32,
    /// Whether the last transaction lost against another one.
    conflict: bool,
}

type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Session {
    /// A session on any source. [`SessionFactory`](crate::SessionFactory) makes them from settings kept in
    /// one place.
    pub fn new(source: Arc<dyn ConnectionSource>, options: SessionOptions) -> Self {
        let (state, savepoints) = (State::Idle, Vec::new());
        Self {
            source,
            options,
            locals: None,
            managed: false,
            state,
            savepoints,
            named: 0,
            conflict: false,
        }
    }

    /// The same session, with settings for each of its transactions.
    pub(crate) fn with_locals(mut self, locals: Option<Arc<Locals>>) -> Self {
        self.locals = locals;
        self
    }

    /// Runs a statement and collects its rows.
    ///
    /// Prepared once per connection. The first statement of a transaction that meets a connection which
    /// died before it answered is sent again on another, once (see
    /// [`SessionOptions::retry_dead`]).
    ///
    /// All rows are in memory at once, so no more than [`SessionOptions::max_rows`] (a million) are taken; for
    /// more there is [`query_stream`](Self::query_stream).
    ///
    /// ```no_run
    /// # use pool_postgres::{Error, Session};
    /// # async fn example(s: &mut Session, ids: Vec<i64>, names: Vec<String>) -> Result<(), Error> {
    /// // A list of any length is one parameter, and the statement the same for all lengths.
    /// let rows = s.query("SELECT * FROM users WHERE id = ANY($1)", &[&ids]).await?;
    /// // Many rows in one statement: one array for each column.
    /// let sql = "INSERT INTO users (id, name) SELECT * FROM UNNEST($1::bigint[], $2::text[])";
    /// s.execute(sql, &[&ids, &names]).await?;
    /// # let _ = rows; Ok(()) }
    /// ```
    ///
    /// Statements of two sessions can run at the same time; what their parameters borrow has to live as long as
    /// both futures, so it is named first:
    ///
    /// ```no_run
    /// # use pool_postgres::{Error, SessionFactory};
    /// # use pool_postgres::types::ToSql;
    /// # async fn example(sessions: SessionFactory) -> Result<(), Error> {
    /// let (mut one, mut two) = (sessions.session(), sessions.session());
    /// let params: [&(dyn ToSql + Sync); 1] = [&7_i64];
    /// let (orders, bills) = tokio::join!(
    ///     one.query("SELECT * FROM orders WHERE customer = $1", &params),
    ///     two.query("SELECT * FROM bills WHERE customer = $1", &params),
    /// );
    /// # let _ = (orders?, bills?); Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// Dropped before a connection is there, nothing has happened. Dropped later, the statement may or may
    /// not have run: the transaction can only be rolled back, and the connection is cleaned or closed
    /// before anybody else gets it.
    ///
    /// # Errors
    /// The pool's, the server's or the parameters'; see [`ErrorKind`]. [`ErrorKind::RowCount`] for more rows
    /// than are taken, which leaves the transaction usable.
    #[track_caller]
    pub fn query(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<Vec<Row>, Error>> + Send {
        self.collect(Location::caller(), sql, params)
    }

    /// Runs a statement that gives exactly one row.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    ///
    /// # Errors
    /// Those of [`query`](Self::query), and [`ErrorKind::RowCount`] for no row or several, which leaves the
    /// transaction usable.
    #[track_caller]
    pub fn query_one(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<Row, Error>> + Send {
        let place = Location::caller();
        async move { exactly_one(self.collect(place, sql, params).await?) }
    }

    /// Runs a statement that gives one row or none.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    ///
    /// # Errors
    /// Those of [`query`](Self::query), and [`ErrorKind::RowCount`] for several rows, which leaves the
    /// transaction usable.
    #[track_caller]
    pub fn query_opt(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<Option<Row>, Error>> + Send {
        let place = Location::caller();
        async move { at_most_one(self.collect(place, sql, params).await?) }
    }

    /// Runs a statement and tells how many rows it affected; rows that it gives are thrown away.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    ///
    /// # Errors
    /// As [`query`](Self::query).
    #[track_caller]
    pub fn execute(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<u64, Error>> + Send {
        self.affect(Location::caller(), sql, params)
    }

    /// Runs a statement and gives its rows as they arrive.
    ///
    /// The stream holds the session until it is dropped. Dropped half-way, the session goes on; its next
    /// statement waits until the remaining rows have passed.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query), for the future and for the stream's first row.
    ///
    /// # Errors
    /// As [`query`](Self::query); what fails later comes in the stream's place of a row.
    #[track_caller]
    pub fn query_stream(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<RowStream<'_>, Error>> + Send {
        let place = Location::caller();
        async move {
            let rows = self.start(place, sql, params).await?;
            Ok(RowStream::new(Held::Lent(self), rows))
        }
    }

    /// Runs a statement and gives its rows as they arrive, in a stream that owns the session: for a response's
    /// body, which outlives whoever answers.
    ///
    /// The session ends with the stream, as by dropping it: what it did before without committing is rolled
    /// back.
    ///
    /// # Cancel safety
    /// Dropped at any point, the session is dropped with it.
    ///
    /// # Errors
    /// As [`query_stream`](Self::query_stream).
    #[track_caller]
    pub fn into_stream(
        mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<RowStream<'static>, Error>> + Send {
        let place = Location::caller();
        async move {
            let rows = self.start(place, sql, params).await?;
            Ok(RowStream::new(Held::Owned(Box::new(self)), rows))
        }
    }

    /// Runs several statements, separated by semicolons, inside the transaction. They take no parameters,
    /// and their rows are thrown away.
    ///
    /// A batch is never sent again by itself, whatever it meets.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    ///
    /// # Errors
    /// As [`query`](Self::query).
    #[track_caller]
    pub fn batch(&mut self, sql: &str) -> impl Future<Output = Result<(), Error>> + Send {
        self.run_batch(Location::caller(), sql)
    }

    /// Gathers statements, to be sent together in one round trip; see [`Pipeline`].
    pub fn pipeline<'p>(&mut self) -> Pipeline<'_, 'p> {
        Pipeline::new(self)
    }

    /// Starts a `COPY … FROM STDIN`; what is sent to the [`CopyIn`] goes into the table.
    ///
    /// Never sent again by itself, whatever it meets.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    ///
    /// # Errors
    /// As [`query`](Self::query), and [`ErrorKind::Usage`] for a statement that is no `COPY … FROM STDIN`.
    #[track_caller]
    pub fn copy_in(&mut self, sql: &str) -> impl Future<Output = Result<CopyIn<'_>, Error>> + Send {
        CopyIn::start(Held::Lent(self), Location::caller(), sql)
    }

    /// Starts a `COPY … TO STDOUT`; the [`CopyOut`] gives what comes.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    ///
    /// # Errors
    /// As [`query`](Self::query), and [`ErrorKind::Usage`] for a statement that is no `COPY … TO STDOUT`.
    #[track_caller]
    pub fn copy_out(
        &mut self,
        sql: &str,
    ) -> impl Future<Output = Result<CopyOut<'_>, Error>> + Send {
        CopyOut::start(Held::Lent(self), Location::caller(), sql)
    }

    /// Opens a savepoint: what happens until it ends can be rolled back by itself.
    ///
    /// Sends nothing: the savepoint travels with the first statement inside it. The guard dereferences to
    /// the session, so helpers take it as `&mut Session`; dropped, it rolls back to the savepoint.
    ///
    /// ```no_run
    /// # use pool_postgres::{Error, Session};
    /// # async fn example(session: &mut Session) -> Result<(), Error> {
    /// let mut attempt = session.begin_nested();
    /// match attempt.execute("INSERT INTO names VALUES ('Ada')", &[]).await {
    ///     Ok(_) => attempt.commit().await?,
    ///     Err(_) => attempt.rollback().await?, // The transaction goes on.
    /// }
    /// # Ok(()) }
    /// ```
    pub fn begin_nested(&mut self) -> Savepoint<'_> {
        Savepoint::open(self)
    }

    /// Runs `work` in a savepoint: keeps what it did on `Ok`, rolls it back on `Err` and passes the error on.
    ///
    /// # Cancel safety
    /// Dropped, or on a panic in `work`, what was done since the savepoint is rolled back.
    ///
    /// # Errors
    /// Those of `work`, and those of [`Savepoint::commit`].
    pub fn nested<E, T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, E>,
    ) -> impl Future<Output = Result<T, E>>
    where
        E: From<Error>,
    {
        async move {
            let mut savepoint = self.begin_nested();
            match work(&mut savepoint).await {
                Ok(value) => {
                    savepoint.commit().await?;
                    Ok(value)
                }
                Err(error) => {
                    if let Err(failure) = savepoint.rollback().await {
                        tracing::debug!(error = %failure, "could not roll back to a savepoint");
                    }
                    Err(error)
                }
            }
        }
    }

    /// Commits the transaction and gives the connection back. Without a transaction it does nothing.
    ///
    /// Ends the transaction whatever the result: the next statement begins a new one. A transaction in
    /// which a statement failed is rolled back, and the error names the first failure.
    ///
    /// # Cancel safety
    /// Dropped before the answer, the outcome is unknown; the connection is settled before anybody else
    /// gets it.
    ///
    /// # Errors
    /// [`ErrorKind::TransactionFailed`]: rolled back. [`ErrorKind::OutcomeUnknown`]: the connection broke
    /// after `COMMIT` was sent and before its answer. [`ErrorKind::Usage`] inside
    /// [`SessionFactory::begin`](crate::SessionFactory::begin) or a savepoint; the transaction goes on.
    /// Anything else: the server refused, and rolled back.
    pub fn commit(&mut self) -> impl Future<Output = Result<Committed, Error>> + Send {
        async {
            self.may_end("commit")?;
            self.commit_now().await
        }
    }

    /// Rolls the transaction back and gives the connection back. Without a transaction it does nothing.
    ///
    /// A connection that breaks meanwhile is no error: the server rolls back by itself.
    ///
    /// # Cancel safety
    /// May be dropped at any point: the transaction is rolled back in any case.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] inside [`SessionFactory::begin`](crate::SessionFactory::begin) or a savepoint;
    /// the transaction goes on.
    pub fn rollback(&mut self) -> impl Future<Output = Result<(), Error>> + Send {
        async {
            self.may_end("rollback")?;
            self.rollback_now().await;
            Ok(())
        }
    }

    /// Ends the transaction as dropping the session would, without waiting for the server. The session can
    /// be used again.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] inside [`SessionFactory::begin`](crate::SessionFactory::begin) or a savepoint;
    /// the transaction goes on.
    #[expect(clippy::unused_async, reason = "in line with commit and rollback")]
    pub async fn close(&mut self) -> Result<(), Error> {
        self.may_end("close")?;
        self.end_quietly();
        Ok(())
    }

    /// Whether a transaction is open: begun on the server, or lost and not yet rolled back.
    pub fn in_transaction(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// The name of what its transactions are confined to; see [`Scope`].
    pub fn scope(&self) -> Option<&str> {
        let locals = self.locals.as_ref()?;
        locals.scope().map(|scope| &**scope)
    }

    /// How this session's transactions begin.
    pub fn options(&self) -> SessionOptions {
        self.options
    }

    /// Changes how the next transaction begins.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] while a transaction is open; it goes on unchanged.
    pub fn set_options(&mut self, options: SessionOptions) -> Result<(), Error> {
        if self.in_transaction() || self.managed || !self.savepoints.is_empty() {
            return Err(Error::new(
                ErrorKind::Usage,
                "options can't change inside a transaction: commit or roll back first",
            ));
        }
        self.options = options;
        Ok(())
    }

    pub(crate) async fn affect(
        &mut self,
        place: &'static Location<'static>,
        sql: &str,
        params: Values<'_>,
    ) -> Result<u64, Error> {
        let rows = self.start(place, sql, params).await?;
        let affected = match limits::within(self.limit(), flight::affected(rows)).await {
            Ok(affected) => self.answered(affected),
            Err(late) => Err(self.failure(late)),
        };
        affected.map_err(|error| self.about(error, sql, params))
    }

    pub(crate) async fn collect(
        &mut self,
        place: &'static Location<'static>,
        sql: &str,
        params: Values<'_>,
    ) -> Result<Vec<Row>, Error> {
        let rows = self.start(place, sql, params).await?;
        let most = self.options.max_rows;
        let rows = match limits::within(self.limit(), gather(rows, most)).await {
            Ok(Ok(None)) => {
                self.stream_abandoned();
                Err(too_many(most))
            }
            Ok(Ok(Some(rows))) => self.answered(Ok(rows)),
            Ok(Err(error)) => self.answered(Err(error)),
            Err(late) => Err(self.failure(late)),
        };
        rows.map_err(|error| self.about(error, sql, params))
    }

    /// When the statement that runs is given up.
    pub(crate) fn limit(&self) -> Option<Limit> {
        match &self.state {
            State::Open(open) => open.limit,
            State::Idle | State::Lost(_) => None,
        }
    }
}

/// Reads a statement's rows, up to a number; `None` if there are more.
pub(crate) async fn gather(
    rows: tokio_postgres::RowStream,
    most: usize,
) -> Result<Option<Vec<Row>>, tokio_postgres::Error> {
    let mut rows = std::pin::pin!(rows);
    let mut gathered = Vec::new();
    while let Some(row) = rows.next().await {
        if gathered.len() == most {
            return Ok(None);
        }
        gathered.push(row?);
    }
    Ok(Some(gathered))
}

/// What a statement gets that gives more rows than are collected.
pub(crate) fn too_many(most: usize) -> Error {
    Error::new(
        ErrorKind::RowCount,
        format!(
            "the statement gives more than {most} rows, which is as many as are collected (max_rows): read \
             them one after another with query_stream"
        ),
    )
}

impl Drop for Session {
    fn drop(&mut self) {
        self.note_pending_work();
        self.end_quietly();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("scope", &self.scope())
            .field("options", &self.options)
            .field("in_transaction", &self.in_transaction())
            .field("savepoints", &self.savepoints.len())
            .finish_non_exhaustive()
    }
}

/// The row of a statement that must give exactly one.
pub(crate) fn exactly_one(rows: Vec<Row>) -> Result<Row, Error> {
    at_most_one(rows)?.ok_or_else(|| {
        Error::new(
            ErrorKind::RowCount,
            "the statement gave no row: use query_opt where that is expected",
        )
    })
}

/// The row of a statement that may give one.
pub(crate) fn at_most_one(mut rows: Vec<Row>) -> Result<Option<Row>, Error> {
    if rows.len() > 1 {
        return Err(Error::new(
            ErrorKind::RowCount,
            format!(
                "the statement gave {} rows where at most one was expected: use query",
                rows.len()
            ),
        ));
    }
    Ok(rows.pop())
}
