//! Every transition that takes the mutex.
//!
//! Claiming an idle slot and giving it back are lock-free ([`idle`](super::idle)); all the rest is here:
//! joining and leaving the queue, handing over, opening, closing, trimming overflow. The mutex is held for a
//! few dozen instructions at a time. Wakers are gathered under it and woken after it ([`Locked`]); nothing
//! of the user's runs while it is held.
//!
//! # Slots
//! What state a slot is in is written down in two places that never contradict each other: its idle bit
//! (idle or not), and its page's [`Ledger`] under the mutex (vacant, opening, resetting, closing, or none of
//! these: idle or in use).
//!
//! # Room
//! Room comes free in one place, [`Core::free_room`], and that tells the queue before anybody else can
//! take it: while somebody waits, newcomers join behind.

use std::pin::Pin;
use std::task::Waker;

use super::Parts;
use super::claim::{Claim, Closing, Holder, Opening, Resetting};
use super::idle::{IdleSet, MustLock};
use super::rare::{Counts, Ledger, Limits, Locked, Rare, State};
use super::slot::{Page, Pages, Seat};
use super::wait::{Ask, Left, NEVER, Node, Outcome, Queue};
use super::word::{Bit, Flag, Word};
use crate::sync::{Mutex, SLOTS_PER_WORD};

/// How many waits end under one hold of the mutex.
const BATCH: usize = 64;

/// One pool's slots, queue and limits.
pub(crate) struct Core<P: Parts> {
    idle: IdleSet<P>,
    rare: Mutex<Rare<P>>,
    pub(crate) outside: P::Outside,
}

/// How joining the queue ended.
pub(super) enum Joined<P: Parts> {
    /// In the queue; with a vacant slot to open a connection in, where one is wanted.
    Queued(Option<Seat<P>>),
    Got(Seat<P>),
    NoRoom,
    Closed,
}

impl<P: Parts> Core<P> {
    pub(crate) fn new(limits: Limits, outside: P::Outside) -> Self {
        // One word while there is overflow to trim and one suffices: then trimming is a count of bits.
        let spread = if limits.keep < limits.capacity {
            1
        } else {
            limits.spread.max(1)
        };
        let pages = limits.capacity.div_ceil(SLOTS_PER_WORD).max(spread).max(1);
        Self {
            idle: IdleSet::new(Pages::new(limits.capacity, pages), limits.keep),
            rare: Mutex::new(Rare::new(limits)),
            outside,
        }
    }

