//! What concerns all slots at once: closing, suspending, resizing, yielding, counting.

use super::Parts;
use super::claim::{Claim, Closing, Holder};
use super::core::{Core, Surplus};
use super::rare::{Counts, Debt, Locked, State, Why};
use super::word::{Bit, Flag, Word};

impl<P: Parts> Core<P> {
    /// Refuses newcomers and waiters from now on, and takes all idle slots for the caller to close.
    pub(crate) fn close<H: Holder<P>>(holder: &H, refusal: &P::Refusal) -> Vec<Closing<P, H>> {
        let core = holder.core();
        let mut locked = core.lock();
        locked.closed = true;
        // Stays shut from here on: every return meets the mutex, and there the closed pool.
        core.shut_gate(&mut locked);
        let mut idle = Vec::new();
        while let Some(seat) = core.take_idle(&mut locked) {
            locked.note(seat.id(), State::Live, State::Closing);
            idle.push(Closing(Claim::new(seat, holder.clone())));
        }
        drop(locked);
        core.refuse_all(refusal);
        idle
    }

    /// Lets nobody have a connection until [`resume`](Self::resume): what is idle is parked.
    pub(crate) fn suspend(&self) {
        let mut locked = self.lock();
        if locked.closed || locked.suspended {
            return;
        }
        locked.suspended = true;
        self.sate(&mut locked);
        self.shut_gate(&mut locked);
        while let Some(seat) = self.idle.claim() {
            locked.note(seat.id(), State::Live, State::Parked);
            locked.parked.push_back(seat);
        }
    }

    /// Hands out again. What is too many by now is for the caller to close.
    pub(crate) fn resume<H: Holder<P>>(holder: &H, now: u64) -> Vec<Surplus<P, H>> {
        let core = holder.core();
        let mut locked = core.lock();
        if locked.closed || !locked.suspended {
            return Vec::new();
        }
        locked.suspended = false;
        core.open_gate(&mut locked);
        let mut surplus = Vec::new();
        for seat in std::mem::take(&mut locked.parked) {
            if let Some((seat, why)) = core.offer(&mut locked, State::Parked, seat, now) {
                surplus.push((Closing(Claim::new(seat, holder.clone())), why));
            }
        }
        core.open_gate(&mut locked);
        Self::nudge(&mut locked);
        surplus
    }

    /// Changes how many connections are kept and may exist. What is too many by now is for the caller to
    /// close; what is in use is closed when it comes back.
    pub(crate) fn resize<H: Holder<P>>(
        holder: &H,
        (size, keep): (usize, usize),
        capacity: usize,
    ) -> Vec<Surplus<P, H>> {
        let core = holder.core();
        let mut locked = core.lock();
        locked.limits.size = size;
        locked.limits.keep = keep;
        locked.limits.capacity = capacity;
        core.tell_keep(&locked);
        if locked.careful && locked.taken <= keep {
            locked.careful = false;
            core.idle.lower(Flag::Careful);
        }
        core.be_careful(&mut locked);
        core.shut_gate(&mut locked);
        let surplus = core.take_surplus(&mut locked, holder);
        core.open_gate(&mut locked);
        Self::nudge(&mut locked);
        surplus
    }

    /// Takes idle slots of which there are too many, for the caller to close.
    pub(crate) fn trim<H: Holder<P>>(holder: &H) -> Vec<Surplus<P, H>> {
        let core = holder.core();
        let mut locked = core.lock();
        let surplus = core.take_surplus(&mut locked, holder);
        core.open_gate(&mut locked);
        surplus
    }

    fn take_surplus<H: Holder<P>>(
        &self,
        locked: &mut Locked<'_, P>,
        holder: &H,
    ) -> Vec<Surplus<P, H>> {
        let mut surplus = Vec::new();
        loop {
            let why = match locked.must_close() {
                Some(why) if why != Why::Yielded => why,
                _ if self.idle_count(locked) > locked.limits.keep => Why::Surplus,
                _ => return surplus,
            };
            let Some(seat) = self.take_idle(locked) else {
                return surplus;
            };
            locked.note(seat.id(), State::Live, State::Closing);
            surplus.push((Closing(Claim::new(seat, holder.clone())), why));
        }
    }

