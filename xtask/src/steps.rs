//! Commands that are run one after another, each announced and timed; the first failure ends the row.

use std::borrow::BorrowMut;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};

/// The project's root.
pub(crate) fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}

/// Where builds go.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A cargo command in the project's root.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    // What cargo sets for the command that we are in is not meant for the ones that we start.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
            command.env_remove(name);
        }
    }
    command
}

/// The cargo that chooses its toolchain by itself, in the project's root.
pub(crate) fn plain_cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command
        .args(arguments)
        .current_dir(root())
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO");
    command
}

/// Runs a command to its end; fails if it does.
pub(crate) fn run(mut command: impl BorrowMut<Command>) -> anyhow::Result<()> {
    let command = command.borrow_mut();
    let status = command
        .status()
        .with_context(|| format!("{command:?} could not be started"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// Steps done so far, and how long each took.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(String, f64)>,
}

impl Steps {
    /// Does one step.
    pub(crate) fn step(
        &mut self,
        name: &str,
        work: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        println!("\n==> {name}");
        let begun = Instant::now();
        let done = work();
        let seconds = begun.elapsed().as_secs_f64();
        match done {
            Ok(()) => {
                self.done.push((name.to_owned(), seconds));
                Ok(())
            }
            Err(error) => {
                self.summary();
                println!("\nsteps: {} passed, 1 failed", self.done.len());
                Err(error.context(format!("{name} failed after {seconds:.0} s")))
            }
        }
    }

    /// Notes a step that needn't be done again.
    pub(crate) fn passed_before(&mut self, name: &str) {
        println!("\n==> {name}: passed before");
        self.done.push((format!("{name} (passed before)"), 0.0));
    }

    /// Ends the row.
    pub(crate) fn finish(&self) {
        self.summary();
        println!("\nsteps: {} passed, 0 failed", self.done.len());
    }

    fn summary(&self) {
        println!();
        for (name, seconds) in &self.done {
            println!("{seconds:>7.1} s  {name}");
        }
    }
}
