//! Single statements over shared connections beside connections that are lent to one task at a time: how many get
//! through, and how long the slowest in a hundred takes.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use pool_postgres::{Engine, SharedConnections};
use tokio::task::JoinSet;

use crate::contender::WAIT;
use crate::postgres::{CONNECTIONS, ROUND, SQL, TASKS, deadpool, with_ours, with_peer};
use crate::report::{Report, Rounds, Target, Verdict};
use crate::two_threads;

const SHARED: &str = "ours, shared";
const LENT: &str = "ours, engine";
const PEER: &str = "deadpool-postgres";

/// What a round found.
struct Found {
    /// Statements a second.
    rate: f64,
    /// How long 99 of 100 took at most, in microseconds.
    p99: f64,
}

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

/// Has all tasks run statements until the round is over; each answer is looked at.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
async fn round<P, F>(
    pool: &P,
    statement: impl Fn(P, i32) -> F + Copy + Send + 'static,
) -> Result<Found>
where
    P: Clone + Send + Sync + 'static,
    F: Future<Output = Result<i32>> + Send,
{
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let pool = pool.clone();
        tasks.spawn(async move {
            let mut waits = Histogram::<u64>::new(3)?;
            let mut done = 0_i32;
            let mut last = begun.elapsed();
            while last < ROUND {
                if statement(pool.clone(), done).await? != done + 1 {
                    return Err(anyhow!("a wrong answer"));
                }
                done += 1;
                let now = begun.elapsed();
                waits.record(micros(now.saturating_sub(last)))?;
                last = now;
            }
            Ok(waits)
        });
    }
    let mut waits = Histogram::<u64>::new(3)?;
    while let Some(task) = tasks.join_next().await {
        waits.add(task??)?;
    }
    Ok(Found {
        rate: waits.len() as f64 / begun.elapsed().as_secs_f64(),
        p99: waits.value_at_quantile(0.99) as f64,
    })
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
