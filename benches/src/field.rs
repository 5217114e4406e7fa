//! All contenders of a workload, each with the same number of connections, run in turn.

use anyhow::Result;

use crate::contender::{Contender, Ours};
use crate::peers::{Bb8, Deadpool, FastPool, Mobc, R2d2};

/// The peers that tasks can wait for.
pub const PEERS: [&str; 4] = [Deadpool::NAME, Bb8::NAME, FastPool::NAME, Mobc::NAME];
/// The peers where nobody waits: r2d2 too, which blocks the thread of whoever does.
pub const ALL_PEERS: [&str; 5] = [
    Deadpool::NAME,
    Bb8::NAME,
    FastPool::NAME,
    Mobc::NAME,
    R2d2::NAME,
];

/// What is done to every contender.
pub trait Workload {
    /// Does it once, and notes what came out.
    fn run<C: Contender>(&mut self, pool: &C) -> impl Future<Output = Result<()>>;
}

/// Ours and the peers that tasks can wait for, warm.
pub struct Field {
    ours: Ours,
    deadpool: Deadpool,
    bb8: Bb8,
    fast_pool: FastPool,
    mobc: Mobc,
}

async fn warm<C: Contender>(connections: usize) -> Result<C> {
    let pool = C::of(connections).await?;
    pool.warm(connections).await?;
    Ok(pool)
}

impl Field {
    /// Makes all pools and opens their connections.
    ///
    /// # Errors
    /// Where a pool could not be made.
    pub async fn of(connections: usize) -> Result<Self> {
        Ok(Self {
            ours: warm(connections).await?,
            deadpool: warm(connections).await?,
            bb8: warm(connections).await?,
            fast_pool: warm(connections).await?,
            mobc: warm(connections).await?,
        })
    }

    /// Runs a workload on each.
    ///
    /// # Errors
    /// The workload's.
    pub async fn round(&self, workload: &mut impl Workload) -> Result<()> {
        workload.run(&self.ours).await?;
        workload.run(&self.deadpool).await?;
        workload.run(&self.bb8).await?;
        workload.run(&self.fast_pool).await?;
        workload.run(&self.mobc).await
    }
}
