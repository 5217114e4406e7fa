//! What a slot holds, and what is known about it.

use std::panic::Location;

use crossbeam_utils::atomic::AtomicCell;

use crate::sync::{AtomicU64, Ordering};

/// The generation of a connection that is closed when it comes back, whatever its age.
pub(crate) const OUTCAST: u64 = u64::MAX;

/// A connection, and the facts that only its owner touches. Times are the [`clock`](crate::clock)'s.
pub(crate) struct Entry<C> {
    pub(crate) conn: C,
    /// The pool's generation when it began to open, or when it was last checked.
    pub(crate) generation: u64,
    /// The last moment at which it is handed out.
    pub(crate) expires: u64,
    /// From when on it is pinged before it is handed out; never for one that was just opened.
    pub(crate) ping_at: u64,
}

impl<C> Entry<C> {
    /// Whether it can be handed out without a closer look.
    #[inline]
    pub(crate) fn is_plain(&self, generation: u64, now: u64) -> bool {
        self.generation == generation && now < self.ping_at && now <= self.expires
    }
}

/// What others may read about a slot in use.
#[derive(Default)]
pub(crate) struct Facts {
    place: AtomicCell<Option<&'static Location<'static>>>,
    since: AtomicU64,
}

impl Facts {
    /// Notes who has it; called by the new owner.
    #[inline]
    pub(crate) fn note(&self, place: &'static Location<'static>, now: u64) {
        self.place.store(Some(place));
        // Ordering: Relaxed; readers want a hint, and may see one fact of the old owner's.
        self.since.store(now, Ordering::Relaxed);
    }

    /// Where it was checked out, and when.
    pub(crate) fn read(&self) -> Option<(&'static Location<'static>, u64)> {
        Some((self.place.load()?, self.since.load(Ordering::Relaxed)))
    }
}
