//! Who the server's programs run as, and how they are run.
//!
//! PostgreSQL refuses to run as root. Under root every program of it runs as `postgres`, or as `nobody`
//! where there is no such user; elsewhere as the caller. Everything that such a program must read or
//! write is therefore given to that user ([`RunAs::give`]) and lies where that user can reach it.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use nix::unistd::{Uid, User};

use crate::Error;
use crate::install::Installation;

/// The user that server programs run as; `None` is the caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunAs(Option<(u32, u32)>);

impl RunAs {
    /// Picks the user, by who the caller is.
    pub(crate) fn pick() -> Result<Self, Error> {
        if !Uid::effective().is_root() {
            return Ok(Self(None));
        }
        for name in ["postgres", "nobody"] {
            if let Ok(Some(user)) = User::from_name(name) {
                return Ok(Self(Some((user.uid.as_raw(), user.gid.as_raw()))));
            }
        }
        Err(Error::Refused(
            "PostgreSQL refuses to run as root, and this system has neither a user `postgres` nor a user \
             `nobody` to run it as; add one, or call this as an ordinary user"
                .to_owned(),
        ))
    }

    /// A command that will run as this user, with nothing of the caller's PostgreSQL settings.
    pub(crate) fn command(self, program: impl AsRef<OsStr>, cwd: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in env::vars_os() {
            let ours = name.as_encoded_bytes();
            if ours.starts_with(b"PG") || ours.starts_with(b"LC_") || ours == b"LANG" {
                command.env_remove(name);
            }
        }
        command
            .env("LC_ALL", "C")
            .current_dir(cwd)
            .stdin(Stdio::null());
        if let Some((uid, gid)) = self.0 {
            // The standard library also drops root's supplementary groups when it changes the user.
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Makes `path` this user's.
    pub(crate) fn give(self, path: &Path) -> Result<(), Error> {
        match self.0 {
            None => Ok(()),
            Some((uid, gid)) => {
                chown(path, Some(uid), Some(gid)).map_err(Error::io("change the owner of", path))
            }
        }
    }

    /// Whether a folder belongs to this user or to the caller.
    pub(crate) fn owns(self, path: &Path) -> bool {
        let me = Uid::effective().as_raw();
        let servers = self.0.map_or(me, |(uid, _)| uid);
        fs::symlink_metadata(path).is_ok_and(|meta| meta.uid() == me || meta.uid() == servers)
    }

    /// Writes a file that this user can read and replace.
    pub(crate) fn write(self, path: &Path, contents: &str) -> Result<(), Error> {
        fs::write(path, contents).map_err(Error::io("write", path))?;
        self.give(path)
    }

    /// Whether this user can enter `dir` and every folder above it.
    pub(crate) fn reaches(self, dir: &Path) -> bool {
        let Some((uid, gid)) = self.0 else {
            return true;
        };
        let Ok(dir) = dir.canonicalize() else {
            return false;
        };
        dir.ancestors().all(|dir| {
            fs::metadata(dir).is_ok_and(|meta| {
                let enter = match (meta.uid() == uid, meta.gid() == gid) {
                    (true, _) => 0o100,
                    (false, true) => 0o010,
                    (false, false) => 0o001,
                };
                meta.mode() & enter != 0
            })
        })
    }

    /// A folder for temporary files that this user can reach: the system's, else `/tmp`.
    pub(crate) fn temp_root(self) -> PathBuf {
        let own = env::temp_dir();
        if self.reaches(&own) {
            own
        } else {
            PathBuf::from("/tmp")
        }
    }
}

/// One installation, run as one user.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) install: Installation,
    pub(crate) user: RunAs,
}

impl Programs {
    /// Takes `install` as it lies, or a copy of it where the user can't reach it.
    pub(crate) fn new(mut install: Installation, user: RunAs) -> Result<Self, Error> {
        if !user.reaches(&install.bin_dir) {
            install.bin_dir = copy_within_reach(&install, user)?;
        }
        Ok(Self { install, user })
    }

    pub(crate) fn command(&self, program: &str, cwd: &Path) -> Command {
        self.user.command(self.install.bin_dir.join(program), cwd)
    }

    /// Runs a program of PostgreSQL's to its end.
    pub(crate) async fn run(&self, program: &str, cwd: &Path, args: &[&str]) -> Result<(), Error> {
        let mut command = self.command(program, cwd);
        command.args(args);
        run(command, program).await
    }
}

/// Runs a command to its end; what it printed goes into the error.
pub(crate) async fn run(command: Command, name: &str) -> Result<(), Error> {
    let path = PathBuf::from(command.get_program());
    let mut command = tokio::process::Command::from(command);
    let done = command.kill_on_drop(true).output().await;
    let done = done.map_err(Error::io("run", &path))?;
    if done.status.success() {
        return Ok(());
    }
    let mut said = String::from_utf8_lossy(&done.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&done.stderr));
    Err(Error::Program {
        program: name.to_owned(),
        status: done.status.to_string(),
        output: tail(&said, 12),
    })
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Copies an installation of ours that lies under a folder closed to the server's user.
///
/// Only the cache's layout is copied whole: programs, libraries and shared files hang together by
/// relative paths, so the tree three levels above `bin` moves as one.
fn copy_within_reach(install: &Installation, user: RunAs) -> Result<PathBuf, Error> {
    let bin = &install.bin_dir;
    let Some(root) = bin.ancestors().nth(3).filter(|root| {
        root.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("wheel-"))
    }) else {
        return Err(Error::Refused(format!(
            "the servers run as an unprivileged user, which can't enter {}; open the folders above it \
             (chmod o+x) or name another installation",
            bin.display()
        )));
    };
    let name = root.file_name().unwrap_or_default().to_string_lossy();
    let target = user.temp_root().join(format!("testbed-{name}"));
    let inside = bin.strip_prefix(root).unwrap_or(bin);
    if target.is_dir() && user.owns(&target) {
        return Ok(target.join(inside));
    }
    let partial = tempfile::Builder::new()
        .prefix("testbed-copy-")
        .tempdir_in(user.temp_root())
        .map_err(Error::io("create a folder in", &user.temp_root()))?;
    let done = Command::new("cp")
        .arg("-R")
        .arg(root)
        .arg(partial.path().join("copy"))
        .status();
    let done = done.map_err(Error::io("copy", root))?;
    let opened = Command::new("chmod")
        .args(["-R", "a+rX"])
        .arg(partial.path())
        .status();
    let opened = opened.map_err(Error::io("open", partial.path()))?;
    if !done.success() || !opened.success() {
        return Err(Error::Refused(format!(
            "could not copy {} to {}",
            root.display(),
            target.display()
        )));
    }
    // Whoever renames first wins; the other's copy is as good, unless it is a stranger's.
    if fs::rename(partial.path().join("copy"), &target).is_err() && !user.owns(&target) {
        return Err(Error::Refused(format!(
            "could not put a copy of PostgreSQL at {}; remove what is there",
            target.display()
        )));
    }
    Ok(target.join(inside))
}
