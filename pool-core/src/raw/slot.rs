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

/// Where a slot stands: no right to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotId {
    pub(super) page: usize,
    pub(super) bit: Bit,
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

    /// Where the slot stands.
    pub(super) fn id(&self) -> SlotId {
        SlotId {
            page: self.page().index,
            bit: self.bit(),
        }
    }

    #[inline]
    pub(super) fn value(&self) -> Option<&P::Value> {
        self.slot().value.with(|value| {
            // SAFETY: we own the slot (Ownership), and the borrow of `self` keeps it so.
            unsafe { (*value).as_ref() }
        })
    }

    /// The slot's value and its facts.
    #[inline]
    pub(super) fn split(&mut self) -> (&mut Option<P::Value>, &P::Facts) {
        let slot = self.slot();
        let value = slot.value.with_mut(|value| {
            // SAFETY: as in `value_mut`; the facts are another field.
            unsafe { &mut *value }
        });
        (value, &slot.facts)
    }

    #[inline]
    pub(super) fn value_mut(&mut self) -> &mut Option<P::Value> {
        self.slot().value.with_mut(|value| {
            // SAFETY: we own the slot (Ownership), and the exclusive borrow of `self` keeps it so.
            unsafe { &mut *value }
        })
    }
}

/// How many segments of pages there can be beside the first page.
const SEGMENTS: usize = 11;

/// All pages of a core, in the order of their publication.
///
/// The first stands alone, since most pools have one. The others stand in segments that double: segment `k`
/// holds the pages `2^k` to `2^(k+1) - 1`. So a pool can grow, a small one is small, and what is published
/// never moves.
pub(super) struct Pages<P: Parts> {
    first: AtomicPtr<Page<P>>,
    segments: [AtomicPtr<AtomicPtr<Page<P>>>; SEGMENTS],
    published: AtomicUsize,
}

/// The segment in which a page stands that is not the first, and its place there.
#[inline]
fn place(index: usize) -> (usize, usize) {
    let segment = index.ilog2() as usize;
    (segment, index - (1 << segment))
}

impl<P: Parts> Pages<P> {
    pub(super) fn new() -> Self {
        Self {
            first: AtomicPtr::new(ptr::null_mut()),
            segments: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            published: AtomicUsize::new(0),
        }
    }

    #[inline]
    pub(super) fn published(&self) -> usize {
        // Ordering: Acquire takes over the page that `publish` wrote before it raised the count.
        self.published.load(Ordering::Acquire)
    }

    /// The page at `index`, which must be published.
    #[inline]
    pub(super) fn get(&self, index: usize) -> &Page<P> {
        let place = if index == 0 {
            &self.first
        } else {
            self.later(index)
        };
        // Ordering: Relaxed; the index is below `published`, which carried the page over.
        let page = place.load(Ordering::Relaxed);
        debug_assert!(!page.is_null(), "only published pages are asked for");
        // SAFETY: published pages are never replaced, and freed only with `self`.
        unsafe { &*page }
    }

    /// Where the pointer to a page that is not the first stands; its segment must be there.
    fn later(&self, index: usize) -> &AtomicPtr<Page<P>> {
        let (segment, offset) = place(index);
        // Ordering: Relaxed, as in `get`.
        let segment = self.segments[segment].load(Ordering::Relaxed);
        debug_assert!(!segment.is_null(), "a page's segment is there before it");
        // SAFETY: a segment is as long as `place` says.
        let place = unsafe { segment.add(offset) };
        // SAFETY: segments are never replaced, and freed only with `self`.
        unsafe { &*place }
    }

    /// Adds the next page, of so many slots, with `word` in it; the caller holds the mutex.
    pub(super) fn publish(&self, slots: usize, word: Word) -> &Page<P> {
        let index = self.published();
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
        // Ordering of both stores: Relaxed; the count below carries them over.
        if index == 0 {
            self.first.store(page.as_ptr(), Ordering::Relaxed);
        } else {
            let (segment, offset) = place(index);
            if offset == 0 {
                let empty: Box<[_]> = (0..1_usize << segment)
                    .map(|_| AtomicPtr::new(ptr::null_mut()))
                    .collect();
                let start = Box::leak(empty).as_mut_ptr();
                self.segments[segment].store(start, Ordering::Relaxed);
            }
            self.later(index).store(page.as_ptr(), Ordering::Relaxed);
        }
        // Ordering: Release hands the page to `published`.
        self.published.store(index + 1, Ordering::Release);
        self.get(index)
    }

    #[inline]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Page<P>> {
        (0..self.published()).map(|index| self.get(index))
    }
}

impl<P: Parts> Drop for Pages<P> {
    fn drop(&mut self) {
        for index in 0..self.published() {
            let page = ptr::from_ref(self.get(index)).cast_mut();
            // SAFETY: leaked out of a box in `publish`, once, and no seat outlives the core.
            drop(unsafe { Box::from_raw(page) });
        }
        for (segment, start) in self.segments.iter().enumerate() {
            // Ordering: Relaxed; we have `&mut self`.
            let start = start.load(Ordering::Relaxed);
            if !start.is_null() {
                let all = ptr::slice_from_raw_parts_mut(start, 1 << segment);
                // SAFETY: leaked out of a box of this length in `publish`, once.
                drop(unsafe { Box::from_raw(all) });
            }
        }
    }
}
