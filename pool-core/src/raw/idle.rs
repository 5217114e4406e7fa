//! The idle words: which slots hold a connection that nobody is using.
//!
//! One bit a slot, 62 slots a word; the word's top bits are `WAITING` and `CAREFUL` ([`word`](super::word)).
//! Claiming takes the lowest bit set, so load gathers on few connections and the rest age until they are
//! closed. Small pools have one word, large ones a word for each 62 slots, and pools without overflow at
//! least one for each processor, so that threads meet less often.
//!
//! # Ownership
//! Whoever clears a bit owns that slot alone, until the same owner sets it again and so gives it away.
//!
//! # Flags
//! `WAITING` is raised by compare-exchange from a word with no bit set ([`raise_waiting`]), or by somebody
//! who takes all bits away right after ([`core`](super::core), The gate), and while it is up nobody but the
//! holder of the mutex sets a bit. A word changes only by read-modify-write; a plain store would cut the chain
//! through which a claim sees older returns.
//!
//! # Overflow
//! `CAREFUL` is up while more than `pool_size` connections exist. Whether a return is then one too many
//! (`pool_size` are idle already) is, with one word, a count of its bits, decided in the same
//! compare-exchange; with several words it is decided under the mutex. The number itself can change while a
//! return is on its way:
//!
//! ```text
//! set_keep                               give_carefully
//!   write the new number                   read the number: few enough are idle
//!   touch every word (Release)             set the bit (Acquire)
//!   count bits: trim what is too many      read the number again: a surplus?
//! ```
//! Whichever touches the word later sees what the other wrote, so no surplus is overlooked by both.
//!
//! Not fair (the wait queue is), and not ordered among racing callers. No ABA: a bit carries no
//! identity beyond its slot, and setting it again is exactly as good as never having cleared it.
//! Checked by the models `claims`, `joining`, `overflow` and `resizing`, and by
//! `fuzz_targets/idle_words.rs`.
//!
//! [`raise_waiting`]: IdleSet::raise_waiting

use super::Parts;
use super::slot::{Page, Pages, Seat, SlotId};
#[cfg(feature = "lab")]
use super::swapped::Swapped;
use super::word::{Bit, Flag, Word};
use crate::sync::{AtomicU32, AtomicU64, Ordering, home};

pub(super) struct IdleSet<P: Parts> {
    pub(super) pages: Pages<P>,
    /// How many bits a word that carries `CAREFUL` may have before a return must take the mutex: with one
    /// word `pool_size`, with more none.
    keep: AtomicU32,
    /// Another structure in the place of the first words.
    #[cfg(feature = "lab")]
    pub(super) swapped: Option<Box<Swapped>>,
}

/// How giving a slot back went.
#[must_use = "the seat in it must go on"]
pub(super) enum Given<P: Parts> {
    Idle,
    /// It is idle, and by now one too many may be: look under the mutex.
    Surplus,
    /// A flag is up or enough are idle: the way on leads through the mutex.
    MustLock(Seat<P>),
}

impl<P: Parts> IdleSet<P> {
    pub(super) fn new() -> Self {
        Self {
            pages: Pages::new(),
            keep: AtomicU32::new(0),
            #[cfg(feature = "lab")]
            swapped: None,
        }
    }

    /// Says how many bits may be set in a pool of one word that carries `CAREFUL`. The caller holds the
    /// mutex, and trims what is too many afterwards.
    pub(super) fn set_keep(&self, keep: usize) {
        let keep = u32::try_from(keep).unwrap_or(u32::MAX);
        // Ordering of the load: Relaxed; written under the mutex, which the caller holds.
        if self.keep.load(Ordering::Relaxed) == keep {
            return;
        }
        // Ordering: Relaxed; the touch below carries it.
        self.keep.store(keep, Ordering::Relaxed);
        self.for_each_word(|word| {
            // Ordering: Release hands the number to a `give_carefully` that touches the word later.
            word.fetch_or(0, Ordering::Release);
        });
    }

    /// Takes an idle slot, if there is one, looking at this thread's own word first.
    #[inline]
    pub(super) fn claim(&self) -> Option<Seat<P>> {
        let pages = self.pages.published();
        #[cfg(feature = "lab")]
        if let Some(swapped) = &self.swapped {
            let found = swapped.claim().map(|id| self.seat(id));
            if found.is_some() || pages <= swapped.pages() {
                return found;
            }
        }
        let mut index = home(pages);
        for _ in 0..pages {
            if let Some(seat) = Self::claim_in(self.pages.get(index)) {
                return Some(seat);
            }
            index += 1;
            if index == pages {
                index = 0;
            }
        }
        None
    }

