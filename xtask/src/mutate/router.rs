//! `cargo xtask mutate router`: breaks the router's decisions in each way that is known, and sees that the simulation
//! finds a seed that tells.
//!
//! What each mutation breaks, and which seed finds it, stands in `docs/consistency.md`. Seeds change with the code, so
//! a run asks only that each mutation is found and has its row; `--write` writes the rows.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};

use super::patch::Patch;
use super::table::Page;
use super::trial::{Built, Copy, built};
use super::{Args, broken};
use crate::sim::TEST;
use crate::steps::target;

/// Within so many seeds each mutation is to be found.
const SEEDS: u32 = 10_000;
const PAGE: Page = Page {
    file: "docs/consistency.md",
    begin: "<!-- mutations: written by `cargo xtask mutate router --write` -->",
};

/// How a mutation shows.
struct Found {
    seed: String,
    /// The kind of fault.
    kind: String,
}

pub(super) fn run(args: &Args, patches: &[Patch], copy: &Copy) -> anyhow::Result<()> {
    let mut faults = Vec::new();
    let mut rows = String::from(
        "| mutation | what it breaks | what the simulation says | seed |\n|---|---|---|---|\n",
    );
    for patch in patches {
        let begun = Instant::now();
        let found = broken(patch, copy, || tried(copy))?;
        let seconds = begun.elapsed().as_secs_f64();
        let (name, breaks) = (&patch.name, &patch.breaks);
        if let Some(Found { seed, kind }) = found {
            println!("{seconds:>6.1} s  {name}: {kind} (seed {seed})");
            writeln!(rows, "| `{name}` | {breaks} | {kind} | {seed} |")?;
        } else {
            println!("{seconds:>6.1} s  {name}: not found");
            faults.push(format!("{name}: {SEEDS} seeds do not find it"));
        }
    }
    let names = patches.iter().map(|patch| patch.name.clone()).collect();
    if args.write && faults.is_empty() {
        PAGE.write(&rows)?;
    } else if args.only.is_none() && written()? != names {
        faults.push(
            "docs/consistency.md has other mutations: run `cargo xtask mutate router --write`"
                .into(),
        );
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    println!(
        "{} mutations, each found within {SEEDS} seeds",
        patches.len()
    );
    Ok(())
}

/// The mutations that the page names.
fn written() -> anyhow::Result<BTreeSet<String>> {
    let rows = PAGE.rows()?;
    let names = rows.iter().filter_map(|row| row.split('`').nth(1));
    Ok(names.map(str::to_owned).collect())
}

/// Builds the copy as it is, and runs the simulation.
fn tried(copy: &Copy) -> anyhow::Result<Option<Found>> {
    let mut build = copy.cargo(&["test", "-p", "pool-router", "--lib", "--release"]);
    // The dependencies are those of `cargo xtask sim`, built once for both; the rest is built anew each time, and is
    // quick enough with less optimisation.
    build.args([
        "--config",
        "profile.release.package.pool-router.opt-level=1",
    ]);
    build.env("CARGO_TARGET_DIR", target());
    let Built { executable, .. } = built(build)?;
    let mut simulation = Command::new(executable);
    simulation.args(["--exact", TEST, "--nocapture"]);
    simulation.env("POOL_SIM_SEEDS", SEEDS.to_string());
    // A mutation may break every story: its name and what it breaks are enough.
    simulation.env("POOL_SIM_BRIEF", "1");
    let output = simulation
        .output()
        .context("the simulation could not be started")?;
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let fault = said.lines().find_map(|line| line.strip_prefix("seed "));
    let (seed, fault) = fault
        .and_then(|fault| fault.split_once(": "))
        .with_context(|| format!("the simulation failed without a seed:\n{said}"))?;
    let kind = fault.split(": ").next().unwrap_or(fault);
    Ok(Some(Found {
        seed: seed.to_owned(),
        kind: kind.to_owned(),
    }))
}
