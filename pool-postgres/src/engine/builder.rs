//! An engine's settings: the URL's, and the calls that override them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pool_core::{Pool, PrePing, TimeSource};

use super::Engine;
use crate::address::{EngineOptions, SslMode};
use crate::backend::PgBackend;
use crate::conduct::Conduct;
use crate::error::{Error, ErrorKind};
use crate::listen::Listeners;
use crate::reset::ResetPolicy;
use crate::shared::{SharedConnections, SharedOptions};

type PoolBuilder = pool_core::Builder<PgBackend>;
type Tune = Arc<dyn Fn(PoolBuilder) -> PoolBuilder + Send + Sync>;

/// Builds an [`Engine`]; made by [`Engine::builder`] and [`Engine::from_options`].
///
/// What is set by a call overrides what the URL's query says. `Clone`, so that an engine like an earlier one
/// can be built from the same settings.
#[derive(Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct EngineBuilder {
    /// The options, or the mistake that `build` reports.
    options: Result<EngineOptions, Arc<Error>>,
    conduct: Conduct,
    tune: Vec<Tune>,
    shared: SharedOptions,
}

impl EngineBuilder {
    pub(super) fn new(options: Result<EngineOptions, Error>) -> Self {
        Self {
            options: options.map_err(Arc::new),
            conduct: Conduct::default(),
            tune: Vec::new(),
            shared: SharedOptions::default(),
        }
    }

    fn tune(mut self, change: impl Fn(PoolBuilder) -> PoolBuilder + Send + Sync + 'static) -> Self {
        self.tune.push(Arc::new(change));
        self
    }

    fn option(mut self, change: impl FnOnce(EngineOptions) -> EngineOptions) -> Self {
        self.options = self.options.map(change);
        self
    }

    /// How many connections the pool keeps. Default 5; see [`pool_core::Builder::pool_size`].
    pub fn pool_size(self, connections: usize) -> Self {
        self.tune(move |pool| pool.pool_size(connections))
    }

    /// How many connections may exist beyond `pool_size`; `None` for no limit of its own. Default 10; see
    /// [`pool_core::Builder::max_overflow`].
    pub fn max_overflow(self, connections: impl Into<Option<usize>>) -> Self {
        let connections = connections.into();
        self.tune(move |pool| pool.max_overflow(connections))
    }

    /// How long a caller waits for a connection; `None` for ever, zero not at all. Default 30 seconds; see
    /// [`pool_core::Builder::pool_timeout`].
    pub fn pool_timeout(self, limit: impl Into<Option<Duration>>) -> Self {
        let limit = limit.into();
        self.tune(move |pool| pool.pool_timeout(limit))
    }

    /// The age after which a connection is replaced. Default `None`; see [`pool_core::Builder::recycle`].
    pub fn recycle(self, age: impl Into<Option<Duration>>) -> Self {
        let age = age.into();
        self.tune(move |pool| pool.recycle(age))
    }

    /// When a connection is pinged before it is handed out. Default: when it was idle for 30 seconds; see
    /// [`pool_core::Builder::pre_ping`].
    pub fn pre_ping(self, policy: PrePing) -> Self {
        self.tune(move |pool| pool.pre_ping(policy))
    }

    /// How long opening one connection may take. Default 5 seconds; zero is refused. Where there are several
    /// hosts, each gets an equal share of it.
    pub fn connect_timeout(self, limit: Duration) -> Self {
        self.option(|mut options| {
            options.connect_timeout = Some(limit);
            options
        })
    }

    /// How many connections may be opening at the same time. Default 4; see
    /// [`pool_core::Builder::max_connecting`].
    pub fn max_connecting(self, connections: usize) -> Self {
        self.tune(move |pool| pool.max_connecting(connections))
    }

    /// How long a ping may take. Default 2 seconds; see [`pool_core::Builder::ping_timeout`].
    pub fn ping_timeout(self, limit: Duration) -> Self {
        self.tune(move |pool| pool.ping_timeout(limit))
    }

    /// How long cleaning a connection after its return may take. Default 5 seconds; see
    /// [`pool_core::Builder::reset_timeout`].
    pub fn reset_timeout(self, limit: Duration) -> Self {
        self.tune(move |pool| pool.reset_timeout(limit))
    }

    /// How long closing one connection may take. Default 5 seconds; see
    /// [`pool_core::Builder::close_timeout`].
    pub fn close_timeout(self, limit: Duration) -> Self {
        self.tune(move |pool| pool.close_timeout(limit))
    }

