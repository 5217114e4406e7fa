//! The wait queue, and the place in it that a future holds.
//!
//! An intrusive doubly linked list: a waiter's node lives in its own pinned future, so joining and leaving
//! allocate nothing and take constant time. All links are reached under the core's mutex only.
//!
//! # States of a node
//!
//! | state | who may touch the links | goes on to |
//! |---|---|---|
//! | `OUT` | its future | `QUEUED`, by its future, under the mutex |
//! | `QUEUED` | the holder of the mutex | `DONE`, by whoever hands over, refuses or expires, under the mutex; `OUT`, by its future, under the mutex |
//! | `DONE` | its future | `OUT`, by its future, which takes the outcome |
//!
//! The store of `DONE` is the last access to a node by anybody but its future: from then on it may be gone.
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

use std::marker::PhantomPinned;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Waker};

use super::Parts;
use super::claim::{Claim, Holder, Opening};
use super::core::Joined;
use super::slot::Seat;
use crate::sync::{AtomicU8, Ordering, UnsafeCell};

const OUT: u8 = 0;
const QUEUED: u8 = 1;
const DONE: u8 = 2;

/// No deadline.
pub(crate) const NEVER: u64 = u64::MAX;

/// What a waiter asks for when it joins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<M> {
    /// When its time is over, on the caller's clock; [`NEVER`] waits for ever.
    pub(crate) deadline: u64,
    /// Joins at the head: it had its turn, and what it got was unfit.
    pub(crate) first: bool,
    /// Joins only if a connection is being opened for it or there is room to open one.
    pub(crate) only_with_room: bool,
    /// Noted with the slot that is handed over.
    pub(crate) mark: M,
}

/// How a wait ended.
pub(super) enum Outcome<P: Parts> {
    Seat(Seat<P>),
    Refused(P::Refusal),
    Expired,
}

pub(super) struct Node<P: Parts> {
    state: AtomicU8,
    links: UnsafeCell<Links<P>>,
    /// Others point at a queued node: it must not move, and `&mut` to it must not mean "nobody else".
    _pinned: PhantomPinned,
}

struct Links<P: Parts> {
    before: Option<NonNull<Node<P>>>,
    after: Option<NonNull<Node<P>>>,
    /// `None` while queued: woken (nudged), and not polled since.
    waker: Option<Waker>,
    deadline: u64,
    /// Set while queued.
    mark: Option<P::Mark>,
    outcome: Option<Outcome<P>>,
}

/// The queue's ends. Every method's caller holds the core's mutex.
pub(super) struct Queue<P: Parts> {
    head: Option<NonNull<Node<P>>>,
    tail: Option<NonNull<Node<P>>>,
    len: usize,
}

// SAFETY: the queue is used under the core's mutex only, and what it points to (wakers, seats, refusals)
// is `Send`.
unsafe impl<P: Parts> Send for Queue<P> {}

/// What a node had when it left the queue.
pub(super) struct Left {
    /// To wake, or to drop, once the mutex is free. `None`: it had been nudged and has not been polled
    /// since, so the nudge must go to another.
    pub(super) waker: Option<Waker>,
}