    #[inline]
    fn claim_in(page: &Page<P>) -> Option<Seat<P>> {
        // Ordering: Relaxed; only a hint where to look. The exchange below carries what matters.
        let mut word = Word(page.word.load(Ordering::Relaxed));
        while let Some(bit) = word.lowest_idle() {
            // Ordering: Acquire takes over what the last owner wrote before `give` (or `set`) released
            // this bit.
            match page.word.compare_exchange_weak(
                word.0,
                word.without_idle(bit).0,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                // SAFETY: we cleared this slot's bit, so we own it alone; the page is our core's.
                Ok(_) => return Some(unsafe { Seat::new(page, bit) }),
                Err(now) => word = Word(now), // Somebody was faster; look at what they left.
            }
        }
        None
    }

    /// Takes one slot, if it is idle.
    pub(super) fn claim_at(&self, id: SlotId) -> Option<Seat<P>> {
        let page = self.pages.get(id.page);
        #[cfg(feature = "lab")]
        if let Some(swapped) = self.swapped_for(page) {
            return swapped.claim_at(id).map(|id| self.seat(id));
        }
        // Ordering: Acquire, as in `claim_in`.
        let before = Word(page.word.fetch_and(!id.bit.mask(), Ordering::Acquire));
        // SAFETY: where the bit was set, we cleared it, so we own its slot alone; the page is our core's.
        before
            .has(id.bit)
            .then(|| unsafe { Seat::new(page, id.bit) })
    }

    /// Gives a slot back for anybody to claim, unless a flag is up or enough are idle.
    #[inline]
    pub(super) fn give(&self, seat: Seat<P>) -> Given<P> {
        let (page, bit) = (seat.page(), seat.bit());
        #[cfg(feature = "lab")]
        if let Some(swapped) = self.swapped_for(page) {
            return match swapped.give(seat.id()) {
                Ok(()) => Given::Idle,
                Err(id) => Given::MustLock(self.seat(id)),
            };
        }
        // Ordering: Relaxed; the exchange decides.
        let mut word = Word(page.word.load(Ordering::Relaxed));
        loop {
            if word.has_flags() {
                return self.give_carefully(seat);
            }
            // Ordering: Release hands what this owner wrote to the `claim_in` that takes the bit.
            match page.word.compare_exchange_weak(
                word.0,
                word.with_idle(bit).0,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Given::Idle,
                Err(now) => word = Word(now),
            }
        }
    }

