//! What an idle connection and a prepared statement take of this process's memory. The server's own share is larger, and
//! its own.

use anyhow::Result;
use pool_postgres::Engine;

use crate::report::{Report, Rounds};

const CONNECTIONS: u32 = 50;
/// As many as a connection keeps by default.
const STATEMENTS: u32 = 256;

/// Weighs them. `allocated` tells how many bytes the heap holds at this moment.
///
/// # Errors
/// Where the server could not be started or a statement failed.
pub fn compare(allocated: impl Fn() -> usize) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut figures = Rounds::default();
    runtime.block_on(async {
        let cluster = testbed::cluster().start().await?;
        let engine = Engine::builder(cluster.primary().url())
            .pool_size(usize::try_from(CONNECTIONS)?)
            .max_overflow(0)
            .build()?;
        drop(engine.connect().await?);
        let before = allocated();
        engine.pool().warm_up(usize::try_from(CONNECTIONS)?).await?;
        let opened = allocated();
        let others = f64::from(CONNECTIONS - 1);
        figures.note("an idle connection", bytes(before, opened) / others);
        for number in 0..STATEMENTS {
            engine.query(&format!("SELECT id, name FROM (VALUES (1, 'one')) AS v (id, name) WHERE id = $1::int + {number}"), &[&1]).await?;
        }
        let prepared = allocated();
        let each = bytes(opened, prepared) / f64::from(STATEMENTS);
        figures.note("a prepared statement of two columns", each);
        engine.close().await;
        anyhow::Ok(())
    })?;
    Ok(Report {
        workload: "memory of connections",
        measures: vec![figures.measure("bytes on the heap")],
        verdicts: Vec::new(),
    })
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn bytes(from: usize, to: usize) -> f64 {
    to.saturating_sub(from) as f64
}
