//! The laboratory: the pool that ships, studied in virtual time, and taken apart.
//!
//! - [`draw`]: how requests arrive and how long they hold a connection, from a seed.
//! - [`sim`]: the pool under such a load, in a [`World`](pool_core::lab::World).
//! - [`theory`]: what Erlang says about it; [`curves`]: both beside each other.
//! - [`idle`]: other idle structures in the pool's place; [`order`]: other orders of waiting.
//! - [`policies`]: policies beside each other; [`sizing`]: the adviser, put to the test.
//! - [`page`]: the page with everything, and [`chart`] its charts.
//!
//! What a run in virtual time says depends on its seed alone, not on the machine.

#[cfg(not(pool_loom))]
pub mod chart;
#[cfg(not(pool_loom))]
pub mod curves;
#[cfg(not(pool_loom))]
pub mod draw;
pub mod idle;
#[cfg(not(pool_loom))]
pub mod order;
#[cfg(not(pool_loom))]
pub mod page;
#[cfg(not(pool_loom))]
pub mod policies;
#[cfg(not(pool_loom))]
pub mod sim;
#[cfg(not(pool_loom))]
pub mod sizing;
mod sync;
#[cfg(not(pool_loom))]
pub mod theory;

/// The program in the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
