//! Shared connections: single statements of many tasks, pipelined over few connections.
//!
//! A pool lends a connection to one caller at a time, and while that caller waits for its answer nothing else is
//! sent. Statements that stand alone need no connection to themselves: here each is put behind those that are under
//! way. The files: `refuse` (what may not be sent), `hub` (which connection takes it), `flight` (one under way).
//!
//! # What always holds
//! Only the extended protocol, one statement at a time, nothing that leaves something behind. What was sent is
//! read to its end, whoever waits for it; an answer is owned before it is given.

mod flight;
mod hub;
mod refuse;
mod values;

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use pool_core::Pool;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Statement};

use crate::backend::PgBackend;
use crate::error::{Error, ErrorKind};
use crate::seeing::{End, Seeing};
use crate::session::{at_most_one, exactly_one, is_stale};
use crate::unnamed::typed;
use flight::{Answer, Landed};
use hub::{Hub, Seat};
pub(crate) use refuse::first_word;
use values::Values;

/// Single statements of many tasks over few connections; made by [`Engine::shared`](crate::Engine::shared).
///
/// Each statement stands alone (autocommit) and is sent behind those of others without waiting for their answers,
/// which gets more through a connection than lending it to one task at a time. It is for statements that are
/// quick and many; what takes long holds up what was sent behind it on the same connection.
///
/// What would leave something behind is refused before it is sent: `SET`, `BEGIN`, `LISTEN`, `COPY`, `PREPARE`,
/// temporary tables and the like, and several statements in one text. What a *function* does is not seen:
/// `SELECT set_config(…, false)`, `SELECT pg_advisory_lock(…)` or a `DO` block would leave their traces on a
/// connection that others use. Don't call these here.
///
/// The connections are the pool's: borrowed when there is something to send, given back when all is answered, after
/// ten seconds at the latest, and sooner when others wait for the pool. Cheap to clone.
///
/// ```no_run
/// # async fn example(engine: pool_postgres::Engine) -> Result<(), pool_postgres::Error> {
/// let shared = engine.shared();
/// let row = shared.query_one("SELECT name FROM users WHERE id = $1", &[&7_i64]).await?;
/// # let _: &str = row.get(0); Ok(()) }
/// ```
#[derive(Clone)]
pub struct SharedConnections {
    hub: Arc<Hub>,
    seeing: Arc<Seeing>,
}

impl SharedConnections {
    pub(crate) fn new(pool: Pool<PgBackend>, options: SharedOptions) -> Self {
        Self {
            seeing: Arc::clone(pool.backend().seeing()),
            hub: Hub::new(pool, options),
        }
    }

