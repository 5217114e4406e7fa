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
use crate::events::EventKind;
use crate::housekeeping;
use crate::maintenance;
use crate::outage::Verdict;
use crate::put_back;
use crate::raw::claim;
use crate::rt::{Handle, Id, sleep, timeout};
use crate::shared::{Core, Parts, Refusal, Shared};
use crate::stats::CloseReason;
use crate::tally::Timed;

type Opening<B> = claim::Opening<Parts<B>, Arc<Core<B>>>;

/// Starts a task that opens a connection in the slot.
pub(crate) fn start<B: Backend>(handle: &Handle, opening: Opening<B>) {
    begin(handle, opening, None);
}

/// Starts a task that opens a connection in the slot, and closes the one with this number for it.
pub(crate) fn start_replacing<B: Backend>(handle: &Handle, opening: Opening<B>, serial: u64) {
    begin(handle, opening, Some(serial));
}

fn begin<B: Backend>(handle: &Handle, opening: Opening<B>, replaces: Option<u64>) {
    let core = Arc::clone(opening.holder());
    core.outside.remember(handle);
    housekeeping::begin(handle, &core);
    let opener = Opener {
        opening: Some(opening),
        replaces,
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
    /// The number of the connection that goes when this one is there.
    replaces: Option<u64>,
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
            core.outside.attempted.notify_waiters();
            if !go_on {
                self.ended = true;
                return;
            }
        }
    }

    /// Puts the connection to use; true with another slot in hand.
    async fn opened(&mut self, entry: Entry<B::Connection>) -> bool {
        let shared = &self.core.outside;
        if shared.outage.recovered() {
            shared.tell(|| EventKind::Recovered);
        }
        self.probing = false;
        if entry.generation != shared.generation() {
            // Of an age that became suspect while it was being opened. Its slot is good for another try.
            maintenance::close_politely(shared, entry, CloseReason::Invalidated).await;
            return self.opening.as_ref().is_some_and(Core::<B>::still_wanted);
        }
        let Some(opening) = self.opening.take() else {
            return false;
        };
        let replaced = self.replaces.take();
        if let Some(old) = replaced {
            shared.rounds.end_replacing(old);
            for claim in Core::<B>::take_idle_where(&self.core, |facts| facts.serial() == old) {
                put_back::close(claim, CloseReason::Expired);
            }
        }
        let now = shared.now();
        opening.facts().born(entry.serial, now, self.expiry(&entry));
        put_back::finish(Core::<B>::landed(opening, entry, now));
        if replaced.is_some() {
            housekeeping::replaced(&self.core);
        }
        self.opening = Core::<B>::take_opening(&self.core);
        self.opening.is_some()
    }

    /// When a connection that was just opened expires: its age limit, less a part drawn once; sooner where all
    /// are being renewed and it was begun before.
    fn expiry(&self, entry: &Entry<B::Connection>) -> u64 {
        let shared = &self.core.outside;
        let config = &shared.config;
        let age = config.recycle.map_or(u64::MAX, |age| {
            let age = age.get();
            clock::part(
                clock::micros(age),
                1.0 - config.recycle_jitter * fastrand::f64(),
            )
        });
        let expires = entry.born.saturating_add(age);
        match shared.rounds.renewal_since(entry.begun) {
            Some(end) => {
                let share = clock::part(end.saturating_sub(entry.begun), fastrand::f64());
                expires.min(entry.born.saturating_add(share))
            }
            None => expires,
        }
    }

    /// Tells whoever is concerned; true if the same slot is worth another attempt.
    async fn failed(&mut self, cause: ConnectError<B::Error>, failure: Failure) -> bool {
        let shared = &self.core.outside;
        let config = &shared.config;
        if failure == Failure::Full && !self.probing {
            let counts = self.core.counts();
            let open = counts.taken - counts.connecting;
            if open > 0 {
                let pause = shared.outage.full(&cause, config.backoff());
                shared.tally.connect_failures.raise();
                shared.tell(|| EventKind::Full {
                    open,
                    cause: in_full(&cause),
                });
                return self.wanted() && self.rest(pause).await && self.wanted();
            }
        }
        let verdict = shared.outage.failed(
            &cause,
            failure,
            self.probing,
            config.down_after,
            config.backoff(),
        );
        shared.tally.connect_failures.raise();
        shared.tell(|| EventKind::ConnectFailed {
            failures: shared.outage.failures(),
            cause: in_full(&cause),
        });
        if matches!(verdict, Verdict::Probe(_)) && !self.probing {
            shared.tell(|| EventKind::Down);
        }
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

    /// Pauses between two attempts; false if the pool was closed meanwhile, or its room is given up to another
    /// pool under the same budget.
    async fn rest(&mut self, pause: Duration) -> bool {
        if pause.is_zero() {
            return true;
        }
        self.set_resting(true);
        let core = Arc::clone(&self.core);
        let mut closed = pin!(core.outside.shutdown.wait());
        let mut over = pin!(sleep(pause));
        let slept = loop {
            let mut asked = pin!(core.outside.attempted.notified());
            // Registered before the look, so that a debt that arises in between is not missed.
            asked.as_mut().enable();
            if self.opening.as_ref().is_some_and(Core::<B>::owes) {
                break false;
            }
            let pause = select(over.as_mut(), asked);
            match select(closed.as_mut(), pause).await {
                Either::Left(_) => break false,
                Either::Right((Either::Left(_), _)) => break true,
                Either::Right((Either::Right(_), _)) => {}
            }
        };
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
        if let Some(old) = self.replaces.take() {
            self.core.outside.rounds.end_replacing(old);
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

/// An error and its causes in one line: an event has no causes of its own.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Opens one connection, within `connect_timeout`.
async fn attempt<B: Backend>(core: &Core<B>) -> Attempt<B> {
    let shared = &core.outside;
    let config = &shared.config;
    // Stamped before it begins: a connection begun before a change is of the age before the change.
    let generation = shared.generation();
    let begun = clock::exact();
    shared.tell(|| EventKind::Connecting);
    let connect = connect(shared);
    #[cfg(feature = "tracing")]
    let connect = crate::trace::connecting(config.name.as_deref(), connect);
    let connect = AssertUnwindSafe(connect).catch_unwind();
    let connect = pin!(timeout(config.connect_timeout.get(), connect));
    let result = match select(pin!(shared.shutdown.wait()), connect).await {
        Either::Left(((), _)) => return Attempt::Pointless,
        Either::Right((result, _)) => result,
    };
    match result {
        Ok(Ok(Ok(conn))) => {
            let took = clock::exact().saturating_sub(begun);
            let serial = shared.next_serial();
            shared.tally.opened.raise();
            shared.timed(Timed::Connect, took);
            shared.tell(|| EventKind::Connected {
                connection: serial,
                took: Duration::from_micros(took),
            });
            let now = shared.now();
            Attempt::Opened(Entry {
                conn,
                serial,
                generation,
                begun,
                born: now,
                timed: begun,
                fresh: true,
            })
        }
        Ok(Ok(Err(cause))) => {
            let failure = cause
                .backend_error()
                .map_or(Failure::Transient, |error| shared.backend.classify(error));
            Attempt::Failed(cause, failure)
        }
        Ok(Err(_panic)) => Attempt::Failed(ConnectError::Panicked, Failure::Transient),
        Err(_elapsed) => {
            let cause = ConnectError::TimedOut(config.connect_timeout.get());
            Attempt::Failed(cause, Failure::Transient)
        }
    }
}

/// Connects, and lets the hook do what is to be done once for each connection.
async fn connect<B: Backend>(shared: &Shared<B>) -> Result<B::Connection, ConnectError<B::Error>> {
    let opened = shared.backend.connect().await;
    let conn = opened.map_err(|error| ConnectError::Backend(Arc::new(error)))?;
    let Some(hook) = shared
        .hooks
        .as_ref()
        .and_then(|hooks| hooks.connect.as_ref())
    else {
        return Ok(conn);
    };
    let mut unhooked = Unhooked {
        shared,
        conn: Some(conn),
    };
    if let Some(conn) = &mut unhooked.conn {
        hook(conn)
            .await
            .map_err(|cause| ConnectError::Hook(cause.into()))?;
    }
    Ok(unhooked.conn.take().expect("nobody else takes it"))
}

/// A connection whose hook has not succeeded: terminated if this is dropped with it.
struct Unhooked<'a, B: Backend> {
    shared: &'a Shared<B>,
    conn: Option<B::Connection>,
}

impl<B: Backend> Drop for Unhooked<'_, B> {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            let terminated = AssertUnwindSafe(|| self.shared.backend.terminate(conn));
            drop(std::panic::catch_unwind(terminated));
        }
    }
}
