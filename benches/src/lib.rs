//! Ours beside the peers, in one process and one run.
//!
//! Machines differ and so do minutes on one machine, so only ratios of figures from one run mean anything:
//! every workload runs all contenders in turn, round after round, and compares their medians. All contenders
//! wait at most 30 seconds for a connection, check nothing on checkout, and keep plain numbers for
//! connections where the pool itself is measured.
//!
//! `benches/compare.rs` runs everything and prints a table for each part, `benches/memory.rs` weighs waiters, and
//! `benches/cycle.rs` is criterion's view of get and return.

pub mod contender;
pub mod cycle;
pub mod field;
pub mod opening;
pub mod overhead;
pub mod overload;
pub mod peers;
pub mod plenty;
pub mod postgres;
pub mod queueing;
pub mod report;
pub mod resting;
pub mod reuse;
pub mod round_trips;
pub mod routing;
pub mod runner;
pub mod shared;
pub mod slots;
pub mod waiters;
pub mod weight;

/// A runtime of two threads, as many as the machine has cores where these figures are made.
fn two_threads() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}
