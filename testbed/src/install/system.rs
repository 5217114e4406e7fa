//! PostgreSQL by the system's package manager: apt-get, dnf or Homebrew.

use std::path::Path;
use std::process::Command;

use nix::unistd::Uid;

use super::{Installation, find};
use crate::Error;

/// How each manager installs the server. Homebrew refuses root, the others demand it.
const MANAGERS: [(&str, &[&str], bool); 3] = [
    ("apt-get", &["install", "-y", "postgresql"], true),
    ("dnf", &["install", "-y", "postgresql-server"], true),
    ("brew", &["install", "postgresql@18"], false),
];

/// Installs PostgreSQL with the system's package manager, and finds it.
///
/// `announce` is told the command before it runs; the command may ask for a password on the terminal.
///
/// # Errors
/// No known package manager is there, or it failed.
pub fn install_system(announce: impl FnOnce(&str)) -> Result<Installation, Error> {
    let words = command_line().ok_or_else(|| {
        Error::Refused(
            "found none of apt-get, dnf and brew to install PostgreSQL with; install it by hand, or run \
             `cargo xtask setup`, which unpacks it into this project's target folder"
                .to_owned(),
        )
    })?;
    announce(&words.join(" "));
    run(&words)?;
    Ok(find(None)?)
}

/// Installs PgBouncer, where that needs nobody's password: as root, with apt-get. False where it can't be done so.
///
/// `announce` is told each command before it runs.
///
/// # Errors
/// The package manager failed.
pub fn install_pgbouncer(announce: impl Fn(&str)) -> Result<bool, Error> {
    if !Uid::effective().is_root() || !on_path("apt-get") {
        return Ok(false);
    }
    let install = [
        "apt-get",
        "install",
        "-y",
        "--no-install-recommends",
        "pgbouncer",
    ];
    announce(&install.join(" "));
    if run(&install).is_err() {
        // The list of packages may be old, or not there yet.
        let update = ["apt-get", "update"];
        announce(&update.join(" "));
        run(&update)?;
        run(&install)?;
    }
    Ok(true)
}

fn run(words: &[&str]) -> Result<(), Error> {
    let program = Path::new(words[0]);
    let status = Command::new(program).args(&words[1..]).status();
    let status = status.map_err(Error::io("run", program))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Program {
        program: words.join(" "),
        status: status.to_string(),
        output: "see above".to_owned(),
    })
}

fn command_line() -> Option<Vec<&'static str>> {
    let (manager, args, as_root) = MANAGERS.into_iter().find(|(name, ..)| on_path(name))?;
    let sudo = as_root && !Uid::effective().is_root();
    let words = sudo.then_some("sudo").into_iter().chain([manager]);
    Some(words.chain(args.iter().copied()).collect())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}
