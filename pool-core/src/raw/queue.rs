//! The wait queue: an intrusive doubly linked list.
//!
//! A waiter's node lives in its own pinned future ([`wait`](super::wait)), so joining and leaving allocate
//! nothing and take constant time. All links are reached under the core's mutex only.
//!
//! # States of a node
//!
//! | state | who may touch the links | goes on to |
//! |---|---|---|
//! | `OUT` | its future | `QUEUED`, by its future, under the mutex |
//! | `QUEUED` | the holder of the mutex | `DONE`, by whoever hands over, refuses, expires or sheds, under the mutex; `OUT`, by its future, under the mutex |
//! | `DONE` | its future | `OUT`, by its future, which takes the outcome |
//!
//! The store of `DONE` is the last access to a node by anybody but its future: from then on it may be gone.
//!
//! # Deadlines
//! Where all callers wait equally long, deadlines grow along the queue, and whose time is over stands at its
//! head. Those that joined with an earlier deadline than one before them are found by `odd`, the earliest such
//! deadline: only when that has passed is the whole queue looked through.

use std::marker::PhantomPinned;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::Waker;

use super::Parts;
#[cfg(feature = "lab")]
use super::reordered::Reordered;
use super::slot::Seat;
use super::wait::{Ask, NEVER};
#[cfg(feature = "lab")]
use crate::lab::WaitQueue;
use crate::sync::{AtomicU8, Ordering, UnsafeCell};

pub(super) const OUT: u8 = 0;
pub(super) const QUEUED: u8 = 1;
pub(super) const DONE: u8 = 2;

/// How a wait ended.
pub(super) enum Outcome<P: Parts> {
    Seat(Seat<P>),
    Refused(P::Refusal),
    Expired,
    Shed,
}

pub(super) struct Node<P: Parts> {
    pub(super) state: AtomicU8,
    links: UnsafeCell<Links<P>>,
    /// Others point at a queued node: it must not move, and `&mut` to it must not mean "nobody else".
    _pinned: PhantomPinned,
}

pub(super) struct Links<P: Parts> {
    before: Option<NonNull<Node<P>>>,
    after: Option<NonNull<Node<P>>>,
    /// `None` while queued: woken (nudged), and not polled since.
    pub(super) waker: Option<Waker>,
    deadline: u64,
    /// Since when its caller has waited.
    since: u64,
    /// Counted as one that would have been sent away.
    counted: bool,
    /// Set while queued.
    mark: Option<P::Mark>,
    pub(super) outcome: Option<Outcome<P>>,
    /// Its number in the order that [`Queue::reorder`] was given.
    #[cfg(feature = "lab")]
    ticket: u64,
}

/// The queue's ends. Every method's caller holds the core's mutex.
pub(super) struct Queue<P: Parts> {
    head: Option<NonNull<Node<P>>>,
    tail: Option<NonNull<Node<P>>>,
    len: usize,
    /// Since when it has not been empty.
    standing_since: u64,
    /// The latest deadline that joined since it was empty, not counting [`NEVER`].
    latest: u64,
    /// See the module's Deadlines.
    odd: u64,
    /// Another order than that of joining.
    #[cfg(feature = "lab")]
    reordered: Option<Box<Reordered<P>>>,
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

impl<P: Parts> Node<P> {
    pub(super) fn new() -> Self {
        Self {
            state: AtomicU8::new(OUT),
            links: UnsafeCell::new(Links {
                before: None,
                after: None,
                waker: None,
                deadline: NEVER,
                since: 0,
                counted: false,
                mark: None,
                outcome: None,
                #[cfg(feature = "lab")]
                ticket: 0,
            }),
            _pinned: PhantomPinned,
        }
    }
}

impl<P: Parts> Queue<P> {
    pub(super) fn new() -> Self {
        Self {
            head: None,
            tail: None,
            len: 0,
            standing_since: NEVER,
            latest: 0,
            odd: NEVER,
            #[cfg(feature = "lab")]
            reordered: None,
        }
    }

    /// Serves in another order from now on; nobody waits yet.
    #[cfg(feature = "lab")]
    pub(super) fn reorder(&mut self, order: Box<dyn WaitQueue>) {
        self.reordered = Some(Box::new(Reordered::new(order)));
    }

    /// Whom another order sends away, taken out of the queue.
    #[cfg(feature = "lab")]
    pub(super) fn shed_by_order(&mut self, now: u64, serving: bool) -> Option<Left> {
        let node = self.reordered.as_mut()?.sheds(now, serving)?;
        Some(self.complete(node, Outcome::Shed))
    }

