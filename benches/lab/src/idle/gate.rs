//! A gate of its own, for structures in whose own word there is no room for a flag.
//!
//! ```text
//! give                          shut, then claim
//!   put the slot                  shut the gate
//!   fence(SeqCst)                 fence(SeqCst)
//!   shut? take one back           is there a slot?
//! ```
//! At least one of the two sees the other, so no slot is left behind a gate that is shut. A newcomer may claim it in
//! between, and so overtake one that has just joined the queue.

use crate::sync::{AtomicBool, Ordering, fence};

/// See the module.
pub(super) struct Gate(AtomicBool);

impl Gate {
    pub(super) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Puts a slot by `put`, and takes one back by `claim` if the gate was shut meanwhile.
    pub(super) fn give(
        &self,
        slot: usize,
        put: impl FnOnce(usize),
        claim: impl FnOnce() -> Option<usize>,
    ) -> Result<(), usize> {
        // Ordering: Relaxed; only spares the way in and out, the fence below decides.
        if self.0.load(Ordering::Relaxed) {
            return Err(slot);
        }
        put(slot);
        fence(Ordering::SeqCst);
        // Ordering: Relaxed; the fences order it.
        if !self.0.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Nothing left: whoever shut the gate has taken it, or a newcomer has.
        claim().map_or(Ok(()), Err)
    }

    pub(super) fn shut(&self) {
        // Ordering: Relaxed; the fence orders it.
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(super) fn open(&self) {
        // Ordering: Relaxed; a give that comes later may still find it shut, and goes by the mutex.
        self.0.store(false, Ordering::Relaxed);
    }
}
