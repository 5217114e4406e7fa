//! The handle that a service keeps: sessions for writing and reading, health, status, shutdown.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use pool_postgres::{CommitToken, ConnectionSource, Session, SessionFactory, SessionOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::builder::Builder;
use crate::config::DatabaseConfig;
use crate::plan::plan;
use crate::request::{Consistency, ReadOptions, Request};
use crate::shared::Shared;
use crate::source::{OneNode, ReadSource, WriteSource};
use crate::status::{DatabaseStatus, HealthReport, ShutdownReport};
use crate::which::{UnknownNode, Which};

/// How long [`Database::health`] waits for a node's answer.
const HEALTH_LIMIT: Duration = Duration::from_secs(1);

/// A primary and its replicas.
///
/// Cheap to clone; all clones are one database. Sessions choose their node at the first statement of each
/// transaction, and keep it until the transaction ends.
///
/// ```no_run
/// use pool_router::Database;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let db = Database::builder()
///     .primary("postgresql://app:secret@db1/shop")
///     .replica("postgresql://app:secret@db2/shop")
///     .pool_size(5)
///     .connect()
///     .await?;
/// let mut writing = db.write();
/// writing.execute("UPDATE carts SET paid = true WHERE id = $1", &[&7_i64]).await?;
/// let token = writing.commit().await?.token;
/// let mut reading = db.read_after(&token); // Sees the update, wherever it runs.
/// let paid: bool = reading.query_one("SELECT paid FROM carts WHERE id = $1", &[&7_i64]).await?.get(0);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
    writes: Arc<dyn ConnectionSource>,
    reads: Arc<dyn ConnectionSource>,
    watchers: Arc<Watchers>,
}

