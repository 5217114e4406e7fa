//! What an engine's sessions count, and what they warn of.

use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::throttle::Throttle;

/// What an engine's sessions have met since it was built; see [`Engine::counts`](crate::Engine::counts).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Sessions that were dropped with writes neither committed nor rolled back.
    ///
    /// They were rolled back. A warning names the line that borrowed the connection, at most once a second.
    pub dropped_with_work: u64,
}

/// Where the sessions of an engine count.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    dropped_with_work: AtomicU64,
    warning: Throttle,
}

impl Tally {
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            // Ordering: Relaxed; a number to look at, which carries nothing else.
            dropped_with_work: self.dropped_with_work.load(Ordering::Relaxed),
        }
    }

    /// A session was dropped with work pending; `place` is the line that borrowed its connection.
    pub(crate) fn dropped_with_work(&self, place: &'static Location<'static>) {
        // Ordering: Relaxed, as in `counts`.
        self.dropped_with_work.fetch_add(1, Ordering::Relaxed);
        if let Some(held_back) = self.warning.admit(Instant::now()) {
            tracing::warn!(
                %place,
                held_back,
                "a session was dropped with work that it had neither committed nor rolled back: it was rolled \
                 back (call rollback or close where that is meant)"
            );
        }
    }
}
