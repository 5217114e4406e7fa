//! What the tour does to the servers, one file a phase, and what the phases share.

mod alone;
mod lag;
mod primary_restarts;
mod promotion;
mod queue;
mod replica_dies;
mod shutdown;
mod torn_commits;
mod warm_up;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use testbed::Node;

use super::scene::Scene;
use super::traffic::{Ask, Traffic};
use crate::waits::happened_by;

/// How long anything that has to happen by itself may take.
const RECOVERY_LIMIT: Duration = Duration::from_secs(15);

/// Runs all phases in order.
///
/// # Errors
/// Where a phase cannot go on at all; a promise that is broken is a failed check instead.
pub(crate) async fn run(scene: &Scene) -> Result<()> {
    warm_up::run(scene).await?;
    lag::run(scene).await?;
    queue::run(scene).await?;
    replica_dies::run(scene).await?;
    alone::run(scene).await?;
    primary_restarts::run(scene).await?;
    torn_commits::run(scene).await?;
    promotion::run(scene).await?;
    shutdown::run(scene).await
}

/// Waits for an event; tells how long that took.
async fn until(event: &str, happened: impl Fn() -> bool) -> Result<Duration> {
    let began = Instant::now();
    let limit = tokio::time::Instant::now() + RECOVERY_LIMIT;
    if !happened_by(limit, async || happened()).await {
        bail!("{event}: not within {RECOVERY_LIMIT:?}");
    }
    Ok(began.elapsed())
}

/// Waits until a server serves reads that began after now; tells how long that took.
async fn until_serving(traffic: &Traffic, node: &Node) -> Result<Duration> {
    let (now, port) = (Instant::now(), node.port());
    let event = format!("reads on {}", node.name());
    until(&event, || {
        traffic.any_since(now, |served| served.port == Some(port))
    })
    .await
}

/// Checks that every request of a phase was served.
fn none_failed(scene: &Scene, phase: &str, traffic: &Traffic) {
    let check = scene.checks.named(format!("{phase}: no request failed"));
    for _ in traffic.all_served() {
        check.that(true, String::new);
    }
    for failure in traffic.failures() {
        check.that(false, || failure.why);
    }
}

/// Checks that of all requests only reads failed, and of these only ones that were in flight when the replicas
/// were killed: begun before, and no more than their pools carry.
fn only_in_flight_failed(
    scene: &Scene,
    phase: &str,
    traffic: &Traffic,
    killed: Instant,
    replicas: usize,
) {
    let check = scene
        .checks
        .named(format!("{phase}: only reads in flight on it failed"));
    for _ in traffic.all_served() {
        check.that(true, String::new);
    }
    let failures = traffic.failures();
    for failure in &failures {
        let in_flight = failure.ask != Ask::Write && failure.began <= killed;
        check.that(in_flight, || {
            format!(
                "{} (begun {:?} after the kill)",
                failure.why,
                failure.began - killed
            )
        });
    }
    let most = replicas * scene.capacity();
    check.that(failures.len() <= most, || {
        format!("{} requests failed, and {most} fit on it", failures.len())
    });
    scene
        .figures
        .count(&format!("{phase}: requests lost in flight"), failures.len());
}
