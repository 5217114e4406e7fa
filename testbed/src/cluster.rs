//! A primary with its streaming replicas: how it is described, built, and taken down.
//!
//! `initdb` runs once per cluster, so that each has a system identifier of its own. Replicas begin as copies
//! of that still unused data folder, which is quicker than a base backup and as exact. Dropping a
//! [`Cluster`] stops all servers at once and removes its folder, after a panic too.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio::io::AsyncWriteExt as _;

use crate::Error;
use crate::config::{APP, Common, PASSWORD_VERIFIER, SUPERUSER, Upstream};
use crate::folder::Folder;
use crate::install;
use crate::node::{Node, Shared};
use crate::run_as::{Programs, RunAs, run, tail};
use crate::tls::Certificates;

/// How long the servers of a cluster may take to stop at once, all together.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Describes a cluster: one primary and no replicas, until told otherwise.
pub fn cluster() -> ClusterBuilder {
    ClusterBuilder {
        replicas: 0,
        tls: false,
        settings: Vec::new(),
        max_connections: 100,
        keep: false,
        pg_bin: None,
    }
}

/// What a cluster shall be; made by [`cluster`].
#[derive(Clone, Debug)]
#[must_use = "nothing runs until `start`"]
pub struct ClusterBuilder {
    replicas: usize,
    tls: bool,
    settings: Vec<(String, String)>,
    max_connections: u32,
    keep: bool,
    pg_bin: Option<PathBuf>,
}

impl ClusterBuilder {
    /// How many streaming replicas it has. Default 0, at most 15.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Whether [`Node::tls_url`] gives an address. Default false. Where the server was built without TLS, a
    /// [`crate::TlsFront`] stands before it.
    pub fn tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }

    /// One more line of `postgresql.conf` on every node; it wins over what we set ourselves.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// How many connections each server accepts, three of them for superusers alone. Default 100.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// Whether its folder, with data and logs, stays when it is dropped. Default false. The servers stop all
    /// the same.
    pub fn keep(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    /// The folder of PostgreSQL's programs. Default: what [`install::find`] finds.
    pub fn pg_bin(mut self, dir: impl Into<PathBuf>) -> Self {
        self.pg_bin = Some(dir.into());
        self
    }

    /// Starts all servers, and returns once every replica streams and has all that the primary has.
    ///
    /// # Errors
    /// [`Error::NotFound`] without PostgreSQL; [`Error::NotStarted`] with the server's log, for example for
    /// a [`ClusterBuilder::setting`] that it refuses.
    ///
    /// # Cancel safety
    /// Dropped half-way, what was started is stopped and the folder is removed.
    pub async fn start(self) -> Result<Cluster, Error> {
        if self.replicas > 15 {
            return Err(Error::Refused(format!(
                "{} replicas: at most 15 are possible",
                self.replicas
            )));
        }
        let pg_bin = self.pg_bin.clone();
        let keep = self.keep;
        let prepared = tokio::task::spawn_blocking(move || {
            let user = RunAs::pick()?;
            let programs = Programs::new(install::find(pg_bin.as_deref())?, user)?;
            Ok::<_, Error>((Folder::create(user, keep)?, programs))
        });
        let (folder, programs) = prepared
            .await
            .map_err(|error| Error::Refused(error.to_string()))??;
        let count = self.replicas;
        let shared = Arc::new(self.lay_out(&folder, programs)?);
        prepare_data(&shared, count).await?;

        // A replica asks for its slot again and again until the primary has made it.
        let primary = Node::launch(&shared, "primary", None).await?;
        let upstream = Upstream {
            port: primary.port(),
        };
        let names: Vec<_> = (1..=count).map(|i| format!("replica{i}")).collect();
        let slots = async {
            for name in &names {
                primary.keep_log_for(name).await?;
            }
            Ok(())
        };
        let launches = names
            .iter()
            .map(|name| Node::launch(&shared, name, Some(upstream.clone())));
        let (replicas, ()) = tokio::try_join!(try_join_all(launches), slots)?;
        let mut nodes = vec![primary];
        nodes.extend(replicas);
        let cluster = Cluster {
            nodes,
            shared,
            folder,
        };
        let primary = cluster.primary();
        try_join_all(cluster.replicas().iter().map(|replica| async {
            replica.wait_streaming().await?;
            replica.wait_until_caught_up(primary).await
        }))
        .await?;
        Ok(cluster)
    }

    fn lay_out(self, folder: &Folder, programs: Programs) -> Result<Shared, Error> {
        let dir = folder.path().to_owned();
        let socket_dir = dir.join("s");
        std::fs::create_dir(&socket_dir).map_err(Error::io("create", &socket_dir))?;
        programs.user.give(&socket_dir)?;
        let tls = if self.tls {
            Some(Certificates::write_to(&dir, programs.user)?)
        } else {
            None
        };
        let tls_files = tls
            .as_ref()
            .filter(|_| programs.install.has_tls)
            .map(Certificates::server_files);
        let common = Common {
            max_connections: self.max_connections,
            extra: self.settings,
            tls_files,
            major: programs.install.version.0,
        };
        Ok(Shared {
            programs,
            common,
            dir,
            socket_dir,
            tls,
        })
    }
}

