//! What all handles, guards and tasks of one pool share, and how its parts find each other.

use crate::rt::{Handle, Id, Notify};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location};
use std::pin::pin;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crate::backend::Backend;
use crate::clock;
use crate::entry::{Entry, Facts};
use crate::error::ConnectError;
use crate::events::{EventKind, Hub};
use crate::hooks::Hooks;
use crate::housekeeping::Rounds;
use crate::lazily::Lazily;
use crate::maintenance::Work;
use crate::outage::Outage;
use crate::raw;
use crate::raw::budget::Ticket;
use crate::raw::claim::{Claim, Holder};
use crate::raw::wait::{Ask, NEVER};
use crate::raw::whole::Live;
use crate::rules::Rules;
use crate::stats::CloseReason;
use crate::status::{Holder as HeldBy, Status};
use crate::tally::{Tally, Timed, Times};
use crate::timekeeper::Keepers;

/// The bit of the epoch that says that checkouts and returns are watched.
const WATCHED: u64 = 1;

/// The types that fill in the protocol for a backend.
pub(crate) struct Parts<B>(PhantomData<B>);

pub(crate) type Core<B> = raw::core::Core<Parts<B>>;

impl<B: Backend> raw::Parts for Parts<B> {
    type Value = Entry<B::Connection>;
    type Facts = Facts;
    type Refusal = Refusal<B::Error>;
    type Guarded = Keepers;
    type Outside = Shared<B>;
    type Mark = &'static Location<'static>;

    const COARSE: u64 = clock::LAG;

    fn exact(_coarse: u64) -> u64 {
        clock::exact()
    }

    fn ticket(outside: &Shared<B>) -> Option<&Ticket> {
        outside.ticket.get()
    }

    fn handed(facts: &Facts, mark: Self::Mark, now: u64) {
        facts.hand(mark, now);
    }

    fn stray<H: Holder<Self>>(claim: Claim<Self, H>) {
        crate::put_back::untouched(claim);
    }
}

/// Why a waiter gets no connection.
pub(crate) enum Refusal<E> {
    Connect(ConnectError<E>),
    Closed,
}

impl<E> Clone for Refusal<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Connect(cause) => Self::Connect(cause.clone()),
            Self::Closed => Self::Closed,
        }
    }
}

/// What stands beside the core.
pub(crate) struct Shared<B: Backend> {
    pub(crate) backend: Arc<B>,
    pub(crate) config: Rules,
    /// How long a connection may be idle before it is pinged; `u64::MAX` for ever.
    pub(crate) ping_after: u64,
    /// The generation, raised to make every connection opened (or checked) before now suspect; and in its
    /// lowest bit, whether checkouts and returns are watched. One comparison on the fast way settles both.
    epoch: AtomicU64,
    /// None where none is set.
    pub(crate) hooks: Option<Box<Hooks<B::Connection>>>,
    pub(crate) hub: Lazily<Hub>,
    pub(crate) tally: Lazily<Tally>,
    pub(crate) rounds: Lazily<Rounds>,
    pub(crate) ticket: OnceLock<Ticket>,
    serials: AtomicU64,
    pub(crate) outage: Outage<B::Error>,
    pub(crate) work: Lazily<Work<B>>,
    pub(crate) shutdown: Shutdown,
    /// Told whenever a slot of a closed pool is vacated.
    pub(crate) drained: Lazily<Notify>,
    /// Told whenever an attempt to open a connection has ended or a slot was vacated, and when a pause between
    /// two attempts may have to end.
    pub(crate) attempted: Lazily<Notify>,
    /// Tells timekeepers that somebody's time is over sooner than they thought.
    pub(crate) sooner: Lazily<Notify>,
    pub(crate) abandoned: AtomicU64,
    /// A runtime that was seen, for work that comes up outside any.
    runtime: Mutex<Option<Handle>>,
    me: Weak<Core<B>>,
}

