//! Parts of the pool that can be swapped for others: the idle structure, and the order of the wait queue.
//!
//! What stands here is asked by the pool that ships, through doors in its protocol that a build without the feature
//! `lab` does not have. An implementation is safe code, and a wrong one is found out: a slot that it hands out twice
//! is a panic, never a data race.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Which slots hold a connection that nobody uses: what [`Pool::get`](crate::Pool::get) looks at first.
///
/// Slots are numbers below what the maker was given; at the beginning none is idle. [`claim`](Self::claim) and
/// [`give`](Self::give) are called by any number of threads at once. All other methods are called under the pool's
/// mutex, by one thread at a time, beside those two.
///
/// # The gate
/// While somebody waits, or something else forbids returning without the mutex, the pool shuts the gate. What must
/// hold: once [`shut`](Self::shut) has returned and a `claim` after it has found nothing, no `give` succeeds until
/// [`open`](Self::open). Without that a connection lies idle beside a caller who waits for ever. A structure whose
/// gate is a word of its own needs a fence on both sides:
///
/// ```text
/// give                          shut, then claim
///   put the slot                  shut the gate
///   fence(SeqCst)                 fence(SeqCst)
///   shut? take one back           is there a slot?
/// ```
/// At least one of the two sees the other.
pub trait IdleSet: Send + Sync {
    /// Takes any idle slot. May miss one that is given at the same time.
    fn claim(&self) -> Option<usize>;

    /// Makes a slot idle, unless the gate is shut: then a slot comes back, this one or another that was idle, and is
    /// the caller's.
    ///
    /// # Errors
    /// The caller's slot, where the gate is shut.
    fn give(&self, slot: usize) -> Result<(), usize>;

    /// Makes a slot idle whether the gate is shut or not.
    fn put(&self, slot: usize);

    /// Shuts the gate. Slots that are idle stay so.
    fn shut(&self);

    /// Opens the gate.
    fn open(&self);

    /// How many slots are idle: exact while nobody else claims or gives.
    fn count(&self) -> usize;

    /// Takes this slot, if it is idle. Unless overridden all are taken out and the others put back.
    fn claim_at(&self, slot: usize) -> bool {
        let mut others = Vec::new();
        let found = loop {
            match self.claim() {
                Some(taken) if taken == slot => break true,
                Some(taken) => others.push(taken),
                None => break false,
            }
        };
        // As they were: the last taken goes back first.
        for other in others.into_iter().rev() {
            self.put(other);
        }
        found
    }
}

/// Somebody who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiter {
    /// Its number, never used again.
    pub ticket: u64,
    /// Since when it has waited, on the pool's clock.
    pub since: Duration,
    /// When its time is over, on the pool's clock; `None` for never.
    pub deadline: Option<Duration>,
    /// It had its turn, and what it was given was unfit.
    pub had_its_turn: bool,
}

/// In which order those who wait are served, and who is sent away unserved.
///
/// The pool keeps the waiters, their deadlines and their cancellation; this decides who is next. All methods are
/// called under the pool's mutex.
pub trait WaitQueue: Send {
    /// Somebody joined.
    fn join(&mut self, waiter: Waiter);

    /// Somebody left: served, out of time, sent away or gone.
    fn leave(&mut self, ticket: u64);

    /// Who is served next. Asked several times in a row, it says the same. `None` leaves it to who came first.
    fn first(&self) -> Option<u64>;

    /// Who is sent away at this moment: asked before each hand-over (`serving`) and after each arrival, again and
    /// again until the answer is `None`. Nobody unless overridden.
    fn sheds(&mut self, now: Duration, serving: bool) -> Option<u64> {
        let _ = (now, serving);
        None
    }
}

/// Makes an idle structure for so many slots.
type MakeIdle = dyn Fn(usize) -> Box<dyn IdleSet> + Send + Sync;
/// Makes a wait queue's order.
type MakeQueue = dyn Fn() -> Box<dyn WaitQueue> + Send + Sync;

/// What a builder was told to swap.
#[derive(Clone, Default)]
pub(crate) struct Swap {
    pub(crate) idle: Option<Arc<MakeIdle>>,
    pub(crate) queue: Option<Arc<MakeQueue>>,
}

impl fmt::Debug for Swap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swap")
            .field("idle", &self.idle.is_some())
            .field("queue", &self.queue.is_some())
            .finish()
    }
}

#[cfg(not(any(pool_loom, pool_shuttle)))]
impl<B: crate::Backend> crate::Builder<B> {
    /// Swaps the idle structure. The maker is told how many slots it is for.
    ///
    /// For [`Reuse::Packed`](crate::Reuse), the default; the other orders use no idle structure.
    pub fn swap_idle_set<S: IdleSet + 'static>(
        mut self,
        make: impl Fn(usize) -> S + Send + Sync + 'static,
    ) -> Self {
        self.swap().idle = Some(Arc::new(move |slots| Box::new(make(slots))));
        self
    }

    /// Swaps the order of the wait queue.
    pub fn swap_wait_queue<Q: WaitQueue + 'static>(
        mut self,
        make: impl Fn() -> Q + Send + Sync + 'static,
    ) -> Self {
        self.swap().queue = Some(Arc::new(move || Box::new(make())));
        self
    }
}
