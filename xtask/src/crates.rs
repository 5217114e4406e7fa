//! What a plain pool builds: few crates, and none that compiles C.

use std::collections::BTreeSet;

use anyhow::{Context, bail};

use crate::steps::cargo;

/// The most crates beside its own that `pool-core` may build with its default features.
const MOST: usize = 25;

/// Crates that build scripts use to compile or to find code in other languages.
const COMPILERS: [&str; 5] = ["bindgen", "cc", "cmake", "pkg-config", "vcpkg"];

pub(crate) fn check() -> anyhow::Result<()> {
    let output = cargo(&["tree", "-p", "pool-core", "-e", "normal,build"])
        .args(["--prefix", "none", "--format", "{p}"])
        .output()
        .context("cargo could not be started")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let listed = String::from_utf8(output.stdout)?;
    // Name and version: two versions of one crate are built twice.
    let crates: BTreeSet<_> = listed
        .lines()
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>())
        .filter(|crate_| crate_.first().is_some_and(|name| *name != "pool-core"))
        .collect();
    let names: Vec<_> = crates.iter().filter_map(|crate_| crate_.first()).collect();
    if names.is_empty() {
        bail!("cargo tree lists nothing below pool-core:\n{listed}");
    }
    if names.len() > MOST {
        bail!(
            "pool-core builds {} crates with its default features, more than {MOST}: {names:?}",
            names.len()
        );
    }
    if let Some(compiler) = names.iter().find(|name| COMPILERS.contains(name)) {
        bail!("pool-core builds {compiler}, so something below it is not Rust");
    }
    println!(
        "pool-core builds {} crates, none of which compiles C",
        names.len()
    );
    Ok(())
}
