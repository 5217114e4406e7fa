//! Phase 4: one replica is frozen, then killed, then started again.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use super::{only_in_flight_failed, until, until_serving};
use crate::tour::load::Load;
use crate::tour::scene::Scene;

const PHASE: &str = "4 replica dies";
/// A node that stops answering is out of rotation within this.
const NOTICED: Duration = Duration::from_secs(1);
const REPLICA: usize = 1;

pub(super) async fn run(scene: &Scene) -> Result<()> {
    let replica = scene.cluster.replica(REPLICA);
    scene
        .view
        .say(format!("4 replica dies: {} is frozen", replica.name()));
    let load = Load::start(&scene.db, &scene.ledger, &scene.checks, PHASE);
    until_serving(load.traffic(), replica).await?;

    replica.freeze().await?;
    let frozen = Instant::now();
    let noticed = until("the frozen replica out of rotation", || {
        !scene.is_up(REPLICA + 1)
    })
    .await?;
    let check = scene
        .checks
        .named(format!("{PHASE}: it is out of rotation within a second"));
    check.that(noticed < NOTICED, || format!("it took {noticed:?}"));
    scene
        .figures
        .millis("4: frozen replica out of rotation", noticed);
    sleep(scene.share(0.05).max(NOTICED)).await;

    replica.kill().await?;
    let killed = Instant::now();
    scene.view.say("  it is killed");
    sleep(scene.share(0.04)).await;

    scene.view.say("  it starts again");
    let starting = Instant::now();
    replica.start().await?;
    let back = until_serving(load.traffic(), replica).await?;
    scene
        .figures
        .millis("4: back in rotation after the start", back);
    sleep(scene.share(0.04)).await;

    let traffic = load.stop().await;
    only_in_flight_failed(scene, PHASE, &traffic, killed, 1);
    let round = scene
        .checks
        .named(format!("{PHASE}: nothing goes to it while it is out"));
    for read in traffic
        .all_served()
        .iter()
        .filter(|served| served.port.is_some())
    {
        if read.began > frozen + NOTICED && read.began + read.took < starting {
            round.that(read.port != Some(replica.port()), || {
                "a read ran on a dead server".to_owned()
            });
        }
    }
    scene.figures.rates(PHASE, &traffic, &scene.ports());
    scene.audit(PHASE).await
}
