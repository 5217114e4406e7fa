//! Sixteen callers at an empty pool whose connections take 100 ms to open.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use anyhow::Result;
use pool_core::{Backend, Pool};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::contender::WAIT;
use crate::report::{Report, Rounds, Target, Verdict};

const CALLERS: usize = 16;
/// One round takes a second.
const ROUNDS: usize = 5;

const ONE: &str = "1 caller";
const FOUR_AT_ONCE: &str = "16 callers, max_connecting 4";
const ALL_AT_ONCE: &str = "16 callers, max_connecting 16";

struct Slow;

impl Backend for Slow {
    type Connection = ();
    type Error = Infallible;

    async fn connect(&self) -> Result<(), Infallible> {
        sleep(Duration::from_millis(100)).await;
        Ok(())
    }
}

/// Milliseconds until each of so many callers has a connection of its own.
async fn all_served(callers: usize, max_connecting: usize) -> Result<f64> {
    let pool = Pool::builder(Slow)
        .pool_size(CALLERS)
        .max_connecting(max_connecting)
        .pool_timeout(WAIT)
        .build()?;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        tasks.spawn(pool.get_owned());
    }
    let mut held = Vec::new();
    while let Some(task) = tasks.join_next().await {
        held.push(task??);
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// Runs the comparison.
///
/// # Errors
/// Where a pool could not be made.
pub fn compare(rounds: usize) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut figures = Rounds::default();
    for _ in 0..rounds.min(ROUNDS) {
        for (name, callers, max_connecting) in [
            (ONE, 1, 4),
            (FOUR_AT_ONCE, CALLERS, 4),
            (ALL_AT_ONCE, CALLERS, 16),
        ] {
            figures.note(name, runtime.block_on(all_served(callers, max_connecting))?);
        }
    }
    let one = figures.median(ONE);
    Ok(Report {
        workload: "opening connections of 100 ms each",
        verdicts: vec![
            Verdict::new(
                format!("{FOUR_AT_ONCE} / {ONE}"),
                figures.median(FOUR_AT_ONCE) / one,
                Target::AtMost(5.0),
            ),
            Verdict::new(
                format!("{ALL_AT_ONCE} / {ONE}"),
                figures.median(ALL_AT_ONCE) / one,
                Target::AtMost(1.3),
            ),
        ],
        measures: vec![figures.measure("ms until all are served")],
    })
}
