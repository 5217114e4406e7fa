//! An engine's settings: the URL's, and the calls that override them.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pool_core::{HookFuture, Pool, PrePing, TimeSource};

use crate::connection::PgConnection;

use super::Engine;
use crate::address::{EngineConfig, SslMode, Target};
use crate::backend::{PgBackend, SetUp};
use crate::conduct::Conduct;
use crate::dial::Resolver;
use crate::error::{Error, ErrorKind};
use crate::listen::Listeners;
use crate::password::{self, Provider};
use crate::reset::ResetPolicy;
use crate::session::SessionOptions;
use crate::shared::{SharedConnections, SharedOptions};

type PoolBuilder = pool_core::Builder<PgBackend>;
type Tune = Arc<dyn Fn(PoolBuilder) -> PoolBuilder + Send + Sync>;

/// Builds an [`Engine`]; made by [`Engine::builder`] and [`Engine::from_config`].
///
/// What is set by a call overrides what the URL's query says. `Clone`, so that an engine like an earlier one
/// can be built from the same settings.
#[derive(Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct EngineBuilder {
    /// The options, or the mistake that `build` reports.
    options: Result<EngineConfig, Arc<Error>>,
    conduct: Conduct,
    tune: Vec<Tune>,
    shared: SharedOptions,
    provider: Option<Provider>,
    resolver: Option<Resolver>,
    set_up: Vec<SetUp>,
}

impl EngineBuilder {
    pub(super) fn new(options: Result<EngineConfig, Error>) -> Self {
        Self {
            options: options.map_err(Arc::new),
            conduct: Conduct::default(),
            tune: Vec::new(),
            shared: SharedOptions::default(),
            provider: None,
            resolver: None,
            set_up: Vec::new(),
        }
    }

    fn tune(mut self, change: impl Fn(PoolBuilder) -> PoolBuilder + Send + Sync + 'static) -> Self {
        self.tune.push(Arc::new(change));
        self
    }

    fn option(mut self, change: impl FnOnce(EngineConfig) -> EngineConfig) -> Self {
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

    /// How many scopes with [statements of their own](crate::Scope::separate_statements) (tenants with a schema each)
    /// a connection serves before it is closed at its return and another takes its place. Default 256; `usize::MAX`
    /// for no limit.
    ///
    /// A server process keeps about 10 kB for each table that it ever touched, and no reset frees that.
    pub fn max_scopes(mut self, scopes: usize) -> Self {
        self.conduct.most_scopes = scopes;
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

    /// Asks for the password at each connect, in place of a password in the settings: a cloud's token, a secret that
    /// is rotated.
    ///
    /// Asked once a server answers, and once again where that refuses the password as wrong (28P01), before the
    /// refusal counts as permanent. It has four fifths of [`connect_timeout`](Self::connect_timeout); failing or
    /// staying silent, it fails the attempt, which is tried again as any other. Keep a token that lives longer
    /// inside the provider: one engine may ask several times at once.
    ///
    /// ```no_run
    /// # async fn token() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// # fn main() -> Result<(), pool_postgres::Error> {
    /// let engine = pool_postgres::Engine::builder("postgresql://app@db.example/shop?sslmode=verify-full")
    ///     .password_provider(|| async { token().await })
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn password_provider<F, P, E>(mut self, ask: F) -> Self
    where
        F: Fn() -> P + Send + Sync + 'static,
        P: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.provider = Some(password::provider(ask));
        self
    }

    /// The certificate that this client shows, and its key; both PEM files, read again at each connect.
    pub fn client_certificate(
        self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.option(|options| options.client_certificate(certificate, key))
    }

    /// Looks up the addresses of a host, in place of the operating system. Default: the operating system is asked.
    ///
    /// Called at each connect with the host's name and its port; the addresses are tried in the order given.
    pub fn resolver<F, L>(mut self, look_up: F) -> Self
    where
        F: Fn(String, u16) -> L + Send + Sync + 'static,
        L: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        self.resolver = Some(Arc::new(move |host, port| Box::pin(look_up(host, port))));
        self
    }

