//! A generic connection pool: lock-light, fair, cancel-safe and model-checked.
//!
//! A [`Pool`] keeps up to `pool_size` connections of any [`Backend`], opens up to `max_overflow` more under
//! load, and lets callers wait up to `pool_timeout` in a first-come-first-served queue. Checking out and
//! returning an idle connection costs two atomic instructions and no allocation.
//!
//! # Words
//! A *slot* can hold one connection: *vacant*, *opening*, *idle*, *in use*, *resetting* or *closing*. A caller
//! *checks out* a connection ([`Pool::get`]), and it is *returned* when the guard drops. A *waiter* stands in
//! the *wait queue*; a return *hands over* to the first.
//!
//! # What always holds
//! - Never more than `pool_size + max_overflow` connections exist, opening and closing ones counted.
//! - Nobody waits beside an idle connection or free room, and newcomers never overtake.
//! - Any future may be dropped at any await; what it held goes on.
//! - Returning never blocks, does no I/O, and works outside a runtime.
//! - The backend's code never runs while a lock is held.

// Under the model checker only the protocol and its models are built.
#[cfg(all(test, pool_loom))]
mod models;
#[cfg_attr(pool_loom, allow(dead_code, reason = "the models use what they model"))]
mod raw;
mod sync;

#[cfg(not(pool_loom))]
mod advice;
#[cfg(not(pool_loom))]
mod backend;
#[cfg(not(any(pool_loom, pool_shuttle)))]
mod blocking;
#[cfg(not(pool_loom))]
mod budget;
#[cfg(not(pool_loom))]
mod checkout;
#[cfg(not(pool_loom))]
mod clock;
#[cfg(all(not(pool_loom), any(feature = "bb8", feature = "r2d2")))]
pub mod compat;
#[cfg(not(pool_loom))]
mod config;
#[cfg(not(pool_loom))]
mod entry;
#[cfg(not(pool_loom))]
mod error;
#[cfg(not(pool_loom))]
mod events;
#[cfg(all(not(pool_loom), feature = "metrics"))]
mod export;
#[cfg(not(pool_loom))]
mod fn_backend;
#[cfg(not(pool_loom))]
mod guard;
#[cfg(not(pool_loom))]
pub mod hooks;
#[cfg(not(pool_loom))]
mod housekeeping;
#[cfg(feature = "lab")]
pub mod lab;
#[cfg(not(pool_loom))]
mod lazily;
#[cfg(not(pool_loom))]
mod lifecycle;
#[cfg(not(pool_loom))]
mod maintenance;
#[cfg(not(pool_loom))]
mod open;
#[cfg(not(pool_loom))]
mod options;
#[cfg(not(pool_loom))]
mod outage;
#[cfg(not(pool_loom))]
mod policy;
#[cfg(not(pool_loom))]
mod pool;
#[cfg(not(pool_loom))]
mod pool_map;
#[cfg(not(pool_loom))]
mod put_back;
#[cfg(not(pool_loom))]
mod rt;
#[cfg(not(pool_loom))]
mod rules;
#[cfg(all(test, pool_shuttle))]
mod schedules;
#[cfg(not(pool_loom))]
mod shared;
#[cfg(not(pool_loom))]
mod stats;
#[cfg(not(pool_loom))]
mod status;
#[cfg(not(pool_loom))]
mod tally;
#[cfg(not(pool_loom))]
mod timekeeper;
#[cfg(all(not(pool_loom), feature = "tracing"))]
mod trace;
#[cfg(pool_shuttle)]
#[cfg_attr(not(test), allow(dead_code, reason = "the schedules move it"))]
mod virtual_time;

#[cfg(not(pool_loom))]
pub use public::*;

/// What a fuzzer drives that nobody else sees.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod __fuzz {
    pub use crate::raw::driven::{Gave, IdleWords};
}

#[cfg(not(pool_loom))]
mod public {
    pub use crate::advice::{Advice, Bottleneck, Confidence, Demand};
    pub use crate::backend::{Backend, Failure, Health, When};
    #[cfg(not(pool_shuttle))]
    pub use crate::blocking::{BlockingPool, StartError};
    pub use crate::budget::{Budget, BudgetStatus};
    pub use crate::config::{Builder, MAX_CONNECTIONS};
    pub use crate::error::{BuildError, ConnectError, GetError, TimedOut};
    pub use crate::events::{Event, EventKind, Events};
    pub use crate::fn_backend::FnBackend;
    pub use crate::guard::{OwnedPooledConnection, PooledConnection};
    #[doc(no_inline)]
    pub use crate::hooks::{HookError, HookFuture, OnCheckout, OnReturn};
    pub use crate::lifecycle::IdleInfo;
    pub use crate::options::GetOptions;
    pub use crate::policy::{PrePing, QueueDiscipline, Reuse, Shed, ShedMode, TimeSource};
    pub use crate::pool::Pool;
    pub use crate::pool_map::PoolMap;
    pub use crate::stats::{CloseReason, Closed, Distribution, Held, Stats};
    pub use crate::status::{CloseReport, Holder, Status};
}

/// The program in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
