//! What all handles, guards and tasks of one pool share, and how its parts find each other.

use crate::rt::{Handle, Id, Notify};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location};
use std::pin::pin;
use std::sync::{Arc, Weak};

use crate::backend::Backend;
use crate::clock;
use crate::config::{Config, PrePing};
use crate::entry::{Entry, Facts};
use crate::error::ConnectError;
use crate::maintenance::Work;
use crate::outage::Outage;
use crate::raw;
use crate::raw::claim::{Claim, Holder};
use crate::status::{Holder as HeldBy, Status};
use crate::timekeeper::Keepers;

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

    fn handed(facts: &Facts, mark: Self::Mark, now: u64) {
        facts.note(mark, now);
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
    pub(crate) config: Config,
    /// How long a connection may be idle before it is pinged; `u64::MAX` for ever.
    pub(crate) ping_after: u64,
    /// Raised to make every connection opened (or checked) before now suspect.
    generation: AtomicU64,
    pub(crate) outage: Outage<B::Error>,
    pub(crate) work: Work<B>,
    pub(crate) shutdown: Shutdown,
    /// Told whenever a slot of a closed pool is vacated.
    pub(crate) drained: Notify,
    /// Tells timekeepers that somebody's time is over sooner than they thought.
    pub(crate) sooner: Notify,
    pub(crate) abandoned: AtomicU64,
    /// A runtime that was seen, for work that comes up outside any.
    runtime: Mutex<Option<Handle>>,
    me: Weak<Core<B>>,
}

impl<B: Backend> Shared<B> {
    pub(crate) fn new(backend: Arc<B>, config: Config, me: Weak<Core<B>>) -> Self {
        let ping_after = match config.pre_ping {
            PrePing::Never => u64::MAX,
            PrePing::Always => 0,
            PrePing::IdleFor(span) => clock::micros(span),
        };
        Self {
            backend,
            config,
            ping_after,
            generation: AtomicU64::new(0),
            outage: Outage::new(),
            work: Work::new(),
            shutdown: Shutdown::default(),
            drained: Notify::new(),
            sooner: Notify::new(),
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

    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        // Ordering: Relaxed; a number on its own. A checkout racing with `outdate` may miss it, as one that
        // came a moment earlier would.
        self.generation.load(Ordering::Relaxed)
    }

    /// Makes all connections of a generation suspect; false if that was done before.
    pub(crate) fn outdate(&self, generation: u64) -> bool {
        // Ordering: Relaxed, as in `generation`.
        self.generation
            .compare_exchange(
                generation,
                generation + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// The runtime to spawn on: the current one, else one that was seen before.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        Handle::try_current()
            .ok()
            .or_else(|| self.runtime.lock().clone())
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

    /// Closes a connection on the spot, without I/O. A panic of the backend's goes no further: whoever calls
    /// has a slot to free, and may be unwinding already.
    pub(crate) fn terminate(&self, conn: B::Connection) {
        let terminated = AssertUnwindSafe(|| self.backend.terminate(conn));
        drop(std::panic::catch_unwind(terminated));
    }

    /// The pool's numbers.
    pub(crate) fn status(&self, core: &Core<B>) -> Status {
        let counts = core.counts();
        let size = self.config.pool_size;
        Status {
            size,
            capacity: self.config.capacity(),
            open: counts.taken - counts.connecting,
            idle: counts.idle,
            in_use: counts.in_use(),
            connecting: counts.connecting,
            resetting: counts.resetting,
            closing: counts.closing,
            overflow: counts.taken.saturating_sub(size),
            waiting: counts.waiting,
            detached: counts.detached,
            abandoned: self.abandoned.load(Ordering::Relaxed),
            closed: counts.closed,
        }
    }

    /// Who holds connections, longest first.
    pub(crate) fn holders(&self, core: &Core<B>) -> Vec<HeldBy> {
        let now = self.now();
        let mut holders = Vec::new();
        core.each_in_use(|facts| {
            if let Some((place, since)) = facts.read() {
                // Each reader of the coarse clock may see it at another moment.
                let held = std::time::Duration::from_micros(now.saturating_sub(since));
                holders.push(HeldBy { place, held });
            }
        });
        holders.sort_by_key(|holder| std::cmp::Reverse(holder.held));
        holders
    }
}

/// Ends a pool's tasks.
#[derive(Default)]
pub(crate) struct Shutdown {
    begun: AtomicBool,
    notify: Notify,
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
