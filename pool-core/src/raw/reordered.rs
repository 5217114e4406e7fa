//! The door to an order of the wait queue that is not ours: [`lab::WaitQueue`](crate::lab::WaitQueue).
//!
//! The queue itself stays the list that it is; each node also has a number here, and who is first is asked of the
//! order. What it does not know is answered by the list.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::time::Duration;

use super::Parts;
use super::queue::Node;
use super::wait::{Ask, NEVER};
use crate::lab::{WaitQueue, Waiter};

pub(super) struct Reordered<P: Parts> {
    order: Box<dyn WaitQueue>,
    nodes: BTreeMap<u64, NonNull<Node<P>>>,
    numbers: u64,
}

impl<P: Parts> Reordered<P> {
    pub(super) fn new(order: Box<dyn WaitQueue>) -> Self {
        Self {
            order,
            nodes: BTreeMap::new(),
            numbers: 0,
        }
    }

    /// Notes who joined; returns its number.
    pub(super) fn join(&mut self, node: NonNull<Node<P>>, ask: &Ask<P::Mark>) -> u64 {
        self.numbers += 1;
        self.nodes.insert(self.numbers, node);
        self.order.join(Waiter {
            ticket: self.numbers,
            since: Duration::from_micros(ask.since),
            deadline: (ask.deadline != NEVER).then(|| Duration::from_micros(ask.deadline)),
            had_its_turn: ask.first,
        });
        self.numbers
    }

    pub(super) fn leave(&mut self, ticket: u64) {
        self.nodes.remove(&ticket);
        self.order.leave(ticket);
    }

    pub(super) fn first(&self) -> Option<NonNull<Node<P>>> {
        self.nodes.get(&self.order.first()?).copied()
    }

    pub(super) fn sheds(&mut self, now: u64, serving: bool) -> Option<NonNull<Node<P>>> {
        let ticket = self.order.sheds(Duration::from_micros(now), serving)?;
        self.nodes.get(&ticket).copied()
    }
}
