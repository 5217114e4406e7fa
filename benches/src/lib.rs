//! Ours beside the peers, in one process and one run.
//!
//! Machines differ and so do minutes on one machine, so only ratios of figures from one run mean anything:
//! every workload runs all contenders in turn, round after round, and compares their medians. All contenders
//! wait at most 30 seconds for a connection, check nothing on checkout, and keep plain numbers for
//! connections where the pool itself is measured.
//!
//! `benches/compare.rs` runs everything and prints a table; `benches/cycle.rs` is criterion's view of get and
//! return.

pub mod contended;
pub mod contender;
pub mod cycle;
pub mod postgres;
pub mod report;
pub mod round_trips;
pub mod routing;
