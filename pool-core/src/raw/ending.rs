//! Waits that end without a connection: refused, out of time, or sent away.
//!
//! # Shedding
//! Once the queue has not been empty for an *interval*, whoever has waited longer than the *target* is sent
//! away, oldest first; never so many that fewer than the *floor* are left, and not all at once: at most half
//! of those who are due go in one look, and the next look follows after an eighth of the target. Every
//! arrival looks, every return that meets the queue, and a timer, so a pool in which nothing comes back sheds
//! too. (CoDel's control law, Nichols and Jacobson 2012, settles far above its target when callers do
//! not slow down; here the target itself is the bound.)

use super::Parts;
use super::core::Core;
use super::queue::{Left, Outcome};
use super::rare::Locked;
use super::wait::NEVER;

/// How many waits end under one hold of the mutex.
const BATCH: usize = 64;
/// Into how many looks the target is divided.
const LOOKS: u64 = 8;

impl<P: Parts> Core<P> {
    /// Tells the first in the queue that there is nothing for it.
    pub(crate) fn refuse_first(&self, refusal: P::Refusal) {
        let mut locked = self.lock();
        if !locked.queue.is_empty() {
            self.complete_first(&mut locked, Outcome::Refused(refusal));
        }
    }

    /// Tells everybody who is in the queue now that there is nothing for them.
    pub(crate) fn refuse_all(&self, refusal: &P::Refusal) {
        let mut left_to_tell = self.lock().queue.len();
        while left_to_tell > 0 {
            let mut locked = self.lock();
            let batch = BATCH.min(left_to_tell).min(locked.queue.len());
            if batch == 0 {
                return;
            }
            for _ in 0..batch {
                self.complete_first(&mut locked, Outcome::Refused(refusal.clone()));
            }
            left_to_tell -= batch;
        }
    }

    /// Ends the waits whose deadline is not after `now`, and returns when to look again.
    ///
    /// Those at the head for whom a connection is being opened get `patience` more: opening has a limit of
    /// its own, but may stand still with its runtime.
    /// That may be a time already past, for one who is left out. `beside` runs under the mutex, with what is
    /// returned.
    pub(crate) fn expire(
        &self,
        now: u64,
        patience: u64,
        beside: impl FnOnce(&mut P::Guarded, Option<u64>),
    ) -> Option<u64> {
        loop {
            let mut locked = self.lock();
            self.shed(&mut locked, now);
            let exempt = (locked.exempt(), patience);
            let mut ended = Vec::new();
            let (next, exempted) = locked
                .queue
                .expire(now, exempt, BATCH, |left| ended.push(left));
            self.let_go(&mut locked, ended);
            if next <= now {
                continue;
            }
            // Those that are exempt now may not be later, so somebody must go on looking at them too.
            let next = Some(next.min(exempted)).filter(|at| *at != NEVER);
            let shed = Self::next_shed(&locked, now);
            let look_again = next.into_iter().chain(shed).min();
            beside(&mut locked.guarded, look_again);
            return look_again;
        }
    }

    /// Runs `f` on what the layer above keeps under the mutex.
    pub(crate) fn guarded<R>(&self, f: impl FnOnce(&mut P::Guarded) -> R) -> R {
        f(&mut self.lock().guarded)
    }

    fn let_go(&self, locked: &mut Locked<'_, P>, ended: Vec<Left>) {
        for left in ended {
            self.after_leaving(locked, &left);
            locked.wake_later(left.waker);
        }
    }

    /// Sends away whom a swapped order of waiting says.
    #[cfg(feature = "lab")]
    pub(super) fn shed_by_order(&self, locked: &mut Locked<'_, P>, now: u64, serving: bool) {
        while let Some(left) = locked.queue.shed_by_order(now, serving) {
            locked.shed += 1;
            self.let_go(locked, vec![left]);
        }
    }

    /// Sends away who has waited too long, if the queue has been standing for too long.
    pub(super) fn shed(&self, locked: &mut Locked<'_, P>, now: u64) {
        let Some(shed) = locked.limits.shed else {
            return;
        };
        let standing = now.saturating_sub(locked.queue.standing_since());
        if locked.queue.is_empty() || standing < shed.interval || now < locked.next_shed {
            return;
        }
        let exempt = locked.exempt();
        let spared = locked.queue.len().saturating_sub(exempt.max(shed.floor));
        let since = now.saturating_sub(shed.target);
        let due = locked.queue.count_older(exempt, since).min(spared);
        if due == 0 {
            return;
        }
        locked.next_shed = now.saturating_add((shed.target / LOOKS).max(1));
        let mut ended = Vec::new();
        let gone = locked
            .queue
            .shed(exempt, due.div_ceil(2), shed.shadow, |left| {
                ended.push(left);
            });
        locked.shed += gone;
        self.let_go(locked, ended);
    }

    /// When a timer is to look for somebody to send away.
    fn next_shed(locked: &Locked<'_, P>, now: u64) -> Option<u64> {
        let shed = locked.limits.shed?;
        if locked.queue.is_empty() {
            return None;
        }
        let pace = now.saturating_add((shed.target / LOOKS).max(1));
        let standing = locked.queue.standing_since().saturating_add(shed.interval);
        Some(standing.max(locked.next_shed).max(pace))
    }
}