/// Makes the data folders of the primary and its first replicas.
async fn prepare_data(shared: &Shared, replicas: usize) -> Result<(), Error> {
    let (programs, dir) = (&shared.programs, &shared.dir);
    let make = |name: &str| {
        let node = dir.join(name);
        std::fs::create_dir(&node).map_err(Error::io("create", &node))?;
        programs.user.give(&node)
    };
    make("primary")?;
    let data = shared.data_of("primary");
    let data_arg = data.display().to_string();
    let args = [
        "--no-sync",
        "--locale=C",
        "--encoding=UTF8",
        "--auth=trust",
        "-U",
        SUPERUSER,
        "-D",
        &data_arg,
    ];
    programs.run("initdb", dir, &args).await?;
    create_users(programs, &data).await?;
    for i in 1..=replicas {
        let name = format!("replica{i}");
        make(&name)?;
        let mut copy = programs.user.command("cp", dir);
        copy.arg("-R").arg(&data).arg(shared.data_of(&name));
        run(copy, "cp").await?;
    }
    Ok(())
}

/// Creates users and the database `app` before the first start, so that every copy has them.
async fn create_users(programs: &Programs, data: &Path) -> Result<(), Error> {
    // What the superuser creates in any database is open to `app`, as tests expect.
    let statements = format!(
        "ALTER ROLE {SUPERUSER} PASSWORD '{PASSWORD_VERIFIER}';\n\
         CREATE ROLE {APP} LOGIN PASSWORD '{PASSWORD_VERIFIER}';\n\
         GRANT pg_monitor TO {APP};\n\
         ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {APP};\n\
         ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO {APP};\n\
         CREATE DATABASE {APP} OWNER {APP};\n"
    );
    let mut command = programs.command("postgres", data);
    command
        .args(["--single", "-F", "-c", "exit_on_error=true", "-D"])
        .arg(data)
        .arg("template1");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let path = PathBuf::from(command.get_program());
    let mut command = tokio::process::Command::from(command);
    let mut child = command
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::io("start", &path))?;
    if let Some(mut stdin) = child.stdin.take() {
        let sent = stdin.write_all(statements.as_bytes()).await;
        sent.map_err(Error::io("write to", &path))?;
    }
    let done = child
        .wait_with_output()
        .await
        .map_err(Error::io("wait for", &path))?;
    let said = String::from_utf8_lossy(&done.stderr);
    if done.status.success() && !said.contains("ERROR:") {
        return Ok(());
    }
    Err(Error::Program {
        program: "postgres --single".to_owned(),
        status: done.status.to_string(),
        output: tail(&said, 12),
    })
}

/// A running primary and its replicas. Dropping it stops them at once and removes its folder.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    shared: Arc<Shared>,
    /// Dropped last: it removes what the nodes ran on.
    folder: Folder,
}

impl Cluster {
    /// The node that began as the primary.
    pub fn primary(&self) -> &Node {
        &self.nodes[0]
    }

    /// The nodes that began as replicas.
    pub fn replicas(&self) -> &[Node] {
        &self.nodes[1..]
    }

    /// One of [`Cluster::replicas`].
    ///
    /// # Panics
    /// If the cluster has fewer.
    pub fn replica(&self, index: usize) -> &Node {
        self.replicas().get(index).unwrap_or_else(|| {
            panic!(
                "replica {index} of a cluster with {} (counted from 0)",
                self.replicas().len()
            )
        })
    }

    /// One of all nodes: 0 is the primary, then the replicas.
    ///
    /// # Panics
    /// If the cluster has fewer.
    pub fn node(&self, index: usize) -> &Node {
        self.nodes.get(index).unwrap_or_else(|| {
            panic!(
                "node {index} of a cluster with {} (counted from 0)",
                self.nodes.len()
            )
        })
    }

    /// Its temporary folder: data, logs, sockets, certificates.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// The PostgreSQL that it runs.
    pub fn installation(&self) -> &install::Installation {
        &self.shared.programs.install
    }

    /// The certificates that it was built with; `None` without [`ClusterBuilder::tls`].
    pub fn certificates(&self) -> Option<&Certificates> {
        self.shared.tls.as_ref()
    }

    /// The file with the CA that signed the servers' certificates; `None` without [`ClusterBuilder::tls`].
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.certificates().map(Certificates::ca_file)
    }

    /// Adds a replica by a base backup of the running primary.
    pub async fn add_replica(&mut self) -> Result<&Node, Error> {
        let name = format!("replica{}", self.nodes.len());
        let dir = self.shared.dir.join(&name);
        std::fs::create_dir(&dir).map_err(Error::io("create", &dir))?;
        self.shared.programs.user.give(&dir)?;
        let primary = self.primary();
        primary.keep_log_for(&name).await?;
        primary.back_up_to(&name).await?;
        let upstream = Upstream {
            port: primary.port(),
        };
        let replica = Node::launch(&self.shared, &name, Some(upstream)).await?;
        replica.wait_streaming().await?;
        replica.wait_until_caught_up(primary).await?;
        self.nodes.push(replica);
        Ok(self.node(self.nodes.len() - 1))
    }

    /// Stops all servers at once and removes the folder: what dropping does, off this runtime's threads.
    pub async fn stop(self) -> Result<(), Error> {
        let stopped = tokio::task::spawn_blocking(move || drop(self)).await;
        stopped.map_err(|error| Error::Refused(error.to_string()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &self.nodes {
            node.begin_immediate_stop();
        }
        let deadline = Instant::now() + STOP_LIMIT;
        for node in &self.nodes {
            node.finish_immediate_stop(deadline);
        }
    }
}
