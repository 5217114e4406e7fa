//! What the number of slots costs: get and return by one task, in pools from 1 to 10,000 slots.

use anyhow::Result;
use pool_core::Pool;

use crate::contender::{Contender, Numbers, Ours, WAIT, settings};
use crate::cycle::cost;
use crate::report::{Report, Rounds, Target, Verdict};

/// Cycles in one figure.
const CYCLES: u32 = 5_000;
/// Figures of each pool in a round.
const FIGURES: usize = 15;

const IDLE: [(usize, &str); 5] = [
    (1, "1 slot"),
    (62, "62 slots"),
    (63, "63 slots"),
    (1_000, "1,000 slots"),
    (10_000, "10,000 slots"),
];
const USED: [(usize, &str); 2] = [
    (1_000, "1,000 slots, 999 others in use"),
    (10_000, "10,000 slots, 9,999 others in use"),
];
const OVERFLOWING: [(usize, &str); 3] = [
    (0, "5 + 10 slots, this one in use"),
    (7, "5 + 10 slots, 8 in use"),
    (14, "5 + 10 slots, 15 in use"),
];

/// A pool, and how many of its connections others hold meanwhile.
struct Case {
    name: &'static str,
    pool: Ours,
    held: usize,
}

async fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (slots, name) in IDLE {
        let pool = Ours(settings(slots).build()?);
        pool.warm(slots).await?;
        let held = 0;
        cases.push(Case { name, pool, held });
    }
    for (slots, name) in USED {
        let pool = Ours(settings(slots).build()?);
        pool.warm(slots).await?;
        let held = slots - 1;
        cases.push(Case { name, pool, held });
    }
    for (held, name) in OVERFLOWING {
        let defaults = Pool::builder(Numbers).pool_timeout(WAIT).build()?;
        let pool = Ours(defaults);
        cases.push(Case { name, pool, held });
    }
    Ok(cases)
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
        let cases = cases().await?;
        let mut held = Vec::new();
        for case in &cases {
            for _ in 0..case.held {
                held.push(case.pool.0.get().await?);
            }
            case.pool.cycles(1).await?; // Opens the connection, where none is idle yet.
        }
        let mut figures = Rounds::default();
        for _ in 0..rounds * FIGURES {
            for Case { name, pool, .. } in &cases {
                figures.note(name, cost(pool, CYCLES).await?);
            }
        }
        anyhow::Ok(figures)
    })?;
    let (first, last) = (IDLE[0].1, IDLE[IDLE.len() - 1].1);
    Ok(Report {
        workload: "get + return, one task, by number of slots",
        verdicts: vec![Verdict::new(
            format!("{last} / {first}"),
            figures.median(last) / figures.median(first),
            Target::AtMost(3.0),
        )],
        measures: vec![figures.measure("ns")],
    })
}
