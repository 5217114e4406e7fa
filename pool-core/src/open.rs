//! Opening connections: each in a task of its own, which outlives the caller that wanted it.
//!
//! An opener belongs to the pool. What it opens goes to the first in the queue, like a return; then it goes
//! on with the next connection that is wanted, and ends when none is. At most `max_connecting` exist. After
//! a failure it does what [`outage`](crate::outage) says: tells the first or all of those who wait, pauses,
//! tries again, or becomes the one probe of a pool that is down.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, select};

use crate::backend::{Backend, Failure};
use crate::clock;
use crate::entry::Entry;
use crate::error::ConnectError;
use crate::maintenance;
use crate::outage::Verdict;
use crate::put_back;
use crate::raw::claim;
use crate::rt::{Handle, Id, sleep, timeout};
use crate::shared::{Core, Parts, Refusal};

type Opening<B> = claim::Opening<Parts<B>, Arc<Core<B>>>;

/// Starts a task that opens a connection in the slot.
pub(crate) fn start<B: Backend>(handle: &Handle, opening: Opening<B>) {
    let core = Arc::clone(opening.holder());
    core.outside.remember(handle);
    let opener = Opener {
        opening: Some(opening),
        core,
        runtime: handle.id(),
        ended: false,
        probing: false,
        resting: false,
    };
    handle.spawn(opener.run());
}

/// Starts an opener for whatever the queue wants now.
pub(crate) fn start_wanted<B: Backend>(handle: &Handle, core: &Arc<Core<B>>) {
    while let Some(opening) = Core::<B>::take_opening(core) {
        start(handle, opening);
    }
}

struct Opener<B: Backend> {
    core: Arc<Core<B>>,
    runtime: Id,
    /// By itself, and not with its runtime.
    ended: bool,
    /// The slot; given up when the opener is dropped with it.
    opening: Option<Opening<B>>,
    probing: bool,
    resting: bool,
}

/// How one attempt ended.
enum Attempt<B: Backend> {
    Opened(Entry<B::Connection>),
    Failed(ConnectError<B::Error>, Failure),
    /// The pool was closed meanwhile.
    Pointless,
}

impl<B: Backend> Opener<B> {
    async fn run(mut self) {
        let core = Arc::clone(&self.core);
        loop {
            let go_on = match attempt(&core).await {
                Attempt::Opened(entry) => self.opened(entry).await,
                Attempt::Failed(cause, failure) => self.failed(cause, failure).await,
                Attempt::Pointless => false,
            };
            if !go_on {
                self.ended = true;
                return;
            }
        }
    }

    /// Puts the connection to use; true with another slot in hand.
    async fn opened(&mut self, entry: Entry<B::Connection>) -> bool {
        let shared = &self.core.outside;
        shared.outage.recovered();
        self.probing = false;
        if entry.generation != shared.generation() {
            // Of an age that became suspect while it was being opened. Its slot is good for another try.
            maintenance::close_politely(shared, entry.conn).await;
            return self.opening.as_ref().is_some_and(Core::<B>::still_wanted);
        }
        let Some(opening) = self.opening.take() else {
            return false;
        };
        if let Some(closing) = Core::<B>::landed(opening, entry, shared.now()) {
            put_back::finish_closing(closing);
        }
        self.opening = Core::<B>::take_opening(&self.core);
        self.opening.is_some()
    }

    /// Tells whoever is concerned; true if the same slot is worth another attempt.
    async fn failed(&mut self, cause: ConnectError<B::Error>, failure: Failure) -> bool {
        let shared = &self.core.outside;
        let config = &shared.config;
        let verdict = shared.outage.failed(
            &cause,
            failure,
            self.probing,
            config.down_after,
            config.backoff,
        );
        let refusal = Refusal::Connect(cause);
        match verdict {
            Verdict::Retry(pause) => {
                self.core.refuse_first(refusal);
                self.wanted() && self.rest(pause).await && self.wanted()
            }
            Verdict::Stop => {
                self.core.refuse_all(&refusal);
                self.probing = false;
                false
            }
            Verdict::Probe(pause) => {
                self.probing = true;
                self.core.refuse_all(&refusal);
                self.rest(pause).await
            }
        }
    }

    fn wanted(&self) -> bool {
        self.opening.as_ref().is_some_and(Core::<B>::still_wanted)
    }

    /// Pauses between two attempts; false if the pool was closed meanwhile.
    async fn rest(&mut self, pause: Duration) -> bool {
        if pause.is_zero() {
            return true;
        }
        self.set_resting(true);
        let core = Arc::clone(&self.core);
        let closed = pin!(core.outside.shutdown.wait());
        let slept = matches!(select(closed, pin!(sleep(pause))).await, Either::Right(_));
        self.set_resting(false);
        slept
    }

    fn set_resting(&mut self, resting: bool) {
        if let Some(opening) = &self.opening {
            Core::<B>::rest(opening, resting);
            self.resting = resting;
        }
    }
}

impl<B: Backend> Drop for Opener<B> {
    /// Also where the runtime ends before its opener: the room goes on to the queue.
    fn drop(&mut self) {
        if self.resting {
            self.set_resting(false);
        }
        if self.probing {
            self.core.outside.outage.probe_lost();
        }
        if let Some(opening) = self.opening.take() {
            if !self.ended {
                // Before the room is offered: whoever takes it must not come back to this runtime.
                self.core.outside.forget(self.runtime);
            }
            Core::<B>::give_up(opening);
            put_back::note_vacated(&self.core);
        }
    }
}

/// Opens one connection, within `connect_timeout`.
async fn attempt<B: Backend>(core: &Core<B>) -> Attempt<B> {
    let shared = &core.outside;
    let config = &shared.config;
    // Stamped before it begins: a connection begun before a change is of the age before the change.
    let generation = shared.generation();
    let connect = AssertUnwindSafe(async { shared.backend.connect().await }).catch_unwind();
    let connect = pin!(timeout(config.connect_timeout, connect));
    let result = match select(pin!(shared.shutdown.wait()), connect).await {
        Either::Left(((), _)) => return Attempt::Pointless,
        Either::Right((result, _)) => result,
    };
    match result {
        Ok(Ok(Ok(conn))) => {
            let expires = config.recycle.map_or(u64::MAX, |age| {
                shared.now().saturating_add(clock::micros(age))
            });
            Attempt::Opened(Entry {
                conn,
                generation,
                expires,
                ping_at: u64::MAX,
            })
        }
        Ok(Ok(Err(error))) => {
            let failure = shared.backend.classify(&error);
            Attempt::Failed(ConnectError::Backend(Arc::new(error)), failure)
        }
        Ok(Err(_panic)) => Attempt::Failed(ConnectError::Panicked, Failure::Transient),
        Err(_elapsed) => {
            let cause = ConnectError::TimedOut(config.connect_timeout);
            Attempt::Failed(cause, Failure::Transient)
        }
    }
}
