//! What a pool burns while nobody uses it: 1,000 idle connections, every setting by default.
//!
//! The process's own time on the processor (`getrusage`), over some seconds. It runs first: an idle process is only that
//! before the first pool in it, whose clock goes on ticking for a while.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::contender::{Contender, Ours, settings};
use crate::report::{Report, Rounds, Target, Verdict};

const CONNECTIONS: usize = 1_000;
const WINDOW: Duration = Duration::from_secs(5);
/// One round takes two windows' time.
const ROUNDS: usize = 3;

const PROCESS: &str = "a process with a runtime";
const POOL: &str = "and a pool of 1,000 idle connections";

/// Runs the comparison.
///
/// # Errors
/// Where a pool could not be made or the system does not tell the time used.
pub fn compare(rounds: usize) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let rounds = rounds.min(ROUNDS);
    let mut figures = Rounds::default();
    for _ in 0..rounds {
        figures.note(PROCESS, burnt()?);
    }
    let pool = Ours(settings(CONNECTIONS).build()?);
    runtime.block_on(pool.warm(CONNECTIONS))?;
    for _ in 0..rounds {
        figures.note(POOL, burnt()?);
    }
    Ok(Report {
        workload: "1,000 idle connections",
        verdicts: vec![Verdict::new(
            "beyond the bare process, % of a core",
            figures.median(POOL) - figures.median(PROCESS),
            Target::AtMost(0.1),
        )],
        measures: vec![figures.measure("% of a core")],
    })
}

/// The part of a core that the process uses during a window in which this thread sleeps.
fn burnt() -> Result<f64> {
    let used = || {
        getrusage(UsageWho::RUSAGE_SELF)
            .map(|usage| usage.user_time() + usage.system_time())
            .map(|time| time.num_microseconds())
    };
    let (before, begun) = (used()?, Instant::now());
    thread::sleep(WINDOW);
    let micros = u32::try_from(used()? - before)?;
    Ok(f64::from(micros) / 1e4 / begun.elapsed().as_secs_f64())
}
