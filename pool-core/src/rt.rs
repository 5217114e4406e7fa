//! The one door to the runtime: its tasks, its notifications and its timers.
//!
//! They are tokio's. Under `--cfg pool_shuttle` they are shuttle's, whose scheduler picks at random who runs
//! next at every step, and time is a number that moves when [`virtual_time`](crate::virtual_time) moves it.

#[cfg(not(pool_shuttle))]
pub(crate) use plain::*;
#[cfg(pool_shuttle)]
pub(crate) use random::*;

#[cfg(not(pool_shuttle))]
mod plain {
    pub(crate) use tokio::runtime::{Handle, Id};
    pub(crate) use tokio::sync::Notify;
    pub(crate) use tokio::time::{Instant, sleep, sleep_until, timeout};
}

#[cfg(pool_shuttle)]
mod random {
    pub(crate) use shuttle_tokio::runtime::{Handle, Id};
    pub(crate) use shuttle_tokio::sync::Notify;

    pub(crate) use crate::virtual_time::{Instant, sleep, sleep_until, timeout};
}
