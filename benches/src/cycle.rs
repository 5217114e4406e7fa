//! Get and return of an idle connection, by one task with nobody else there.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Result;

use crate::contender::{Bb8, Contender, Deadpool, Ours, OursOwned, R2d2};
use crate::report::{Report, Rounds, Target, Verdict};

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

/// Runs the comparison.
///
/// # Errors
/// Where a pool could not be made.
pub fn compare(rounds: usize) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let figures = runtime.block_on(async {
        let ours = Ours::of(CONNECTIONS).await?;
        let owned = OursOwned::of(CONNECTIONS).await?;
        let deadpool = Deadpool::of(CONNECTIONS).await?;
        let bb8 = Bb8::of(CONNECTIONS).await?;
        let r2d2 = R2d2::of(CONNECTIONS).await?;
        ours.warm(CONNECTIONS).await?;
        owned.warm(CONNECTIONS).await?;
        deadpool.warm(CONNECTIONS).await?;
        bb8.warm(CONNECTIONS).await?;
        r2d2.warm(CONNECTIONS).await?;
        let word = AtomicU64::new(0);
        let mut figures = Rounds::default();
        for _ in 0..rounds * FIGURES {
            let begun = Instant::now();
            exchanges(&word, CYCLES);
            figures.note(BARE, each(begun, CYCLES));
            measure(&ours, &mut figures).await?;
            measure(&owned, &mut figures).await?;
            measure(&deadpool, &mut figures).await?;
            measure(&bb8, &mut figures).await?;
            measure(&r2d2, &mut figures).await?;
        }
        anyhow::Ok(figures)
    })?;
    let mine = figures.median(Ours::NAME);
    let mut verdicts = vec![Verdict::new(
        "ours / two compare-exchanges",
        mine / figures.median(BARE),
        Target::AtMost(3.0),
    )];
    for peer in [Deadpool::NAME, Bb8::NAME, R2d2::NAME] {
        let ratio = figures.median(peer) / mine;
        verdicts.push(Verdict::new(
            format!("{peer} / ours"),
            ratio,
            Target::AtLeast(8.0),
        ));
    }
    Ok(Report {
        workload: "get + return, one task",
        unit: "ns",
        medians: figures.medians(),
        verdicts,
    })
}

async fn measure<C: Contender>(pool: &C, figures: &mut Rounds) -> Result<()> {
    let begun = Instant::now();
    pool.cycles(CYCLES).await?;
    figures.note(C::NAME, each(begun, CYCLES));
    Ok(())
}

/// Nanoseconds for one of so many.
fn each(begun: Instant, count: u32) -> f64 {
    begun.elapsed().as_secs_f64() * 1e9 / f64::from(count)
}