impl<B: Backend> Shared<B> {
    pub(crate) fn new(
        backend: Arc<B>,
        config: Rules,
        hooks: Hooks<B::Connection>,
        me: Weak<Core<B>>,
    ) -> Self {
        let ping_after = config
            .ping_after
            .map_or(u64::MAX, |span| clock::micros(span.get()));
        let watch = hooks.watch_use() || config.max_hold.is_some();
        Self {
            ping_after,
            epoch: AtomicU64::new(u64::from(watch)),
            hooks: (!hooks.are_none()).then(|| Box::new(hooks)),
            hub: Lazily::default(),
            tally: Lazily::default(),
            rounds: Lazily::default(),
            ticket: OnceLock::new(),
            serials: AtomicU64::new(0),
            backend,
            config,
            outage: Outage::new(),
            work: Lazily::default(),
            shutdown: Shutdown::default(),
            drained: Lazily::default(),
            attempted: Lazily::default(),
            sooner: Lazily::default(),
            abandoned: AtomicU64::new(0),
            runtime: Mutex::new(Handle::try_current().ok()),
            me,
        }
    }

    /// The core that this stands beside; `None` while that is being freed.
    pub(crate) fn core(&self) -> Option<Arc<Core<B>>> {
        self.me.upgrade()
    }

    #[inline]
    pub(crate) fn now(&self) -> u64 {
        clock::now(self.config.time_source)
    }

