//! Checking out and returning under the mutex.
//!
//! Claiming an idle slot and giving it back are lock-free ([`idle`](super::idle)); all the rest takes the
//! mutex: here joining and leaving the queue, handing over, and the one place where room comes free; opening
//! in [`opening`](super::opening), waits that end without a connection in [`ending`](super::ending), what
//! concerns the whole pool in [`whole`](super::whole). The mutex is held for a few dozen instructions at a
//! time. Wakers are gathered under it and woken after it ([`Locked`]); nothing of the user's runs while it is
//! held.
//!
//! # Slots
//! What state a slot is in is written down in two places that never contradict each other: its idle bit
//! (idle or not), and its page's [`Ledger`](super::rare::Ledger) under the mutex (vacant, opening, parked,
//! resetting, closing, or none of these: idle by its bit, or in use).
//!
//! # The gate
//! `WAITING` is up while somebody waits, and also while something else forbids that a return sets a bit: the
//! pool is closed, suspended, holds more than it may, owes connections to its budget, or hands out in an
//! order. Whoever shuts the gate for one of those reasons takes away all bits that are set right after. So no
//! bit is ever set while it is up, and a newcomer finds nothing to overtake with.
//!
//! # Room
//! Room comes free in one place, [`Core::free_room`], and that tells the queue before anybody else can
//! take it: while somebody waits, newcomers join behind.

use std::pin::Pin;
use std::task::Waker;

use super::Parts;
use super::budget::Ticket;
use super::claim::{Claim, Closing, Holder, Resetting};
use super::idle::{Given, IdleSet};
use super::queue::{Left, Node, Outcome, Queue};
use super::rare::{Debt, Limits, Locked, Order, Rare, State, Why};
use super::slot::Seat;
use super::wait::Ask;
use super::word::Flag;
use crate::sync::Mutex;

/// One pool's slots, queue and limits.
pub(crate) struct Core<P: Parts> {
    pub(super) idle: IdleSet<P>,
    rare: Mutex<Rare<P>>,
    pub(super) order: Order,
    pub(crate) outside: P::Outside,
}

/// How joining the queue ended.
pub(super) enum Joined<P: Parts> {
    /// In the queue; with a vacant slot to open a connection in, where one is wanted.
    Queued(Option<Seat<P>>),
    Got(Seat<P>),
    NoRoom,
    Full,
    Closed,
}

/// A connection that came back and is to be closed, and why.
pub(crate) type Surplus<P, H> = (Closing<P, H>, Why);

impl<P: Parts> Core<P> {
    pub(crate) fn new(mut limits: Limits, order: Order, outside: P::Outside) -> Self {
        if limits.keep < limits.capacity {
            // One word while there is overflow to trim and one suffices: then trimming is a count of bits.
            limits.spread = 1;
        }
        Self {
            idle: IdleSet::new(),
            rare: Mutex::new(Rare::new(limits, order != Order::Packed)),
            order,
            outside,
        }
    }

    /// Puts another idle structure, and another order of waiting, in the place of ours.
    #[cfg(feature = "lab")]
    pub(crate) fn swapped(mut self, swap: &crate::lab::Swap) -> Self {
        let mut locked = self.rare.lock();
        if let Some(make) = &swap.idle {
            locked.limits.spread = 1;
            let pages = locked.limits.capacity.div_ceil(crate::sync::SLOTS_PER_WORD);
            let swapped = super::swapped::Swapped::new(pages, |slots| make(slots));
            if locked.waiting {
                swapped.raise(Flag::Waiting);
            }
            self.idle.swapped = Some(Box::new(swapped));
        }
        if let Some(make) = &swap.queue {
            locked.queue.reorder(make());
        }
        drop(locked);
        self
    }