    /// [`give`](Self::give) where a flag was up.
    fn give_carefully(&self, seat: Seat<P>) -> Given<P> {
        let (page, bit) = (seat.page(), seat.bit());
        // Ordering: Relaxed; the exchange decides.
        let mut word = Word(page.word.load(Ordering::Relaxed));
        loop {
            // Ordering: Relaxed; looked at again after the exchange.
            let keep = self.keep.load(Ordering::Relaxed);
            if word.has_flag(Flag::Waiting)
                || (word.has_flag(Flag::Careful) && word.idle_count() >= keep)
            {
                return Given::MustLock(seat);
            }
            // Ordering: Release as in `give`; Acquire takes over the number from a `set_keep` that touched the
            // word before us.
            match page.word.compare_exchange_weak(
                word.0,
                word.with_idle(bit).0,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_)
                    if word.has_flag(Flag::Careful)
                    // Ordering: Relaxed; the exchange carried it.
                    && word.idle_count() >= self.keep.load(Ordering::Relaxed) =>
                {
                    return Given::Surplus;
                }
                Ok(_) => return Given::Idle,
                Err(now) => word = Word(now),
            }
        }
    }

    /// Gives a slot back whatever flags are up, unless `keep` are idle; the caller holds the mutex and found no
    /// other reason against it.
    pub(super) fn set(&self, seat: &Seat<P>, keep: usize) -> bool {
        let (page, mask) = (seat.page(), seat.bit().mask());
        #[cfg(feature = "lab")]
        if let Some(swapped) = self.swapped_for(page) {
            return swapped.set(seat.id(), keep);
        }
        if self.pages.published() > 1 {
            // With several words, nobody sets a bit without the mutex while there may be too many.
            let few = self.count() < keep;
            if few {
                // Ordering: Release, as in `give`.
                page.word.fetch_or(mask, Ordering::Release);
            }
            return few;
        }
        // With one, others may: the count and the bit are one step.
        // Ordering: Release, as in `give`.
        let done = page
            .word
            .fetch_update(Ordering::Release, Ordering::Relaxed, |word| {
                let few = (Word(word).idle_count() as usize) < keep;
                few.then_some(word | mask)
            });
        done.is_ok()
    }

    /// Raises `WAITING` on every word, or takes the idle slot that stands in the way.
    ///
    /// The caller holds the mutex. On `Err` some words may carry the flag: the caller lowers it again
    /// unless somebody else waits.
    pub(super) fn raise_waiting(&self) -> Result<(), Seat<P>> {
        #[cfg(feature = "lab")]
        if let Some(swapped) = &self.swapped {
            swapped.raise(Flag::Waiting);
            if let Some(id) = swapped.claim() {
                return Err(self.seat(id));
            }
        }
        for page in self.pages.iter() {
            // Ordering: Relaxed; the exchange decides.
            let mut word = Word(page.word.load(Ordering::Relaxed));
            loop {
                if word.lowest_idle().is_some() {
                    if let Some(seat) = Self::claim_in(page) {
                        return Err(seat);
                    }
                    word = Word(page.word.load(Ordering::Relaxed));
                    continue;
                }
                // Ordering: Relaxed; the flag sends returns to the mutex, and that carries the queue.
                match page.word.compare_exchange(
                    word.0,
                    word.with_flag(Flag::Waiting).0,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => break,
                    Err(now) => word = Word(now),
                }
            }
        }
        Ok(())
    }

    /// Raises a flag on every word, idle bits or not; the caller holds the mutex.
    pub(super) fn raise(&self, flag: Flag) {
        #[cfg(feature = "lab")]
        if let Some(swapped) = &self.swapped {
            swapped.raise(flag);
        }
        self.for_each_word(|word| {
            // Ordering: Relaxed; the flag only sends returns to the mutex.
            word.fetch_or(flag.mask(), Ordering::Relaxed);
        });
    }

    /// Lowers a flag on every word; the caller holds the mutex.
    pub(super) fn lower(&self, flag: Flag) {
        #[cfg(feature = "lab")]
        if let Some(swapped) = &self.swapped {
            swapped.lower(flag);
        }
        self.for_each_word(|word| {
            // Ordering: Relaxed; whoever sets a bit from now on releases it itself.
            word.fetch_and(!flag.mask(), Ordering::Relaxed);
        });
    }

    /// Shows `f` every slot that is idle now.
    pub(super) fn each(&self, mut f: impl FnMut(SlotId, &P::Facts)) {
        for page in self.pages.iter() {
            // Ordering: Relaxed; what is claimed or returned meanwhile is shown as it was or is.
            let word = Word(page.word.load(Ordering::Relaxed));
            for (index, slot) in page.slots.iter().enumerate() {
                let bit = Bit::new(index);
                if self.shows(page, word, bit) {
                    let page = page.index;
                    f(SlotId { page, bit }, &slot.facts);
                }
            }
        }
    }

    /// How many slots are idle: exact if nobody claims or returns meanwhile, else as of a moment ago.
    pub(super) fn count(&self) -> usize {
        let mut count = 0;
        #[cfg(feature = "lab")]
        if let Some(swapped) = &self.swapped {
            count = swapped.count();
        }
        self.for_each_word(|word| {
            // Ordering: Relaxed; a number that is old as soon as it is read.
            count += Word(word.load(Ordering::Relaxed)).idle_count() as usize;
        });
        count
    }

    /// Whether a slot of a page is idle, whose word was just read.
    #[inline]
    pub(super) fn shows(&self, page: &Page<P>, word: Word, bit: Bit) -> bool {
        #[cfg(feature = "lab")]
        if let Some(swapped) = self.swapped_for(page) {
            let page = page.index;
            return swapped.has(SlotId { page, bit });
        }
        #[cfg(not(feature = "lab"))]
        let _ = (self, page);
        word.has(bit)
    }

    /// The structure that stands for a page's slots instead of its word.
    #[cfg(feature = "lab")]
    #[inline]
    fn swapped_for(&self, page: &Page<P>) -> Option<&Swapped> {
        let swapped = self.swapped.as_deref();
        swapped.filter(|swapped| page.index < swapped.pages())
    }

    /// The seat of a slot that [`Swapped`] gave us.
    #[cfg(feature = "lab")]
    fn seat(&self, id: SlotId) -> Seat<P> {
        // SAFETY: `Swapped` has noted that the slot is ours alone; the page is our core's.
        unsafe { Seat::new(self.pages.get(id.page), id.bit) }
    }

    fn for_each_word(&self, mut f: impl FnMut(&AtomicU64)) {
        for page in self.pages.iter() {
            f(&page.word);
        }
    }
}
