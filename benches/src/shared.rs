//! Single statements over shared connections beside connections that are lent to one task at a time: how many get
//! through, and how long the slowest in a hundred takes.

use anyhow::Result;
use pool_postgres::{Engine, SharedConnections};

use crate::contender::WAIT;
use crate::postgres::{CONNECTIONS, Found, SQL, deadpool, round, with_ours, with_peer};
use crate::report::{Report, Rounds, Target, Verdict};
use crate::two_threads;

const SHARED: &str = "ours, shared";
const LENT: &str = "ours, engine";
const PEER: &str = "deadpool-postgres";

/// Runs the comparison on a server of its own.
///
/// # Errors
/// Where the server could not be started or a statement failed.
pub fn compare(rounds: usize) -> Result<Report> {
    let runtime = two_threads()?;
    let (rates, waits) = runtime.block_on(async {
        let cluster = testbed::cluster().start().await?;
        let url = cluster.primary().url();
        let engine = Engine::builder(&url)
            .pool_size(CONNECTIONS)
            .max_overflow(0)
            .pool_timeout(WAIT)
            .build()?;
        let peer = deadpool(&url)?;
        let (mut rates, mut waits) = (Rounds::default(), Rounds::default());
        let mut note = |name, found: Found| {
            rates.note(name, found.rate);
            waits.note(name, found.p99);
        };
        for _ in 0..rounds {
            note(SHARED, round(&engine.shared(), with_shared).await?);
            note(PEER, round(&peer, with_peer).await?);
            note(LENT, round(&engine, with_ours).await?);
        }
        engine.close().await;
        anyhow::Ok((rates, waits))
    })?;
    let ratio = rates.median(SHARED) / rates.median(PEER);
    let slowest = waits.median(SHARED) / waits.median(PEER);
    Ok(Report {
        workload: "PostgreSQL, 64 tasks, 8 connections lent or 2 shared, SELECT $1::int + 1",
        measures: vec![
            rates.measure("statements a second"),
            waits.measure("µs for 99 of 100"),
        ],
        verdicts: vec![
            Verdict::new("shared / deadpool-postgres", ratio, Target::AtLeast(1.9)),
            Verdict::new(
                "99 of 100: shared / deadpool-postgres",
                slowest,
                Target::AtMost(1.0),
            ),
        ],
    })
}

async fn with_shared(shared: SharedConnections, number: i32) -> Result<i32> {
    Ok(shared.query_one(SQL, &[&number]).await?.get(0))
}
