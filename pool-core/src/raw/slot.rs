//! Slots, the pages that hold them, and the token that owns one.
//!
//! A page is one word and its slots. Pages are made when they are first needed, published once and freed
//! with the core, so a pointer to a slot is good for as long as its core lives.
//!
//! # Ownership
//! A [`Seat`] is the right to one slot. Exactly one exists for a slot while its idle bit is down and it is
//! not vacant; while the bit is up, or the slot is vacant, none does. It is made by whoever clears the bit
//! ([`idle`](super::idle)) or takes a vacant slot under the mutex ([`core`](super::core)), and used up by
//! whoever sets the bit or vacates the slot. Nobody but its owner touches a slot's value.

use std::ptr::{self, NonNull};

use crossbeam_utils::CachePadded;

use super::Parts;
use super::word::{Bit, Word};
use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, UnsafeCell};

/// A place for one connection. Aligned to a cache line, so that two owners do not slow each other down.
#[repr(align(64))]
pub(super) struct Slot<P: Parts> {
    pub(super) value: UnsafeCell<Option<P::Value>>,
    pub(super) facts: P::Facts,
    /// The page that it is part of, and its bit there: kept here, so that a seat is one pointer.
    page: NonNull<Page<P>>,
    bit: Bit,
}

/// One word and the slots that its bits stand for.
pub(super) struct Page<P: Parts> {
    pub(super) word: CachePadded<AtomicU64>,
    /// Its place among the pages.
    pub(super) index: usize,
    pub(super) slots: Box<[Slot<P>]>,
}

/// The right to one slot, and the way to it.
///
/// Losing one leaks its slot for good, so whatever holds one gives it back in its destructor.
#[must_use = "a seat that is dropped leaks its slot"]
pub(super) struct Seat<P: Parts>(NonNull<Slot<P>>);

// SAFETY: a seat gives access to its slot's value, which is `Send`, to one owner at a time; the page and
// the facts are `Sync`.
unsafe impl<P: Parts> Send for Seat<P> {}

// SAFETY: a shared seat gives shared access to the value alone.
unsafe impl<P: Parts<Value: Sync>> Sync for Seat<P> {}

impl<P: Parts> Seat<P> {
    /// # Safety
    /// The caller has just become the only owner of this slot (see the module's Ownership), and the page
    /// belongs to a core that outlives the seat.
    #[inline]
    pub(super) unsafe fn new(page: &Page<P>, bit: Bit) -> Self {
        Self(NonNull::from(&page.slots[bit.index()]))
    }

    #[inline]
    pub(super) fn page(&self) -> &Page<P> {
        // SAFETY: a slot is part of its page, and pages live as long as their core, which outlives the seat.
        unsafe { self.slot().page.as_ref() }
    }

    #[inline]
    pub(super) fn slot(&self) -> &Slot<P> {
        // SAFETY: slots live as long as their core, which outlives the seat (`new`).
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(super) fn bit(&self) -> Bit {
        self.slot().bit
    }

    #[inline]
    pub(super) fn value(&self) -> Option<&P::Value> {
        self.slot().value.with(|value| {
            // SAFETY: we own the slot (Ownership), and the borrow of `self` keeps it so.
            unsafe { (*value).as_ref() }
        })
    }

    #[inline]
    pub(super) fn value_mut(&mut self) -> &mut Option<P::Value> {
        self.slot().value.with_mut(|value| {
            // SAFETY: we own the slot (Ownership), and the exclusive borrow of `self` keeps it so.
            unsafe { &mut *value }
        })
    }
}

/// All pages of a core, in the order of their publication.
pub(super) struct Pages<P: Parts> {
    all: Box<[AtomicPtr<Page<P>>]>,
    published: AtomicUsize,
    slots_per_page: usize,
    /// How many slots there are in all, when every page is published.
    slots: usize,
}

impl<P: Parts> Pages<P> {
    pub(super) fn new(slots: usize, pages: usize) -> Self {
        Self {
            slots_per_page: slots.div_ceil(pages),
            all: (0..pages)
                .map(|_| AtomicPtr::new(ptr::null_mut()))
                .collect(),
            published: AtomicUsize::new(0),
            slots,
        }
    }

    /// How many pages there can be.
    pub(super) fn most(&self) -> usize {
        self.all.len()
    }

    #[inline]
    pub(super) fn published(&self) -> usize {
        // Ordering: Acquire takes over the page that `publish` wrote before it raised the count.
        self.published.load(Ordering::Acquire)
    }

    /// The page at `index`, which must be published.
    #[inline]
    pub(super) fn get(&self, index: usize) -> &Page<P> {
        // Ordering: Relaxed; the index is below `published`, which carried the page over.
        let page = self.all[index].load(Ordering::Relaxed);
        debug_assert!(!page.is_null(), "only published pages are asked for");
        // SAFETY: published pages are never replaced, and freed only with `self`.
        unsafe { &*page }
    }

    /// Adds the next page with `word` in it; the caller holds the mutex. `None` when all are there.
    pub(super) fn publish(&self, word: Word) -> Option<&Page<P>> {
        let index = self.published();
        let first = index * self.slots_per_page;
        let slots = self.slots.saturating_sub(first).min(self.slots_per_page);
        if index == self.all.len() || slots == 0 {
            return None;
        }
        let slot = |index| Slot {
            value: UnsafeCell::new(None),
            facts: P::Facts::default(),
            page: NonNull::dangling(), // Until the page has its place, below.
            bit: Bit::new(index),
        };
        let page = NonNull::from(Box::leak(Box::new(Page {
            word: CachePadded::new(AtomicU64::new(word.0)),
            index,
            slots: (0..slots).map(slot).collect(),
        })));
        // SAFETY: just leaked, and not published yet: nobody else knows it.
        let slots = unsafe { &mut (*page.as_ptr()).slots };
        for slot in slots {
            slot.page = page;
        }
        // Ordering: Relaxed; the count below carries it over.
        self.all[index].store(page.as_ptr(), Ordering::Relaxed);
        // Ordering: Release hands the page to `published`.
        self.published.store(index + 1, Ordering::Release);
        Some(self.get(index))
    }

    #[inline]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Page<P>> {
        (0..self.published()).map(|index| self.get(index))
    }
}

impl<P: Parts> Drop for Pages<P> {
    fn drop(&mut self) {
        for index in 0..self.published() {
            // Ordering: Relaxed; we have `&mut self`.
            let page = self.all[index].load(Ordering::Relaxed);
            // SAFETY: leaked out of a box in `publish`, once, and no seat outlives the core.
            drop(unsafe { Box::from_raw(page) });
        }
    }
}
