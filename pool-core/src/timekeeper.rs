//! Whose time is over: one timer for the whole queue.
//!
//! Deadlines stand in the waiters' nodes. For each runtime from which callers wait there is one task that
//! sleeps until the earliest deadline, ends the waits that are over (whichever runtime they are on), and ends
//! itself when nobody waits. A timer for each waiter would cost several times what joining the queue does.
//! A timer owned by one of the waiters would stop when that waiter is not polled (its task is busy
//! elsewhere, its single-threaded runtime is not driven); a task per runtime lives exactly as long as waiters
//! of that runtime can be polled at all.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};

use crate::backend::Backend;
use crate::clock;
use crate::rt::{Handle, Id, sleep_until};
use crate::shared::Core;

/// How often to look at waiters whose time is over while a connection is being opened for them.
const GRACE: Duration = Duration::from_millis(10);

/// The runtimes that have a timekeeper, and when each looks again. Under the core's mutex.
#[derive(Default)]
pub(crate) struct Keepers(Vec<(Id, u64)>);

/// What a newly joined waiter has to do about its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    Nothing,
    /// Start this runtime's timekeeper.
    Start,
    /// Tell the timekeeper that it sleeps too long.
    Hurry,
}

impl Keepers {
    /// Called under the mutex by a waiter that has just joined.
    pub(crate) fn joined(&mut self, runtime: Id, deadline: u64) -> Duty {
        match self.0.iter_mut().find(|(id, _)| *id == runtime) {
            None => {
                self.0.push((runtime, deadline));
                Duty::Start
            }
            Some((_, at)) if deadline < *at => {
                *at = deadline;
                Duty::Hurry
            }
            Some(_) => Duty::Nothing,
        }
    }

    fn set(&mut self, runtime: Id, next: Option<u64>) {
        match next {
            None => self.0.retain(|(id, _)| *id != runtime),
            Some(next) => {
                if let Some((_, at)) = self.0.iter_mut().find(|(id, _)| *id == runtime) {
                    *at = next;
                }
            }
        }
    }
}

/// Starts a timekeeper, which the caller has entered among the [`Keepers`].
pub(crate) fn start<B: Backend>(handle: &Handle, core: Arc<Core<B>>) {
    let keeper = Keeper {
        core,
        runtime: handle.id(),
        listed: true,
    };
    handle.spawn(keeper.run());
}

struct Keeper<B: Backend> {
    core: Arc<Core<B>>,
    runtime: Id,
    /// Whether it still stands among the [`Keepers`].
    listed: bool,
}

impl<B: Backend> Keeper<B> {
    async fn run(mut self) {
        let core = Arc::clone(&self.core);
        let shared = &self.core.outside;
        let mut shutdown = pin!(shared.shutdown.wait());
        loop {
            let mut sooner = pin!(shared.sooner.notified());
            sooner.as_mut().enable();
            let now = clock::exact();
            let patience = clock::micros(shared.config.connect_timeout.get());
            let next = core.expire(now, patience, |keepers, next| {
                keepers.set(self.runtime, next);
            });
            let Some(next) = next else {
                self.listed = false;
                return;
            };
            // A time already past belongs to one whose connection is being opened.
            let wake_at = if next <= now {
                now + clock::micros(GRACE)
            } else {
                next
            };
            let time = pin!(sleep_until(clock::to_instant(wake_at)));
            let asleep = select(time, sooner);
            if let Either::Right(_) = select(asleep, shutdown.as_mut()).await {
                return;
            }
        }
    }
}

impl<B: Backend> Drop for Keeper<B> {
    /// Also where the runtime ends before its timekeeper: the runtime's waiters end with it.
    fn drop(&mut self) {
        if self.listed {
            if !self.core.outside.shutdown.has_begun() {
                self.core.outside.forget(self.runtime);
            }
            self.core.guarded(|keepers| keepers.set(self.runtime, None));
        }
    }
}