    pub(super) fn lock(&self) -> Locked<'_, P> {
        Locked::new(self, self.rare.lock())
    }

    // ---- checkout ----

    /// Takes an idle slot; the holder comes back if there is none. Never waits; locks only in a pool with an
    /// order.
    #[inline]
    pub(crate) fn claim<H: Holder<P>>(holder: H) -> Result<Claim<P, H>, H> {
        let core = holder.core();
        let seat = match core.idle.claim() {
            Some(seat) => seat,
            None if core.order == Order::Packed => return Err(holder),
            None => match core.claim_in_order() {
                Some(seat) => seat,
                None => return Err(holder),
            },
        };
        Ok(Claim::new(seat, holder))
    }

    #[cold]
    fn claim_in_order(&self) -> Option<Seat<P>> {
        let mut locked = self.lock();
        // Nothing is parked while somebody waits, unless the pool is suspended.
        (!locked.suspended)
            .then(|| self.take_idle(&mut locked))
            .flatten()
    }

    /// As [`claim`](Self::claim), leaving the holder to its owner.
    pub(crate) fn claim_by<H: Holder<P>>(holder: &H) -> Option<Claim<P, H>> {
        Self::claim(holder.clone()).ok()
    }

    /// Takes an idle slot, wherever it stands.
    pub(super) fn take_idle(&self, locked: &mut Locked<'_, P>) -> Option<Seat<P>> {
        let parked = match self.order {
            Order::Fifo => locked.parked.pop_front(),
            Order::Lifo | Order::Packed => locked.parked.pop_back(),
        };
        let Some(seat) = parked else {
            return self.idle.claim();
        };
        locked.note(seat.id(), State::Parked, State::Live);
        Some(seat)
    }

    /// How many slots are idle.
    pub(super) fn idle_count(&self, locked: &Locked<'_, P>) -> usize {
        self.idle.count() + locked.parked.len()
    }

    /// Takes a place in the queue, or what makes that unnecessary.
    ///
    /// # Safety
    /// As [`Queue::join`].
    pub(super) unsafe fn join(
        &self,
        node: Pin<&Node<P>>,
        waker: Waker,
        ask: Ask<P::Mark>,
        beside: impl FnOnce(&mut P::Guarded),
    ) -> Joined<P> {
        let mut locked = self.lock();
        if locked.closed {
            return Joined::Closed;
        }
        let ahead = if ask.first { 0 } else { locked.queue.len() };
        let room = if locked.suspended { 0 } else { locked.room() };
        let served = locked.connecting + room;
        let bound = served.saturating_add(locked.limits.waiting);
        if ahead >= bound || (ask.only_with_room && ahead >= served) {
            // Nothing is idle while somebody waits, and otherwise what is idle is taken.
            let idle =
                (!locked.suspended && locked.queue.is_empty()).then(|| self.take_idle(&mut locked));
            return match idle.flatten() {
                Some(seat) => Joined::Got(seat),
                None if ask.only_with_room => Joined::NoRoom,
                None => Joined::Full,
            };
        }
        if locked.queue.is_empty() && !locked.suspended {
            if !locked.parked.is_empty()
                && let Some(seat) = self.take_idle(&mut locked)
            {
                return Joined::Got(seat);
            }
            if !locked.waiting {
                if let Err(seat) = self.idle.raise_waiting() {
                    self.idle.lower(Flag::Waiting);
                    return Joined::Got(seat);
                }
                locked.waiting = true;
            }
        }
        // SAFETY: by our own contract.
        unsafe { locked.queue.join(node, waker, ask) };
        self.shed(&mut locked, ask.now);
        #[cfg(feature = "lab")]
        self.shed_by_order(&mut locked, ask.now, false);
        beside(&mut locked.guarded);
        Joined::Queued(self.reserve(&mut locked))
    }

    /// Lets a node leave the queue by `unlink`; returns its waker, to be dropped without the mutex.
    pub(super) fn leave(
        &self,
        locked: &mut Locked<'_, P>,
        unlink: impl FnOnce(&mut Queue<P>) -> Left,
    ) -> Option<Waker> {
        let left = unlink(&mut locked.queue);
        self.after_leaving(locked, &left);
        left.waker
    }

    /// What the queue owes when somebody has left it.
    pub(super) fn after_leaving(&self, locked: &mut Locked<'_, P>, left: &Left) {
        if locked.queue.is_empty() {
            self.open_gate(locked);
        } else if left.waker.is_none() {
            Self::nudge(locked);
        }
        self.sate(locked);
    }

    /// Gives back what the budget holds ready for this pool, if nobody here wants it any more.
    pub(super) fn sate(&self, locked: &mut Locked<'_, P>) {
        if locked.wanted() == 0
            && let Some(ticket) = P::ticket(&self.outside)
            && ticket.sated()
        {
            locked.budget_moved = true;
        }
    }

    /// Wakes a waiter to open a connection, if one is wanted.
    pub(super) fn nudge(locked: &mut Locked<'_, P>) {
        if locked.wanted() > 0 {
            let waker = locked.queue.nudge();
            locked.wake_later(waker);
        }
    }

    /// Lowers `WAITING`, if nothing holds it up.
    pub(super) fn open_gate(&self, locked: &mut Locked<'_, P>) {
        if locked.waiting && locked.queue.is_empty() && !locked.gated() {
            locked.waiting = false;
            self.idle.lower(Flag::Waiting);
        }
    }

    /// Raises `WAITING`, if something asks for that. What is idle is to be taken away afterwards.
    pub(super) fn shut_gate(&self, locked: &mut Locked<'_, P>) {
        if !locked.waiting && locked.gated() {
            locked.waiting = true;
            self.idle.raise(Flag::Waiting);
        }
    }

    // ---- return ----

    /// Gives a slot back without the mutex; the claim comes back if that can't be done.
    ///
    /// `surplus` is called where the pool was made smaller meanwhile: somebody must [`trim`](Self::trim) it.
    #[inline]
    pub(crate) fn give_back<H: Holder<P>>(
        claim: Claim<P, H>,
        surplus: impl FnOnce(&H),
    ) -> Result<(), Claim<P, H>> {
        let (seat, holder) = claim.into_parts();
        match holder.core().idle.give(seat) {
            Given::Idle => Ok(()),
            Given::Surplus => {
                surplus(&holder);
                Ok(())
            }
            Given::MustLock(seat) => Err(Claim::new(seat, holder)),
        }
    }

    /// Gives a slot back under the mutex: to the first in the queue, or to the idle ones. What is one too
    /// many, or comes back to a closed pool, is for the caller to close.
    pub(crate) fn settle<H: Holder<P>>(claim: Claim<P, H>, now: u64) -> Option<Surplus<P, H>> {
        Self::offered(State::Live, claim, now)
    }

    /// Offers a slot that holds a connection: to the queue, then to the idle ones. Comes back, noted as
    /// closing, if it is one too many.
    pub(super) fn offered<H: Holder<P>>(
        from: State,
        claim: Claim<P, H>,
        now: u64,
    ) -> Option<Surplus<P, H>> {
        let (seat, holder) = claim.into_parts();
        let core = holder.core();
        let (seat, why) = core.offer(&mut core.lock(), from, seat, now)?;
        Some((Closing(Claim::new(seat, holder)), why))
    }

    pub(super) fn offer(
        &self,
        locked: &mut Locked<'_, P>,
        from: State,
        seat: Seat<P>,
        now: u64,
    ) -> Option<(Seat<P>, Why)> {
        let id = seat.id();
        if let Some(why) = locked.must_close() {
            // What was just opened serves its own pool once, or two pools would go on opening for each other.
            let yields = why == Why::Yielded;
            if !yields || (from != State::Opening && self.still_owes(locked)) {
                locked.note(id, from, State::Closing);
                self.open_gate(locked);
                return Some((seat, why));
            }
        }
        if locked.suspended {
            locked.note(id, from, State::Parked);
            locked.parked.push_back(seat);
            return None;
        }
        if !locked.queue.is_empty() {
            let now = Self::time_for_the_first(locked, now);
            self.shed(locked, now);
            #[cfg(feature = "lab")]
            self.shed_by_order(locked, now, true);
            while !locked.queue.is_empty() {
                if locked.exempt() == 0 && locked.queue.first_deadline().is_some_and(|at| at <= now)
                {
                    self.complete_first(locked, Outcome::Expired);
                    continue;
                }
                locked.note(id, from, State::Live);
                if let Some(mark) = locked.queue.first_mark() {
                    P::handed(&seat.slot().facts, mark, now);
                }
                self.complete_first(locked, Outcome::Seat(seat));
                return None;
            }
        }
        let keep = locked.limits.keep;
        let why = if locked.debt != Debt::Nothing && self.still_owes(locked) {
            Why::Yielded
        } else if locked.ordered && locked.parked.len() < keep {
            locked.note(id, from, State::Parked);
            locked.parked.push_back(seat);
            return None;
        } else if !locked.ordered && self.idle.set(&seat, keep) {
            locked.note(id, from, State::Live);
            return None;
        } else {
            Why::Surplus
        };
        locked.note(id, from, State::Closing);
        self.open_gate(locked);
        Some((seat, why))
    }

    /// Whether the debt to other pools is still wanted: then one connection must be closed now.
    pub(super) fn still_owes(&self, locked: &mut Locked<'_, P>) -> bool {
        let wanted = P::ticket(&self.outside).is_some_and(Ticket::yield_one);
        if !wanted {
            locked.debt = Debt::Nothing;
            self.open_gate(locked);
        }
        wanted
    }

    /// Ends the first wait.
    pub(super) fn complete_first(&self, locked: &mut Locked<'_, P>, outcome: Outcome<P>) {
        let left = locked.queue.complete_first(outcome);
        self.after_leaving(locked, &left);
        locked.wake_later(left.waker);
    }

    /// The time, as exact as what is decided about the first in the queue needs it.
    fn time_for_the_first(locked: &Locked<'_, P>, now: u64) -> u64 {
        let near = locked
            .queue
            .first_deadline()
            .is_some_and(|at| at <= now.saturating_add(P::COARSE));
        if near || locked.limits.shed.is_some() {
            P::exact(now)
        } else {
            now
        }
    }

    /// Takes a slot out of use, to close its connection.
    pub(crate) fn retire<H: Holder<P>>(claim: Claim<P, H>) -> Closing<P, H> {
        Closing(Self::noted(claim, State::Closing))
    }

    /// Takes a slot out of use, to reset or check its connection.
    pub(crate) fn set_aside<H: Holder<P>>(claim: Claim<P, H>) -> Resetting<P, H> {
        Resetting(Self::noted(claim, State::Resetting))
    }

    fn noted<H: Holder<P>>(claim: Claim<P, H>, to: State) -> Claim<P, H> {
        let core = claim.core();
        let mut locked = core.lock();
        locked.note(claim.id(), State::Live, to);
        core.open_gate(&mut locked); // One that is being closed is no longer one too many.
        drop(locked);
        claim
    }

    /// Gives back a slot whose connection was reset or checked; as [`settle`](Self::settle).
    pub(crate) fn ready<H: Holder<P>>(claim: Resetting<P, H>, now: u64) -> Option<Surplus<P, H>> {
        Self::offered(State::Resetting, claim.0, now)
    }

    /// Vacates a slot whose connection was found unfit while it was reset. Its value is gone already.
    pub(crate) fn spoil<H: Holder<P>>(claim: Resetting<P, H>) {
        Self::free_room(claim.0, State::Resetting);
    }

    /// Vacates a slot whose connection is closed. Its value is gone already.
    pub(crate) fn vacate<H: Holder<P>>(claim: Closing<P, H>) {
        Self::free_room(claim.0, State::Closing);
    }

    /// Vacates a slot in use whose connection was closed on the spot. Its value is gone already.
    pub(crate) fn discard<H: Holder<P>>(claim: Claim<P, H>) {
        Self::free_room(claim, State::Live);
    }

    /// Vacates a slot in use whose connection goes on outside the pool.
    pub(crate) fn detach<H: Holder<P>>(claim: Claim<P, H>) {
        claim.core().lock().detached += 1;
        Self::free_room(claim, State::Live);
    }

    /// The one place where room comes free.
    pub(super) fn free_room<H: Holder<P>>(claim: Claim<P, H>, from: State) {
        debug_assert!(claim.value().is_none(), "a vacant slot holds nothing");
        let (seat, holder) = claim.into_parts();
        let core = holder.core();
        let mut locked = core.lock();
        locked.note(seat.id(), from, State::Vacant);
        if let Some(ticket) = P::ticket(&core.outside) {
            ticket.freed();
            locked.budget_moved = true;
        }
        if locked.careful && locked.taken <= locked.limits.keep {
            locked.careful = false;
            core.idle.lower(Flag::Careful);
        }
        core.open_gate(&mut locked);
        Self::nudge(&mut locked);
    }
}
