//! One server of a cluster: its addresses, its process, and what can be done to that process.
//!
//! Every lever waits until what it asks for is so, and does nothing if it already is. Levers on one node
//! take turns. What a replica does with its log (pausing, delaying, promotion) is in `replay.rs`.

mod replay;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::Error;
use crate::config::{self, APP, Common, HBA, Own, PASSWORD, SUPERUSER, Upstream};
use crate::port;
use crate::postmaster::{LOOK_EVERY, Postmaster};
use crate::proxy::Proxy;
use crate::run_as::Programs;
use crate::tls::NodeTls;

/// How long an orderly stop may take. Longer than a busy server needs, shorter than a stop that waits for a
/// frozen replica.
const FAST_STOP_LIMIT: Duration = Duration::from_secs(3);

/// How long a server that was told to drop everything may take.
const IMMEDIATE_STOP_LIMIT: Duration = Duration::from_secs(2);

/// How long a connection of our own, or a statement of a lever, may take.
const SQL_LIMIT: Duration = Duration::from_secs(30);

/// What the nodes of one cluster share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) programs: Programs,
    pub(crate) common: Common,
    pub(crate) dir: PathBuf,
    pub(crate) socket_dir: PathBuf,
    pub(crate) tls: Option<crate::tls::Certificates>,
}

/// One PostgreSQL server, primary or replica.
#[derive(Debug)]
pub struct Node {
    name: String,
    port: u16,
    data: PathBuf,
    shared: Arc<Shared>,
    state: Mutex<State>,
    /// Held by the lever at work.
    lever: tokio::sync::Mutex<()>,
    tls: Option<NodeTls>,
}

#[derive(Debug)]
struct State {
    server: Option<Postmaster>,
    frozen: bool,
    follows: Option<Upstream>,
    apply_delay: Duration,
}

