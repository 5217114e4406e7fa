//! PgBouncer before one server, for tests of what must work behind a pooler.
//!
//! It runs as the servers do, as an unprivileged user under root, on a free TCP port. A small shell that reads
//! from a pipe of ours starts it, so it ends with its owner, however that ends.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::config::{APP, PASSWORD, SUPERUSER};
use crate::postmaster::LOOK_EVERY;
use crate::run_as::{RunAs, tail};
use crate::{Error, Node, install, port};

/// How long it may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Runs until the pipe closes, and takes the folder with it. `$1` is the program, `$2` the folder.
const KEEPER: &str = r#"
trap '' HUP INT TERM QUIT
"$1" "$2/pgbouncer.ini" &
cat >/dev/null
kill -9 $! 2>/dev/null
wait
rm -rf -- "$2"
"#;

/// For how long a client has a connection to the server to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// Until it leaves.
    Session,
    /// For one transaction.
    Transaction,
}

/// A running PgBouncer. Dropping it ends it.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    keeper: Child,
}

impl PgBouncer {
    /// Starts one before `node`, with so many connections to the server for each user and database.
    ///
    /// # Errors
    /// [`Error::Refused`] where there is no PgBouncer on this machine: see [`install::pgbouncer`].
    pub async fn before(node: &Node, mode: PoolMode, connections: u32) -> Result<Self, Error> {
        let program = install::pgbouncer().ok_or_else(|| {
            Error::Refused(
                "there is no PgBouncer on this machine; install its package (apt-get install pgbouncer)"
                    .to_owned(),
            )
        })?;
        let user = RunAs::pick()?;
        let root = user.temp_root();
        let folder = tempfile::Builder::new()
            .prefix("testbed-pgbouncer-")
            .tempdir_in(&root)
            .map_err(Error::io("create a folder in", &root))?;
        user.give(folder.path())?;
        let port = port::free()?;
        write(
            folder.path(),
            user,
            &settings(folder.path(), node.port(), port, mode, connections),
        )?;

        let shell = Path::new("/bin/sh");
        let mut command = user.command(shell, folder.path());
        command
            .args(["-c", KEEPER, "testbed-pgbouncer"])
            .arg(program)
            .arg(folder.path());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Out of the owner's process group, or one Ctrl-C would end both.
        command.process_group(0);
        let keeper = command.spawn().map_err(Error::io("start", shell))?;
        let mut started = Self { port, keeper };
        started.wait_ready(folder.path()).await?;
        // From here on the keeper removes it.
        let _ = folder.keep();
        Ok(started)
    }

    async fn wait_ready(&mut self, folder: &Path) -> Result<(), Error> {
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            if began.elapsed() > START_LIMIT {
                let log = fs::read_to_string(folder.join("pgbouncer.log")).unwrap_or_default();
                return Err(Error::NotStarted {
                    node: "PgBouncer".to_owned(),
                    reason: format!("not ready after {START_LIMIT:?}"),
                    log: tail(&log, 15),
                });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Its TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where a database is reached through it, as the user `app`.
    pub fn url_for(&self, database: &str) -> String {
        format!(
            "postgresql://{APP}:{PASSWORD}@127.0.0.1:{}/{database}",
            self.port
        )
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn settings(folder: &Path, server: u16, port: u16, mode: PoolMode, connections: u32) -> String {
    let mode = match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
    };
    let folder = folder.display();
    format!(
        "[databases]\n* = host=127.0.0.1 port={server}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = scram-sha-256\nauth_file = {folder}/users\nlogfile = {folder}/pgbouncer.log\n\
         pool_mode = {mode}\ndefault_pool_size = {connections}\nmax_client_conn = 500\n"
    )
}

fn write(folder: &Path, user: RunAs, settings: &str) -> Result<(), Error> {
    let users = format!("\"{APP}\" \"{PASSWORD}\"\n\"{SUPERUSER}\" \"{PASSWORD}\"\n");
    user.write(&folder.join("users"), &users)?;
    user.write(&folder.join("pgbouncer.ini"), settings)
}

/// Where the program is, if anywhere: on `PATH`, or where Debian puts it.
pub(crate) fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|dir| dir.join("pgbouncer"))
        .find(|program| program.is_file())
}
