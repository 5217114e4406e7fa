//! What a slot holds, and what is known about it.

use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::atomic::AtomicCell;

#[cfg(debug_assertions)]
use crate::rt::{self, TaskId};

/// The generation of a connection that is closed when it comes back, whatever its age.
pub(crate) const OUTCAST: u64 = u64::MAX;

/// One checkout in this many is timed exactly, for the histogram of hold times.
const SAMPLE: u64 = 64;

/// A connection, and the facts that only its owner touches. Times are the [`clock`](crate::clock)'s.
pub(crate) struct Entry<C> {
    pub(crate) conn: C,
    /// Its number in the pool, counted from one.
    pub(crate) serial: u64,
    /// The pool's generation when it began to open, or when it was last checked.
    pub(crate) generation: u64,
    /// When it began to open, by the exact clock.
    pub(crate) begun: u64,
    pub(crate) born: u64,
    /// When the checkout began that is being timed.
    pub(crate) timed: u64,
    /// Nobody had it yet.
    pub(crate) fresh: bool,
}

/// What others may read about a slot: written by its owner with plain loads and stores, or under the mutex.
///
/// Ordering of all: Relaxed. Readers want hints, and what they decide by them is looked at again by whoever
/// owns the slot by then.
#[derive(Default)]
pub(crate) struct Facts {
    place: AtomicCell<Option<&'static Location<'static>>>,
    since: AtomicU64,
    proven: AtomicU64,
    expires: AtomicU64,
    serial: AtomicU64,
    uses: AtomicU64,
    suspected: AtomicU64,
    overdue: AtomicU64,
    /// Which task took it: looked at where another checkout of the same task waits.
    #[cfg(debug_assertions)]
    task: AtomicCell<Option<TaskId>>,
}

impl Facts {
    /// Notes a connection that was just opened, and is fit until `expires`.
    pub(crate) fn born(&self, serial: u64, now: u64, expires: u64) {
        self.serial.store(serial, Ordering::Relaxed);
        self.expires.store(expires, Ordering::Relaxed);
        self.rest(now);
    }

    /// Notes for whom it is on its way.
    #[inline]
    pub(crate) fn hand(&self, place: &'static Location<'static>, now: u64) {
        self.place.store(Some(place));
        self.since.store(now, Ordering::Relaxed);
    }

    /// Notes who has it; called by the new owner. True if this checkout is to be timed.
    #[inline]
    pub(crate) fn note(&self, place: &'static Location<'static>, now: u64) -> bool {
        self.hand(place, now);
        #[cfg(debug_assertions)]
        self.task.store(rt::task());
        let uses = self.uses.load(Ordering::Relaxed) + 1;
        self.uses.store(uses, Ordering::Relaxed);
        uses.is_multiple_of(SAMPLE)
    }

    /// Whether it was taken by the task that runs now.
    #[cfg(debug_assertions)]
    pub(crate) fn is_ours(&self) -> bool {
        rt::task().is_some_and(|task| self.task.load() == Some(task))
    }

    /// Whether this checkout was to be timed.
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        self.uses().is_multiple_of(SAMPLE)
    }

    /// Notes that nobody has it any more; called by its last owner.
    #[inline]
    pub(crate) fn rest(&self, now: u64) {
        self.since.store(now, Ordering::Relaxed);
        self.proven.store(now, Ordering::Relaxed);
    }

    /// Notes that it answered a ping.
    pub(crate) fn prove(&self, now: u64) {
        self.proven.store(now, Ordering::Relaxed);
    }

    /// Notes that its holder has let go of it, whatever becomes of it.
    pub(crate) fn let_go(&self, now: u64) {
        self.since.store(now, Ordering::Relaxed);
    }

    /// Where it was checked out, and when.
    pub(crate) fn read(&self) -> Option<(&'static Location<'static>, u64)> {
        Some((self.place.load()?, self.since()))
    }

    /// Since when it has been in use, or idle.
    pub(crate) fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    /// When it was last known to work.
    #[inline]
    pub(crate) fn proven(&self) -> u64 {
        self.proven.load(Ordering::Relaxed)
    }

    /// The last moment at which it is handed out.
    #[inline]
    pub(crate) fn expires(&self) -> u64 {
        self.expires.load(Ordering::Relaxed)
    }

    /// Makes it expire no later than that; called under the mutex.
    pub(crate) fn expire_by(&self, at: u64) {
        self.expires.fetch_min(at, Ordering::Relaxed);
    }

    /// The number of the connection that was opened here last.
    pub(crate) fn serial(&self) -> u64 {
        self.serial.load(Ordering::Relaxed)
    }

    /// How often it was checked out, all connections counted that were ever in this slot.
    #[inline]
    pub(crate) fn uses(&self) -> u64 {
        self.uses.load(Ordering::Relaxed)
    }

    /// Whether the checkout that began at `since` is suspected of a leak for the first time.
    pub(crate) fn suspect(&self, since: u64) -> bool {
        self.suspected.swap(since, Ordering::Relaxed) != since
    }

    /// Whether a checkout that was suspected has ended since the last time this was asked.
    pub(crate) fn absolve(&self) -> bool {
        let suspected = self.suspected.load(Ordering::Relaxed);
        let ended = suspected != 0 && suspected != self.since();
        if ended {
            self.suspected.store(0, Ordering::Relaxed);
        }
        ended
    }

    /// Marks the checkout that began at `since` as too long; true the first time.
    pub(crate) fn overdo(&self, since: u64) -> bool {
        self.overdue.swap(since, Ordering::Relaxed) != since
    }

    /// Whether the present checkout was marked as too long.
    pub(crate) fn is_overdue(&self) -> bool {
        let overdue = self.overdue.load(Ordering::Relaxed);
        overdue != 0 && overdue == self.since()
    }
}
