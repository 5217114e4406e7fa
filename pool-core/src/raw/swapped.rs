//! The door to an idle structure that is not ours: [`lab::IdleSet`](crate::lab::IdleSet).
//!
//! It stands for the slots of the first pages; those of pages that a growing pool adds keep to their words.
//!
//! # Ownership
//! The structure is safe code, which may be wrong. So who owns a slot is written down here as well: `owned` is up
//! while somebody does (or the slot is vacant). Whoever puts a slot in lowers it first, whoever takes one out must
//! find it lowered. The exchange also carries what the last owner wrote, whatever orderings the structure has.

use super::slot::SlotId;
use super::word::{Bit, Flag};
use crate::lab::IdleSet;
use crate::sync::{AtomicBool, AtomicU8, Ordering, SLOTS_PER_WORD};

pub(super) struct Swapped {
    set: Box<dyn IdleSet>,
    owned: Box<[AtomicBool]>,
    /// Which flags are up; written under the mutex.
    flags: AtomicU8,
}

fn flag_bit(flag: Flag) -> u8 {
    match flag {
        Flag::Waiting => 1,
        Flag::Careful => 2,
    }
}

fn number(id: SlotId) -> usize {
    id.page * SLOTS_PER_WORD + id.bit.index()
}

fn place(slot: usize) -> SlotId {
    SlotId {
        page: slot / SLOTS_PER_WORD,
        bit: Bit::new(slot % SLOTS_PER_WORD),
    }
}

impl Swapped {
    /// For so many pages.
    pub(super) fn new(pages: usize, make: impl FnOnce(usize) -> Box<dyn IdleSet>) -> Self {
        let slots = pages * SLOTS_PER_WORD;
        Self {
            set: make(slots),
            owned: (0..slots).map(|_| AtomicBool::new(true)).collect(),
            flags: AtomicU8::new(0),
        }
    }

    /// How many pages it stands for.
    pub(super) fn pages(&self) -> usize {
        self.owned.len() / SLOTS_PER_WORD
    }

    /// Notes that the caller owns what the structure handed out.
    fn own(&self, slot: usize) -> SlotId {
        let owned = self
            .owned
            .get(slot)
            .expect("an idle structure hands out slots that it was given");
        // Ordering: Acquire takes over what the last owner wrote before `disown`.
        let twice = owned.swap(true, Ordering::Acquire);
        assert!(
            !twice,
            "the idle structure handed out slot {slot}, which is in use"
        );
        place(slot)
    }

    fn disown(&self, slot: usize) {
        // Ordering: Release hands what its owner wrote to `own`.
        self.owned[slot].store(false, Ordering::Release);
    }

    pub(super) fn claim(&self) -> Option<SlotId> {
        Some(self.own(self.set.claim()?))
    }

    pub(super) fn claim_at(&self, id: SlotId) -> Option<SlotId> {
        let slot = number(id);
        self.set.claim_at(slot).then(|| self.own(slot))
    }

    /// Makes a slot idle, or has one for the caller to go on with.
    pub(super) fn give(&self, id: SlotId) -> Result<(), SlotId> {
        let slot = number(id);
        self.disown(slot);
        self.set.give(slot).map_err(|slot| self.own(slot))
    }

    /// Makes a slot idle unless `keep` are; the caller holds the mutex.
    pub(super) fn set(&self, id: SlotId, keep: usize) -> bool {
        let few = self.set.count() < keep;
        if few {
            let slot = number(id);
            self.disown(slot);
            self.set.put(slot);
        }
        few
    }

    pub(super) fn raise(&self, flag: Flag) {
        // Ordering of both, here and in `lower`: Relaxed; under the mutex.
        self.flags.store(
            self.flags.load(Ordering::Relaxed) | flag_bit(flag),
            Ordering::Relaxed,
        );
        self.set.shut();
    }

    pub(super) fn lower(&self, flag: Flag) {
        let before = self.flags.load(Ordering::Relaxed);
        let after = before & !flag_bit(flag);
        self.flags.store(after, Ordering::Relaxed);
        if after == 0 && before != 0 {
            self.set.open();
        }
    }

    pub(super) fn count(&self) -> usize {
        self.set.count()
    }

    /// Whether a slot is idle, or was a moment ago.
    pub(super) fn has(&self, id: SlotId) -> bool {
        // Ordering: Relaxed; a number for the eye, as a word's bits are.
        !self.owned[number(id)].load(Ordering::Relaxed)
    }
}
