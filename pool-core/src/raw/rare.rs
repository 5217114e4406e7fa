//! What the mutex guards: the queue, the limits, and how many slots are in which state.
//!
//! Numbers and bits alone; [`core`](super::core) moves them. A slot's state is written down once: `note` asserts
//! that it is in one state at a time, and keeps the counts.
//!
//! [`Locked`] is the mutex, held. What must not happen under it (waking, which is user code, and the budget's
//! dealings with other pools) is gathered in it and done when it is free again.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::task::Waker;

use super::Parts;
use super::core::Core;
use super::queue::Queue;
use super::slot::{Seat, SlotId};
use crate::sync::MutexGuard;

/// A pool's limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// What the layer above calls `pool_size`; told, not used.
    pub(crate) size: usize,
    /// How many connections are kept idle when they come back.
    pub(crate) keep: usize,
    /// How many may exist (`pool_size + max_overflow`).
    pub(crate) capacity: usize,
    /// How many may be opening at a time.
    pub(crate) connecting: usize,
    /// Among how many words the slots are spread at least, where nothing else decides.
    pub(crate) spread: usize,
    /// How many may wait beyond those for whom there is room.
    pub(crate) waiting: usize,
    /// Who is sent away when the queue does not empty.
    pub(crate) shed: Option<Shed>,
}

impl Limits {
    /// No bound on the queue, and nobody is sent away.
    #[cfg(all(test, pool_loom))]
    pub(crate) fn plain(keep: usize, capacity: usize) -> Self {
        Self {
            size: keep,
            keep,
            capacity,
            connecting: capacity,
            spread: 1,
            waiting: usize::MAX,
            shed: None,
        }
    }
}

/// When waiters are sent away: see [`ending`](super::ending).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shed {
    /// How long somebody may have waited.
    pub(crate) target: u64,
    /// How long the queue must not have been empty.
    pub(crate) interval: u64,
    /// How many are always left waiting.
    pub(crate) floor: usize,
    /// Only counts those who would be sent away.
    pub(crate) shadow: bool,
}

/// Which of the idle slots is handed out first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The lowest bit: without the mutex.
    Packed,
    /// The one that came back last.
    Lifo,
    /// The one that came back first.
    Fifo,
}

/// How many slots are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) size: usize,
    pub(crate) capacity: usize,
    /// Not vacant: opening, idle, in use, resetting or closing.
    pub(crate) taken: usize,
    pub(crate) idle: usize,
    pub(crate) connecting: usize,
    pub(crate) resetting: usize,
    pub(crate) closing: usize,
    pub(crate) waiting: usize,
    pub(crate) detached: u64,
    /// Waiters sent away, or that would have been.
    pub(crate) shed: u64,
    pub(crate) suspended: bool,
    pub(crate) closed: bool,
}

impl Counts {
    /// Checked out.
    pub(crate) fn in_use(&self) -> usize {
        self.taken - self.idle - self.connecting - self.resetting - self.closing
    }
}

/// Why a connection that came back is closed instead of kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Enough are idle.
    Surplus,
    /// More exist than may since the pool was made smaller.
    Resized,
    /// Another pool under the same budget has more need of its room.
    Yielded,
    /// The pool is closed.
    Closed,
}

/// What a pool owes to others under the same budget, which are starving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Debt {
    Nothing,
    /// The next connection for which nobody waits here.
    Idle,
    /// The next connection that comes back, whoever waits here.
    Any,
}

/// Which of a page's slots are in a state that only the mutex knows.
#[derive(Default)]
pub(super) struct Ledger {
    /// Idle, without a bit: see [`Rare::parked`].
    pub(super) parked: u64,
    pub(super) vacant: u64,
    pub(super) opening: u64,
    pub(super) resetting: u64,
    pub(super) closing: u64,
}

impl Ledger {
    fn of(&mut self, state: State) -> Option<&mut u64> {
        match state {
            State::Vacant => Some(&mut self.vacant),
            State::Opening => Some(&mut self.opening),
            State::Parked => Some(&mut self.parked),
            State::Resetting => Some(&mut self.resetting),
            State::Closing => Some(&mut self.closing),
            State::Live => None,
        }
    }

    /// Those that are neither in use nor idle by their bit.
    pub(super) fn elsewhere(&self) -> u64 {
        self.vacant | self.opening | self.parked | self.resetting | self.closing
    }
}

/// The states of a slot that the ledger writes down; `Live` is in use, or idle by its bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Parked,
    Vacant,
    Opening,
    Live,
    Resetting,
    Closing,
}

/// What the mutex guards.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a state of its own that the others do not imply"
)]
pub(super) struct Rare<P: Parts> {
    pub(super) queue: Queue<P>,
    pub(super) limits: Limits,
    pub(super) ledgers: Vec<Ledger>,
    /// Idle slots whose bit is not set: all of them in a pool with an order, or one that is suspended. Those
    /// that came back last are at the end.
    pub(super) parked: VecDeque<Seat<P>>,
    pub(super) taken: usize,
    pub(super) connecting: usize,
    /// Of those connecting, how many pause between two attempts.
    pub(super) resting: usize,
    pub(super) resetting: usize,
    pub(super) closing: usize,
    pub(super) detached: u64,
    pub(super) shed: u64,
    /// Before when nobody is sent away again.
    pub(super) next_shed: u64,
    pub(super) ordered: bool,
    pub(super) suspended: bool,
    pub(super) closed: bool,
    /// What is owed to other pools under the same budget.
    pub(super) debt: Debt,
    /// Whether `WAITING` is up.
    pub(super) waiting: bool,
    /// Whether `CAREFUL` is up.
    pub(super) careful: bool,
    pub(super) guarded: P::Guarded,
}

