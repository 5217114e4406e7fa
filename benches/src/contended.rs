//! Many tasks on two threads: with a connection for each, and with far fewer connections than tasks.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use tokio::runtime::Runtime;
use tokio::task::{JoinSet, yield_now};

use crate::contender::{Bb8, Contender, Deadpool, Ours};
use crate::report::{Report, Rounds, Target, Verdict};

/// Tasks in both workloads.
const TASKS: usize = 64;
/// Worker threads.
const THREADS: usize = 2;
/// How long each contender works in a round.
const ROUND: Duration = Duration::from_millis(400);
/// Cycles between two looks at the clock, and between two turns given to other tasks.
const BATCH: u32 = 128;

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()?)
}

/// A connection for each task: nobody ever waits, and all share the pool's memory.
///
/// # Errors
/// Where a pool could not be made.
pub fn plenty(rounds: usize) -> Result<Report> {
    let runtime = runtime()?;
    let figures = runtime.block_on(async {
        let ours = Ours::of(TASKS).await?;
        let deadpool = Deadpool::of(TASKS).await?;
        let bb8 = Bb8::of(TASKS).await?;
        let mut figures = Rounds::default();
        for _ in 0..rounds {
            spin(&ours, &mut figures).await?;
            spin(&deadpool, &mut figures).await?;
            spin(&bb8, &mut figures).await?;
        }
        anyhow::Ok(figures)
    })?;
    let mine = figures.median(Ours::NAME);
    let verdicts = vec![Verdict::new(
        "ours / deadpool",
        mine / figures.median(Deadpool::NAME),
        Target::AtLeast(12.0),
    )];
    Ok(Report {
        workload: "64 tasks, 2 threads, 64 connections",
        unit: "thousand cycles a second",
        medians: figures.medians(),
        verdicts,
    })
}

async fn spin<C: Contender>(pool: &C, figures: &mut Rounds) -> Result<()> {
    pool.warm(TASKS).await?;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let pool = pool.clone();
        tasks.spawn(async move {
            let mut done = 0_u64;
            while begun.elapsed() < ROUND {
                pool.cycles(BATCH).await?;
                done += u64::from(BATCH);
                yield_now().await;
            }
            anyhow::Ok(done)
        });
    }
    let done = total(tasks).await?;
    figures.note(C::NAME, thousands(done, begun));
    Ok(())
}

/// Four connections for 64 tasks, each held over one turn of the scheduler: almost everybody waits.
///
/// # Errors
/// Where a pool could not be made, or somebody waited for 30 seconds.
pub fn scarce(rounds: usize) -> Result<Report> {
    const CONNECTIONS: usize = 4;
    let runtime = runtime()?;
    let (figures, waits) = runtime.block_on(async {
        let ours = Ours::of(CONNECTIONS).await?;
        let deadpool = Deadpool::of(CONNECTIONS).await?;
        let bb8 = Bb8::of(CONNECTIONS).await?;
        let (mut figures, mut waits) = (Rounds::default(), Rounds::default());
        for _ in 0..rounds {
            queue(
                &ours,
                CONNECTIONS,
                &mut figures,
                ("ours, p99 wait in µs", &mut waits),
            )
            .await?;
            queue(
                &deadpool,
                CONNECTIONS,
                &mut figures,
                ("deadpool, p99 wait in µs", &mut waits),
            )
            .await?;
            queue(
                &bb8,
                CONNECTIONS,
                &mut figures,
                ("bb8, p99 wait in µs", &mut waits),
            )
            .await?;
        }
        anyhow::Ok((figures, waits))
    })?;
    let mine = figures.median(Ours::NAME);
    let wait = waits.median("ours, p99 wait in µs");
    let verdicts = vec![
        Verdict::new(
            "ours / deadpool",
            mine / figures.median(Deadpool::NAME),
            Target::AtLeast(1.3),
        ),
        Verdict::new(
            "p99 wait: ours / deadpool",
            wait / waits.median("deadpool, p99 wait in µs"),
            Target::AtMost(1.0),
        ),
    ];
    let mut medians = figures.medians();
    medians.extend(waits.medians());
    Ok(Report {
        workload: "64 tasks, 2 threads, 4 connections",
        unit: "thousand cycles a second",
        medians,
        verdicts,
    })
}

async fn queue<C: Contender>(
    pool: &C,
    connections: usize,
    figures: &mut Rounds,
    (wait, waits): (&'static str, &mut Rounds),
) -> Result<()> {
    pool.warm(connections).await?;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let pool = pool.clone();
        tasks.spawn(async move {
            let mut waited = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
            loop {
                let asked = Instant::now();
                if asked - begun > ROUND {
                    return anyhow::Ok(waited);
                }
                let connection = pool.get().await?;
                waited.record(u64::try_from(asked.elapsed().as_nanos())?.max(1))?;
                yield_now().await;
                black_box(*connection);
            }
        });
    }
    let mut all = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
    while let Some(task) = tasks.join_next().await {
        all.add(task??)?;
    }
    figures.note(C::NAME, thousands(all.len(), begun));
    // Exact far beyond what a wait can be.
    #[expect(clippy::cast_precision_loss)]
    let p99 = all.value_at_quantile(0.99) as f64;
    waits.note(wait, p99 / 1e3);
    Ok(())
}

/// What the tasks did, added up.
async fn total(mut tasks: JoinSet<Result<u64>>) -> Result<u64> {
    let mut done = 0;
    while let Some(task) = tasks.join_next().await {
        done += task??;
    }
    Ok(done)
}

/// Thousands a second.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn thousands(done: u64, begun: Instant) -> f64 {
    done as f64 / begun.elapsed().as_secs_f64() / 1e3
}
