//! Fuzzing, where there is a nightly toolchain.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};

use crate::steps::{self, plain_cargo};

/// Whether a nightly toolchain is there.
pub(crate) fn has_nightly() -> bool {
    succeeds(plain_cargo(&["+nightly", "--version"]))
}

fn succeeds(mut command: Command) -> bool {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Fuzzes each target for so many seconds, all at the same time.
pub(crate) fn run(targets: &[&str], seconds: u32) -> anyhow::Result<()> {
    if !has_nightly() {
        println!("skipped: fuzzing needs a nightly toolchain, and there is none");
        return Ok(());
    }
    if !succeeds(plain_cargo(&["fuzz", "--version"])) {
        println!("Installing cargo-fuzz.");
        let install = ["install", "--quiet", "--locked", "cargo-fuzz"];
        if steps::run(plain_cargo(&install)).is_err() {
            println!("skipped: cargo-fuzz could not be installed");
            return Ok(());
        }
    }
    for target in targets {
        steps::run(plain_cargo(&["+nightly", "fuzz", "build", target]))?;
    }
    let limit = format!("-max_total_time={seconds}");
    let begun = targets
        .iter()
        .map(|target| {
            let mut fuzzing = plain_cargo(&["+nightly", "fuzz", "run", target, "--", &limit]);
            // What it says of its progress is of interest only where it fails.
            fuzzing.args(["-verbosity=0", "-print_final_stats=1"]);
            let running = fuzzing.spawn();
            Ok((*target, running.context("cargo could not be started")?))
        })
        .collect::<anyhow::Result<Vec<(&str, Child)>>>()?;
    let mut found = Vec::new();
    for (target, mut running) in begun {
        if !running.wait()?.success() {
            found.push(target);
        }
    }
    if !found.is_empty() {
        bail!("{} came to a finding, see above", found.join(" and "));
    }
    Ok(())
}
