//! `cargo xtask tour`: the whole way through, on a real primary with two replicas, while it happens to them what
//! happens in production.
//!
//! A small shop (`shop`) is used by many tasks at once (`load`); each phase (`phases`) does something to the servers;
//! and everything is verified by reading the data back (`ledger`, `scene::audit`, `sampler`). Nothing is
//! retried to make a check pass.

mod checks;
mod figures;
mod ledger;
mod load;
mod phases;
mod sampler;
mod scene;
mod serve;
mod shop;
mod traffic;
mod view;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;

use checks::Outcome;
pub(crate) use checks::lock;
use sampler::Sampler;
use scene::{QUEUE_OVERFLOW, QUEUE_SIZE, Scene};
use serve::Served;
pub(crate) use traffic::chain;
use view::View;

/// What `tour` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// About how long the tour takes.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(10..=3600))]
    pub(crate) seconds: u64,
    /// Write checks and figures to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// The folder of PostgreSQL's programs.
    #[arg(long, value_name = "DIR")]
    pub(crate) pg_bin: Option<PathBuf>,
    /// Leave the servers' data and logs behind.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Show the router's page while the tour runs, and afterwards until Ctrl-C.
    #[arg(long)]
    pub(crate) serve: bool,
}

/// Runs the tour and prints what it found.
///
/// # Errors
/// If a check failed or never compared anything, and if a phase could not go on.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.serve && !serve::CAN {
        return serve::anew();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let toured = tokio::select! {
            toured = tour(args) => toured?,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                bail!("interrupted; the servers were stopped")
            }
        };
        if let Some(served) = toured.served {
            let url = served.url();
            toured.scene.view.say(format!("{url} stays until Ctrl-C"));
            served.until_interrupted().await?;
        }
        let stopped = toured.scene.cluster.stop().await;
        toured.verdict?;
        Ok(stopped?)
    })
}

/// A tour that is over, with its servers still running.
struct Toured {
    scene: Scene,
    verdict: Result<()>,
    served: Option<Served>,
}

async fn tour(args: &Args) -> Result<Toured> {
    let view = View::new();
    let scene = Scene::set(args, view.clone()).await?;
    let limit = |connections: usize| i64::try_from(connections).unwrap_or(i64::MAX);
    let (pool, queue) = (limit(scene.capacity()), limit(QUEUE_SIZE + QUEUE_OVERFLOW));
    let sampler = Sampler::start(&scene.nodes(), &scene.checks, pool, queue);
    let table = view.watch(&scene.db);
    let served = if args.serve {
        let served = Served::start(&scene.db).await?;
        view.say(format!("see it at {}", served.url()));
        Some(served)
    } else {
        None
    };
    let done = phases::run(&scene).await;
    drop(table);
    for (node, most) in scene.nodes().iter().zip(sampler.most()) {
        scene.figures.count(
            &format!("most pooled connections on {}", node.name()),
            usize::try_from(most)?,
        );
    }
    drop(sampler);
    for fate in scene.ledger.fates() {
        scene.figures.count(&format!("orders: {fate:?}"), 1);
    }

    let outcomes = scene.checks.outcomes();
    summary(&scene, &outcomes);
    if let Some(file) = &args.json {
        write_json(file, &scene, &outcomes)?;
    }
    if args.keep {
        view.say(format!(
            "data and logs stay in {}",
            scene.cluster.dir().display()
        ));
    }
    Ok(Toured {
        verdict: done.and_then(|()| verdict(&outcomes, &view)),
        served,
        scene,
    })
}

fn verdict(outcomes: &[Outcome], view: &View) -> Result<()> {
    let failed: Vec<&str> = outcomes
        .iter()
        .filter(|one| !one.passed())
        .map(|one| &*one.name)
        .collect();
    if !failed.is_empty() {
        bail!(
            "{} of {} checks failed: {}",
            failed.len(),
            outcomes.len(),
            failed.join("; ")
        );
    }
    view.say(format!("all {} checks passed", outcomes.len()));
    Ok(())
}

fn summary(scene: &Scene, outcomes: &[Outcome]) {
    println!("\nfigures");
    for (name, value) in scene.figures.all() {
        println!("  {name:<60} {value:>10}");
    }
    println!("\nchecks");
    for one in outcomes {
        let verdict = if one.passed() { "ok" } else { "FAILED" };
        println!(
            "  {verdict:<6} {:>8} checked {:>6} failed  {}",
            one.checked, one.failed, one.name
        );
        if let Some(why) = &one.first_failure {
            println!("         first: {why}");
        }
    }
    println!();
}

fn write_json(file: &Path, scene: &Scene, outcomes: &[Outcome]) -> Result<()> {
    let all = json!({
        "postgresql": scene.cluster.installation().to_string(),
        "checks": outcomes,
        "figures": scene.figures.all(),
    });
    let text = serde_json::to_string_pretty(&all)?;
    std::fs::write(file, text + "\n")
        .with_context(|| format!("{} could not be written", file.display()))
}
