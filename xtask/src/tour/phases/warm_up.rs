//! Phase 1: pools open lazily, and no more than they may.

use anyhow::{Context, Result};
use tokio::time::sleep;

use super::none_failed;
use crate::tour::load::Load;
use crate::tour::scene::Scene;
use crate::tour::shop;

const PHASE: &str = "1 warm-up";

pub(super) async fn run(scene: &Scene) -> Result<()> {
    scene
        .view
        .say("1 warm-up: nothing is open before the first use");
    let lazy = scene.checks.named(format!("{PHASE}: pools open lazily"));
    for (name, counts) in scene.count_connections().await? {
        lazy.equal(
            &format!("{name}'s pooled connections before first use"),
            &counts.pool,
            &0,
        );
        lazy.equal(
            &format!("{name}'s monitors before first use"),
            &counts.monitor,
            &1,
        );
    }
    shop::set_tick(&mut scene.db.write(), 1)
        .await
        .context("the first write")?;
    scene.ledger.ticked(1);
    let counts = scene.count_connections().await?;
    let open: i64 = counts.iter().map(|(_, counts)| counts.pool).sum();
    lazy.equal("connections after one unit of work", &open, &1);

    let load = Load::start(&scene.db, &scene.ledger, &scene.checks, PHASE);
    sleep(scene.share(0.14)).await;
    let traffic = load.stop().await;
    none_failed(scene, PHASE, &traffic);
    scene.figures.rates(PHASE, &traffic, &scene.ports());
    scene.audit(PHASE).await
}