    /// Takes an idle slot for the sake of another pool, if more than `floor` connections are left without it.
    /// Where none is idle, the next that nobody waits for here (or with `any`, the next at all) is to be closed
    /// when it comes back.
    pub(crate) fn give_way<H: Holder<P>>(
        holder: &H,
        floor: usize,
        any: bool,
    ) -> Option<Closing<P, H>> {
        let core = holder.core();
        let mut locked = core.lock();
        if locked.closed || locked.taken - locked.closing <= floor {
            return None;
        }
        let debt = if any { Debt::Any } else { Debt::Idle };
        locked.debt = locked.debt.max(debt);
        core.shut_gate(&mut locked);
        // Also what came back before the gate was shut.
        let seat = core.take_idle(&mut locked)?;
        if !core.still_owes(&mut locked) {
            // Nobody starves any more.
            let surplus = core.offer(&mut locked, State::Live, seat, 0);
            return surplus.map(|(seat, _)| Closing(Claim::new(seat, holder.clone())));
        }
        locked.note(seat.id(), State::Live, State::Closing);
        // The rest that is idle goes back: the gate opens again, and until then it is parked nowhere.
        core.open_gate(&mut locked);
        Some(Closing(Claim::new(seat, holder.clone())))
    }

    /// Wakes a waiter for whom the budget has room now, or gives that back.
    pub(crate) fn offer_room(&self) {
        let mut locked = self.lock();
        Self::nudge(&mut locked);
        self.sate(&mut locked);
    }

    /// Takes those idle slots of whose facts `f` says so.
    pub(crate) fn take_idle_where<H: Holder<P>>(
        holder: &H,
        mut f: impl FnMut(&P::Facts) -> bool,
    ) -> Vec<Claim<P, H>> {
        let core = holder.core();
        let mut locked = core.lock();
        let mut chosen = Vec::new();
        core.idle.each(|id, facts| {
            if f(facts) {
                chosen.push(id);
            }
        });
        let by_bit = chosen.into_iter().filter_map(|id| core.idle.claim_at(id));
        let mut taken: Vec<_> = by_bit.collect();
        for seat in std::mem::take(&mut locked.parked) {
            if f(&seat.slot().facts) {
                locked.note(seat.id(), State::Parked, State::Live);
                taken.push(seat);
            } else {
                locked.parked.push_back(seat);
            }
        }
        drop(locked);
        let claimed = taken.into_iter();
        claimed
            .map(|seat| Claim::new(seat, holder.clone()))
            .collect()
    }

    /// How many connections are idle, as of a moment ago; takes no lock.
    pub(crate) fn idle_about(&self) -> usize {
        self.idle.count()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counted(&self.lock())
    }

    pub(super) fn counted(&self, locked: &Locked<'_, P>) -> Counts {
        Counts {
            size: locked.limits.size,
            capacity: locked.limits.capacity,
            taken: locked.taken,
            idle: self.idle_count(locked),
            connecting: locked.connecting,
            resetting: locked.resetting,
            closing: locked.closing,
            waiting: locked.queue.len(),
            detached: locked.detached,
            shed: locked.shed,
            suspended: locked.suspended,
            closed: locked.closed,
        }
    }

    /// Shows `f` the facts of every slot: of those in use, and of those idle, as they are now.
    pub(crate) fn each_live(&self, mut f: impl FnMut(Live, &P::Facts)) {
        let locked = self.lock();
        for page in self.idle.pages.iter() {
            let ledger = &locked.ledgers[page.index];
            // Ordering: Relaxed; what is claimed or returned meanwhile is shown as it was or is.
            let idle = Word(page.word.load(crate::sync::Ordering::Relaxed));
            for (index, slot) in page.slots.iter().enumerate() {
                let bit = Bit::new(index);
                if self.idle.shows(page, idle, bit) || ledger.parked & bit.mask() != 0 {
                    f(Live::Idle, &slot.facts);
                } else if ledger.elsewhere() & bit.mask() == 0 {
                    f(Live::InUse, &slot.facts);
                }
            }
        }
    }

    /// Shows `f` the facts of every slot there is, vacant ones too.
    pub(crate) fn each_slot(&self, mut f: impl FnMut(&P::Facts)) {
        for page in self.idle.pages.iter() {
            for slot in &page.slots {
                f(&slot.facts);
            }
        }
    }
}

/// Where a slot that holds a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Live {
    Idle,
    InUse,
}
