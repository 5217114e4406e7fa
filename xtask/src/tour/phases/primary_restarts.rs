//! Phase 6: the primary restarts under load, first in order, then by a kill. What was acknowledged is there once,
//! what was reported as failed is not, and nothing fails but while it is away.

use std::time::Instant;

use anyhow::Result;
use tokio::time::sleep;

use super::until;
use crate::tour::load::Load;
use crate::tour::scene::Scene;
use crate::tour::traffic::{Ask, Traffic};

const PHASE: &str = "6 primary restarts";

pub(super) async fn run(scene: &Scene) -> Result<()> {
    let primary = scene.cluster.primary();
    let load = Load::start(&scene.db, &scene.ledger, &scene.checks, PHASE);
    sleep(scene.share(0.03)).await;
    let mut away = Vec::new();

    scene.view.say("6 primary restarts: in order");
    let from = Instant::now();
    primary.restart().await?;
    away.push((from, writes_again(scene, load.traffic()).await?));
    sleep(scene.share(0.05)).await;

    scene.view.say("  and by a kill");
    let from = Instant::now();
    primary.kill().await?;
    primary.start().await?;
    away.push((from, writes_again(scene, load.traffic()).await?));
    sleep(scene.share(0.05)).await;

    let traffic = load.stop().await;
    failures_are_its_absence(scene, &traffic, &away);
    scene.figures.rates(PHASE, &traffic, &scene.ports());
    scene.audit(PHASE).await
}

/// Waits for an order that began and was acknowledged after now.
async fn writes_again(scene: &Scene, traffic: &Traffic) -> Result<Instant> {
    let started = Instant::now();
    let took = until("an order after the restart", || {
        traffic.any_since(started, |served| served.ask == Ask::Write)
    });
    scene
        .figures
        .millis("6: orders again after the start", took.await?);
    Ok(Instant::now())
}

fn failures_are_its_absence(scene: &Scene, traffic: &Traffic, away: &[(Instant, Instant)]) {
    let check = scene
        .checks
        .named(format!("{PHASE}: requests fail only while it is away"));
    let failures = traffic.failures();
    for failure in &failures {
        let meanwhile = away
            .iter()
            .any(|(from, to)| failure.ended >= *from && failure.began <= *to);
        check.that(meanwhile, || failure.why.clone());
    }
    let felt = scene
        .checks
        .named(format!("{PHASE}: each restart is felt by writes"));
    for (from, to) in away {
        let writes = failures.iter().filter(|failure| failure.ask == Ask::Write);
        let count = writes
            .filter(|failure| failure.ended >= *from && failure.began <= *to)
            .count();
        felt.that(count > 0, || {
            "no write failed, so nothing was put to the test".to_owned()
        });
        scene.figures.count("6: writes that failed", count);
    }
}