    /// Runs one statement by itself and collects its rows.
    ///
    /// # Cancel safety
    /// Dropped before it is sent, nothing has happened. Dropped later, the statement runs to its end all the same
    /// (cancelling it could strike somebody else's), and its answer is thrown away.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for what a shared connection does not take; nothing was sent.
    /// [`ErrorKind::PoolTimeout`] where no room came free within [`SharedOptions::timeout`]. When a connection
    /// breaks, all that was under way on it gets [`ErrorKind::ConnectionLost`], whose
    /// [`outcome`](Error::outcome) is unknown; what was not sent yet goes to another connection. Else the
    /// pool's, the server's or the parameters'.
    #[track_caller]
    pub fn query(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<Vec<Row>, Error>> + Send {
        let answer = self.run(Location::caller(), sql, params);
        async { Ok(answer.await?.0) }
    }

    /// Runs one statement that gives exactly one row. As [`query`](Self::query).
    ///
    /// # Errors
    /// Also [`ErrorKind::RowCount`] for no row or several; the statement has run.
    #[track_caller]
    pub fn query_one(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<Row, Error>> + Send {
        let rows = self.query(sql, params);
        async { exactly_one(rows.await?) }
    }

    /// Runs one statement that gives one row or none. As [`query`](Self::query).
    ///
    /// # Errors
    /// Also [`ErrorKind::RowCount`] for several rows; the statement has run.
    #[track_caller]
    pub fn query_opt(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<Option<Row>, Error>> + Send {
        let rows = self.query(sql, params);
        async { at_most_one(rows.await?) }
    }

    /// Runs one statement and tells how many rows it affected. As [`query`](Self::query).
    #[track_caller]
    pub fn execute(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<u64, Error>> + Send {
        let answer = self.run(Location::caller(), sql, params);
        async { Ok(answer.await?.1) }
    }

    /// The numbers of this moment.
    pub fn status(&self) -> SharedStatus {
        self.hub.status()
    }

    pub(crate) fn renew(&self) {
        self.hub.renew();
    }

    pub(crate) fn close(&self) {
        self.hub.close();
    }

    async fn run(
        &self,
        place: &'static Location<'static>,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<(Vec<Row>, u64), Error> {
        refuse::check(sql)?;
        let seen = self.seeing.lend();
        if let Some(seen) = &seen {
            seen.sight().begin(place, sql, params);
        }
        let answer = self.fly(place, sql, params).await;
        if let Some(seen) = &seen {
            seen.sight().end(match &answer {
                Ok(_) => End::Answered,
                Err(error) => End::Failed(error),
            });
        }
        answer
    }

    async fn fly(
        &self,
        place: &'static Location<'static>,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<(Vec<Row>, u64), Error> {
        let mut tried = false;
        loop {
            let seat = self.hub.seat(place).await?;
            let (seat, statement) = match seat.connection().cached(sql) {
                _ if seat.connection().is_pooled() => {
                    let types = typed(params)?.into_iter().map(|(_, kind)| kind);
                    (seat, Way::Unnamed(sql.to_owned(), types.collect()))
                }
                Some(statement) => (seat, Way::Named(statement)),
                None => match prepare(seat, sql).await {
                    (Ok(Answer::Prepared(statement)), seat) => (seat, Way::Named(statement)),
                    // Nothing was executed yet, so another connection may take over.
                    (Err(error), _) if !error.connection_is_good() && !tried => {
                        tried = true;
                        continue;
                    }
                    (Err(error), _) => return Err(error),
                    (Ok(Answer::Rows(..)), _) => unreachable!("a preparation gives no rows"),
                },
            };
            let values = Values::of(statement.types(), params);
            match execute(seat, statement, values).await {
                (Ok(Answer::Rows(rows, affected)), _) => return Ok((rows, affected)),
                // Refused before it ran: prepare it anew.
                (Err(error), seat) if is_stale(&error) && !tried => {
                    tried = true;
                    seat.connection().forget(&error);
                }
                (Err(error), _) => return Err(error),
                (Ok(Answer::Prepared(_)), _) => unreachable!("an execution prepares nothing"),
            }
        }
    }
}

/// How a statement is sent: by its name, or behind a pooler as text, with the types of its parameters.
enum Way {
    Named(Statement),
    Unnamed(String, Vec<Type>),
}

impl Way {
    fn types(&self) -> &[Type] {
        match self {
            Self::Named(statement) => statement.params(),
            Self::Unnamed(_, types) => types,
        }
    }
}

/// Prepares a statement on the seat's connection. Goes on by itself if it is dropped.
async fn prepare(mut seat: Seat, sql: &str) -> Landed {
    let sql = sql.to_owned();
    let flight = seat.flight();
    seat.unanswered = true;
    let course = async move {
        let prepared = seat.connection().prepare(&sql).await;
        seat.unanswered = false;
        (prepared.map(Answer::Prepared), seat)
    };
    flight.fly(Box::pin(course)).await
}

/// Executes a statement on the seat's connection. Goes on by itself if it is dropped.
async fn execute(mut seat: Seat, statement: Way, values: Values) -> Landed {
    let flight = seat.flight();
    seat.unanswered = true;
    let course = async move {
        let answer = rows(&seat, statement, values).await;
        seat.unanswered = false;
        (answer, seat)
    };
    flight.fly(Box::pin(course)).await
}

async fn rows(seat: &Seat, statement: Way, values: Values) -> Result<Answer, Error> {
    let connection = seat.connection();
    let fault = |error| connection.fault(error);
    let driver = connection.driver();
    let rows = match statement {
        Way::Named(statement) => driver.query_raw(&statement, values).await,
        Way::Unnamed(sql, types) => {
            driver
                .query_typed_raw(&sql, values.into_iter().zip(types))
                .await
        }
    };
    let mut rows = std::pin::pin!(rows.map_err(fault)?);
    let mut collected = Vec::new();
    while let Some(row) = rows.try_next().await.map_err(fault)? {
        collected.push(row);
    }
    let affected = rows.rows_affected().unwrap_or(0);
    Ok(Answer::Rows(collected, affected))
}

impl fmt::Debug for SharedConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedConnections")
            .field("status", &self.status())
            .finish()
    }
}

/// How an engine's shared connections behave; see
/// [`EngineBuilder::shared`](crate::EngineBuilder::shared).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedOptions {
    /// How many connections are used as soon as there is work for them. Default 2, at least 1.
    pub connections: usize,
    /// How many are used where statements stall. Default 4, at least `connections`. They are the pool's: what
    /// is beyond its room has to wait.
    pub max_connections: usize,
    /// How long the oldest statement of a connection may be unanswered before the next ones go to another
    /// connection, opened for them if need be. Default 25 milliseconds, at least 1.
    ///
    /// What was sent behind a slow statement within this time waits for it; what comes later does not.
    pub grow_after: Duration,
    /// How many statements may be unanswered on all connections together; what comes beyond waits. Default 1024,
    /// at least 1.
    pub max_in_flight: usize,
    /// How long a statement waits for room. Default 30 seconds.
    pub timeout: Duration,
}

impl Default for SharedOptions {
    fn default() -> Self {
        Self {
            connections: 2,
            max_connections: 4,
            grow_after: Duration::from_millis(25),
            max_in_flight: 1024,
            timeout: Duration::from_secs(30),
        }
    }
}

impl SharedOptions {
    /// Sets [`connections`](Self::connections), and raises `max_connections` to it.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self.max_connections = self.max_connections.max(connections);
        self
    }

    /// Sets [`max_connections`](Self::max_connections).
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets [`grow_after`](Self::grow_after).
    pub fn grow_after(mut self, age: Duration) -> Self {
        self.grow_after = age;
        self
    }

    /// Sets [`max_in_flight`](Self::max_in_flight).
    pub fn max_in_flight(mut self, statements: usize) -> Self {
        self.max_in_flight = statements;
        self
    }

    /// Sets [`timeout`](Self::timeout).
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Refuses what can't work.
    pub(crate) fn check(self) -> Result<Self, Error> {
        let fault = if self.connections == 0 {
            "shared connections: connections must be at least 1"
        } else if self.max_connections < self.connections {
            "shared connections: max_connections must be at least connections"
        } else if self.max_in_flight == 0
            || self.max_in_flight > tokio::sync::Semaphore::MAX_PERMITS
        {
            "shared connections: max_in_flight must be at least 1 and below 2^61"
        } else if self.grow_after < Duration::from_millis(1) {
            "shared connections: grow_after must be at least a millisecond"
        } else {
            return Ok(self);
        };
        Err(Error::new(ErrorKind::Config, fault))
    }
}

/// The numbers of an engine's shared connections at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedStatus {
    /// Connections borrowed from the pool.
    pub connections: usize,
    /// Connections being borrowed.
    pub connecting: usize,
    /// Statements sent and not answered.
    pub in_flight: usize,
    /// Callers that wait for room or for a connection.
    pub waiting: usize,
    /// How long the oldest statement has been unanswered.
    pub oldest: Option<Duration>,
}

impl fmt::Display for SharedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} unanswered on {} connections ({} being opened), {} waiting",
            self.in_flight, self.connections, self.connecting, self.waiting
        )?;
        match self.oldest {
            Some(oldest) => write!(f, "; the oldest is {oldest:.1?} old"),
            None => Ok(()),
        }
    }
}