impl Node {
    /// Starts a server on the data folder of `name`, on a free port.
    pub(crate) async fn launch(
        shared: &Arc<Shared>,
        name: &str,
        follows: Option<Upstream>,
    ) -> Result<Self, Error> {
        let mut tries = 0;
        loop {
            let mut node = Self::new(shared, name, follows.clone())?;
            match node.start().await {
                Ok(()) => {
                    node.tls = NodeTls::before(node.port, shared).await?;
                    return Ok(node);
                }
                // Somebody else was faster on this port.
                Err(Error::NotStarted { log, .. })
                    if log.contains("Address already in use") && tries < 5 =>
                {
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn new(shared: &Arc<Shared>, name: &str, follows: Option<Upstream>) -> Result<Self, Error> {
        Ok(Self {
            name: name.to_owned(),
            port: port::free()?,
            data: shared.data_of(name),
            shared: Arc::clone(shared),
            state: Mutex::new(State {
                server: None,
                frozen: false,
                follows,
                apply_delay: Duration::ZERO,
            }),
            lever: tokio::sync::Mutex::default(),
            tls: None,
        })
    }

    /// Its name in logs, in `cluster_name` and as its replication slot: `primary`, `replica1`, `replica2`, …
    ///
    /// The name says how it began; after [`Node::promote`] a replica keeps it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its database `app` is reached over TCP, as the user `app`.
    pub fn url(&self) -> String {
        self.url_for(APP)
    }

    /// [`Node::url`] for another database.
    pub fn url_for(&self, database: &str) -> String {
        format!(
            "postgresql://{APP}:{PASSWORD}@127.0.0.1:{}/{database}",
            self.port
        )
    }

    /// [`Node::url`] over the Unix socket.
    pub fn socket_url(&self) -> String {
        let dir = self.socket_dir().display();
        format!(
            "postgresql://{APP}:{PASSWORD}@/{APP}?host={dir}&port={}",
            self.port
        )
    }

    /// [`Node::url`] as the superuser `postgres`.
    pub fn superuser_url(&self) -> String {
        self.superuser_url_for(APP)
    }

    /// [`Node::superuser_url`] for another database.
    pub fn superuser_url_for(&self, database: &str) -> String {
        format!(
            "postgresql://{SUPERUSER}:{PASSWORD}@127.0.0.1:{}/{database}",
            self.port
        )
    }

    /// [`Node::url`] with `sslmode=verify-full` and the cluster's CA, by the server's own TLS or by a
    /// [`crate::TlsFront`] before it; `None` unless the cluster was built with TLS.
    pub fn tls_url(&self) -> Option<String> {
        let tls = self.tls.as_ref()?;
        Some(tls.url(self.port, &self.shared))
    }

    /// Its TCP port on 127.0.0.1; the same through every stop and start.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its Unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.shared.socket_dir
    }

    /// Its server's log.
    pub fn log_file(&self) -> PathBuf {
        crate::postmaster::log_path(&self.data)
    }

    /// Whether its server process exists. A frozen one does.
    pub fn is_running(&self) -> bool {
        self.state()
            .server
            .as_mut()
            .is_some_and(Postmaster::is_running)
    }

    /// Makes it run and accept connections; a frozen one is thawed.
    pub async fn start(&self) -> Result<(), Error> {
        let _turn = self.lever.lock().await;
        self.start_in_turn().await
    }

    async fn start_in_turn(&self) -> Result<(), Error> {
        if self.is_running() {
            self.thaw_in_turn();
            return Ok(());
        }
        self.write_config()?;
        let server = Postmaster::start(&self.shared.programs, &self.name, &self.data).await?;
        let mut state = self.state();
        state.server = Some(server);
        state.frozen = false;
        Ok(())
    }

    /// Stops it in order: clients are cut off, open transactions roll back, replicas get what was written.
    ///
    /// After three seconds it is stopped at once, and recovers at its next start: an orderly stop waits for
    /// replicas, and a frozen one never answers.
    pub async fn stop(&self) -> Result<(), Error> {
        let _turn = self.lever.lock().await;
        self.stop_in_turn().await
    }

    async fn stop_in_turn(&self) -> Result<(), Error> {
        self.thaw_in_turn();
        for (signal, limit) in [
            (Signal::SIGINT, FAST_STOP_LIMIT),
            (Signal::SIGQUIT, IMMEDIATE_STOP_LIMIT),
        ] {
            self.signal(signal);
            let began = Instant::now();
            while self.is_running() && began.elapsed() < limit {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        self.kill_in_turn();
        Ok(())
    }

    /// Kills all its processes with SIGKILL. Nothing is flushed; the next start recovers from the log.
    pub async fn kill(&self) -> Result<(), Error> {
        let _turn = self.lever.lock().await;
        self.kill_in_turn();
        Ok(())
    }

    fn kill_in_turn(&self) {
        let mut state = self.state();
        state.frozen = false;
        if let Some(mut server) = state.server.take() {
            server.kill();
        }
    }

    /// Stops all its processes where they stand: connections stay open and nothing answers.
    pub async fn freeze(&self) -> Result<(), Error> {
        let _turn = self.lever.lock().await;
        let mut state = self.state();
        if let Some(server) = state.server.as_mut()
            && server.is_running()
        {
            server.freeze();
            state.frozen = true;
            return Ok(());
        }
        Err(Error::Refused(format!(
            "{} is not running: nothing to freeze",
            self.name
        )))
    }

    /// Lets its processes go on after [`Node::freeze`].
    pub async fn thaw(&self) -> Result<(), Error> {
        let _turn = self.lever.lock().await;
        self.thaw_in_turn();
        Ok(())
    }

    fn thaw_in_turn(&self) {
        let mut state = self.state();
        if std::mem::take(&mut state.frozen)
            && let Some(server) = state.server.as_mut()
        {
            server.thaw();
        }
    }

    /// [`Node::stop`], then [`Node::start`].
    pub async fn restart(&self) -> Result<(), Error> {
        let _turn = self.lever.lock().await;
        self.stop_in_turn().await?;
        self.start_in_turn().await
    }

    /// A connection as the superuser to the database `app`; its connection task runs on this runtime.
    pub async fn client(&self) -> Result<Client, Error> {
        self.connect(APP).await
    }

    async fn connect(&self, database: &str) -> Result<Client, Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.shared.socket_dir).port(self.port);
        config
            .user(SUPERUSER)
            .password(PASSWORD)
            .dbname(database)
            .application_name("testbed");
        let connected = self
            .bounded("an answer to a connection", config.connect(NoTls))
            .await?;
        let (client, connection) = connected.map_err(Error::sql(&self.name, "connect"))?;
        // Ends with the client; what broke it shows at the client's next statement.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Runs statements as the superuser in the database `app` and gives the rows of all, as text.
    pub async fn sql(&self, statements: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        let client = self.client().await?;
        let answers = client.simple_query(statements).await;
        let answers = answers.map_err(Error::sql(&self.name, "run a statement"))?;
        let rows = answers.into_iter().filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|i| row.get(i).map(str::to_owned))
                    .collect(),
            ),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Creates a database that belongs to `app`, unless it exists. Only a primary can.
    pub async fn create_database(&self, name: &str) -> Result<(), Error> {
        let client = self.connect("postgres").await?;
        let quoted = name.replace('"', "\"\"");
        let made = client
            .batch_execute(&format!("CREATE DATABASE \"{quoted}\" OWNER {APP}"))
            .await;
        match made {
            Err(error)
                if error.code() == Some(&tokio_postgres::error::SqlState::DUPLICATE_DATABASE) =>
            {
                Ok(())
            }
            made => made.map_err(Error::sql(
                &self.name,
                &format!("create the database {name}"),
            )),
        }
    }

    /// Creates a database that is a copy of another one, to which nobody may be connected. Only a primary can.
    pub async fn copy_database(&self, name: &str, template: &str) -> Result<(), Error> {
        let client = self.connect("postgres").await?;
        let quoted = |name: &str| name.replace('"', "\"\"");
        let copied = client
            .batch_execute(&format!(
                "CREATE DATABASE \"{}\" OWNER {APP} TEMPLATE \"{}\"",
                quoted(name),
                quoted(template)
            ))
            .await;
        copied.map_err(Error::sql(
            &self.name,
            &format!("copy the database {template} to {name}"),
        ))
    }

    /// Runs statements in a database as its owner; `RESET ROLE` among them makes the rest the superuser's.
    pub(crate) async fn set_up_database(&self, name: &str, statements: &str) -> Result<(), Error> {
        let client = self.connect(name).await?;
        let mut done = client.batch_execute(&format!("SET ROLE {APP}")).await;
        if done.is_ok() {
            done = client.batch_execute(statements).await;
        }
        done.map_err(Error::sql(
            &self.name,
            "set up a template with the statements given",
        ))
    }

    /// Removes a database, whoever is connected to it, if it exists. Only a primary can.
    pub async fn drop_database(&self, name: &str) -> Result<(), Error> {
        let client = self.connect("postgres").await?;
        let quoted = name.replace('"', "\"\"");
        let dropped = client
            .batch_execute(&format!(
                "DROP DATABASE IF EXISTS \"{quoted}\" WITH (FORCE)"
            ))
            .await;
        dropped.map_err(Error::sql(&self.name, &format!("drop the database {name}")))
    }

    /// A fault-injecting TCP proxy before this node.
    pub async fn proxy(&self) -> Result<Proxy, Error> {
        Proxy::before(self.port).await
    }

    /// Sends a signal to its postmaster, if it runs.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(server) = self.state().server.as_mut() {
            server.signal(signal);
        }
    }

    /// The first half of stopping at once: told, not waited for.
    pub(crate) fn begin_immediate_stop(&self) {
        self.thaw_in_turn();
        self.signal(Signal::SIGQUIT);
    }

    /// The second half: waits within the limit that all nodes share, then kills.
    pub(crate) fn finish_immediate_stop(&self, deadline: Instant) {
        if let Some(server) = self.state().server.as_mut() {
            server.wait_ended(deadline.saturating_duration_since(Instant::now()));
        }
        self.kill_in_turn();
    }

    fn write_config(&self) -> Result<(), Error> {
        let state = self.state();
        let own = Own {
            name: &self.name,
            port: self.port,
            socket_dir: &self.shared.socket_dir,
            follows: state.follows.as_ref(),
            apply_delay: state.apply_delay,
        };
        let conf = config::postgresql_conf(&self.shared.common, &own);
        let user = self.shared.programs.user;
        user.write(&self.data.join("postgresql.conf"), &conf)?;
        user.write(&self.data.join("pg_hba.conf"), HBA)?;
        if state.follows.is_some() {
            user.write(&self.data.join("standby.signal"), "")?;
        }
        Ok(())
    }

    async fn bounded<T>(
        &self,
        waiting_for: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, Error> {
        let done = tokio::time::timeout(SQL_LIMIT, work).await;
        done.map_err(|_| Error::TimedOut {
            node: self.name.clone(),
            waiting_for: waiting_for.to_owned(),
            waited: SQL_LIMIT,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves nothing half-done in it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    pub(crate) fn data_of(&self, name: &str) -> PathBuf {
        self.dir.join(name).join("data")
    }
}
