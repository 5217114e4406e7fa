//! One running `postgres` process: started as our own child, watched, signalled, reaped.
//!
//! The server's own children each lead a process group of their own, so a signal to the postmaster's
//! group misses them: [`Postmaster::tree`] finds them by their parent. Dropping a [`Postmaster`] kills it
//! with everything below it.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Error;
use crate::run_as::{Programs, tail};

/// How long a server may take to become ready; a crowded machine that recovers from a crash needs a while.
const START_LIMIT: Duration = Duration::from_mins(1);

/// What a server says that finds processes of the last one still at work.
const MEMORY_IN_USE: &str = "pre-existing shared memory block";

/// Between two looks at a process or at what it wrote.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(4);

#[derive(Debug)]
pub(crate) struct Postmaster {
    child: Child,
    reaped: bool,
}

impl Postmaster {
    /// Starts the server on `data` and returns once it accepts connections.
    ///
    /// Processes of a killed server end a moment after it. As long as one of them holds its memory a new server
    /// refuses to start, so it is started again until they are gone.
    pub(crate) async fn start(programs: &Programs, node: &str, data: &Path) -> Result<Self, Error> {
        let began = Instant::now();
        loop {
            match Self::start_once(programs, node, data).await {
                Err(Error::NotStarted { log, .. })
                    if log.contains(MEMORY_IN_USE) && began.elapsed() < START_LIMIT =>
                {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn start_once(programs: &Programs, node: &str, data: &Path) -> Result<Self, Error> {
        let log_path = log_path(data);
        let log = File::options().create(true).append(true).open(&log_path);
        let log = log.map_err(Error::io("open", &log_path))?;
        let errors = log.try_clone().map_err(Error::io("open", &log_path))?;
        let mut command = programs.command("postgres", data);
        command
            .arg("-D")
            .arg(data)
            .stdout(Stdio::from(log))
            .stderr(Stdio::from(errors));
        // A group of its own: the terminal's Ctrl-C must not reach it before we stop it in order.
        command.process_group(0);
        let logged = fs::metadata(&log_path).map_or(0, |meta| meta.len());
        let child = command
            .spawn()
            .map_err(Error::io("start", Path::new("postgres")))?;
        let mut server = Self {
            child,
            reaped: false,
        };
        server.wait_ready(node, data, logged).await?;
        Ok(server)
    }

    async fn wait_ready(&mut self, node: &str, data: &Path, logged: u64) -> Result<(), Error> {
        let began = Instant::now();
        loop {
            let reason = if !self.is_running() {
                "it ended".to_owned()
            } else if PidFile::read(data).is_some_and(|file| file.ready && file.pid == self.pid()) {
                return Ok(());
            } else if began.elapsed() > START_LIMIT {
                format!("not ready after {START_LIMIT:?}")
            } else {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            };
            let log = fs::read(log_path(data)).unwrap_or_default();
            let new = &log[usize::try_from(logged).unwrap_or(0).min(log.len())..];
            return Err(Error::NotStarted {
                node: node.to_owned(),
                reason,
                log: tail(&String::from_utf8_lossy(new), 15),
            });
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        // A process id fits what the system's own type holds.
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Whether it is there; one that ended is reaped here.
    pub(crate) fn is_running(&mut self) -> bool {
        if !self.reaped {
            self.reaped = !matches!(self.child.try_wait(), Ok(None));
        }
        !self.reaped
    }

    /// Sends a signal to the postmaster alone.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            // It may have ended since: then there is nobody to tell.
            let _ = kill(self.pid(), signal);
        }
    }

    /// Stops every process of the server where it stands. The postmaster goes first: it can't start more.
    pub(crate) fn freeze(&mut self) {
        self.signal(Signal::SIGSTOP);
        self.signal_children(Signal::SIGSTOP);
    }

    /// Lets every process go on.
    pub(crate) fn thaw(&mut self) {
        self.signal_children(Signal::SIGCONT);
        self.signal(Signal::SIGCONT);
    }

    /// Ends every process of the server with no chance to tidy up, and reaps it.
    pub(crate) fn kill(&mut self) {
        if !self.is_running() {
            return;
        }
        self.signal(Signal::SIGSTOP);
        self.signal_children(Signal::SIGKILL);
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
        self.reaped = true;
    }

    fn signal_children(&mut self, signal: Signal) {
        if self.is_running() {
            for pid in children(self.pid()) {
                let _ = kill(pid, signal);
            }
        }
    }

    /// Waits for its end up to a limit; true if it ended.
    pub(crate) fn wait_ended(&mut self, limit: Duration) -> bool {
        let began = Instant::now();
        while self.is_running() {
            if began.elapsed() > limit {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The server's log lies beside its data folder.
pub(crate) fn log_path(data: &Path) -> PathBuf {
    data.with_extension("log")
}

/// What a server says about itself in `postmaster.pid`.
pub(crate) struct PidFile {
    pub(crate) pid: Pid,
    /// The id of its System V memory segment, which outlives a killed server.
    pub(crate) shm_id: Option<String>,
    pub(crate) ready: bool,
}

impl PidFile {
    pub(crate) fn read(data: &Path) -> Option<Self> {
        let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
        let lines: Vec<_> = text.lines().collect();
        Some(Self {
            pid: Pid::from_raw(lines.first()?.trim().parse().ok()?),
            shm_id: lines
                .get(6)
                .and_then(|l| l.split_whitespace().nth(1))
                .map(str::to_owned),
            ready: lines.get(7).is_some_and(|status| status.trim() == "ready"),
        })
    }

    /// Whether the process is a server on `data`, and not another that got its number since.
    pub(crate) fn is_server_on(&self, data: &Path) -> bool {
        let pid = self.pid.as_raw();
        let line = fs::read(format!("/proc/{pid}/cmdline"))
            .or_else(|_| ps(&["-o", "command=", "-p", &pid.to_string()]));
        let wanted = data.as_os_str().as_encoded_bytes();
        line.is_ok_and(|line| line.windows(wanted.len()).any(|part| part == wanted))
    }
}

/// Gives back the memory segment that a killed server on `data` left behind.
pub(crate) fn release_memory(data: &Path) {
    if let Some(PidFile {
        shm_id: Some(id), ..
    }) = PidFile::read(data)
    {
        // Best effort: at worst 56 bytes stay until the next boot.
        let _ = Command::new("ipcrm")
            .args(["-m", &id])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// The children of a process.
pub(crate) fn children(parent: Pid) -> Vec<Pid> {
    let listed = match fs::read_dir("/proc/self") {
        Ok(_) => children_in_proc(parent),
        Err(_) => children_by_ps(parent),
    };
    listed.into_iter().map(Pid::from_raw).collect()
}

fn children_in_proc(parent: Pid) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // `pid (name) state parent …`, where the name may hold anything.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        after_name
            .split_whitespace()
            .nth(1)
            .and_then(|ppid| ppid.parse().ok())
            == Some(parent.as_raw())
    })
    .collect()
}

fn children_by_ps(parent: Pid) -> Vec<i32> {
    let listed = ps(&["-A", "-o", "pid=,ppid="]).unwrap_or_default();
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let pairs = listed
        .lines()
        .filter_map(|line| line.trim().split_once(char::is_whitespace));
    pairs
        .filter(|(_, ppid)| ppid.trim().parse() == Ok(parent.as_raw()))
        .filter_map(|(pid, _)| pid.trim().parse().ok())
        .collect()
}

fn ps(args: &[&str]) -> io::Result<Vec<u8>> {
    Ok(Command::new("ps")
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?
        .stdout)
}
