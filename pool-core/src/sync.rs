//! The one door to atomics, cells, locks and shared ownership for `raw/`.
//!
//! Under `--cfg pool_loom` it hands out the model checker's versions, and under `--cfg pool_shuttle` those at
//! which random schedules may switch, so that both run the code that ships: nothing else in `raw/` differs
//! between the builds but this file and the constants it shrinks.

#[cfg(not(pool_loom))]
pub(crate) use cell::UnsafeCell;
#[cfg(pool_loom)]
pub(crate) use checked::*;
#[cfg(not(any(pool_loom, pool_shuttle)))]
pub(crate) use plain::*;
#[cfg(pool_shuttle)]
pub(crate) use random::*;

#[cfg(not(any(pool_loom, pool_shuttle)))]
mod plain {
    use std::cell::Cell;
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };

    pub(crate) use parking_lot::{Mutex, MutexGuard};

    /// How many slots share one word.
    pub(crate) const SLOTS_PER_WORD: usize = 62;

    std::thread_local! {
        /// Where in [0, 2^32) this thread's first choice of word lies.
        static HOME: Cell<u64> = {
            // Ordering: Relaxed; only distinct values matter. The multiplier (2^32 divided by the golden
            // ratio) spreads successive threads evenly over any number of words.
            static THREADS: AtomicU64 = AtomicU64::new(0);
            Cell::new(THREADS.fetch_add(0x9E37_79B9, Ordering::Relaxed) & 0xFFFF_FFFF)
        };
    }

    /// This thread's first choice among `words` words.
    #[inline]
    pub(crate) fn home(words: usize) -> usize {
        if words <= 1 {
            return 0;
        }
        // A thread that is being torn down has no local values left: any word will do.
        let home = HOME.try_with(Cell::get).unwrap_or(0);
        usize::try_from((home * words as u64) >> 32).expect("below `words`")
    }

    /// Makes the first word this thread's first choice, whichever thread it is.
    #[cfg(feature = "lab")]
    pub(crate) fn go_home() {
        HOME.set(0);
    }
}

#[cfg(not(pool_loom))]
mod cell {
    /// A cell whose content is reached through a closure, as the model checker's is.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline]
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        #[inline]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(pool_shuttle)]
mod random {
    pub(crate) use std::sync::Arc;

    pub(crate) use shuttle::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
    pub(crate) use shuttle_parking_lot::{Mutex, MutexGuard};

    /// Shrunk, so that a few slots already need several words.
    pub(crate) const SLOTS_PER_WORD: usize = 2;

    /// Any word, by the schedule's dice.
    pub(crate) fn home(words: usize) -> usize {
        use shuttle::rand::Rng as _;
        shuttle::rand::thread_rng().gen_range(0..words.max(1))
    }
}

#[cfg(pool_loom)]
mod checked {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
    pub(crate) use loom::sync::{Arc, MutexGuard};

    /// Shrunk, so that two slots already need two words.
    pub(crate) const SLOTS_PER_WORD: usize = 2;

    /// The checker's mutex without poisoning, as `parking_lot`'s.
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("no model panics under the lock")
        }
    }

    /// All threads of a model start at the same word: that is where they meet.
    pub(crate) fn home(_words: usize) -> usize {
        0
    }
}
