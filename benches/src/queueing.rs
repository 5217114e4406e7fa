//! Far more tasks than connections, each held over one turn of the scheduler: almost everybody waits.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use tokio::task::{JoinSet, yield_now};

use crate::contender::{Contender, Ours};
use crate::field::{Field, PEERS, Workload};
use crate::peers::Deadpool;
use crate::report::{Best, Report, Rounds, Target, Verdict};
use crate::two_threads;

/// How long each contender works in a round.
const ROUND: Duration = Duration::from_millis(400);

struct Queueing {
    tasks: usize,
    round: Duration,
    /// Thousand cycles a second.
    rates: Rounds,
    /// The wait in its 99th percentile, in microseconds.
    waits: Rounds,
    /// The longest wait, in microseconds.
    longest: Rounds,
    /// Jain's index over what each task got done: 1 if all got the same, 1/n if one got everything.
    fairness: Rounds,
}

impl Queueing {
    fn of(tasks: usize, round: Duration) -> Self {
        Self {
            tasks,
            round,
            rates: Rounds::default(),
            waits: Rounds::default(),
            longest: Rounds::default(),
            fairness: Rounds::default(),
        }
    }
}

fn waits() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

impl Workload for Queueing {
    async fn run<C: Contender>(&mut self, pool: &C) -> Result<()> {
        let (begun, round) = (Instant::now(), self.round);
        let mut tasks = JoinSet::new();
        for _ in 0..self.tasks {
            let pool = pool.clone();
            tasks.spawn(async move {
                let mut waited = waits()?;
                loop {
                    let asked = Instant::now();
                    if asked - begun > round {
                        return anyhow::Ok(waited);
                    }
                    let connection = pool.get().await?;
                    waited.record(u64::try_from(asked.elapsed().as_nanos())?.max(1))?;
                    yield_now().await;
                    black_box(*connection);
                }
            });
        }
        let (mut all, mut shares) = (waits()?, Vec::new());
        while let Some(task) = tasks.join_next().await {
            let waited = task??;
            shares.push(waited.len());
            all.add(waited)?;
        }
        let spent = begun.elapsed().as_secs_f64();
        self.rates.note(C::NAME, float(all.len()) / spent / 1e3);
        self.waits
            .note(C::NAME, float(all.value_at_quantile(0.99)) / 1e3);
        self.longest.note(C::NAME, float(all.max()) / 1e3);
        self.fairness.note(C::NAME, jain(&shares));
        Ok(())
    }
}

fn jain(shares: &[u64]) -> f64 {
    let sum: f64 = shares.iter().copied().map(float).sum();
    let squares: f64 = shares.iter().map(|share| float(*share).powi(2)).sum();
    sum.powi(2) / (float(shares.len() as u64) * squares)
}

/// Exact for what is counted here.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

fn run(mut queueing: Queueing, connections: usize, rounds: usize) -> Result<Queueing> {
    two_threads()?.block_on(async {
        let field = Field::of(connections).await?;
        for _ in 0..rounds {
            field.round(&mut queueing).await?;
        }
        Ok(queueing)
    })
}

/// Four connections for 64 tasks.
///
/// # Errors
/// Where a pool could not be made, or somebody waited for 30 seconds.
pub fn scarce(rounds: usize) -> Result<Report> {
    let found = run(Queueing::of(64, ROUND), 4, rounds)?;
    let (faster, rate) = found.rates.best(&PEERS, Best::Highest);
    let (shorter, wait) = found.waits.best(&PEERS, Best::Lowest);
    let mine = found.rates.median(Ours::NAME);
    let my_wait = found.waits.median(Ours::NAME);
    Ok(Report {
        workload: "64 tasks, 2 threads, 4 connections",
        verdicts: vec![
            Verdict::new(
                format!("ours / best peer ({faster})"),
                mine / rate,
                Target::AtLeast(1.4),
            ),
            Verdict::new(
                format!("p99 wait: ours / best peer ({shorter})"),
                my_wait / wait,
                Target::AtMost(1.0),
            ),
        ],
        measures: found.measures(),
    })
}

/// Fifty connections for 1,000 tasks.
///
/// # Errors
/// Where a pool could not be made, or somebody waited for 30 seconds.
pub fn crowd(rounds: usize) -> Result<Report> {
    let found = run(Queueing::of(1_000, 2 * ROUND), 50, rounds)?;
    Ok(Report {
        workload: "1,000 tasks, 2 threads, 50 connections",
        verdicts: vec![
            Verdict::new(
                "p99 wait: ours / deadpool",
                found.waits.median(Ours::NAME) / found.waits.median(Deadpool::NAME),
                Target::AtMost(1.0),
            ),
            Verdict::new(
                "Jain's index over cycles per task",
                found.fairness.median(Ours::NAME),
                Target::AtLeast(0.99),
            ),
        ],
        measures: found.measures(),
    })
}

impl Queueing {
    fn measures(&self) -> Vec<crate::report::Measure> {
        vec![
            self.rates.measure("thousand cycles a second"),
            self.waits.measure("wait, 99th percentile, µs"),
            self.longest.measure("longest wait, µs"),
            self.fairness.measure("Jain's index over cycles per task"),
        ]
    }
}
