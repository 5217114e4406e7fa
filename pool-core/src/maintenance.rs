//! What connections need after their return, done by a task: reset, check, close.
//!
//! Jobs are put into a queue by whoever returns a connection, and done side by side by one worker, which
//! starts with the first job and ends with the last. A job that comes from another runtime than the worker's
//! brings a worker of its own: that other runtime may be the only one that is still driven. Each job is
//! bounded in time. Where no runtime is at hand, and where the worker's runtime ends under it, the connections
//! are terminated on the spot: no slot depends on a task that may never run.

use crate::rt::{Handle, Id, Notify, timeout};
use crate::sync::{AtomicBool, Ordering};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_queue::SegQueue;
use crossbeam_utils::atomic::AtomicCell;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use crate::backend::Backend;
use crate::entry::Entry;
use crate::housekeeping;
use crate::open;
use crate::put_back::{finish, note_vacated};
use crate::raw::claim;
use crate::shared::{Core, Parts, Shared};
use crate::stats::CloseReason;

type Closing<B> = claim::Closing<Parts<B>, Arc<Core<B>>>;
type Resetting<B> = claim::Resetting<Parts<B>, Arc<Core<B>>>;

/// A connection that needs I/O before its slot can be used again.
pub(crate) enum Job<B: Backend> {
    Close(Closing<B>, CloseReason),
    Reset(Resetting<B>),
    /// Ping it: another of its age was found dead, or it has been silent for long. Good for this generation
    /// afterwards.
    Check(Resetting<B>, u64),
}

/// The jobs of one pool, and whether somebody is at them.
pub(crate) struct Work<B: Backend> {
    jobs: SegQueue<Job<B>>,
    running: AtomicBool,
    /// The runtime of the worker that was started last, or went on last when others had stopped.
    place: AtomicCell<Option<Id>>,
    /// Tells all workers of a new job; one of them alone may be the one that stands still.
    ready: Notify,
}

impl<B: Backend> Default for Work<B> {
    fn default() -> Self {
        Self {
            jobs: SegQueue::new(),
            running: AtomicBool::new(false),
            place: AtomicCell::new(None),
            ready: Notify::new(),
        }
    }
}

/// Puts a job into the queue and sees to it that somebody does it.
pub(crate) fn push<B: Backend>(core: &Arc<Core<B>>, job: Job<B>) {
    let shared = &core.outside;
    let work = &shared.work;
    work.jobs.push(job);
    // Ordering: AcqRel with the swap in `Worker::done`, on the same place: either the worker's swap comes
    // later and it sees our job, or ours does and we start another worker.
    let busy = work.running.swap(true, Ordering::AcqRel);
    let elsewhere = |here: Handle| work.place.load() != Some(here.id());
    if busy && !Handle::try_current().is_ok_and(elsewhere) {
        work.ready.notify_waiters();
        return;
    }
    let worker = Worker {
        core: Arc::clone(core),
        stopped: false,
    };
    match shared.runtime() {
        Some(handle) => {
            work.place.store(Some(handle.id()));
            handle.spawn(worker.run());
        }
        None => drop(worker), // Its destructor does without I/O what there is to do.
    }
}

/// Closes a connection politely, within `close_timeout`. Counts it as abandoned beyond.
pub(crate) async fn close_politely<B: Backend>(
    shared: &Shared<B>,
    mut entry: Entry<B::Connection>,
    reason: CloseReason,
) {
    shared.closing(&mut entry, reason);
    let close = AssertUnwindSafe(async { shared.backend.close(entry.conn).await }).catch_unwind();
    if timeout(shared.config.close_timeout.get(), close)
        .await
        .is_err()
    {
        // Ordering: Relaxed; a number for the eye.
        shared.abandoned.fetch_add(1, Ordering::Relaxed);
    }
}

struct Worker<B: Backend> {
    core: Arc<Core<B>>,
    stopped: bool,
}

impl<B: Backend> Worker<B> {
    async fn run(mut self) {
        let core = Arc::clone(&self.core);
        let work = &core.outside.work;
        let mut at_work = FuturesUnordered::new();
        loop {
            // Made before the look into the queue, so that a job put there in between is not missed.
            let ready = pin!(work.ready.notified());
            while let Some(job) = work.jobs.pop() {
                at_work.push(run(Arc::clone(&core), job));
            }
            if at_work.is_empty() {
                if self.done() {
                    return;
                }
                continue;
            }
            if let Either::Left((Some(()), _)) = select(at_work.next(), ready).await {
                open::start_wanted(&Handle::current(), &core);
                housekeeping::refill(&core);
            }
        }
    }

