//! Get and return of an idle connection, by one task with nobody else there.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Result;

use crate::contender::{Contender, Ours, OursOwned};
use crate::field::{ALL_PEERS, Field, Workload};
use crate::peers::R2d2;
use crate::report::{Best, Report, Rounds, Target, Verdict};

/// Connections in each pool: SQLAlchemy's default size, which is ours too.
pub const CONNECTIONS: usize = 5;
/// What a cycle is compared with.
pub const BARE: &str = "two compare-exchanges";
/// Cycles in one figure. Few, so that most figures fit between two turns of the system's scheduler.
const CYCLES: u32 = 10_000;
/// Figures of each contender in a round.
const FIGURES: usize = 25;

/// The least that any lock-free cycle does: take a bit, give it back.
#[inline(never)]
pub fn exchanges(word: &AtomicU64, count: u32) {
    for _ in 0..count {
        for (from, to) in [(0, 1), (1, 0)] {
            // Ordering: as in the pool's own fast path.
            let _ = black_box(word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed));
        }
    }
}

/// Nanoseconds of one cycle of each.
#[derive(Default)]
struct Alone(Rounds);

impl Workload for Alone {
    async fn run<C: Contender>(&mut self, pool: &C) -> Result<()> {
        let cost = cost(pool, CYCLES).await?;
        self.0.note(C::NAME, cost);
        Ok(())
    }
}

/// What one of so many cycles takes, in nanoseconds.
///
/// # Errors
/// The pool's.
pub async fn cost<C: Contender>(pool: &C, cycles: u32) -> Result<f64> {
    let begun = Instant::now();
    pool.cycles(cycles).await?;
    Ok(each(begun, cycles))
}

/// Runs the comparison.
///
/// # Errors
/// Where a pool could not be made.
pub fn compare(rounds: usize) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let Alone(figures) = runtime.block_on(async {
        let field = Field::of(CONNECTIONS).await?;
        let owned = OursOwned::of(CONNECTIONS).await?;
        let r2d2 = R2d2::of(CONNECTIONS).await?;
        owned.warm(CONNECTIONS).await?;
        r2d2.warm(CONNECTIONS).await?;
        let word = AtomicU64::new(0);
        let mut alone = Alone::default();
        for _ in 0..rounds * FIGURES {
            let begun = Instant::now();
            exchanges(&word, CYCLES);
            alone.0.note(BARE, each(begun, CYCLES));
            field.round(&mut alone).await?;
            alone.run(&owned).await?;
            alone.run(&r2d2).await?;
        }
        anyhow::Ok(alone)
    })?;
    let mine = figures.median(Ours::NAME);
    let (peer, best) = figures.best(&ALL_PEERS, Best::Lowest);
    Ok(Report {
        workload: "get + return, one task",
        measures: vec![figures.measure("ns")],
        verdicts: vec![
            Verdict::new(
                "ours / two compare-exchanges",
                mine / figures.median(BARE),
                Target::AtMost(3.0),
            ),
            Verdict::new(
                format!("best peer ({peer}) / ours"),
                best / mine,
                Target::AtLeast(8.0),
            ),
            Verdict::new(
                "owned / borrowed",
                figures.median(OursOwned::NAME) / mine,
                Target::AtMost(2.0),
            ),
        ],
    })
}

/// Nanoseconds for one of so many.
#[must_use]
pub fn each(begun: Instant, count: u32) -> f64 {
    begun.elapsed().as_secs_f64() * 1e9 / f64::from(count)
}