    pub(super) fn lock(&self) -> Locked<'_, P> {
        Locked::new(&self.rare)
    }

    // ---- checkout ----

    /// Takes an idle slot; the holder comes back if there is none. Never waits, never locks.
    #[inline]
    pub(crate) fn claim<H: Holder<P>>(holder: H) -> Result<Claim<P, H>, H> {
        match holder.core().idle.claim() {
            Some(seat) => Ok(Claim::new(seat, holder)),
            None => Err(holder),
        }
    }

    /// As [`claim`](Self::claim), leaving the holder to its owner.
    pub(crate) fn claim_by<H: Holder<P>>(holder: &H) -> Option<Claim<P, H>> {
        Self::claim(holder.clone()).ok()
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
        if ask.only_with_room {
            let ahead = if ask.first { 0 } else { locked.queue.len() };
            let room = locked.limits.capacity - locked.taken;
            if ahead >= locked.connecting + room {
                // Nothing is idle while somebody waits, and otherwise what is idle is taken.
                return self.idle.claim().map_or(Joined::NoRoom, Joined::Got);
            }
        }
        if locked.queue.is_empty()
            && let Err(seat) = self.idle.raise_waiting()
        {
            self.idle.lower(Flag::Waiting);
            return Joined::Got(seat);
        }
        // SAFETY: by our own contract.
        unsafe { locked.queue.join(node, waker, ask) };
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
    fn after_leaving(&self, locked: &mut Locked<'_, P>, left: &Left) {
        if locked.queue.is_empty() {
            if !locked.closed {
                self.idle.lower(Flag::Waiting);
            }
        } else if left.waker.is_none() {
            Self::nudge(locked);
        }
    }

    /// Wakes a waiter to open a connection, if one is wanted.
    fn nudge(locked: &mut Locked<'_, P>) {
        if locked.wanted() > 0 {
            let waker = locked.queue.nudge();
            locked.wake_later(waker);
        }
    }

    // ---- return ----

    /// Gives a slot back without the mutex; the claim comes back if that can't be done.
    #[inline]
    pub(crate) fn give_back<H: Holder<P>>(claim: Claim<P, H>) -> Result<(), Claim<P, H>> {
        let (seat, holder) = claim.into_parts();
        holder
            .core()
            .idle
            .give(seat)
            .map_err(|MustLock(seat)| Claim::new(seat, holder))
    }

    /// Gives a slot back under the mutex: to the first in the queue, or to the idle ones. What is one too
    /// many, or comes back to a closed pool, is for the caller to close.
    pub(crate) fn settle<H: Holder<P>>(claim: Claim<P, H>, now: u64) -> Option<Closing<P, H>> {
        let (seat, holder) = claim.into_parts();
        holder
            .core()
            .offer(State::Live, seat, now)
            .map(|seat| Closing(Claim::new(seat, holder)))
    }

    /// Offers a slot that holds a connection: to the queue, then to the idle words. Comes back, noted as
    /// closing, if it is one too many.
    fn offer(&self, from: State, seat: Seat<P>, now: u64) -> Option<Seat<P>> {
        let mut locked = self.lock();
        let (page, bit) = (seat.page().index, seat.bit());
        while !locked.closed && !locked.queue.is_empty() {
            let expired = locked.exempt() == 0
                && locked
                    .queue
                    .first_deadline()
                    .is_some_and(|deadline| deadline <= now);
            if expired {
                let left = locked.queue.complete_first(Outcome::Expired);
                self.after_leaving(&mut locked, &left);
                locked.wake_later(left.waker);
                continue;
            }
            locked.note(page, bit, from, State::Live);
            if let Some(mark) = locked.queue.first_mark() {
                P::handed(&seat.slot().facts, mark, now);
            }
            let left = locked.queue.complete_first(Outcome::Seat(seat));
            self.after_leaving(&mut locked, &left);
            locked.wake_later(left.waker);
            return None;
        }
        if locked.closed || self.idle.count() >= locked.limits.keep {
            locked.note(page, bit, from, State::Closing);
            return Some(seat);
        }
        locked.note(page, bit, from, State::Live);
        IdleSet::set(&seat);
        None
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
        let mut locked = claim.core().lock();
        let seat = claim.seat();
        locked.note(seat.page().index, seat.bit(), State::Live, to);
        drop(locked);
        claim
    }

    /// Gives back a slot whose connection was reset or checked; as [`settle`](Self::settle).
    pub(crate) fn ready<H: Holder<P>>(claim: Resetting<P, H>, now: u64) -> Option<Closing<P, H>> {
        let (seat, holder) = claim.0.into_parts();
        holder
            .core()
            .offer(State::Resetting, seat, now)
            .map(|seat| Closing(Claim::new(seat, holder)))
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
    fn free_room<H: Holder<P>>(claim: Claim<P, H>, from: State) {
        debug_assert!(claim.value().is_none(), "a vacant slot holds nothing");
        let (seat, holder) = claim.into_parts();
        let core = holder.core();
        let mut locked = core.lock();
        locked.note(seat.page().index, seat.bit(), from, State::Vacant);
        if locked.careful && locked.taken <= locked.limits.keep {
            locked.careful = false;
            core.idle.lower(Flag::Careful);
        }
        Self::nudge(&mut locked);
    }

    // ---- opening ----

    /// Takes a vacant slot to open a connection in, if one is wanted by those who wait.
    pub(crate) fn take_opening<H: Holder<P>>(holder: &H) -> Option<Opening<P, H>> {
        let core = holder.core();
        let seat = core.reserve(&mut core.lock())?;
        Some(Opening(Claim::new(seat, holder.clone())))
    }

    pub(super) fn reserve(&self, locked: &mut Locked<'_, P>) -> Option<Seat<P>> {
        (locked.wanted() > 0).then(|| self.take_vacant(locked))
    }

    /// Takes a vacant slot; there must be room.
    fn take_vacant(&self, locked: &mut Locked<'_, P>) -> Seat<P> {
        let page = self.page_with_room(locked);
        let vacant = Word(locked.ledgers[page.index].vacant);
        let bit = vacant.lowest_idle().expect("the page has room");
        locked.note(page.index, bit, State::Vacant, State::Opening);
        if locked.taken > locked.limits.keep && !locked.careful {
            // Before the connection is there: no return that would be one too many is left alone.
            locked.careful = true;
            self.idle.raise(Flag::Careful);
        }
        // SAFETY: the slot was vacant, and we took it under the mutex: nobody else has its seat.
        unsafe { Seat::new(page, bit) }
    }

    /// The page with most vacant slots; a new one where all are taken, or where the words that the slots
    /// are to be spread over are not all there.
    fn page_with_room(&self, locked: &mut Locked<'_, P>) -> &Page<P> {
        let pages = &self.idle.pages;
        let spread = locked.limits.spread.min(pages.most());
        loop {
            let best = (0..pages.published()).max_by_key(|index| {
                (
                    locked.ledgers[*index].vacant.count_ones(),
                    usize::MAX - index,
                )
            });
            let full = best.is_none_or(|index| locked.ledgers[index].vacant == 0);
            if full || pages.published() < spread {
                let mut word = Word::EMPTY;
                if !locked.queue.is_empty() || locked.closed {
                    word = word.with_flag(Flag::Waiting);
                }
                if locked.careful {
                    word = word.with_flag(Flag::Careful);
                }
                if let Some(page) = pages.publish(word) {
                    let vacant = (0..page.slots.len()).fold(0, |all, i| all | Bit::new(i).mask());
                    locked.ledgers.push(Ledger {
                        vacant,
                        ..Ledger::default()
                    });
                    continue;
                }
            }
            return pages.get(best.expect("there is room, so there is a page"));
        }
    }

    /// Puts a connection that was opened to use. Comes back if it is one too many, to be closed.
    pub(crate) fn landed<H: Holder<P>>(
        mut opening: Opening<P, H>,
        value: P::Value,
        now: u64,
    ) -> Option<Closing<P, H>> {
        *opening.value_mut() = Some(value);
        let (seat, holder) = opening.0.into_parts();
        holder
            .core()
            .offer(State::Opening, seat, now)
            .map(|seat| Closing(Claim::new(seat, holder)))
    }

    /// Vacates a slot in which nothing was opened.
    pub(crate) fn give_up<H: Holder<P>>(opening: Opening<P, H>) {
        Self::free_room(opening.0, State::Opening);
    }

    /// Whether another attempt in the same slot is wanted by somebody who waits.
    pub(crate) fn still_wanted<H: Holder<P>>(opening: &Opening<P, H>) -> bool {
        let locked = opening.holder().core().lock();
        !locked.closed && locked.queue.len() >= locked.connecting
    }

    /// Notes that an opening pauses between two attempts (or no longer does): meanwhile it keeps nobody's
    /// deadline from passing.
    pub(crate) fn rest<H: Holder<P>>(opening: &Opening<P, H>, resting: bool) {
        let mut locked = opening.holder().core().lock();
        locked.resting = if resting {
            locked.resting + 1
        } else {
            locked.resting - 1
        };
    }

    // ---- refusing ----

    /// Tells the first in the queue that there is nothing for it.
    pub(crate) fn refuse_first(&self, refusal: P::Refusal) {
        let mut locked = self.lock();
        if !locked.queue.is_empty() {
            let left = locked.queue.complete_first(Outcome::Refused(refusal));
            self.after_leaving(&mut locked, &left);
            locked.wake_later(left.waker);
        }
    }

    /// Tells everybody who is in the queue now that there is nothing for them.
    pub(crate) fn refuse_all(&self, refusal: &P::Refusal) {
        let mut left_to_tell = self.lock().queue.len();
        while left_to_tell > 0 {
            let mut locked = self.lock();
            let batch = BATCH.min(left_to_tell).min(locked.queue.len());
            if batch == 0 {
                return;
            }
            for _ in 0..batch {
                let left = locked
                    .queue
                    .complete_first(Outcome::Refused(refusal.clone()));
                self.after_leaving(&mut locked, &left);
                locked.wake_later(left.waker);
            }
            left_to_tell -= batch;
        }
    }

    /// Ends the waits whose deadline is not after `now`, and returns when to look again.
    ///
    /// Those at the head for whom a connection is being opened get `patience` more: opening has a limit of
    /// its own, but may stand still with its runtime.
    /// That may be a time already past, for one who is left out. `beside` runs under the mutex, with what is
    /// returned.
    pub(crate) fn expire(
        &self,
        now: u64,
        patience: u64,
        beside: impl FnOnce(&mut P::Guarded, Option<u64>),
    ) -> Option<u64> {
        loop {
            let mut locked = self.lock();
            let mut ended: Vec<Left> = Vec::new();
            let exempt = (locked.exempt(), patience);
            let next = locked
                .queue
                .expire(now, exempt, BATCH, |left| ended.push(left));
            for left in ended {
                self.after_leaving(&mut locked, &left);
                locked.wake_later(left.waker);
            }
            if next.is_some_and(|next| next <= now) {
                continue;
            }
            // Those that are exempt now may not be later, so somebody must go on looking at them too.
            let first = locked.queue.first_deadline().filter(|at| *at != NEVER);
            let look_again = first.into_iter().chain(next).min();
            beside(&mut locked.guarded, look_again);
            return look_again;
        }
    }

    /// Runs `f` on what the layer above keeps under the mutex.
    pub(crate) fn guarded<R>(&self, f: impl FnOnce(&mut P::Guarded) -> R) -> R {
        f(&mut self.lock().guarded)
    }

    // ---- all of them ----

    /// Refuses newcomers and waiters from now on, and takes all idle slots for the caller to close.
    pub(crate) fn close<H: Holder<P>>(holder: &H, refusal: &P::Refusal) -> Vec<Closing<P, H>> {
        let core = holder.core();
        let mut locked = core.lock();
        locked.closed = true;
        // Stays up from here on: every return meets the mutex, and there the closed pool.
        core.idle.raise(Flag::Waiting);
        let mut idle = Vec::new();
        while let Some(seat) = core.idle.claim() {
            locked.note(seat.page().index, seat.bit(), State::Live, State::Closing);
            idle.push(Closing(Claim::new(seat, holder.clone())));
        }
        drop(locked);
        core.refuse_all(refusal);
        idle
    }

    /// Takes all slots that are idle now.
    pub(crate) fn claim_all<H: Holder<P>>(holder: &H) -> Vec<Claim<P, H>> {
        let core = holder.core();
        // Bounded: what comes back meanwhile is taken at most once more for each slot.
        let most = core.lock().taken;
        std::iter::from_fn(|| core.idle.claim())
            .take(most)
            .map(|seat| Claim::new(seat, holder.clone()))
            .collect()
    }

    pub(crate) fn counts(&self) -> Counts {
        let locked = self.lock();
        Counts {
            taken: locked.taken,
            idle: self.idle.count(),
            connecting: locked.connecting,
            resetting: locked.resetting,
            closing: locked.closing,
            waiting: locked.queue.len(),
            detached: locked.detached,
            closed: locked.closed,
        }
    }

    /// Shows `f` the facts of every slot that is in use.
    pub(crate) fn each_in_use(&self, mut f: impl FnMut(&P::Facts)) {
        let locked = self.lock();
        for page in self.idle.pages.iter() {
            let ledger = &locked.ledgers[page.index];
            let elsewhere = ledger.vacant | ledger.opening | ledger.resetting | ledger.closing;
            // Ordering: Relaxed; what is claimed or returned meanwhile is shown as it was or is.
            let idle = Word(page.word.load(crate::sync::Ordering::Relaxed));
            for (index, slot) in page.slots.iter().enumerate() {
                let bit = Bit::new(index);
                if elsewhere & bit.mask() == 0 && !idle.has(bit) {
                    f(&slot.facts);
                }
            }
        }
    }
}
