//! Runs the examples that need servers, each on a database of its own: those whose first lines say
//! `-- postgresql://…` get one URL, those that say `-- URL URL URL` a primary's and two replicas'.
//!
//! An example that is not run here must be run by a test ([`TESTED`]), unless it only prints figures ([`FIGURES`]).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use testbed::Cluster;

use crate::steps::{self, cargo, root};

/// Examples that a test of their package includes and drives.
const TESTED: [&str; 2] = ["axum_service", "axum_tested"];
/// Examples that print figures for a page, for minutes.
const FIGURES: [&str; 1] = ["tenancy_figures"];
/// Packages whose examples need servers.
const PACKAGES: [(&str, &str); 2] = [
    ("pool-postgres", "pool-postgres"),
    ("router", "pool-router"),
];

pub(crate) fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let cluster = runtime.block_on(testbed::cluster().replicas(2).start())?;
    let mut ran = 0_u32;
    for (folder, package) in PACKAGES {
        for name in names(&root().join(folder).join("examples"))? {
            if TESTED.contains(&name.as_str()) || FIGURES.contains(&name.as_str()) {
                continue;
            }
            let source = root().join(folder).join(format!("examples/{name}.rs"));
            let text = fs::read_to_string(&source)?;
            let urls = urls(&runtime, &cluster, &name, &text)?;
            println!("-- {package}: {name}");
            let mut example = cargo(&["run", "--quiet", "-p", package, "--all-features"]);
            example.args(["--example", &name, "--"]);
            steps::run(example.args(urls)).with_context(|| format!("the example {name}"))?;
            ran += 1;
        }
    }
    if ran == 0 {
        bail!("no example was found to run");
    }
    runtime.block_on(cluster.stop())?;
    Ok(())
}

/// The examples of a folder, by name.
fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str());
        if path.extension().is_some_and(|kind| kind == "rs") {
            names.extend(name.map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}

/// What an example is given.
fn urls(
    runtime: &tokio::runtime::Runtime,
    cluster: &Cluster,
    name: &str,
    text: &str,
) -> Result<Vec<String>> {
    let head: Vec<_> = text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .collect();
    let says = |what: &str| head.iter().any(|line| line.contains(what));
    if says("-- URL URL URL") {
        let replicas = cluster.replicas().iter().map(testbed::Node::url);
        return Ok([cluster.primary().url()]
            .into_iter()
            .chain(replicas)
            .collect());
    }
    if says("-- postgresql://") {
        let database = format!("example_{name}");
        runtime.block_on(cluster.primary().create_database(&database))?;
        return Ok(vec![cluster.primary().url_for(&database)]);
    }
    bail!("the example {name} does not say in its first lines how it is run")
}
