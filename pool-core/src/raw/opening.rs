//! Slots in which connections are opened, and the pages that they come from.
//!
//! What should be opened is worked out anew each time, from how many wait, how many are being opened and how
//! much room there is: nothing is queued that could be lost.

use super::Parts;
use super::budget::Took;
use super::claim::{Claim, Holder, Opening};
use super::core::{Core, Surplus};
use super::rare::{Counts, Debt, Ledger, Locked, State};
use super::slot::{Page, Seat, SlotId};
use super::word::{Bit, Flag, Word};
use crate::sync::SLOTS_PER_WORD;

impl<P: Parts> Core<P> {
    /// Takes a vacant slot to open a connection in, if one is wanted by those who wait.
    pub(crate) fn take_opening<H: Holder<P>>(holder: &H) -> Option<Opening<P, H>> {
        let core = holder.core();
        let seat = core.reserve(&mut core.lock())?;
        Some(Opening(Claim::new(seat, holder.clone())))
    }

    /// Takes a vacant slot to open a connection in for which nobody waits, if there is room and `wanted` says
    /// so, under the mutex.
    pub(crate) fn take_spare<H: Holder<P>>(
        holder: &H,
        wanted: impl FnOnce(&Counts) -> bool,
    ) -> Option<Opening<P, H>> {
        let core = holder.core();
        let mut locked = core.lock();
        if locked.openable() == 0 || !wanted(&core.counted(&locked)) {
            return None;
        }
        // Not one of those that starve: nobody waits for it.
        if P::ticket(&core.outside).is_some_and(|ticket| !ticket.take_free()) {
            return None;
        }
        let seat = core.take_vacant(&mut locked);
        Some(Opening(Claim::new(seat, holder.clone())))
    }

    pub(super) fn reserve(&self, locked: &mut Locked<'_, P>) -> Option<Seat<P>> {
        if locked.wanted() == 0 {
            return None;
        }
        if let Some(ticket) = P::ticket(&self.outside) {
            let took = ticket.take();
            locked.budget_moved |= matches!(took, Took::NewlyStarving | Took::YesAmongStarving);
            if matches!(took, Took::NewlyStarving | Took::StillStarving) {
                return None;
            }
        }
        Some(self.take_vacant(locked))
    }

    /// Takes a vacant slot; there must be room.
    fn take_vacant(&self, locked: &mut Locked<'_, P>) -> Seat<P> {
        let page = self.page_with_room(locked);
        let vacant = Word(locked.ledgers[page.index].vacant);
        let bit = vacant.lowest_idle().expect("the page has room");
        let id = SlotId {
            page: page.index,
            bit,
        };
        locked.note(id, State::Vacant, State::Opening);
        self.be_careful(locked);
        // SAFETY: the slot was vacant, and we took it under the mutex: nobody else has its seat.
        unsafe { Seat::new(page, bit) }
    }

    /// Raises `CAREFUL` while connections are in overflow: before one is there, so that no return that would
    /// be one too many is left alone.
    pub(super) fn be_careful(&self, locked: &mut Locked<'_, P>) {
        if locked.taken > locked.limits.keep && !locked.careful {
            locked.careful = true;
            self.idle.raise(Flag::Careful);
        }
    }

    /// Tells returns how many may be idle: with one word a count of its bits, with more none without the mutex.
    pub(super) fn tell_keep(&self, locked: &Locked<'_, P>) {
        let one = self.idle.pages.published() <= 1;
        self.idle.set_keep(if one { locked.limits.keep } else { 0 });
    }

    /// The page with most vacant slots; a new one where all are taken, or where the words that the slots
    /// are to be spread over are not all there.
    fn page_with_room(&self, locked: &mut Locked<'_, P>) -> &Page<P> {
        let pages = &self.idle.pages;
        loop {
            let published = pages.published();
            let best = (0..published).max_by_key(|index| {
                (
                    locked.ledgers[*index].vacant.count_ones(),
                    usize::MAX - index,
                )
            });
            if let Some(best) = best
                && locked.ledgers[best].vacant != 0
                && published >= locked.limits.spread
            {
                return pages.get(best);
            }
            let mut word = Word::EMPTY;
            if locked.waiting {
                word = word.with_flag(Flag::Waiting);
            }
            if locked.careful {
                word = word.with_flag(Flag::Careful);
            }
            let page = pages.publish(Self::next_page(locked, published), word);
            let vacant = (0..page.slots.len()).fold(0, |all, i| all | Bit::new(i).mask());
            locked.ledgers.push(Ledger {
                vacant,
                ..Ledger::default()
            });
            self.tell_keep(locked);
        }
    }

    /// How many slots the next page has: the pages of the first layout share the capacity evenly, and those
    /// that a growing pool adds are full.
    fn next_page(locked: &Locked<'_, P>, published: usize) -> usize {
        let capacity = locked.limits.capacity;
        let pages = capacity.div_ceil(SLOTS_PER_WORD).max(locked.limits.spread);
        if published < pages {
            let share = capacity.div_ceil(pages);
            share.min(capacity.saturating_sub(published * share)).max(1)
        } else {
            SLOTS_PER_WORD
        }
    }

    /// Puts a connection that was opened to use. Comes back if it is one too many, to be closed.
    pub(crate) fn landed<H: Holder<P>>(
        mut opening: Opening<P, H>,
        value: P::Value,
        now: u64,
    ) -> Option<Surplus<P, H>> {
        *opening.value_mut() = Some(value);
        Self::offered(State::Opening, opening.0, now)
    }

    /// Vacates a slot in which nothing was opened.
    pub(crate) fn give_up<H: Holder<P>>(opening: Opening<P, H>) {
        Self::free_room(opening.0, State::Opening);
    }

    /// Whether another attempt in the same slot is wanted by somebody who waits.
    pub(crate) fn still_wanted<H: Holder<P>>(opening: &Opening<P, H>) -> bool {
        let locked = opening.holder().core().lock();
        !locked.closed && !locked.suspended && locked.queue.len() >= locked.connecting
    }

    /// Whether another pool under the same budget has more need of this slot's room; it must then be given up.
    pub(crate) fn owes<H: Holder<P>>(opening: &Opening<P, H>) -> bool {
        let core = opening.holder().core();
        let mut locked = core.lock();
        locked.debt != Debt::Nothing && core.still_owes(&mut locked)
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
}