    /// How long [`Engine::close`] waits for what is checked out. Default 30 seconds; see
    /// [`pool_core::Builder::close_deadline`].
    pub fn close_deadline(self, limit: Duration) -> Self {
        self.tune(move |pool| pool.close_deadline(limit))
    }

    /// After how many failed attempts to connect in a row the pool counts as down. Default 3; see
    /// [`pool_core::Builder::down_after`].
    pub fn down_after(self, failures: u32) -> Self {
        self.tune(move |pool| pool.down_after(failures))
    }

    /// The shortest and the longest pause between failed attempts to connect. Default 50 ms and 2 seconds;
    /// see [`pool_core::Builder::backoff`].
    pub fn backoff(self, shortest: Duration, longest: Duration) -> Self {
        self.tune(move |pool| pool.backoff(shortest, longest))
    }

    /// Where the pool reads the time. Default [`TimeSource::Coarse`].
    pub fn time_source(self, source: TimeSource) -> Self {
        self.tune(move |pool| pool.time_source(source))
    }

    /// Changes any of the pool's own settings, those included that have no call here: hooks, a budget, `min_idle`,
    /// shedding.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let engine = pool_postgres::Engine::builder("postgresql://localhost/app")
    ///     .pool_with(|pool| pool.min_idle(2).max_waiting(100))
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn pool_with(
        self,
        change: impl Fn(pool_core::Builder<PgBackend>) -> pool_core::Builder<PgBackend>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.tune(change)
    }

    /// How [`Engine::shared`] uses connections. Default: two, and up to four where statements stall; see
    /// [`SharedOptions`].
    pub fn shared(mut self, options: SharedOptions) -> Self {
        self.shared = options;
        self
    }

    /// The name that the server shows for these connections in `pg_stat_activity`.
    pub fn application_name(self, name: impl Into<String>) -> Self {
        self.option(|options| options.application_name(name))
    }

    /// Whether the connection is encrypted and the server's certificate checked. Default as libpq: `prefer`.
    pub fn sslmode(self, mode: SslMode) -> Self {
        self.option(|options| options.sslmode(mode))
    }

    /// The file with the certificates that the server's is checked against.
    pub fn sslrootcert(self, file: impl Into<std::path::PathBuf>) -> Self {
        self.option(|options| options.sslrootcert(file))
    }

    /// The password, where it is not in the URL. Never shown.
    pub fn password(self, password: impl Into<String>) -> Self {
        self.option(|options| options.password(password))
    }

    /// What is undone when a connection comes back. Default [`ResetPolicy::Rollback`].
    pub fn reset_policy(mut self, policy: ResetPolicy) -> Self {
        self.conduct.reset = policy;
        self
    }

    /// How many prepared statements each connection keeps, the least recently used going first. Default 256; zero
    /// prepares every statement for a single use.
    ///
    /// Each takes memory on both sides, on the server that of its plan.
    pub fn statement_cache(mut self, statements: usize) -> Self {
        self.conduct.statements = statements;
        self
    }

    /// The longest message (a row, above all) that is taken from the server, in bytes; a longer one ends the
    /// connection. Default 1 GiB, the longest that a PostgreSQL server sends; at least 64 KiB.
    ///
    /// A message is held in memory as a whole, so this bounds what one row can take.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.conduct.longest_message = bytes;
        self
    }

    /// Whether errors carry the parameters of the statement that failed, as Rust's `Debug` shows them: in
    /// [`Error::parameters`] and in the alternate form of `Display`. Default `false`, for they may be secrets.
    pub fn show_parameters(mut self, shown: bool) -> Self {
        self.conduct.show_parameters = shown;
        self
    }

    /// Checks the settings and makes the engine; opens nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Url`] and [`ErrorKind::Config`], naming the setting and the remedy.
    pub fn build(self) -> Result<Engine, Error> {
        let options = self.options.map_err(|error| Error::clone(&error))?;
        let settings = options.pool_settings();
        let backend = PgBackend::new(options, self.conduct.checked()?)?;
        let tally = backend.tally();
        let pool = settings.apply(Pool::builder(backend));
        let pool = self.tune.iter().fold(pool, |pool, change| change(pool));
        let pool = pool.build().map_err(|error| {
            Error::from_source(ErrorKind::Config, "the pool's settings don't work", error)
        })?;
        let shared = SharedConnections::new(pool.clone(), self.shared.check()?);
        Ok(Engine {
            pool,
            shared,
            listeners: Listeners::new(),
            tally,
        })
    }
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
