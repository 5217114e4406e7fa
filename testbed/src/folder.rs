//! A cluster's temporary folder, and that nothing in it outlives its owner.
//!
//! Three things end a cluster. Its owner drops it. Or the owner ends in any way at all, which closes the
//! pipe that the folder's *watchdog* (a small shell process) reads from: it then stops the servers and
//! removes the folder. Or both were killed: the next start, or `cargo testbed sweep`, finds the folder.
//!
//! A living owner holds a lock on the file `owner` in its folder, and the system releases a lock with its
//! process: a folder whose lock can be taken has no owner, whatever process has its number today. The file
//! appears in its place already locked, so nobody can mistake a folder that is being made for a leftover.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::Error;
use crate::postmaster::{LOOK_EVERY, PidFile, children, release_memory};
use crate::run_as::RunAs;

const PREFIX: &str = "testbed-";

/// Runs when the owner is gone. `$1` is the folder; a server is signalled only if it runs on data in it.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM QUIT
cat >/dev/null
test -e "$1/owner" || exit 0
for file in "$1"/*/data/postmaster.pid; do
    test -e "$file" || continue
    pid=$(head -n 1 "$file")
    line=$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null || ps -o command= -p "$pid")
    case "$line" in *"$1"*) kill -QUIT "$pid"; kill -CONT "$pid" ;; esac
done
tries=0
while test $tries -lt 80 && ls "$1"/*/data/postmaster.pid >/dev/null 2>&1; do
    sleep 0.1
    tries=$((tries + 1))
done
rm -rf -- "$1"
"#;

#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    keep: bool,
    /// Locked for as long as we live.
    _owner: File,
    watchdog: Option<Child>,
}

impl Folder {
    /// Makes a new folder and sweeps those of dead owners.
    pub(crate) fn create(user: RunAs, keep: bool) -> Result<Self, Error> {
        sweep_in(&user.temp_root(), user);
        let root = user.temp_root();
        let made = tempfile::Builder::new()
            .prefix(PREFIX)
            .rand_bytes(8)
            .tempdir_in(&root);
        let path = made.map_err(Error::io("create a folder in", &root))?.keep();
        let mut folder = Self {
            keep,
            _owner: own(&path)?,
            path,
            watchdog: None,
        };
        user.give(&folder.path)?;
        if !keep {
            folder.watchdog = Some(folder.watch(user)?);
        }
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn watch(&self, user: RunAs) -> Result<Child, Error> {
        let shell = Path::new("/bin/sh");
        let mut command = user.command(shell, Path::new("/"));
        command
            .args(["-c", WATCHDOG, "testbed-watchdog"])
            .arg(&self.path);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Out of the owner's process group, or one Ctrl-C would end both.
        command.process_group(0);
        command.spawn().map_err(Error::io("start", shell))
    }
}

impl Drop for Folder {
    /// The servers have been stopped by whoever holds the nodes.
    fn drop(&mut self) {
        if self.keep {
            // Without this file it is nobody's leftover.
            let _ = fs::remove_file(self.path.join("owner"));
        } else {
            remove(&self.path);
        }
        if let Some(mut watchdog) = self.watchdog.take() {
            // Its pipe closes; it finds no `owner` and ends.
            drop(watchdog.stdin.take());
            let _ = watchdog.wait();
        }
    }
}

/// Takes the ownership of a new folder.
fn own(path: &Path) -> Result<File, Error> {
    let draft = path.join("owner.draft");
    let mut file = File::create(&draft).map_err(Error::io("create", &draft))?;
    file.try_lock()
        .map_err(|error| Error::io("lock", &draft)(error.into()))?;
    // For people who look; the lock is what counts.
    writeln!(file, "{}", std::process::id()).map_err(Error::io("write", &draft))?;
    fs::rename(&draft, path.join("owner")).map_err(Error::io("rename", &draft))?;
    Ok(file)
}

/// Stops the servers of owners that died without stopping them, and removes their folders.
///
/// Gives the folders that were removed. Called at each cluster's start; `cargo testbed sweep` calls it alone.
pub fn sweep() -> Result<Vec<PathBuf>, Error> {
    let user = RunAs::pick()?;
    Ok(sweep_in(&user.temp_root(), user))
}

fn sweep_in(root: &Path, user: RunAs) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let folders = entries.filter_map(Result::ok).filter(|entry| {
        entry.file_name().to_string_lossy().starts_with(PREFIX) && user.owns(&entry.path())
    });
    folders
        .map(|entry| entry.path())
        .filter(|path| sweep_one(path))
        .collect()
}

/// True if the folder was a leftover and is gone.
fn sweep_one(path: &Path) -> bool {
    let Ok(owner) = File::open(path.join("owner")) else {
        return false;
    };
    if owner.try_lock().is_err() {
        return false;
    }
    for data in data_folders(path) {
        if let Some(file) = PidFile::read(&data).filter(|file| file.is_server_on(&data)) {
            end(&file);
        }
    }
    remove(path)
}

/// Ends a server that is not our child: at once, but with time to give back its memory.
fn end(file: &PidFile) {
    let below = children(file.pid);
    for pid in below.iter().chain([&file.pid]) {
        let _ = kill(*pid, Signal::SIGCONT);
    }
    let _ = kill(file.pid, Signal::SIGQUIT);
    let began = Instant::now();
    while kill(file.pid, None).is_ok() {
        if began.elapsed() > Duration::from_secs(3) {
            for pid in below.iter().chain([&file.pid]) {
                let _ = kill(*pid, Signal::SIGKILL);
            }
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn data_folders(path: &Path) -> Vec<PathBuf> {
    let nodes = fs::read_dir(path)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    nodes
        .map(|node| node.path().join("data"))
        .filter(|data| data.is_dir())
        .collect()
}

/// Removes a folder with `owner` last: if something stays, the next sweep finds it.
fn remove(path: &Path) -> bool {
    for data in data_folders(path) {
        release_memory(&data);
    }
    let entries = fs::read_dir(path)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    for entry in entries.filter(|entry| entry.file_name() != "owner") {
        let _ = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path()),
            _ => fs::remove_file(entry.path()),
        };
    }
    fs::remove_dir_all(path).is_ok()
}
