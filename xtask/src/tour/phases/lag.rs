//! Phase 2: one replica stops replaying. Nobody is given older data than promised, although that replica
//! serves old data to whoever asks it directly.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::time::sleep;

use super::{none_failed, until, until_serving};
use crate::tour::load::{DEFAULT_AGE, Load};
use crate::tour::scene::Scene;
use crate::tour::shop;
use crate::tour::traffic::{Ask, Traffic};

const PHASE: &str = "2 replay paused";
const PROBE_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn run(scene: &Scene) -> Result<()> {
    let replica = scene.cluster.replica(0);
    scene
        .view
        .say(format!("2 replay paused on {}", replica.name()));
    let load = Load::start(&scene.db, &scene.ledger, &scene.checks, PHASE);
    until_serving(load.traffic(), replica).await?;

    replica.pause_replay().await?;
    let paused = Instant::now();
    let last = scene.ledger.tick_at(paused);
    until("a tick after the pause", || {
        scene.ledger.tick_at(Instant::now()) > last + 1
    })
    .await?;
    let length = scene.share(0.2).max(DEFAULT_AGE * 2);
    while paused.elapsed() < length {
        stale_when_asked_directly(scene).await?;
        token_goes_round(scene).await?;
        sleep(PROBE_EVERY).await;
    }
    let resumed = Instant::now();
    replica.resume_replay().await?;
    replica
        .wait_until_caught_up(scene.cluster.primary())
        .await?;
    scene.view.say("  replay goes on");
    let back = until_serving(load.traffic(), replica).await?;
    scene
        .figures
        .millis("2: back in rotation after the replay went on", back);
    let traffic = load.stop().await;
    none_failed(scene, PHASE, &traffic);
    goes_round(scene, &traffic, paused, resumed);
    fresh_again(scene).await
}

/// A plain read from the replica must show old data, or all this proves nothing.
async fn stale_when_asked_directly(scene: &Scene) -> Result<()> {
    let committed = scene.ledger.tick_at(Instant::now());
    let seen = tick_of(scene).await?;
    let stale = scene
        .checks
        .named(format!("{PHASE}: a plain read from that replica is stale"));
    stale.that(seen < committed, || {
        format!("tick {seen} seen, {committed} committed: nothing to be saved from")
    });
    Ok(())
}

/// An order is read back by its token at once, although that replica does not have it.
async fn token_goes_round(scene: &Scene) -> Result<()> {
    let (order, token) = scene.place_order().await?;
    let token = token.context("a commit without a token")?;
    let seen = shop::find_order(&mut scene.db.read_after(&token), order).await?;
    let port = scene.cluster.replica(0).port();
    let round = scene
        .checks
        .named(format!("{PHASE}: read_after goes round it"));
    round.equal("orders seen", &seen.orders, &1);
    round.that(seen.port != i32::from(port), || {
        format!("order {order} was read from the replica without it")
    });
    Ok(())
}

/// No read that promises less than the pause has lasted runs on that replica.
fn goes_round(scene: &Scene, traffic: &Traffic, paused: Instant, resumed: Instant) {
    let port = scene.cluster.replica(0).port();
    let round = scene.checks.named(format!("{PHASE}: read goes round it"));
    let mut on_the_other = 0_usize;
    for read in traffic
        .all_served()
        .iter()
        .filter(|served| served.ask == Ask::Read)
    {
        if read.began > paused + DEFAULT_AGE && read.began + read.took < resumed {
            round.that(read.port != Some(port), || {
                "a read ran on data older than its promise".to_owned()
            });
            on_the_other += usize::from(read.port == Some(scene.cluster.replica(1).port()));
        }
    }
    scene
        .figures
        .count("2: reads on the other replica meanwhile", on_the_other);
}

async fn fresh_again(scene: &Scene) -> Result<()> {
    let replica = scene.cluster.replica(0);
    replica
        .wait_until_caught_up(scene.cluster.primary())
        .await?;
    let (seen, committed) = (tick_of(scene).await?, scene.ledger.tick_at(Instant::now()));
    let fresh = scene
        .checks
        .named(format!("{PHASE}: that replica catches up"));
    fresh.that(seen >= committed, || {
        format!("tick {seen} seen, {committed} committed")
    });
    Ok(())
}

/// The tick that the first replica shows to whoever asks it directly.
async fn tick_of(scene: &Scene) -> Result<i64> {
    let rows = scene.cluster.replica(0).sql("SELECT n FROM ticks").await?;
    let tick = rows
        .into_iter()
        .flatten()
        .flatten()
        .next()
        .context("no tick on the replica")?;
    Ok(tick.parse()?)
}
