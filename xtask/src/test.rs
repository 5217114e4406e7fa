//! Everything that must pass, in the order in which a mistake shows soonest.

use std::process::{Command, Stdio};

use crate::steps::{self, Steps, cargo, root, target};
use crate::{licences, setup, tidy, tour};

/// How long the parser is fuzzed.
const FUZZ_SECONDS: u32 = 60;

fn all(steps: &mut Steps) -> anyhow::Result<()> {
    steps.step("PostgreSQL for the tests", || setup::postgres(None))?;
    steps.step("format", || steps::run(cargo(&["fmt", "--all", "--check"])))?;
    steps.step("tidy", tidy::check)?;
    steps.step("licences", licences::check)?;
    steps.step("clippy", || {
        let everything = [
            "clippy",
            "--workspace",
            "--exclude",
            "benches",
            "--all-targets",
        ];
        steps::run(cargo(
            &[&everything[..], &["--", "-D", "warnings"]].concat(),
        ))
    })?;
    steps.step("docs", || {
        let mut doc = cargo(&["doc", "--workspace", "--exclude", "benches", "--no-deps"]);
        doc.env("RUSTDOCFLAGS", "-D warnings");
        steps::run(doc)
    })?;
    steps.step("tests, examples and doc tests", || {
        steps::run(cargo(&["test", "--workspace", "--exclude", "benches"]))
    })?;
    steps.step("models", models)?;
    steps.step("tour", || {
        let json = target().join("tour.json");
        tour::run(&tour::Args {
            seconds: 15,
            json: Some(json),
            pg_bin: None,
            keep: false,
        })
    })?;
    steps.step("fuzz", fuzz)?;
    steps.step("package", || {
        steps::run(cargo(&[
            "publish",
            "--dry-run",
            "--allow-dirty",
            "-p",
            "pool-core",
        ]))
    })
}

pub(crate) fn run() -> anyhow::Result<()> {
    let mut steps = Steps::default();
    all(&mut steps)?;
    steps.finish();
    Ok(())
}

/// The models of the pool's protocol, over the code that ships.
pub(crate) fn models() -> anyhow::Result<()> {
    let mut models = cargo(&["test", "-p", "pool-core", "--lib", "--release", "models::"]);
    // A build of its own: the flag swaps `sync.rs` for the model checker's primitives.
    models.env("CARGO_TARGET_DIR", target().join("models"));
    models.env("RUSTFLAGS", "--cfg pool_loom");
    steps::run(models)
}

/// The benchmarks; the peers are built here and nowhere else.
pub(crate) fn bench() -> anyhow::Result<()> {
    steps::run(cargo(&["bench", "-p", "benches"]))
}

/// Feeds the URL parser with what a fuzzer comes up with, where there is a nightly toolchain.
fn fuzz() -> anyhow::Result<()> {
    let there = |arguments: &[&str]| {
        let mut command = plain_cargo(arguments);
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    };
    if !there(&["+nightly", "--version"]) {
        println!("skipped: fuzzing needs a nightly toolchain, and there is none");
        return Ok(());
    }
    if !there(&["fuzz", "--version"]) {
        println!("Installing cargo-fuzz.");
        if steps::run(plain_cargo(&[
            "install",
            "--quiet",
            "--locked",
            "cargo-fuzz",
        ]))
        .is_err()
        {
            println!("skipped: cargo-fuzz could not be installed");
            return Ok(());
        }
    }
    let seconds = format!("-max_total_time={FUZZ_SECONDS}");
    steps::run(plain_cargo(&[
        "+nightly",
        "fuzz",
        "run",
        "engine_url",
        "--",
        &seconds,
    ]))
}

/// The cargo that chooses its toolchain by itself.
fn plain_cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command
        .args(arguments)
        .current_dir(root())
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO");
    command
}
