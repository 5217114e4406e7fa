//! What the exact orders of reuse cost: get and return by one task, by `Reuse`.

use anyhow::Result;
use pool_core::Reuse;

use crate::contender::{Contender, Ours, settings};
use crate::cycle::{CONNECTIONS, cost};
use crate::report::{Report, Rounds};

/// Cycles in one figure.
const CYCLES: u32 = 10_000;
/// Figures of each order in a round.
const FIGURES: usize = 25;

/// Runs the comparison.
///
/// # Errors
/// Where a pool could not be made.
pub fn compare(rounds: usize) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let figures = runtime.block_on(async {
        let mut pools = Vec::new();
        for (name, order) in [
            ("Packed", Reuse::Packed),
            ("Lifo", Reuse::Lifo),
            ("Fifo", Reuse::Fifo),
        ] {
            let pool = Ours(settings(CONNECTIONS).reuse(order).build()?);
            pool.warm(CONNECTIONS).await?;
            pools.push((name, pool));
        }
        let mut figures = Rounds::default();
        for _ in 0..rounds * FIGURES {
            for (name, pool) in &pools {
                figures.note(name, cost(pool, CYCLES).await?);
            }
        }
        anyhow::Ok(figures)
    })?;
    Ok(Report {
        workload: "get + return, one task, by order of reuse",
        measures: vec![figures.measure("ns")],
        verdicts: vec![],
    })
}
