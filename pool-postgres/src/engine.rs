//! The engine: a pool of connections to one database, and single statements on them.

mod builder;
mod statements;

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use pool_core::{Backend, CloseReport, OwnedPooledConnection, Pool, PooledConnection, Status};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, RowStream};

use crate::address::EngineConfig;
use crate::backend::PgBackend;
use crate::error::{Error, ErrorKind};
use crate::factory::SessionFactory;
use crate::listen::Listeners;
use crate::seeing::End;
use crate::session::{
    Session, SessionOptions, affected, at_most_one, exactly_one, gather, is_stale, too_many,
};
use crate::shared::SharedConnections;
use crate::source::{Checkout, CheckoutFuture, ConnectionSource, Lease};
use crate::statements::Reuse;
use crate::tally::Tally;
use crate::unnamed::Plan;

pub use builder::EngineBuilder;

/// A bare connection out of an engine's pool; made by [`Engine::connect`].
pub type Connection = OwnedPooledConnection<PgBackend>;

/// A database and the pool of connections to it.
///
/// Cheap to clone; all clones are the same engine. Make one per database when the service starts.
///
/// ```no_run
/// use std::time::Duration;
/// use pool_postgres::{Engine, Error};
///
/// # async fn example() -> Result<(), Error> {
/// let engine = Engine::builder("postgresql://app:secret@localhost/shop")
///     .pool_size(5)
///     .max_overflow(10)
///     .pool_timeout(Duration::from_secs(30))
///     .build()?; // Checks the settings, opens nothing.
/// let row = engine.query_one("SELECT count(*) FROM orders", &[]).await?;
/// println!("{} orders; {}", row.get::<_, i64>(0), engine.status());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Engine {
    pool: Pool<PgBackend>,
    shared: SharedConnections,
    listeners: Arc<Listeners>,
    tally: Arc<Tally>,
    options: SessionOptions,
}

impl Engine {
    /// Starts from a URL (or from `key=value` pairs, as libpq takes them). Mistakes in it come up in
    /// [`EngineBuilder::build`].
    pub fn builder(url: impl AsRef<str>) -> EngineBuilder {
        EngineBuilder::new(url.as_ref().parse())
    }

    /// Starts from typed settings, as [`EngineConfig::from_env`] and configuration files give them.
    pub fn from_config(config: EngineConfig) -> EngineBuilder {
        EngineBuilder::new(Ok(config))
    }

    /// Runs one statement by itself and collects its rows.
    ///
    /// No `BEGIN`, one round trip where the statement is prepared already. Anything that a statement needs
    /// from an earlier one belongs into a [`Session`](crate::Session). At most a million rows are collected; for
    /// more there is [`query_stream`](Self::query_stream).
    ///
    /// # Cancel safety
    /// Dropped before a connection is there, nothing has happened. Dropped later, the statement may or may
    /// not have run; the connection is cleaned or closed before anybody else gets it.
    ///
    /// # Errors
    /// The pool's, the server's or the parameters'; see [`ErrorKind`](crate::ErrorKind). What was lost after the statement was
    /// sent is not sent again, because it may have run.
    #[track_caller]
    pub fn query(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<Vec<Row>, Error>> + Send {
        let place = Location::caller();
        async move {
            if self.has_options() {
                let mut session = self.alone();
                // Rare and large: not in everybody's future.
                return Box::pin(session.collect(place, sql, params)).await;
            }
            let most = SessionOptions::MAX_ROWS;
            let rows = self.run(place, sql, params, move |rows| gather(rows, most));
            rows.await?.ok_or_else(|| too_many(most))
        }
    }

    /// Runs one statement that gives exactly one row. As [`query`](Self::query).
    ///
    /// # Errors
    /// Also [`ErrorKind::RowCount`](crate::ErrorKind::RowCount) for no row or several; the statement has run.
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
    /// Also [`ErrorKind::RowCount`](crate::ErrorKind::RowCount) for several rows; the statement has run.
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
        let place = Location::caller();
        async move {
            if self.has_options() {
                let mut session = self.alone();
                return Box::pin(session.affect(place, sql, params)).await;
            }
            self.run(place, sql, params, affected).await
        }
    }

    /// Checks out a bare connection, for what sessions don't cover: `COPY`, notifications, the driver's own
    /// transactions.
    ///
    /// It dereferences to [`PgConnection`](crate::PgConnection), whose `client` and `client_mut` give the
    /// driver's client; using them counts as touching the connection, which is then checked at its return.
    ///
    /// # Cancel safety
    /// May be dropped at any point.
    ///
    /// # Errors
    /// The pool's.
    #[track_caller]
    pub fn connect(&self) -> impl Future<Output = Result<Connection, Error>> + Send {
        let connection = self.pool.get_owned_at(Location::caller());
        async { Ok(connection.await?) }
    }

    /// Asks the server whether it answers, on a connection out of the pool.
    ///
    /// # Cancel safety
    /// May be dropped at any point.
    ///
    /// # Errors
    /// The pool's or the connection's.
    #[track_caller]
    pub fn ping(&self) -> impl Future<Output = Result<(), Error>> + Send {
        let place = Location::caller();
        async move {
            let mut connection = self.pool.get_at(place).await?;
            match self.pool.backend().ping(&mut connection).await {
                Ok(()) => Ok(()),
                Err(error) => Err(noted(&mut connection, error)),
            }
        }
    }

    /// Single statements of many tasks, pipelined over few of the pool's connections; for statements that are quick
    /// and many. Borrows nothing by itself. All handles of an engine share the same connections.
    pub fn shared(&self) -> SharedConnections {
        self.shared.clone()
    }

    /// A session on this engine: a unit of work. Borrows nothing until its first statement.
    pub fn session(&self) -> Session {
        Session::new(Arc::new(self.clone()), self.options)
    }