/// The mutex, held, and what is to be done when it is free again.
pub(super) struct Locked<'a, P: Parts> {
    core: &'a Core<P>,
    rare: Option<MutexGuard<'a, Rare<P>>>,
    first: Option<Waker>,
    more: Vec<Waker>,
    /// Whether the budget has something to hand to others, or to ask of them.
    pub(super) budget_moved: bool,
}

impl<'a, P: Parts> Locked<'a, P> {
    pub(super) fn new(core: &'a Core<P>, rare: MutexGuard<'a, Rare<P>>) -> Self {
        Self {
            core,
            rare: Some(rare),
            first: None,
            more: Vec::new(),
            budget_moved: false,
        }
    }

    pub(super) fn wake_later(&mut self, waker: Option<Waker>) {
        let Some(waker) = waker else { return };
        if self.first.is_none() {
            self.first = Some(waker);
        } else {
            self.more.push(waker);
        }
    }
}

impl<P: Parts> Deref for Locked<'_, P> {
    type Target = Rare<P>;
    fn deref(&self) -> &Rare<P> {
        self.rare.as_ref().expect("held until dropped")
    }
}

impl<P: Parts> DerefMut for Locked<'_, P> {
    fn deref_mut(&mut self) -> &mut Rare<P> {
        self.rare.as_mut().expect("held until dropped")
    }
}

impl<P: Parts> Drop for Locked<'_, P> {
    fn drop(&mut self) {
        drop(self.rare.take());
        if let Some(waker) = self.first.take() {
            waker.wake();
        }
        for waker in self.more.drain(..) {
            waker.wake();
        }
        if self.budget_moved
            && let Some(ticket) = P::ticket(&self.core.outside)
        {
            ticket.balance();
        }
    }
}

impl<P: Parts> Rare<P> {
    pub(super) fn new(limits: Limits, ordered: bool) -> Self {
        Self {
            queue: Queue::new(),
            limits,
            ledgers: Vec::new(),
            parked: VecDeque::new(),
            taken: 0,
            connecting: 0,
            resting: 0,
            resetting: 0,
            closing: 0,
            detached: 0,
            shed: 0,
            next_shed: 0,
            ordered,
            suspended: false,
            closed: false,
            debt: Debt::Nothing,
            waiting: ordered,
            careful: false,
            guarded: P::Guarded::default(),
        }
    }

    /// How many connections should be opened for those who wait, and are not being opened yet.
    pub(super) fn wanted(&self) -> usize {
        let unserved = self.queue.len().saturating_sub(self.connecting);
        unserved.min(self.openable())
    }

    /// How many more connections may begin to open.
    pub(super) fn openable(&self) -> usize {
        if self.closed || self.suspended {
            return 0;
        }
        let may_begin = self.limits.connecting.saturating_sub(self.connecting);
        self.room().min(may_begin)
    }

    /// How many more connections may exist: none in a pool that was made smaller than what it holds.
    pub(super) fn room(&self) -> usize {
        self.limits.capacity.saturating_sub(self.taken)
    }

    /// Whether more exist than may, not counting those that are being closed.
    pub(super) fn in_excess(&self) -> bool {
        self.taken - self.closing > self.limits.capacity
    }

    /// Why the next connection that comes back must be closed whoever waits, if it must.
    pub(super) fn must_close(&self) -> Option<Why> {
        if self.closed {
            Some(Why::Closed)
        } else if self.in_excess() {
            Some(Why::Resized)
        } else {
            (self.debt == Debt::Any).then_some(Why::Yielded)
        }
    }

    /// Whether no return may set an idle bit, even while nobody waits.
    pub(super) fn gated(&self) -> bool {
        self.ordered || self.suspended || self.debt != Debt::Nothing || self.must_close().is_some()
    }

    /// How many at the head of the queue are each having a connection opened right now.
    pub(super) fn exempt(&self) -> usize {
        self.connecting - self.resting
    }

    /// Notes that a slot goes from one state to another. Each is counted once.
    pub(super) fn note(&mut self, id: SlotId, from: State, to: State) {
        let ledger = &mut self.ledgers[id.page];
        let mask = id.bit.mask();
        if let Some(slots) = ledger.of(from) {
            *slots &= !mask;
        }
        assert!(
            ledger.elsewhere() & mask == 0,
            "a slot is in one state at a time"
        );
        if let Some(slots) = ledger.of(to) {
            *slots |= mask;
        }
        for (state, step) in [(to, true), (from, false)] {
            let count = match state {
                State::Opening => &mut self.connecting,
                State::Resetting => &mut self.resetting,
                State::Closing => &mut self.closing,
                State::Vacant | State::Parked | State::Live => continue,
            };
            *count = if step { *count + 1 } else { *count - 1 };
        }
        match (from, to) {
            (State::Vacant, _) => self.taken += 1,
            (_, State::Vacant) => self.taken -= 1,
            _ => {}
        }
        if to == State::Closing || (to == State::Vacant && from != State::Closing) {
            self.debt = Debt::Nothing; // One goes, for whatever reason: its room goes to whoever starves.
        }
    }
}