    /// Who is served next.
    fn first(&self) -> Option<NonNull<Node<P>>> {
        #[cfg(feature = "lab")]
        if let Some(node) = self.reordered.as_ref().and_then(|order| order.first()) {
            return Some(node);
        }
        self.head
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Since when it has not been empty; [`NEVER`] while it is.
    pub(super) fn standing_since(&self) -> u64 {
        self.standing_since
    }

    /// Puts a node at the end, or at the head.
    ///
    /// # Safety
    /// The node is `OUT`, pinned, and leaves the queue before it is dropped.
    pub(super) unsafe fn join(&mut self, node: Pin<&Node<P>>, waker: Waker, ask: Ask<P::Mark>) {
        let new = NonNull::from(node.get_ref());
        if self.is_empty() {
            self.standing_since = ask.now;
        }
        let (before, after) = if ask.first {
            (None, self.head)
        } else {
            (self.tail, None)
        };
        #[cfg(feature = "lab")]
        let ticket = match &mut self.reordered {
            Some(order) => order.join(new, &ask),
            None => 0,
        };
        // At the head a late deadline is ahead of all others; at the end an early one is behind some.
        if ask.first && ask.deadline != NEVER {
            let next = self.head.map(|head| links(head, |links| links.deadline));
            self.odd = self.odd.min(next.unwrap_or(NEVER));
        } else if ask.deadline < self.latest {
            self.odd = self.odd.min(ask.deadline);
        }
        if ask.deadline != NEVER {
            self.latest = self.latest.max(ask.deadline);
        }
        links(new, |links| {
            *links = Links {
                before,
                after,
                waker: Some(waker),
                deadline: ask.deadline,
                since: ask.since,
                counted: false,
                mark: Some(ask.mark),
                outcome: None,
                #[cfg(feature = "lab")]
                ticket,
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
        self.first()
            .map(|first| links(first, |links| links.deadline))
    }

    /// What was kept of the first in the queue.
    pub(super) fn first_mark(&self) -> Option<P::Mark> {
        self.first()
            .and_then(|first| links(first, |links| links.mark))
    }

    /// Ends the first waiter's wait. The queue must not be empty.
    pub(super) fn complete_first(&mut self, outcome: Outcome<P>) -> Left {
        let first = self.first().expect("the caller saw that somebody waits");
        self.complete(first, outcome)
    }

    /// Ends the waits that are over; at most `batch` of them. The first `exempt` are given `patience` more.
    ///
    /// Gives each to `left`, and returns the earliest deadline among the others that may expire, and among those
    /// that are exempt; [`NEVER`] where there is none.
    pub(super) fn expire(
        &mut self,
        now: u64,
        (exempt, patience): (usize, u64),
        batch: usize,
        mut left: impl FnMut(Left),
    ) -> (u64, u64) {
        // Where an odd one may be over, all are looked at; else no further than the first still to come.
        let all = self.odd <= now;
        let (mut earliest, mut latest, mut odd) = (NEVER, 0, NEVER);
        let mut exempted = NEVER;
        let (mut seen, mut ended) = (0, 0);
        let mut next = self.head;
        while let Some(node) = next {
            let (deadline, after) = links(node, |links| (links.deadline, links.after));
            next = after;
            let is_exempt = seen < exempt;
            let end = if is_exempt {
                deadline.saturating_add(patience)
            } else {
                deadline
            };
            if end <= now && ended < batch {
                left(self.complete(node, Outcome::Expired));
                ended += 1;
                continue;
            }
            seen += 1;
            if deadline == NEVER {
                continue;
            }
            if deadline < latest {
                odd = odd.min(deadline);
            }
            latest = latest.max(deadline);
            if is_exempt {
                exempted = exempted.min(deadline);
            } else {
                earliest = earliest.min(deadline);
                if !all {
                    break;
                }
            }
        }
        if all {
            self.odd = odd;
        } else {
            earliest = earliest.min(self.odd);
        }
        (earliest, exempted)
    }

    /// How many after the first `skip` have waited since `since` or longer, and were not counted before.
    pub(super) fn count_older(&self, skip: usize, since: u64) -> usize {
        let mut count = 0;
        let mut place = 0;
        let mut next = self.head;
        while let Some(node) = next {
            let (waits_since, counted, after) =
                links(node, |links| (links.since, links.counted, links.after));
            if place >= skip {
                if waits_since > since {
                    break;
                }
                count += usize::from(!counted);
            }
            place += 1;
            next = after;
        }
        count
    }

    /// Ends the waits of `count` after the first `skip`, or with `shadow` only counts them. Returns how many.
    pub(super) fn shed(
        &mut self,
        skip: usize,
        count: usize,
        shadow: bool,
        mut left: impl FnMut(Left),
    ) -> u64 {
        let mut gone = 0;
        let mut place = 0;
        let mut next = self.head;
        while let Some(node) = next {
            if gone == count {
                break;
            }
            let (counted, after) = links(node, |links| (links.counted, links.after));
            next = after;
            if place >= skip && !counted {
                gone += 1;
                if shadow {
                    links(node, |links| links.counted = true);
                } else {
                    left(self.complete(node, Outcome::Shed));
                }
            }
            place += 1;
        }
        gone as u64
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

    /// Takes a queued node out.
    pub(super) fn unlink(&mut self, node: NonNull<Node<P>>) -> Left {
        let (before, after, waker) = links(node, |links| {
            (links.before.take(), links.after.take(), links.waker.take())
        });
        #[cfg(feature = "lab")]
        if let Some(order) = &mut self.reordered {
            order.leave(links(node, |links| links.ticket));
        }
        match before {
            Some(before) => links(before, |links| links.after = after),
            None => self.head = after,
        }
        match after {
            Some(after) => links(after, |links| links.before = before),
            None => self.tail = before,
        }
        self.len -= 1;
        if self.is_empty() {
            (self.standing_since, self.latest, self.odd) = (NEVER, 0, NEVER);
        }
        Left { waker }
    }
}

/// Reaches a node's links; the caller holds the mutex, or owns a node that is not queued.
pub(super) fn links<P: Parts, R>(node: NonNull<Node<P>>, f: impl FnOnce(&mut Links<P>) -> R) -> R {
    // SAFETY: a queued node is alive (`complete`), and one that is not queued is its future's, which calls.
    let node = unsafe { node.as_ref() };
    node.links.with_mut(|links| {
        // SAFETY: the holder of the mutex (queued) or the node's future (otherwise) is the only one here;
        // `f` does not come back to the same node.
        f(unsafe { &mut *links })
    })
}
