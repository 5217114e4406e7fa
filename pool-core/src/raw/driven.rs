//! The idle words alone, driven from outside: for `fuzz_targets/idle_words.rs`, and built for nothing else.
//!
//! Slots are called by number: those of the first word, then those of the next. All methods may be called in any
//! order; one that makes no sense for the slot's state says so.

use std::fmt;

use super::Parts;
use super::budget::Ticket;
use super::claim::{Claim, Holder};
use super::idle::{Given, IdleSet};
use super::slot::{Seat, SlotId};
use super::word::{Bit, Flag, Word};

/// Slots that hold nothing.
struct Nothing;

impl Parts for Nothing {
    type Value = ();
    type Facts = ();
    type Refusal = ();
    type Guarded = ();
    type Outside = ();
    type Mark = ();

    const COARSE: u64 = 0;

    fn exact(coarse: u64) -> u64 {
        coarse
    }

    fn ticket((): &()) -> Option<&Ticket> {
        None
    }

    fn handed((): &(), (): (), _now: u64) {}

    fn stray<H: Holder<Self>>(_claim: Claim<Self, H>) {}
}

/// How giving a slot back went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gave {
    /// It is idle.
    Idle,
    /// It is idle, and one too many may be.
    Surplus,
    /// The mutex would have to be taken.
    MustLock,
}

/// A pool's idle words, and who owns the slots that are not idle.
pub struct IdleWords {
    set: IdleSet<Nothing>,
    per_word: usize,
    /// By number, the right to each slot that is not idle.
    seats: Vec<Option<Seat<Nothing>>>,
}

impl fmt::Debug for IdleWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.set.pages.iter();
        let words = words.map(|page| Word(page.word.load(crate::sync::Ordering::Relaxed)));
        f.debug_list().entries(words).finish()
    }
}

impl IdleWords {
    /// So many words of so many slots, none of them idle.
    pub fn new(words: usize, per_word: usize) -> Self {
        let set = IdleSet::new();
        let mut seats = Vec::new();
        for _ in 0..words {
            let page = set.pages.publish(per_word, Word::EMPTY);
            for index in 0..per_word {
                // SAFETY: no bit is set, and each slot's seat is made here once; the set outlives it, for both
                // stand in one value and a seat touches nothing when it is dropped.
                seats.push(Some(unsafe { Seat::new(page, Bit::new(index)) }));
            }
        }
        Self {
            set,
            per_word,
            seats,
        }
    }

    fn keep_seat(&mut self, seat: Seat<Nothing>) -> usize {
        let id = seat.id();
        let slot = id.page * self.per_word + id.bit.index();
        let before = self.seats[slot].replace(seat);
        assert!(before.is_none(), "slot {slot} was claimed by two");
        slot
    }

    /// Claims any idle slot.
    pub fn claim(&mut self) -> Option<usize> {
        let seat = self.set.claim()?;
        Some(self.keep_seat(seat))
    }

    /// Claims one slot, if it is idle.
    pub fn claim_at(&mut self, slot: usize) -> bool {
        let id = SlotId {
            page: slot / self.per_word,
            bit: Bit::new(slot % self.per_word),
        };
        let Some(seat) = self.set.claim_at(id) else {
            return false;
        };
        self.keep_seat(seat) == slot
    }

    /// Gives a slot back; `None` if it is idle already.
    pub fn give(&mut self, slot: usize) -> Option<Gave> {
        let seat = self.seats[slot].take()?;
        Some(match self.set.give(seat) {
            Given::Idle => Gave::Idle,
            Given::Surplus => Gave::Surplus,
            Given::MustLock(seat) => {
                self.keep_seat(seat);
                Gave::MustLock
            }
        })
    }

    /// Gives a slot back as the holder of the mutex does, unless `keep` are idle; `None` if it is idle already.
    pub fn set(&mut self, slot: usize, keep: usize) -> Option<bool> {
        let seat = self.seats[slot].take()?;
        let set = self.set.set(&seat, keep);
        if !set {
            self.keep_seat(seat);
        }
        Some(set)
    }

    /// Raises `WAITING` where no bit is set, or claims the slot that stands in the way.
    pub fn raise_waiting(&mut self) -> Option<usize> {
        match self.set.raise_waiting() {
            Ok(()) => None,
            Err(seat) => Some(self.keep_seat(seat)),
        }
    }

    /// Lowers `WAITING`.
    pub fn lower_waiting(&self) {
        self.set.lower(Flag::Waiting);
    }

    /// Raises `CAREFUL`, or lowers it.
    pub fn careful(&self, up: bool) {
        if up {
            self.set.raise(Flag::Careful);
        } else {
            self.set.lower(Flag::Careful);
        }
    }

    /// Says how many bits may be set in a word that carries `CAREFUL`.
    pub fn set_keep(&self, keep: usize) {
        self.set.set_keep(keep);
    }

    /// How many slots are idle.
    pub fn count(&self) -> usize {
        self.set.count()
    }

    /// Which slots are idle, in their order.
    pub fn idle(&self) -> Vec<usize> {
        let mut idle = Vec::new();
        self.set
            .each(|id, ()| idle.push(id.page * self.per_word + id.bit.index()));
        idle
    }
}
