//! Many tasks on two threads with a connection for each: nobody ever waits, and all share the pool's memory.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::{JoinSet, yield_now};

use crate::contender::{Contender, Ours};
use crate::field::{ALL_PEERS, Field, Workload};
use crate::peers::R2d2;
use crate::report::{Best, Report, Rounds, Target, Verdict};
use crate::two_threads;

const TASKS: usize = 64;
/// How long each contender works in a round.
const ROUND: Duration = Duration::from_millis(400);
/// Cycles between two looks at the clock, and between two turns given to other tasks.
const BATCH: u32 = 128;

/// Thousand cycles a second of each.
#[derive(Default)]
struct Spin(Rounds);

impl Workload for Spin {
    async fn run<C: Contender>(&mut self, pool: &C) -> Result<()> {
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            let pool = pool.clone();
            tasks.spawn(async move {
                let mut done = 0_u32;
                while begun.elapsed() < ROUND {
                    pool.cycles(BATCH).await?;
                    done += BATCH;
                    yield_now().await;
                }
                anyhow::Ok(done)
            });
        }
        let mut done = 0.0;
        while let Some(task) = tasks.join_next().await {
            done += f64::from(task??);
        }
        self.0
            .note(C::NAME, done / begun.elapsed().as_secs_f64() / 1e3);
        Ok(())
    }
}

/// Runs the comparison.
///
/// # Errors
/// Where a pool could not be made.
pub fn compare(rounds: usize) -> Result<Report> {
    let Spin(figures) = two_threads()?.block_on(async {
        let field = Field::of(TASKS).await?;
        let r2d2 = R2d2::of(TASKS).await?;
        r2d2.warm(TASKS).await?;
        let mut spin = Spin::default();
        for _ in 0..rounds {
            field.round(&mut spin).await?;
            spin.run(&r2d2).await?;
        }
        anyhow::Ok(spin)
    })?;
    let (peer, best) = figures.best(&ALL_PEERS, Best::Highest);
    Ok(Report {
        workload: "64 tasks, 2 threads, 64 connections",
        measures: vec![figures.measure("thousand cycles a second")],
        verdicts: vec![Verdict::new(
            format!("ours / best peer ({peer})"),
            figures.median(Ours::NAME) / best,
            Target::AtLeast(15.0),
        )],
    })
}
