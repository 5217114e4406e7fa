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
//! `WAITING` is raised only by compare-exchange from a word with no bit set ([`raise_waiting`]), or for good
//! when the pool closes, and while it is up nobody but the holder of the mutex sets a bit. A word changes only by
//! read-modify-write; a plain store would cut the chain through which a claim sees older returns.
//!
//! # Overflow
//! `CAREFUL` is up while more than `pool_size` connections exist. Whether a return is then one too many
//! (`pool_size` are idle already) is, with one word, a count of its bits, decided in the same
//! compare-exchange; with several words it is decided under the mutex.
//!
//! Not fair (the wait queue is), and not ordered among racing callers. No ABA: a bit carries no
//! identity beyond its slot, and setting it again is exactly as good as never having cleared it.
//! Checked by the models `claims`, `joining` and `overflow`.
//!
//! [`raise_waiting`]: IdleSet::raise_waiting

use super::Parts;
use super::slot::{Page, Pages, Seat};
use super::word::{Flag, Word};
use crate::sync::{AtomicU64, Ordering, home};

pub(super) struct IdleSet<P: Parts> {
    pub(super) pages: Pages<P>,
    /// How many bits a word that carries `CAREFUL` may have before a return must take the mutex: with one
    /// word `pool_size`, with more none.
    keep: u32,
}

/// A return that may not set its bit: the seat comes back, and the way on leads through the mutex.
#[must_use = "the seat in it must go on"]
pub(super) struct MustLock<P: Parts>(pub(super) Seat<P>);

impl<P: Parts> IdleSet<P> {
    pub(super) fn new(pages: Pages<P>, keep: usize) -> Self {
        let keep = if pages.most() == 1 {
            u32::try_from(keep).unwrap_or(u32::MAX)
        } else {
            0
        };
        Self { pages, keep }
    }

    /// Takes an idle slot, if there is one, looking at this thread's own word first.
    #[inline]
    pub(super) fn claim(&self) -> Option<Seat<P>> {
        let pages = self.pages.published();
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

    /// Gives a slot back for anybody to claim, unless a flag is up or enough are idle.
    #[inline]
    pub(super) fn give(&self, seat: Seat<P>) -> Result<(), MustLock<P>> {
        let (page, bit) = (seat.page(), seat.bit());
        // Ordering: Relaxed; the exchange decides.
        let mut word = Word(page.word.load(Ordering::Relaxed));
        loop {
            if word.has_flags() && (word.has_flag(Flag::Waiting) || word.idle_count() >= self.keep)
            {
                return Err(MustLock(seat));
            }
            // Ordering: Release hands what this owner wrote to the `claim_in` that takes the bit.
            match page.word.compare_exchange_weak(
                word.0,
                word.with_idle(bit).0,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(now) => word = Word(now),
            }
        }
    }

    /// Gives a slot back whatever flags are up; the caller holds the mutex and found no reason against it.
    pub(super) fn set(seat: &Seat<P>) {
        // Ordering: Release, as in `give`.
        let before = Word(
            seat.page()
                .word
                .fetch_or(seat.bit().mask(), Ordering::Release),
        );
        debug_assert!(!before.has(seat.bit()), "an owned slot is not idle");
    }

    /// Raises `WAITING` on every word, or takes the idle slot that stands in the way.
    ///
    /// The caller holds the mutex. On `Err` some words may carry the flag: the caller lowers it again
    /// unless somebody else waits.
    pub(super) fn raise_waiting(&self) -> Result<(), Seat<P>> {
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
        self.for_each_word(|word| {
            // Ordering: Relaxed; the flag only sends returns to the mutex.
            word.fetch_or(flag.mask(), Ordering::Relaxed);
        });
    }

    /// Lowers a flag on every word; the caller holds the mutex.
    pub(super) fn lower(&self, flag: Flag) {
        self.for_each_word(|word| {
            // Ordering: Relaxed; whoever sets a bit from now on releases it itself.
            word.fetch_and(!flag.mask(), Ordering::Relaxed);
        });
    }

    /// How many slots are idle: exact if nobody claims or returns meanwhile, else as of a moment ago.
    pub(super) fn count(&self) -> usize {
        let mut count = 0;
        self.for_each_word(|word| {
            // Ordering: Relaxed; a number that is old as soon as it is read.
            count += Word(word.load(Ordering::Relaxed)).idle_count() as usize;
        });
        count
    }

    fn for_each_word(&self, mut f: impl FnMut(&AtomicU64)) {
        for page in self.pages.iter() {
            f(&page.word);
        }
    }
}
