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
use tokio::time::sleep;

use super::scene::Scene;
use super::traffic::{Ask, Traffic};

/// How long anything that has to happen by itself may take.
const RECOVERY_LIMIT: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(5);

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
    while !happened() {
        if began.elapsed() > RECOVERY_LIMIT {
            bail!("{event}: not within {RECOVERY_LIMIT:?}");
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(began.elapsed())
}

/// Waits until a replica serves reads that began after now; tells how long that took.
async fn until_serving(scene: &Scene, traffic: &Traffic, replica: usize) -> Result<Duration> {
    let (now, port) = (Instant::now(), scene.cluster.replica(replica).port());
    let event = format!("reads on {}", scene.cluster.replica(replica).name());
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
