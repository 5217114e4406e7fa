//! A place in the wait queue, held by a future.
//!
//! # Cancel safety
//! A [`Wait`] may be dropped at any point. In the queue, it leaves, and its turn passes to the next. With a
//! slot already handed to it, that slot goes to [`Parts::stray`]. With a nudge to open a connection that it
//! has not acted on, the nudge passes on.
//!
//! # Nudges
//! Room that comes free can't be handed over: opening needs a runtime, which a return may lack. So a waiter
//! is woken to open one itself (its waker is taken, which marks it as nudged until it is polled again).
//! Whether there is anything to open is worked out anew from the state each time.
//!
//! Checked by the models `joining`, `cancelling` and `opening`.

use std::pin::Pin;
use std::ptr::NonNull;
use std::task::Context;

use super::Parts;
use super::claim::{Claim, Holder, Opening};
use super::core::Joined;
use super::queue::{DONE, Node, OUT, Outcome, QUEUED, links};
use crate::sync::Ordering;

/// No deadline.
pub(crate) const NEVER: u64 = u64::MAX;

/// What a waiter asks for when it joins. Times are on the caller's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<M> {
    /// When its time is over; [`NEVER`] waits for ever.
    pub(crate) deadline: u64,
    /// Since when it has waited.
    pub(crate) since: u64,
    pub(crate) now: u64,
    /// Joins at the head: it had its turn, and what it got was unfit.
    pub(crate) first: bool,
    /// Joins only if a connection is being opened for it or there is room to open one.
    pub(crate) only_with_room: bool,
    /// Noted with the slot that is handed over.
    pub(crate) mark: M,
}

/// A place in the wait queue, taken at the first poll and given up when dropped.
pub(crate) struct Wait<P: Parts, H: Holder<P>> {
    holder: H,
    node: Node<P>,
}

// SAFETY: the node's content is `Send`, and shared with other threads under the mutex only.
unsafe impl<P: Parts, H: Holder<P> + Send> Send for Wait<P, H> {}
// SAFETY: a shared `Wait` has no methods.
unsafe impl<P: Parts, H: Holder<P> + Sync> Sync for Wait<P, H> {}

/// What one poll of a [`Wait`] came to.
pub(crate) enum Turn<P: Parts, H: Holder<P>> {
    /// In the queue. Where there is an `Opening`, the caller is to open a connection in it.
    Pending(Option<Opening<P, H>>),
    /// A connection, claimed or handed over.
    Got(Claim<P, H>),
    /// Refused while waiting.
    Refused(P::Refusal),
    /// Its deadline passed.
    Expired,
    /// Sent away, because the queue stood for too long.
    Shed,
    /// Too many wait already.
    Full,
    /// There is no room, and [`Ask::only_with_room`] was set.
    NoRoom,
    /// The core is closed.
    Closed,
}

impl<P: Parts, H: Holder<P>> Wait<P, H> {
    pub(crate) fn new(holder: H) -> Self {
        Self {
            holder,
            node: Node::new(),
        }
    }

    pub(crate) fn holder(&self) -> &H {
        &self.holder
    }

    /// Joins the queue, or looks how its place in it stands.
    ///
    /// `beside` runs under the mutex, when the place was just taken.
    pub(crate) fn poll_turn(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        ask: Ask<P::Mark>,
        beside: impl FnOnce(&mut P::Guarded),
    ) -> Turn<P, H> {
        let this = self.as_ref();
        // Ordering: Acquire takes over the outcome from `complete`.
        match this.node.state.load(Ordering::Acquire) {
            DONE => return this.take_outcome(),
            QUEUED => {}
            _ => {
                let (holder, node) = (this.holder.clone(), this.project_node());
                // SAFETY: the node is `OUT` and pinned, and our destructor takes it out of the queue.
                let joined = unsafe { holder.core().join(node, cx.waker().clone(), ask, beside) };
                return match joined {
                    Joined::Queued(opening) => {
                        Turn::Pending(opening.map(|seat| Opening(Claim::new(seat, holder))))
                    }
                    Joined::Got(seat) => Turn::Got(Claim::new(seat, holder)),
                    Joined::NoRoom => Turn::NoRoom,
                    Joined::Full => Turn::Full,
                    Joined::Closed => Turn::Closed,
                };
            }
        }
        // User code (a waker's clone and drop) stays outside the mutex.
        let mut waker = Some(cx.waker().clone());
        let opening = {
            let mut locked = this.holder.core().lock();
            // Ordering: Acquire, as above; under the mutex nobody completes it meanwhile.
            if this.node.state.load(Ordering::Acquire) == QUEUED {
                links(NonNull::from(&this.node), |links| {
                    std::mem::swap(&mut links.waker, &mut waker);
                });
                this.holder.core().reserve(&mut locked)
            } else {
                drop(locked);
                return this.take_outcome();
            }
        };
        Turn::Pending(opening.map(|seat| Opening(Claim::new(seat, this.holder.clone()))))
    }

    fn project_node(self: Pin<&Self>) -> Pin<&Node<P>> {
        // SAFETY: the node is pinned with its future: nothing moves it out, and it is not `Unpin`.
        unsafe { self.map_unchecked(|wait| &wait.node) }
    }

    fn take_outcome(self: Pin<&Self>) -> Turn<P, H> {
        let outcome = links(NonNull::from(&self.node), |links| links.outcome.take());
        // Ordering: Relaxed; the node is ours alone again.
        self.node.state.store(OUT, Ordering::Relaxed);
        match outcome.expect("`complete` stores the outcome before the state") {
            Outcome::Seat(seat) => Turn::Got(Claim::new(seat, self.holder.clone())),
            Outcome::Refused(refusal) => Turn::Refused(refusal),
            Outcome::Expired => Turn::Expired,
            Outcome::Shed => Turn::Shed,
        }
    }
}

impl<P: Parts, H: Holder<P>> Drop for Wait<P, H> {
    fn drop(&mut self) {
        // Ordering: Acquire takes over the outcome from `complete`.
        let mut state = self.node.state.load(Ordering::Acquire);
        if state == QUEUED {
            let mut left = None; // Its waker is dropped after the mutex is free.
            let core = self.holder.core();
            let mut locked = core.lock();
            // Ordering: Acquire, as above; under the mutex nobody completes it meanwhile.
            state = self.node.state.load(Ordering::Acquire);
            if state == QUEUED {
                left = core.leave(&mut locked, |queue| queue.unlink(NonNull::from(&self.node)));
            }
            drop(locked);
            drop(left);
        }
        if state == DONE {
            let outcome = links(NonNull::from(&self.node), |links| links.outcome.take());
            if let Some(Outcome::Seat(seat)) = outcome {
                P::stray(Claim::new(seat, self.holder.clone()));
            }
        }
    }
}
