//! Phase 7: the primary is stopped under load and a replica promoted; the old primary comes back as a replica. Then a
//! failover that loses a write: it was acknowledged by a primary that had been replaced, and its token says so. In the
//! end the first primary leads again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::{FutureExt as _, StreamExt as _};
use pool_router::{CommitToken, ErrorKind, EventKind, Events, RouteError};
use testbed::Node;
use tokio::time::sleep;

use super::{until, until_serving};
use crate::tour::ledger::Fate;
use crate::tour::load::Load;
use crate::tour::scene::Scene;
use crate::tour::shop;
use crate::tour::traffic::{Ask, Traffic};
use crate::waits::takes_writes;

const PHASE: &str = "7 promotion";
/// Their places among the database's nodes.
const FIRST: usize = 0;
const SECOND: usize = 1;

pub(super) async fn run(scene: &Scene) -> Result<()> {
    let (first, second, third) = (
        scene.cluster.primary(),
        scene.cluster.replica(0),
        scene.cluster.replica(1),
    );
    let before = scene.db.status();
    let mut events = scene.db.events();
    let (_, token) = scene.place_order().await?;
    let load = Load::start(&scene.db, &scene.ledger, &scene.checks, PHASE);
    sleep(scene.share(0.03)).await;

    scene
        .view
        .say(format!("7 promotion: {} is stopped", first.name()));
    let away = Instant::now();
    first.stop().await?;
    let accepts = promote(scene, second, third).await?;
    let took = until("an order on the new primary", || {
        load.traffic()
            .any_since(accepts, |served| served.ask == Ask::Write)
    });
    took.await?;
    let served = Instant::now();
    scene.figures.millis(
        "7: orders again after the new primary accepts them",
        first_write(load.traffic(), accepts),
    );
    first.rejoin(second).await?;
    scene
        .view
        .say(format!("  {} is back, as a replica", first.name()));
    until_serving(load.traffic(), first).await?;
    sleep(scene.share(0.03)).await;
    let traffic = load.stop().await;

    only_in_between(scene, &traffic, away, served);
    told(scene, &mut events);
    let after = scene.db.status();
    let changed = scene
        .checks
        .named(format!("{PHASE}: another epoch, timeline and primary"));
    changed.that(after.epoch > before.epoch, || {
        format!("epoch {}, then {}", before.epoch, after.epoch)
    });
    changed.equal("the primary", &after.primary, &Some(SECOND));
    changed.equal(
        "the timeline",
        &after.timeline,
        &before.timeline.map(|timeline| timeline + 1),
    );
    scene.view.say(format!(
        "  epoch {} became {}, timeline {} became {}",
        before.epoch,
        after.epoch,
        shown(before.timeline),
        shown(after.timeline)
    ));
    kept(scene, token.context("a commit without a token")?).await?;
    scene.figures.rates(PHASE, &traffic, &scene.ports());
    lose_one(scene).await?;
    scene.audit(PHASE).await
}

/// Makes a replica the primary and has another one follow it; says when it first accepted writes.
async fn promote(scene: &Scene, chosen: &Node, other: &Node) -> Result<Instant> {
    let client = chosen.client().await?;
    let promoted = async { Ok(chosen.promote().await?) };
    let (accepts, ()) = tokio::try_join!(takes_writes(&client), promoted)?;
    scene.view.say(format!("  {} is promoted", chosen.name()));
    other.follow(chosen).await?;
    Ok(accepts)
}

/// How long after that moment the first order or tick was acknowledged.
fn first_write(traffic: &Traffic, moment: Instant) -> Duration {
    let served = traffic.all_served();
    let writes = served.iter().filter(|one| one.ask == Ask::Write);
    let ends = writes.map(|one| one.began + one.took);
    let first = ends.filter(|end| *end >= moment).min();
    first.map_or(Duration::ZERO, |end| end - moment)
}

fn only_in_between(scene: &Scene, traffic: &Traffic, away: Instant, served: Instant) {
    let check = scene.checks.named(format!(
        "{PHASE}: requests fail only until the new primary serves"
    ));
    for _ in traffic.all_served() {
        check.that(true, String::new);
    }
    let failures = traffic.failures();
    for failure in &failures {
        let meanwhile = failure.ended >= away && failure.began <= served;
        check.that(meanwhile, || failure.why.clone());
    }
    let writes = failures.iter().filter(|failure| failure.ask == Ask::Write);
    scene.figures.count("7: writes that failed", writes.count());
}

/// What the database told of it.
fn told(scene: &Scene, events: &mut Events) {
    let (mut promoted, mut demoted) = (0, 0);
    while let Some(Some(event)) = events.next().now_or_never() {
        scene.view.say(format!("    {:?}", event.kind));
        match &event.kind {
            EventKind::Promoted { node } if &**node == "replica 1" => promoted += 1,
            EventKind::Demoted { node } if &**node == "primary" => demoted += 1,
            _ => {}
        }
    }
    let check = scene
        .checks
        .named(format!("{PHASE}: events tell of it, once"));
    check.equal("promoted, demoted", &(promoted, demoted), &(1, 1));
}

/// A token from before the promotion is honoured after it: an orderly stop loses nothing.
async fn kept(scene: &Scene, token: CommitToken) -> Result<()> {
    let check = scene
        .checks
        .named(format!("{PHASE}: a token from before is honoured"));
    let read = shop::tick(&mut scene.db.read_after(&token)).await;
    check.that(read.is_ok(), || format!("{read:?}"));
    Ok(())
}

/// An order that is begun on a primary, which then stands still and is replaced; it goes on and acknowledges it.
async fn lose_one(scene: &Scene) -> Result<()> {
    let (first, second, third) = (
        scene.cluster.primary(),
        scene.cluster.replica(0),
        scene.cluster.replica(1),
    );
    scene.view.say(format!(
        "  {} stands still, and {} leads again",
        second.name(),
        first.name()
    ));
    let (order, mut session) = (scene.ledger.open(), scene.db.write());
    shop::write_order(&mut session, order).await?;
    first.wait_until_caught_up(second).await?;
    third.wait_until_caught_up(second).await?;
    second.freeze().await?;
    promote(scene, first, third).await?;
    until("the first primary leads again", || {
        scene.db.status().primary == Some(FIRST)
    })
    .await?;
    second.thaw().await?;
    let token = session.commit().await?.token;
    drop(session);
    scene.ledger.settle(order, Fate::Lost);
    let token = token.context("a commit without a token")?;
    let refused = shop::find_order(&mut scene.db.read_after(&token), order).await;
    let lost = scene.checks.named(format!(
        "{PHASE}: the token of a write that a replaced primary acknowledged says that it is lost"
    ));
    let error = refused.err();
    let cause = error
        .as_ref()
        .and_then(RouteError::behind)
        .map(ToString::to_string);
    let says_so = error.as_ref().map(pool_router::Error::kind) == Some(ErrorKind::Token)
        && cause
            .as_ref()
            .is_some_and(|text| text.contains("lost in a failover"));
    lost.that(says_so, || format!("{error:?}"));
    scene
        .view
        .say(format!("    order {order}: {}", cause.unwrap_or_default()));
    second.rejoin(first).await?;
    let load = Load::start(&scene.db, &scene.ledger, &scene.checks, PHASE);
    until_serving(load.traffic(), second).await?;
    load.stop().await;
    Ok(())
}

fn shown(timeline: Option<u32>) -> String {
    timeline.map_or_else(|| "unknown".to_owned(), |timeline| timeline.to_string())
}