    /// Does something once to each connection, right after it was opened and within
    /// [`connect_timeout`](Self::connect_timeout). Several are done in the order in which they were added.
    ///
    /// For what is the same for everybody and should stay: what is set here is each session's default. Done again
    /// after [`ResetPolicy::Full`] has undone it. A failure closes the connection, and the caller gets it as
    /// [`ErrorKind::Hook`].
    ///
    /// ```no_run
    /// # fn main() -> Result<(), pool_postgres::Error> {
    /// let engine = pool_postgres::Engine::builder("postgresql://localhost/app")
    ///     .after_connect(|connection| Box::pin(async move {
    ///         connection.client().batch_execute("SET statement_timeout = '30s'").await?;
    ///         Ok(())
    ///     }))
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn after_connect<F>(mut self, set_up: F) -> Self
    where
        F: for<'a> Fn(&'a mut PgConnection) -> HookFuture<'a> + Send + Sync + 'static,
    {
        self.set_up.push(Arc::new(set_up));
        self
    }

    /// Whether a pooler (PgBouncer, Odyssey and the like) stands between this engine and the server. Default no.
    ///
    /// Statements are then parsed each time, without a name, in one round trip; parameters are sent with the
    /// PostgreSQL type that is natural for their Rust type, since the server can't be asked (a type of your own
    /// goes as text with a cast). Nothing is left outside transactions: [`after_connect`](Self::after_connect),
    /// [`ResetPolicy::Full`], [`Engine::listen`] and [`Engine::advisory_lock`] are refused. Pings use a statement
    /// that poolers pass, and the server's limits are not looked at.
    ///
    /// Two things still use a name, inside one transaction: `COPY`, and the look-up of a column's type that is not
    /// built in, once per connection. `COPY` gives the name back; the look-up does not, so behind a pooler that does
    /// not map names (PgBouncer before 1.21) such a column is to be cast in the statement (`mood::text`).
    pub fn external_pooler(self, pooled: bool) -> Self {
        self.option(|mut options| {
            options.external_pooler = Some(pooled);
            options
        })
    }

    /// From which duration on a statement is logged as slow, with its line in the code; `None` for never. Default one
    /// second; zero is refused.
    ///
    /// A statement that still runs by then is logged at once (within a quarter of the threshold, half a second at the
    /// most), and again when it ends. Warnings of a kind come at most once a second, with a count of those
    /// held back. A statement lasts until its last row was read; of a pipeline its statements count as one.
    pub fn log_slow(mut self, threshold: impl Into<Option<Duration>>) -> Self {
        self.conduct.seeing.slow = threshold.into();
        self
    }

    /// Logs every statement at this level when it ends, with its duration, its line in the code and its failure.
    /// Default `None`. The target is `pool_postgres::statement`.
    ///
    /// Spans are made where a subscriber wants them (the same target, level DEBUG), by OpenTelemetry's names
    /// for databases: `db.query.text`, `db.operation.name`, `db.namespace`, `error.type` and so on.
    pub fn log_statements(mut self, level: impl Into<Option<tracing::Level>>) -> Self {
        self.conduct.seeing.level = level.into();
        self
    }

    /// Whether logs and spans show the values of parameters, which may be secrets. Default no.
    pub fn log_parameters(mut self, shown: bool) -> Self {
        self.conduct.seeing.parameters = shown;
        self
    }

    /// Checks the settings and makes the engine; opens nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Url`] and [`ErrorKind::Config`], naming the setting and the remedy.
    pub fn build(self) -> Result<Engine, Error> {
        let options = self.options.map_err(|error| Error::clone(&error))?;
        let options = options.completed()?;
        let target = Target::new(&options, self.provider, self.resolver)?;
        let mut conduct = self.conduct.checked()?;
        if target.pooled {
            pooled(&mut conduct, &self.set_up)?;
        }
        let backend = PgBackend::new(target, conduct, self.set_up);
        let tally = backend.tally();
        let pool = options.pool_settings().apply(Pool::builder(backend));
        let pool = self.tune.iter().fold(pool, |pool, change| change(pool));
        let pool = pool.build().map_err(|error| {
            Error::from_source(ErrorKind::Config, "the pool's settings don't work", error)
        })?;
        let shared = SharedConnections::new(pool.clone(), self.shared.check()?);
        pool.backend().room().set_capacity(pool.status().capacity);
        Ok(Engine {
            pool,
            shared,
            listeners: Listeners::new(),
            tally,
            options: SessionOptions::default(),
        })
    }
}

/// Changes what has no use behind a pooler, and refuses what would reach others.
fn pooled(conduct: &mut Conduct, set_up: &[SetUp]) -> Result<(), Error> {
    let refused = |what| Err(Error::new(ErrorKind::Config, what));
    if !set_up.is_empty() {
        return refused(
            "after_connect and external_pooler don't go together, for the pooler would give what was set to others: \
             set it for the role (ALTER ROLE … SET) or in each transaction (SET LOCAL)",
        );
    }
    if matches!(conduct.reset, ResetPolicy::Full | ResetPolicy::Custom(_)) {
        return refused(
            "external_pooler goes with ResetPolicy::Rollback or None: what a reset sends outside a transaction would \
             reach another's connection, and the pooler resets its own (server_reset_query)",
        );
    }
    // Whatever still has to be prepared, for COPY, is so for a single use.
    conduct.statements = 0;
    Ok(())
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
