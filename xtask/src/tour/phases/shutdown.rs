//! Phase 8: what is under way ends, newcomers are refused, and nothing is left on the servers.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::join_all;
use pool_router::{Error, ErrorKind};

use super::until;
use crate::tour::ledger::Fate;
use crate::tour::sampler::Counts;
use crate::tour::scene::Scene;
use crate::tour::shop;
use crate::waits::LOOK_EVERY;

const PHASE: &str = "8 shutdown";
const UNDER_WAY: usize = 4;
/// How long the server takes to notice that a connection was closed.
const GONE: Duration = Duration::from_secs(3);

pub(super) async fn run(scene: &Scene) -> Result<()> {
    scene.view.say("8 shutdown: with work under way");
    let primary = scene.db.status().nodes[0].pool.in_use;
    ensure!(
        primary == 0,
        "{primary} connections are in use before the shutdown"
    );
    let orders =
        (0..UNDER_WAY).map(|_| tokio::spawn(slow_order(scene.db.clone(), scene.ledger.open())));
    let orders: Vec<_> = orders.collect();
    until("work under way", || {
        scene.db.status().nodes[0].pool.in_use == UNDER_WAY
    })
    .await?;

    let report = scene.db.shutdown().await;
    let drained = scene
        .checks
        .named(format!("{PHASE}: work under way ends well"));
    for order in join_all(orders).await {
        let (id, fate, error) = order?;
        scene.ledger.settle(id, fate);
        drained.that(fate == Fate::Acknowledged, || {
            format!("order {id} is {fate:?}: {error:?}")
        });
    }
    for (node, closed) in &report.nodes {
        drained.that(closed.is_clean(), || format!("{node}: {closed:?}"));
    }
    let refused = scene
        .checks
        .named(format!("{PHASE}: newcomers are refused"));
    for mut session in [scene.db.write(), scene.db.read()] {
        let kind = shop::tick(&mut session)
            .await
            .err()
            .map(|error| error.kind());
        refused.equal(
            "a session after the shutdown",
            &kind,
            &Some(ErrorKind::PoolClosed),
        );
    }

    let empty = scene
        .checks
        .named(format!("{PHASE}: no connection is left on the servers"));
    let deadline = tokio::time::Instant::now() + GONE;
    let none = Counts {
        pool: 0,
        monitor: 0,
        queue: 0,
        torn: 0,
    };
    loop {
        let counts = scene.count_connections().await?;
        if counts.iter().all(|(_, counts)| *counts == none)
            || tokio::time::Instant::now() > deadline
        {
            for (name, counts) in counts {
                empty.equal(&name, &counts, &none);
            }
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    scene.audit(PHASE).await
}

/// An order whose statement takes a while.
async fn slow_order(db: pool_router::Database, id: i64) -> (i64, Fate, Option<Error>) {
    let mut session = db.write();
    let written = async {
        shop::write_order(&mut session, id).await?;
        session.query_one("SELECT pg_sleep(0.3)", &[]).await
    };
    if let Err(error) = written.await {
        return (id, Fate::NotWritten, Some(error));
    }
    match session.commit().await {
        Ok(_) => (id, Fate::Acknowledged, None),
        Err(error) => (id, Fate::of_commit(&error), Some(error)),
    }
}
