//! Far more tasks than connections, each held over one turn of the scheduler: almost everybody waits.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use tokio::task::{JoinSet, yield_now};

use crate::contender::{Contender, Ours};
use crate::field::{Field, PEERS, Workload};
use crate::peers::Deadpool;
use crate::report::{Best, Measure, Report, Rounds, Target, Verdict};
use crate::two_threads;

/// How long each contender works in a round.
const ROUND: Duration = Duration::from_millis(400);
/// The same for the crowd: long enough that a worker thread which the system stops for a while does not decide what its
/// tasks get done.
const CROWDED_ROUND: Duration = Duration::from_secs(3);
/// A round of the crowd takes all contenders a quarter of a minute.
const CROWDED_ROUNDS: usize = 5;

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

    /// The peers whose tasks got about the same done. The others let whoever returns take again at once: little waiting
    /// for those, none of the others ever served.
    fn even(&self) -> Vec<&'static str> {
        let even = |peer: &&str| self.fairness.median(peer) >= 0.9;
        PEERS.into_iter().filter(even).collect()
    }

    fn against(&self, who: &str, peers: &[&'static str]) -> Vec<Verdict> {
        let (faster, rate) = self.rates.best(peers, Best::Highest);
        let (shorter, wait) = self.waits.best(peers, Best::Lowest);
        vec![
            Verdict::new(
                format!("ours / {who} ({faster})"),
                self.rates.median(Ours::NAME) / rate,
                Target::AtLeast(1.4),
            ),
            Verdict::new(
                format!("p99 wait: ours / {who} ({shorter})"),
                self.waits.median(Ours::NAME) / wait,
                Target::AtMost(1.0),
            ),
        ]
    }

    fn measures(&self) -> Vec<Measure> {
        vec![
            self.rates.measure("thousand cycles a second"),
            self.waits.measure("wait, 99th percentile, µs"),
            self.longest.measure("longest wait, µs"),
            self.fairness.measure("Jain's index over cycles per task"),
        ]
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
    let mut verdicts = found.against("best peer", &PEERS);
    let even = found.even();
    if !even.is_empty() {
        verdicts.extend(found.against("best peer that gives all a turn", &even));
    }
    Ok(Report {
        workload: "64 tasks, 2 threads, 4 connections",
        verdicts,
        measures: found.measures(),
    })
}

/// Fifty connections for 1,000 tasks.
///
/// # Errors
/// Where a pool could not be made, or somebody waited for 30 seconds.
pub fn crowd(rounds: usize) -> Result<Report> {
    let found = run(
        Queueing::of(1_000, CROWDED_ROUND),
        50,
        rounds.min(CROWDED_ROUNDS),
    )?;
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