/// The monitors' tasks. They stop when the last handle, factory or session is gone, or at shutdown.
pub(crate) struct Watchers {
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Watchers {
    /// Waits until the monitors are told to stop: no more looks will come.
    pub(crate) async fn stopped(&self) {
        // An error would mean that the sender is gone, which we hold.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }
}

/// A commit token, or none: what [`Database::read_after`] takes.
///
/// Implemented for `&CommitToken`, `&Option<CommitToken>` and their values.
pub trait AsToken {
    /// The token, if there is one.
    fn as_token(&self) -> Option<CommitToken>;
}

impl AsToken for CommitToken {
    fn as_token(&self) -> Option<CommitToken> {
        Some(*self)
    }
}

impl AsToken for Option<CommitToken> {
    fn as_token(&self) -> Option<CommitToken> {
        *self
    }
}

impl Database {
    /// Names the nodes and the settings.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts from typed settings, as [`DatabaseConfig::from_env`] and configuration files give them.
    pub fn from_config(config: DatabaseConfig) -> Builder {
        config.builder()
    }

    pub(crate) fn new(
        shared: Arc<Shared>,
        stop: watch::Sender<bool>,
        tasks: Vec<JoinHandle<()>>,
    ) -> Self {
        let watchers = Arc::new(Watchers {
            stop,
            tasks: Mutex::new(tasks),
        });
        let writes = Arc::new(WriteSource {
            shared: Arc::clone(&shared),
            _watchers: Arc::clone(&watchers),
        });
        let reads = Arc::new(ReadSource {
            options: ReadOptions::new(shared.consistency),
            shared: Arc::clone(&shared),
            watchers: Arc::clone(&watchers),
        });
        Self {
            shared,
            writes,
            reads,
            watchers,
        }
    }

    /// A session on the primary.
    ///
    /// Its commits come with a token ([`Committed::token`](pool_postgres::Committed::token)) for later
    /// reads, which costs no round trip.
    pub fn write(&self) -> Session {
        self.sessions().write().session()
    }

    /// A read-only session with the default promise
    /// ([`Builder::default_consistency`]; data of at most ten seconds of age unless it says otherwise).
    pub fn read(&self) -> Session {
        self.sessions().read().session()
    }

    /// A read-only session that sees everything up to a token's commit, on whichever node has it.
    ///
    /// With `None` (a transaction that wrote nothing sets no floor) it is [`read`](Self::read).
    pub fn read_after(&self, token: &impl AsToken) -> Session {
        match token.as_token() {
            Some(token) => self.read_with(Consistency::ReadYourWrites(token)),
            None => self.read(),
        }
    }

    /// A read-only session whose data is at most this old.
    ///
    /// Below about a quarter of a second the monitors' pace decides whether a replica can prove it; what
    /// none can prove goes to the primary.
    pub fn read_within(&self, age: Duration) -> Session {
        self.read_with(Consistency::BoundedStaleness(age))
    }

    /// A read-only session with these options, or with a [`Consistency`] alone.
    ///
    /// What cannot be served fails with the session's first statement; so does a wait for a replica
    /// ([`WaitPolicy`](crate::WaitPolicy)) happen there, which may be dropped at any point.
    pub fn read_with(&self, options: impl Into<ReadOptions>) -> Session {
        self.sessions().read_with(options).session()
    }

    /// A session on this very node, whatever its role and lag: for maintenance, and for looking at one replica.
    ///
    /// Nothing is promised of its data. On the primary it writes, waits where writes are suspended, and its commits
    /// come with tokens.
    ///
    /// # Errors
    /// If there is no such node; the error names those that there are.
    pub fn on(&self, node: impl Into<Which>) -> Result<Session, UnknownNode> {
        let source = OneNode {
            node: node.into().among(&self.shared.nodes)?,
            shared: Arc::clone(&self.shared),
            _watchers: Arc::clone(&self.watchers),
        };
        let options = SessionOptions::default();
        Ok(SessionFactory::from_source(Arc::new(source), options).session())
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Where sessions that write get their connections.
    pub(crate) fn write_source(&self) -> Arc<dyn ConnectionSource> {
        Arc::clone(&self.writes)
    }

    /// Where sessions that read get theirs, with the default promise or with one of their own.
    pub(crate) fn read_source(&self, options: Option<ReadOptions>) -> Arc<dyn ConnectionSource> {
        let Some(options) = options else {
            return Arc::clone(&self.reads);
        };
        Arc::new(ReadSource {
            shared: Arc::clone(&self.shared),
            options,
            watchers: Arc::clone(&self.watchers),
        })
    }

    /// Session factories, for code that makes its own sessions.
    pub fn sessions(&self) -> Sessions<'_> {
        Sessions { database: self }
    }

    /// What is known of the nodes at this moment. Asks nobody.
    pub fn status(&self) -> DatabaseStatus {
        DatabaseStatus::of(&self.shared)
    }

    /// Gives the nodes' numbers, and those of their pools, to the recorder of the `metrics` crate now. Each look of a
    /// monitor does so for its node; an exporter that wants all of them fresh, or a database without replicas, calls
    /// this first. [`metrics`](crate::metrics) has their names.
    #[cfg(feature = "metrics")]
    pub fn record_metrics(&self) {
        self.shared.record(0..self.shared.nodes.len());
        for node in &self.shared.nodes {
            node.engine.pool().record_metrics();
        }
    }

    /// Looks at every node now and tells what can be served.
    ///
    /// Takes at most a second: a node that has not answered by then counts as down. With replicas, the
    /// monitors look, so the pools are not touched; without, a connection of the primary's pool is used.
    pub async fn health(&self) -> HealthReport {
        let answered = if self.shared.is_watched() {
            self.look_now().await;
            true
        } else {
            let asked = self.shared.nodes[0]
                .engine
                .query_one("SELECT NOT pg_is_in_recovery()", &[]);
            let answer = tokio::time::timeout(HEALTH_LIMIT, asked).await;
            matches!(answer, Ok(Ok(row)) if row.get::<_, bool>(0))
        };
        let view = self.shared.view();
        let request = Request::new(self.shared.consistency);
        let can_read = plan(&view, &request, Instant::now(), 0).is_ok_and(|plan| {
            plan.candidates
                .iter()
                .any(|candidate| self.shared.answers(candidate.node))
        });
        HealthReport {
            can_write: answered && view.is_led(),
            can_read: answered && can_read,
            status: self.status(),
        }
    }

    /// Rings for all monitors and waits until each has ended a look.
    async fn look_now(&self) {
        let looked = self.shared.nodes.iter().map(|node| async {
            let mut looks = node.looks.subscribe();
            let before = *looks.borrow_and_update();
            node.look.notify_one();
            // A look that was under way counts too: it is no older than a look's limit.
            let _ = looks.wait_for(|looks| *looks > before).await;
        });
        let _ = tokio::time::timeout(HEALTH_LIMIT, join_all(looked)).await;
    }

    /// Stops the monitors, refuses newcomers, waits for what is out (up to the pools' `close_deadline`),
    /// and closes every connection.
    pub async fn shutdown(&self) -> ShutdownReport {
        self.watchers.stop.send_replace(true);
        self.shared.teller.end();
        let tasks = std::mem::take(&mut *self.watchers.tasks.lock());
        let closing = self
            .shared
            .nodes
            .iter()
            .map(|node| async { (node.name.to_string(), node.engine.close().await) });
        let (nodes, _) = futures_util::join!(join_all(closing), join_all(tasks));
        ShutdownReport { nodes }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.shared.nodes.iter().map(|node| &*node.name).collect();
        f.debug_struct("Database")
            .field("nodes", &names)
            .finish_non_exhaustive()
    }
}

/// A database's session factories; made by [`Database::sessions`].
#[derive(Clone, Copy, Debug)]
pub struct Sessions<'a> {
    database: &'a Database,
}

impl Sessions<'_> {
    /// Sessions on the primary, as [`Database::write`] makes them.
    pub fn write(&self) -> SessionFactory {
        SessionFactory::from_source(Arc::clone(&self.database.writes), SessionOptions::default())
    }

    /// Read-only sessions with the default promise, as [`Database::read`] makes them.
    pub fn read(&self) -> SessionFactory {
        let options = SessionOptions::default().read_only();
        SessionFactory::from_source(Arc::clone(&self.database.reads), options)
    }

    /// Read-only sessions with these options, as [`Database::read_with`] makes them.
    pub fn read_with(&self, options: impl Into<ReadOptions>) -> SessionFactory {
        let source = self.database.read_source(Some(options.into()));
        SessionFactory::from_source(source, SessionOptions::default().read_only())
    }
}
