//! The laboratory: the pool that ships, in a world whose time is a number.
//!
//! Behind the feature `lab`, for those who study pools; a build without it has none of this. [`World`] runs futures
//! on one thread in an order that depends on nothing but the program, and moves time on when nobody can run: a
//! pool built in it opens, waits, lingers and times out as it does outside, to the nanosecond, and the same program
//! comes to the same result bit for bit. Simulated days pass in seconds.
//!
//! [`IdleSet`] and [`WaitQueue`] put another structure, or another order, in the place of the pool's own
//! ([`Builder::swap_idle_set`](crate::Builder::swap_idle_set)).
//!
//! ```
//! use std::convert::Infallible;
//! use std::time::Duration;
//! use pool_core::lab::{self, World};
//! use pool_core::{Backend, Pool};
//!
//! struct Numbers;
//! impl Backend for Numbers {
//!     type Connection = u64;
//!     type Error = Infallible;
//!     async fn connect(&self) -> Result<u64, Infallible> {
//!         lab::sleep(Duration::from_millis(20)).await;
//!         Ok(7)
//!     }
//! }
//!
//! let waited = World::new(1).run(async {
//!     let pool = Pool::builder(Numbers).build().unwrap();
//!     drop(pool.get().await.unwrap());
//!     lab::now()
//! });
//! assert_eq!(waited, Duration::from_millis(20));
//! ```

#[cfg(not(any(pool_loom, pool_shuttle)))]
pub(crate) mod runtime;
#[cfg(not(any(pool_loom, pool_shuttle)))]
mod world;

mod swap;

pub(crate) use swap::Swap;
pub use swap::{IdleSet, WaitQueue, Waiter};
#[cfg(not(any(pool_loom, pool_shuttle)))]
pub use world::{Sleep, World, now, sleep, spawn};