impl<P: Parts> Queue<P> {
    pub(super) fn new() -> Self {
        Self {
            head: None,
            tail: None,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a node at the end, or at the head.
    ///
    /// # Safety
    /// The node is `OUT`, pinned, and leaves the queue before it is dropped.
    pub(super) unsafe fn join(&mut self, node: Pin<&Node<P>>, waker: Waker, ask: Ask<P::Mark>) {
        let new = NonNull::from(node.get_ref());
        let (before, after) = if ask.first {
            (None, self.head)
        } else {
            (self.tail, None)
        };
        links(new, |links| {
            *links = Links {
                before,
                after,
                waker: Some(waker),
                deadline: ask.deadline,
                mark: Some(ask.mark),
                outcome: None,
            };
        });
        // Ordering: Relaxed; only its future reads it outside the mutex, and that is who writes it here.
        node.state.store(QUEUED, Ordering::Relaxed);
        match before {
            Some(before) => links(before, |links| links.after = Some(new)),
            None => self.head = Some(new),
        }
        match after {
            Some(after) => links(after, |links| links.before = Some(new)),
            None => self.tail = Some(new),
        }
        self.len += 1;
    }

    /// The deadline of the first in the queue.
    pub(super) fn first_deadline(&self) -> Option<u64> {
        self.head.map(|head| links(head, |links| links.deadline))
    }

    /// What was kept of the first in the queue.
    pub(super) fn first_mark(&self) -> Option<P::Mark> {
        self.head.and_then(|head| links(head, |links| links.mark))
    }

    /// Ends the first waiter's wait. The queue must not be empty.
    pub(super) fn complete_first(&mut self, outcome: Outcome<P>) -> Left {
        let head = self.head.expect("the caller saw that somebody waits");
        self.complete(head, outcome)
    }

    /// Ends the waits that are over; at most `batch` of them. The first `exempt` are given `patience` more.
    ///
    /// Gives each to `left`, and returns the earliest deadline among the others that may expire.
    ///
    /// Deadlines grow along the queue, but for the exempt at its head and for those without one, so it
    /// looks no further than the first that is still to come.
    pub(super) fn expire(
        &mut self,
        now: u64,
        (exempt, patience): (usize, u64),
        batch: usize,
        mut left: impl FnMut(Left),
    ) -> Option<u64> {
        let mut next = self.head;
        let (mut seen, mut ended) = (0, 0);
        while let Some(node) = next {
            let (deadline, after) = links(node, |links| (links.deadline, links.after));
            let is_exempt = seen < exempt;
            let end = if is_exempt {
                deadline.saturating_add(patience)
            } else {
                deadline
            };
            if end <= now && ended < batch {
                left(self.complete(node, Outcome::Expired));
                ended += 1;
            } else {
                seen += 1;
                if !is_exempt && deadline != NEVER {
                    return Some(deadline);
                }
            }
            next = after;
        }
        None
    }

    /// Takes the waker of the first waiter that has not been nudged yet.
    pub(super) fn nudge(&mut self) -> Option<Waker> {
        let mut next = self.head;
        while let Some(node) = next {
            let (waker, after) = links(node, |links| (links.waker.take(), links.after));
            if waker.is_some() {
                return waker;
            }
            next = after;
        }
        None
    }

    fn complete(&mut self, node: NonNull<Node<P>>, outcome: Outcome<P>) -> Left {
        let left = self.unlink(node);
        links(node, |links| links.outcome = Some(outcome));
        // SAFETY: a queued node is alive: it leaves under the mutex, which we hold, before it is dropped.
        let state = unsafe { &node.as_ref().state };
        // Ordering: Release hands the outcome, and all that its giver wrote, to `Wait`'s look at the
        // state. The node may be gone right after.
        state.store(DONE, Ordering::Release);
        left
    }

    fn unlink(&mut self, node: NonNull<Node<P>>) -> Left {
        let (before, after, waker) = links(node, |links| {
            (links.before.take(), links.after.take(), links.waker.take())
        });
        match before {
            Some(before) => links(before, |links| links.after = after),
            None => self.head = after,
        }
        match after {
            Some(after) => links(after, |links| links.before = before),
            None => self.tail = before,
        }
        self.len -= 1;
        Left { waker }
    }
}

/// Reaches a node's links; the caller holds the mutex, or owns a node that is not queued.
fn links<P: Parts, R>(node: NonNull<Node<P>>, f: impl FnOnce(&mut Links<P>) -> R) -> R {
    // SAFETY: a queued node is alive (`complete`), and one that is not queued is its future's, which calls.
    let node = unsafe { node.as_ref() };
    node.links.with_mut(|links| {
        // SAFETY: the holder of the mutex (queued) or the node's future (otherwise) is the only one here;
        // `f` does not come back to the same node.
        f(unsafe { &mut *links })
    })
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
    /// There is no room, and [`Ask::only_with_room`] was set.
    NoRoom,
    /// The core is closed.
    Closed,
}

impl<P: Parts, H: Holder<P>> Wait<P, H> {
    pub(crate) fn new(holder: H) -> Self {
        let nowhere = Links {
            before: None,
            after: None,
            waker: None,
            deadline: NEVER,
            mark: None,
            outcome: None,
        };
        Self {
            holder,
            node: Node {
                state: AtomicU8::new(OUT),
                links: UnsafeCell::new(nowhere),
                _pinned: PhantomPinned,
            },
        }
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
