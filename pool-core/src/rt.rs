//! The one door to the runtime: its tasks, its notifications and its timers.
//!
//! They are tokio's. Under `--cfg pool_shuttle` they are shuttle's, whose scheduler picks at random who runs
//! next at every step, and time is a number that moves when [`virtual_time`](crate::virtual_time) moves it. With the
//! feature `lab` they are those of the laboratory's world in a thread that is in one.

#[cfg(any(feature = "lab", pool_shuttle))]
use std::pin::pin;
use std::time::Duration;

#[cfg(any(feature = "lab", pool_shuttle))]
use futures::future::{Either, select};

#[cfg(all(feature = "lab", not(pool_shuttle)))]
pub(crate) use crate::lab::runtime::*;
#[cfg(not(any(feature = "lab", pool_shuttle)))]
pub(crate) use plain::*;
#[cfg(pool_shuttle)]
pub(crate) use random::*;

use crate::policy::TimeSource;

/// Nobody is in a world where there are none.
#[cfg(any(not(feature = "lab"), pool_shuttle))]
fn is_inside() -> bool {
    false
}

/// Whether the current runtime, if there is one, has timers. Tokio tells by a panic only.
#[cfg(not(pool_shuttle))]
pub(crate) fn has_timers() -> bool {
    let timer = || drop(tokio::time::sleep(Duration::ZERO));
    is_inside()
        || tokio::runtime::Handle::try_current().is_err()
        || std::panic::catch_unwind(timer).is_ok()
}

/// Which task runs, where one does: what the runtime drives by `block_on` has no number, nor has a world's.
#[cfg(all(debug_assertions, not(pool_shuttle)))]
pub(crate) fn task() -> Option<TaskId> {
    if is_inside() {
        None
    } else {
        tokio::task::try_id()
    }
}

/// How many processors there are to spread slots over; a world has one.
pub(crate) fn processors() -> usize {
    if is_inside() {
        return 1;
    }
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Where a pool that is built here reads the time: the coarse clock knows nothing of worlds.
pub(crate) fn time_source(wanted: TimeSource) -> TimeSource {
    if is_inside() {
        TimeSource::Exact
    } else {
        wanted
    }
}

/// Time ran out.
#[cfg(any(feature = "lab", pool_shuttle))]
#[derive(Debug)]
pub(crate) struct Elapsed;

/// As `tokio::time::timeout`, by the timers that are here.
#[cfg(any(feature = "lab", pool_shuttle))]
pub(crate) async fn timeout<F: Future>(span: Duration, future: F) -> Result<F::Output, Elapsed> {
    match select(pin!(future), pin!(sleep(span))).await {
        Either::Left((output, _)) => Ok(output),
        Either::Right(((), _)) => Err(Elapsed),
    }
}

#[cfg(not(any(feature = "lab", pool_shuttle)))]
mod plain {
    pub(crate) use tokio::runtime::{Handle, Id};
    pub(crate) use tokio::sync::Notify;
    #[cfg(debug_assertions)]
    pub(crate) use tokio::task::Id as TaskId;
    pub(crate) use tokio::time::{Instant, sleep, sleep_until, timeout};
}

#[cfg(pool_shuttle)]
mod random {
    use std::cell::Cell;

    use shuttle_tokio::runtime;
    pub(crate) use shuttle_tokio::runtime::Id;
    pub(crate) use shuttle_tokio::sync::Notify;

    pub(crate) use crate::virtual_time::{Instant, sleep, sleep_until};

    #[cfg(debug_assertions)]
    pub(crate) type TaskId = usize;

    /// Tasks have no numbers here.
    #[cfg(debug_assertions)]
    pub(crate) fn task() -> Option<TaskId> {
        None
    }

    /// Time is a number here.
    pub(crate) fn has_timers() -> bool {
        true
    }

    thread_local! {
        static TASKS: Cell<usize> = const { Cell::new(0) };
    }

    /// The runtime, which counts the tasks that run on it.
    #[derive(Clone)]
    pub(crate) struct Handle(runtime::Handle);

    impl Handle {
        pub(crate) fn try_current() -> Result<Self, runtime::TryCurrentError> {
            runtime::Handle::try_current().map(Self)
        }

        pub(crate) fn current() -> Self {
            Self(runtime::Handle::current())
        }

        pub(crate) fn id(&self) -> Id {
            self.0.id()
        }

        /// Starts a task that nobody joins.
        pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
            let counted = Counted::new();
            drop(self.0.spawn(async move {
                task.await;
                drop(counted);
            }));
        }
    }

    struct Counted;

    impl Counted {
        fn new() -> Self {
            TASKS.set(TASKS.get() + 1);
            Self
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            TASKS.set(TASKS.get() - 1);
        }
    }

    /// How many tasks run that the pools of this schedule have started.
    #[cfg(test)]
    pub(crate) fn tasks() -> usize {
        TASKS.get()
    }
}
