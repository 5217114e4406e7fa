//! What the mutex guards: the queue, the limits, and how many slots are in which state.
//!
//! Numbers and bits alone; [`core`](super::core) moves them. A slot's state is written down once: `note` asserts
//! that it is in one state at a time, and keeps the counts.
//!
//! [`Locked`] is the mutex, held. Wakers are gathered in it and woken when it is free again: they are user code.

use std::ops::{Deref, DerefMut};
use std::task::Waker;

use super::Parts;
use super::wait::Queue;
use super::word::Bit;
use crate::sync::{Mutex, MutexGuard};

/// A pool's limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How many connections are kept idle (`pool_size`).
    pub(crate) keep: usize,
    /// How many may exist (`pool_size + max_overflow`).
    pub(crate) capacity: usize,
    /// How many may be opening at a time.
    pub(crate) connecting: usize,
    /// Among how many words the slots are spread at least, where nothing else decides.
    pub(crate) spread: usize,
}

/// How many slots are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Not vacant: opening, idle, in use, resetting or closing.
    pub(crate) taken: usize,
    pub(crate) idle: usize,
    pub(crate) connecting: usize,
    pub(crate) resetting: usize,
    pub(crate) closing: usize,
    pub(crate) waiting: usize,
    pub(crate) detached: u64,
    pub(crate) closed: bool,
}

impl Counts {
    /// Checked out.
    pub(crate) fn in_use(&self) -> usize {
        self.taken - self.idle - self.connecting - self.resetting - self.closing
    }
}

/// Which of a page's slots are in a state that only the mutex knows.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) vacant: u64,
    pub(super) opening: u64,
    pub(super) resetting: u64,
    pub(super) closing: u64,
}

/// The states of a slot that the ledger writes down; `Live` is idle or in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Vacant,
    Opening,
    Live,
    Resetting,
    Closing,
}

/// What the mutex guards.
pub(super) struct Rare<P: Parts> {
    pub(super) queue: Queue<P>,
    pub(super) limits: Limits,
    pub(super) ledgers: Vec<Ledger>,
    pub(super) taken: usize,
    pub(super) connecting: usize,
    /// Of those connecting, how many pause between two attempts.
    pub(super) resting: usize,
    pub(super) resetting: usize,
    pub(super) closing: usize,
    pub(super) detached: u64,
    pub(super) closed: bool,
    /// Whether `CAREFUL` is up.
    pub(super) careful: bool,
    pub(super) guarded: P::Guarded,
}

/// The mutex, held, and the wakers to wake when it is free again.
pub(super) struct Locked<'a, P: Parts> {
    rare: Option<MutexGuard<'a, Rare<P>>>,
    first: Option<Waker>,
    more: Vec<Waker>,
}

impl<'a, P: Parts> Locked<'a, P> {
    pub(super) fn new(rare: &'a Mutex<Rare<P>>) -> Self {
        Self {
            rare: Some(rare.lock()),
            first: None,
            more: Vec::new(),
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
    }
}

impl<P: Parts> Rare<P> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            queue: Queue::new(),
            limits,
            ledgers: Vec::new(),
            taken: 0,
            connecting: 0,
            resting: 0,
            resetting: 0,
            closing: 0,
            detached: 0,
            closed: false,
            careful: false,
            guarded: P::Guarded::default(),
        }
    }

    /// How many connections should be opened for those who wait, and are not being opened yet.
    pub(super) fn wanted(&self) -> usize {
        if self.closed {
            return 0;
        }
        let unserved = self.queue.len().saturating_sub(self.connecting);
        unserved.min(self.openable())
    }

    /// How many more connections may begin to open.
    pub(super) fn openable(&self) -> usize {
        let room = self.limits.capacity - self.taken;
        room.min(self.limits.connecting.saturating_sub(self.connecting))
    }

    /// How many at the head of the queue are each having a connection opened right now.
    pub(super) fn exempt(&self) -> usize {
        self.connecting - self.resting
    }

    /// Notes that a slot goes from one state to another. Each is counted once.
    pub(super) fn note(&mut self, page: usize, bit: Bit, from: State, to: State) {
        let ledger = &mut self.ledgers[page];
        let mask = bit.mask();
        match from {
            State::Vacant => ledger.vacant &= !mask,
            State::Opening => ledger.opening &= !mask,
            State::Resetting => ledger.resetting &= !mask,
            State::Closing => ledger.closing &= !mask,
            State::Live => {}
        }
        let others = ledger.vacant | ledger.opening | ledger.resetting | ledger.closing;
        assert!(others & mask == 0, "a slot is in one state at a time");
        match to {
            State::Vacant => ledger.vacant |= mask,
            State::Opening => ledger.opening |= mask,
            State::Resetting => ledger.resetting |= mask,
            State::Closing => ledger.closing |= mask,
            State::Live => {}
        }
        for (state, step) in [(to, true), (from, false)] {
            let count = match state {
                State::Opening => &mut self.connecting,
                State::Resetting => &mut self.resetting,
                State::Closing => &mut self.closing,
                State::Vacant | State::Live => continue,
            };
            *count = if step { *count + 1 } else { *count - 1 };
        }
        match (from, to) {
            (State::Vacant, _) => self.taken += 1,
            (_, State::Vacant) => self.taken -= 1,
            _ => {}
        }
    }
}