    /// Runs `work` in a transaction: commits on `Ok`, rolls back on `Err` and passes the error on. As
    /// [`SessionFactory::begin`].
    ///
    /// # Cancel safety
    /// As [`SessionFactory::begin`].
    ///
    /// # Errors
    /// Those of `work`, and those of [`Session::commit`].
    pub fn begin<E, T>(
        &self,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, E>,
    ) -> impl Future<Output = Result<T, E>>
    where
        E: From<Error>,
    {
        let sessions = SessionFactory::new(self.clone());
        async move { sessions.begin(work).await }
    }

    /// A view of this engine whose transactions begin with these options: the same pool, and the same connections.
    ///
    /// Single statements of the view are read-only too where the options say so, and have their timeouts; they
    /// still run by themselves. This engine and other views stay as they are, and disposing one replaces the
    /// connections of all.
    ///
    /// ```no_run
    /// # use pool_postgres::{Engine, Error, IsolationLevel, SessionOptions};
    /// # async fn example(engine: Engine) -> Result<(), Error> {
    /// let reports = engine.with_options(
    ///     SessionOptions::default().isolation(IsolationLevel::RepeatableRead).read_only(),
    /// );
    /// let mut session = reports.session(); // BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY
    /// # let _ = session.query("SELECT 1", &[]).await?; Ok(()) }
    /// ```
    pub fn with_options(&self, options: SessionOptions) -> Self {
        Self {
            options,
            ..self.clone()
        }
    }

    /// How the transactions of this engine begin.
    pub fn options(&self) -> SessionOptions {
        self.options
    }

    /// How many connections this engine may open: `pool_size` and `max_overflow` together.
    ///
    /// At the first connect it is logged beside what the server allows, with a warning where it is more than the
    /// server has free. Several instances of a service add up.
    pub fn max_connections(&self) -> usize {
        self.pool.status().capacity
    }

    /// The pool's numbers at this moment.
    pub fn status(&self) -> Status {
        self.pool.status()
    }

    pub(crate) fn listening(&self) -> &Arc<Listeners> {
        &self.listeners
    }

    /// The pool itself.
    pub fn pool(&self) -> &Pool<PgBackend> {
        &self.pool
    }

    /// Has every connection replaced: idle ones are closed now, those in use when they come back.
    pub fn dispose(&self) {
        self.pool.invalidate_all();
        self.shared.renew();
    }

    /// Refuses newcomers, waits for what is checked out (up to
    /// [`close_deadline`](EngineBuilder::close_deadline)), closes all, and reports who still held what.
    pub fn close(&self) -> impl Future<Output = CloseReport> + Send {
        async {
            self.shared.close();
            self.listeners.close();
            self.pool.close().await
        }
    }

    /// Refuses what needs a connection to the server itself, where there is a pooler in between.
    pub(crate) fn needs_the_server(&self, what: &str) -> Result<(), Error> {
        if !self.pool.backend().target().pooled {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Usage,
            format!(
                "{what} outlives a transaction, which an external pooler does not allow: use an engine that connects \
                 to the server itself"
            ),
        ))
    }

    /// Whether single statements have to heed options.
    fn has_options(&self) -> bool {
        let none = SessionOptions::default();
        self.options != none && self.options != none.autocommit()
    }

    async fn run<T, F>(
        &self,
        place: &'static Location<'static>,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
        read: impl FnOnce(RowStream) -> F + Send,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>> + Send,
    {
        let mut connection = self.pool.get_at(place).await?;
        connection.sight().begin(place, sql, params);
        let shown = connection.conduct().show_parameters.then_some(params);
        let about = |error: Error| error.with_statement(sql, shown);
        let mut tried = false;
        let rows = loop {
            let planned = connection.plan(sql, Reuse::Kept, params);
            let plan = match planned.map_err(|error| about(noted(&mut connection, error)))? {
                Some(plan) => plan,
                None => match connection.prepare(sql).await {
                    Ok(statement) => Plan::Named(statement),
                    // Nothing was executed yet, so another connection may take over.
                    Err(error) if !error.connection_is_good() && !tried => {
                        tried = true;
                        noted(&mut connection, error);
                        connection = self.pool.get_at(place).await?;
                        connection.sight().begin(place, sql, params);
                        continue;
                    }
                    Err(error) => return Err(about(noted(&mut connection, error))),
                },
            };
            let driver = connection.driver();
            match plan.send(driver, sql, params).await.map_err(Error::from) {
                Ok(rows) => break rows,
                // Refused before it ran: prepare it anew.
                Err(error) if is_stale(&error) && !tried => {
                    tried = true;
                    connection.forget(&error);
                }
                Err(error) => return Err(about(noted(&mut connection, error))),
            }
        };
        match read(rows).await {
            Ok(value) => {
                connection.settled();
                Ok(value)
            }
            Err(error) => Err(about(noted(&mut connection, Error::from(error)))),
        }
    }
}

/// Tells the pool of an error that may say something about other connections.
fn noted(connection: &mut PooledConnection<'_, PgBackend>, error: Error) -> Error {
    let error = connection.explain(error);
    connection.sight().end(End::Failed(&error));
    if error.connection_is_good() {
        connection.settled();
    }
    if !error.connection_is_good() || connection.was_demoted(&error) {
        connection.report(&error);
    }
    error
}

impl ConnectionSource for Engine {
    fn checkout<'a>(&'a self, request: Checkout<'a>) -> CheckoutFuture<'a> {
        let connection = self.pool.get_owned_at(request.place);
        Box::pin(async { Ok(Lease::new(connection.await?)) })
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("pool", &self.pool.status())
            .finish_non_exhaustive()
    }
}