    /// Stops, unless a job came in meanwhile.
    fn done(&mut self) -> bool {
        let work = &self.core.outside.work;
        // Ordering: AcqRel, as in `push`.
        work.running.swap(false, Ordering::AcqRel);
        self.stopped = work.jobs.is_empty() || work.running.swap(true, Ordering::AcqRel);
        if !self.stopped {
            work.place.store(Some(Handle::current().id()));
        }
        self.stopped
    }
}

impl<B: Backend> Drop for Worker<B> {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        let work = &self.core.outside.work;
        // Ordering: AcqRel, as in `push`. Jobs that come in from here on find nobody at work.
        work.running.swap(false, Ordering::AcqRel);
        while let Some(job) = work.jobs.pop() {
            match job {
                Job::Close(closing, reason) => drop(Unfinished::closing(closing, reason)),
                Job::Reset(aside) => drop(Unfinished::aside(aside, CloseReason::ResetFailed)),
                Job::Check(aside, _) => drop(Unfinished::aside(aside, CloseReason::Broken)),
            }
        }
    }
}

/// A job's connection: terminated, and its slot vacated, if this is dropped with it.
struct Unfinished<B: Backend> {
    core: Arc<Core<B>>,
    entry: Option<Entry<B::Connection>>,
    slot: Option<Slot<B>>,
    reason: CloseReason,
}

enum Slot<B: Backend> {
    Closing(Closing<B>),
    Aside(Resetting<B>),
}

impl<B: Backend> Unfinished<B> {
    fn closing(mut closing: Closing<B>, reason: CloseReason) -> Self {
        let entry = closing.value_mut().take();
        Self {
            core: Arc::clone(closing.holder()),
            entry,
            slot: Some(Slot::Closing(closing)),
            reason,
        }
    }

    fn aside(mut aside: Resetting<B>, reason: CloseReason) -> Self {
        let entry = aside.value_mut().take();
        Self {
            core: Arc::clone(aside.holder()),
            entry,
            slot: Some(Slot::Aside(aside)),
            reason,
        }
    }

    /// Puts the connection back among the good ones.
    fn good(mut self, generation: u64, used: bool) {
        let (Some(mut entry), Some(Slot::Aside(mut aside))) = (self.entry.take(), self.slot.take())
        else {
            unreachable!("only a connection that was set aside becomes good again");
        };
        let shared = &self.core.outside;
        let now = shared.now();
        entry.generation = generation;
        if used {
            aside.facts().rest(now);
        } else {
            aside.facts().prove(now);
        }
        *aside.value_mut() = Some(entry);
        finish(Core::<B>::ready(aside, now));
    }
}

impl<B: Backend> Drop for Unfinished<B> {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        if let Some(entry) = self.entry.take() {
            self.core.outside.terminate(entry, self.reason);
        }
        match slot {
            Slot::Closing(closing) => Core::<B>::vacate(closing),
            Slot::Aside(aside) => Core::<B>::spoil(aside),
        }
        note_vacated(&self.core);
    }
}

async fn run<B: Backend>(core: Arc<Core<B>>, job: Job<B>) {
    let shared = &core.outside;
    match job {
        Job::Close(closing, reason) => {
            let mut unfinished = Unfinished::closing(closing, reason);
            if let Some(entry) = unfinished.entry.take() {
                close_politely(shared, entry, reason).await;
            }
        }
        Job::Reset(aside) => {
            let mut unfinished = Unfinished::aside(aside, CloseReason::ResetFailed);
            let Some(entry) = &mut unfinished.entry else {
                return;
            };
            let reset = async { shared.backend.reset(&mut entry.conn).await };
            let (limit, generation) = (shared.config.reset_timeout.get(), entry.generation);
            let reset = bounded(limit, reset).await;
            if reset && generation == shared.generation() {
                unfinished.good(generation, true);
            } else if reset {
                unfinished.reason = CloseReason::Invalidated;
            }
        }
        Job::Check(aside, generation) => {
            let mut unfinished = Unfinished::aside(aside, CloseReason::Broken);
            let Some(entry) = &mut unfinished.entry else {
                return;
            };
            let ping = async { shared.backend.ping(&mut entry.conn).await };
            let good = bounded(shared.config.ping_timeout.get(), ping).await;
            if good && generation == shared.generation() {
                unfinished.good(generation, false);
            } else if good && let Some(entry) = unfinished.entry.take() {
                close_politely(shared, entry, CloseReason::Invalidated).await;
            }
        }
    }
}

/// Whether the backend's answer was good and came in time.
async fn bounded<T, E>(limit: Duration, answer: impl Future<Output = Result<T, E>>) -> bool {
    matches!(
        timeout(limit, AssertUnwindSafe(answer).catch_unwind()).await,
        Ok(Ok(Ok(_)))
    )
}
