//! Phase 5: all replicas are gone, and the primary serves everything.

use std::time::Instant;

use anyhow::Result;
use futures_util::future::try_join_all;
use tokio::time::sleep;

use super::{only_in_flight_failed, until, until_serving};
use crate::tour::load::Load;
use crate::tour::scene::Scene;

const PHASE: &str = "5 primary alone";

pub(super) async fn run(scene: &Scene) -> Result<()> {
    scene.view.say("5 primary alone: all replicas are killed");
    let replicas = scene.cluster.replicas();
    let load = Load::start(&scene.db, &scene.ledger, &scene.checks, PHASE);
    for replica in replicas {
        until_serving(load.traffic(), replica).await?;
    }
    try_join_all(replicas.iter().map(testbed::Node::kill)).await?;
    let killed = Instant::now();
    let noticed = until("all replicas out of rotation", || {
        (1..=replicas.len()).all(|node| !scene.is_up(node))
    });
    scene
        .figures
        .millis("5: killed replicas out of rotation", noticed.await?);
    let out = Instant::now();
    sleep(scene.share(0.08)).await;

    let starting = Instant::now();
    try_join_all(replicas.iter().map(testbed::Node::start)).await?;
    scene.view.say("  they start again");
    for replica in replicas {
        until_serving(load.traffic(), replica).await?;
    }
    scene.figures.millis(
        "5: all back in rotation after the start",
        starting.elapsed(),
    );

    let traffic = load.stop().await;
    only_in_flight_failed(scene, PHASE, &traffic, killed, replicas.len());
    let primary = scene.cluster.primary().port();
    let fallback = scene
        .checks
        .named(format!("{PHASE}: reads fall back to the primary"));
    for read in traffic
        .all_served()
        .iter()
        .filter(|served| served.port.is_some())
    {
        if read.began > out && read.began + read.took < starting {
            fallback.that(read.port == Some(primary), || {
                format!("a read ran on port {:?}", read.port)
            });
        }
    }
    scene.figures.rates(PHASE, &traffic, &scene.ports());
    Ok(())
}