    /// What a connection's generation must be for the fast way: its own, and nobody watches.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        // Ordering: Relaxed; a number on its own. A checkout racing with `outdate` may miss it, as one that
        // came a moment earlier would.
        self.epoch.load(Ordering::Relaxed)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.epoch() & !WATCHED
    }

    /// Makes all connections of a generation suspect; false if that was done before.
    pub(crate) fn outdate(&self, generation: u64) -> bool {
        // Ordering: Relaxed, as in `epoch`.
        let outdated = self
            .epoch
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |epoch| {
                (epoch & !WATCHED == generation).then_some(epoch + 2)
            });
        if outdated.is_ok() {
            self.tell(|| EventKind::GenerationEnded);
        }
        outdated.is_ok()
    }

    /// Sends checkouts and returns the watched way, if anybody has an interest in them.
    pub(crate) fn watch(&self) {
        let watch = self.hooks.as_ref().is_some_and(|hooks| hooks.watch_use())
            || self.config.max_hold.is_some()
            || self.is_observed();
        // Ordering: Relaxed, as in `epoch`.
        if watch {
            self.epoch.fetch_or(WATCHED, Ordering::Relaxed);
        } else {
            self.epoch.fetch_and(!WATCHED, Ordering::Relaxed);
        }
    }

    /// Tells observers what happened, if there are any.
    #[inline]
    pub(crate) fn tell(&self, kind: impl FnOnce() -> EventKind) {
        #[cfg(feature = "tracing")]
        {
            let kind = kind();
            crate::trace::event(self.config.name.as_deref(), &kind);
            if self.is_observed() {
                self.tell_hub(kind);
            }
        }
        #[cfg(not(feature = "tracing"))]
        if self.is_observed() {
            self.tell_hub(kind());
        }
    }

    fn is_observed(&self) -> bool {
        self.hub.made().is_some_and(Hub::is_observed)
    }

    #[cold]
    fn tell_hub(&self, kind: EventKind) {
        self.hub.tell(kind);
        if !self.is_observed() {
            self.watch();
        }
    }

    /// Ends the streams of a closed pool that holds nothing any more.
    pub(crate) fn end_events(&self, core: &Core<B>) {
        if core.counts().taken == 0 {
            self.hub.end();
        }
    }

    /// When a timer must look at somebody who joins the queue; `None` if never.
    pub(crate) fn first_look<M>(&self, ask: &Ask<M>) -> Option<u64> {
        let shed = self.config.shed_interval.map_or(NEVER, |interval| {
            ask.now.saturating_add(clock::micros(interval.get()))
        });
        Some(ask.deadline.min(shed)).filter(|at| *at != NEVER)
    }

    /// Where times are recorded: in the map's, for a pool of a [`PoolMap`](crate::PoolMap).
    fn times(&self) -> &Times {
        match &self.config.times {
            Some(of_the_map) => of_the_map,
            None => &self.tally.times,
        }
    }

    /// Records how long something took.
    pub(crate) fn timed(&self, what: Timed, micros: u64) {
        self.times().record(what, micros);
        #[cfg(feature = "metrics")]
        crate::export::timed(&self.config, what, micros);
    }

    /// The number of the next connection.
    pub(crate) fn next_serial(&self) -> u64 {
        // Ordering: Relaxed; only distinct values matter.
        self.serials.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The runtime to spawn on: the current one, else one that was seen before.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        Handle::try_current().ok().or_else(|| self.remembered())
    }

    /// The runtime that was seen before.
    pub(crate) fn remembered(&self) -> Option<Handle> {
        self.runtime.lock().clone()
    }

    /// Keeps a runtime in mind for work that comes up outside any.
    pub(crate) fn remember(&self, handle: &Handle) {
        let mut runtime = self.runtime.lock();
        if runtime
            .as_ref()
            .is_none_or(|known| known.id() != handle.id())
        {
            *runtime = Some(handle.clone());
        }
    }

    /// Forgets a runtime that ended under one of the pool's tasks: what comes up later outside any runtime
    /// must not count on it.
    pub(crate) fn forget(&self, ended: Id) {
        let mut runtime = self.runtime.lock();
        if runtime.as_ref().is_some_and(|known| known.id() == ended) {
            *runtime = None;
        }
    }

    /// Notes that a connection is being closed, and asks the hook. Its panics go no further: whoever calls has a
    /// slot to free, and may be unwinding already.
    pub(crate) fn closing(&self, entry: &mut Entry<B::Connection>, reason: CloseReason) {
        self.tally.closed(reason);
        let age = self.now().saturating_sub(entry.born);
        self.timed(Timed::Age, age);
        self.tell(|| EventKind::Closed {
            connection: entry.serial,
            reason,
        });
        if let Some(hook) = self.hooks.as_ref().and_then(|hooks| hooks.close.as_ref()) {
            let told = AssertUnwindSafe(|| hook(&mut entry.conn, reason));
            drop(std::panic::catch_unwind(told));
        }
    }

    /// Closes a connection on the spot, without I/O. A panic of the backend's goes no further, as in
    /// [`closing`](Self::closing).
    pub(crate) fn terminate(&self, mut entry: Entry<B::Connection>, reason: CloseReason) {
        self.closing(&mut entry, reason);
        let terminated = AssertUnwindSafe(|| self.backend.terminate(entry.conn));
        drop(std::panic::catch_unwind(terminated));
    }

    /// The pool's numbers.
    pub(crate) fn status(&self, core: &Core<B>) -> Status {
        let counts = core.counts();
        Status {
            size: counts.size,
            capacity: counts.capacity,
            open: counts.taken - counts.connecting,
            idle: counts.idle,
            in_use: counts.in_use(),
            connecting: counts.connecting,
            resetting: counts.resetting,
            closing: counts.closing,
            overflow: counts.taken.saturating_sub(counts.size),
            waiting: counts.waiting,
            detached: counts.detached,
            abandoned: self.abandoned.load(Ordering::Relaxed),
            suspended: counts.suspended,
            closed: counts.closed,
        }
    }

    /// What the task that runs now holds already; in builds without debug assertions nobody knows.
    pub(crate) fn held_by_waiter(&self, core: &Core<B>) -> Option<HeldBy> {
        #[cfg(debug_assertions)]
        {
            let now = self.now();
            let mut held = None;
            core.each_live(|live, facts| {
                if live == Live::InUse && facts.is_ours() {
                    held = held.take().or_else(|| held_by(facts, now));
                }
            });
            held
        }
        #[cfg(not(debug_assertions))]
        {
            let _ = (self, core);
            None
        }
    }

    /// Who holds connections, longest first.
    pub(crate) fn holders(&self, core: &Core<B>) -> Vec<HeldBy> {
        let now = self.now();
        let mut holders = Vec::new();
        core.each_live(|live, facts| {
            if live == Live::InUse {
                holders.extend(held_by(facts, now));
            }
        });
        holders.sort_by_key(|holder| std::cmp::Reverse(holder.held));
        holders
    }
}

/// Who holds the connection in use to which these facts belong.
pub(crate) fn held_by(facts: &Facts, now: u64) -> Option<HeldBy> {
    let (place, since) = facts.read()?;
    // Each reader of the coarse clock may see it at another moment.
    let held = Duration::from_micros(now.saturating_sub(since));
    Some(HeldBy { place, held })
}

/// Ends a pool's tasks.
#[derive(Default)]
pub(crate) struct Shutdown {
    begun: AtomicBool,
    notify: Lazily<Notify>,
}

impl Shutdown {
    pub(crate) fn begin(&self) {
        // Ordering: Release and Acquire: who sees it also sees that the core is closed.
        self.begun.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Ready once it has begun.
    pub(crate) async fn wait(&self) {
        let mut notified = pin!(self.notify.notified());
        // Registered before the look, so that a beginning in between is not missed.
        notified.as_mut().enable();
        if !self.has_begun() {
            notified.await;
        }
    }
}
