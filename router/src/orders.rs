//! What people have told the router to do at run time, as a value.
//!
//! Part of the [`View`](crate::view::View), so a decision sees orders and samples of one moment. An order holds
//! until it is taken back; a suspension of writes also ends by itself, at a time that is written in it. The
//! highest timeline still decides who takes writes: no order makes a node the primary.

use std::fmt;
use std::time::{Duration, Instant};

/// Where reads may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Reads {
    /// To whichever node keeps their promise.
    #[default]
    Routed,
    /// To the primary, all of them: while replicas are worked on, or not to be trusted.
    PrimaryOnly,
}

/// The orders in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Where reads may go.
    pub reads: Reads,
    /// The nodes that reads are kept away from, by their indices.
    pub drained: Vec<usize>,
    /// While one of these lasts, no write transaction begins.
    pub suspensions: Vec<Suspension>,
}

/// One suspension of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspension {
    /// Tells it from the others.
    pub number: u64,
    /// When it ends by itself.
    pub until: Instant,
}

/// One order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Keep reads away from this node.
    Drain(usize),
    /// Let reads go to this node again.
    Resume(usize),
    /// Where reads may go.
    Reads(Reads),
    /// Begin no write transaction.
    SuspendWrites(Suspension),
    /// End the suspension of this number.
    ResumeWrites(u64),
    /// End the suspensions whose time is over at this moment.
    Expire(Instant),
}

impl Orders {
    /// Takes an order; says whether it changed anything.
    pub fn take(&mut self, order: Order) -> bool {
        match order {
            Order::Drain(node) => {
                let news = !self.is_drained(node);
                if news {
                    self.drained.push(node);
                }
                news
            }
            Order::Resume(node) => shrinks(&mut self.drained, |drained| *drained != node),
            Order::Reads(reads) => std::mem::replace(&mut self.reads, reads) != reads,
            Order::SuspendWrites(suspension) => {
                self.suspensions.push(suspension);
                true
            }
            Order::ResumeWrites(number) => {
                shrinks(&mut self.suspensions, |other| other.number != number)
            }
            Order::Expire(now) => shrinks(&mut self.suspensions, |other| other.until > now),
        }
    }

    /// Whether reads are kept away from a node.
    pub fn is_drained(&self, node: usize) -> bool {
        self.drained.contains(&node)
    }

    /// How long a write has to wait, unless the suspension is lifted before. `None`: not at all.
    pub fn writes_wait(&self, now: Instant) -> Option<Duration> {
        let last = self.suspensions.iter().map(|one| one.until).max()?;
        last.checked_duration_since(now)
            .filter(|left| !left.is_zero())
    }
}

fn shrinks<T>(list: &mut Vec<T>, keep: impl FnMut(&T) -> bool) -> bool {
    let before = list.len();
    list.retain(keep);
    list.len() < before
}

impl fmt::Display for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Routed => "routed",
            Self::PrimaryOnly => "to the primary only",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_order_given_twice_changes_something_once() {
        let mut orders = Orders::default();
        assert!(orders.take(Order::Drain(1)) && !orders.take(Order::Drain(1)));
        assert!(orders.is_drained(1) && !orders.is_drained(0));
        assert!(orders.take(Order::Resume(1)) && !orders.take(Order::Resume(1)));
        assert!(!orders.take(Order::Reads(Reads::Routed)));
        assert!(orders.take(Order::Reads(Reads::PrimaryOnly)));
    }

    #[test]
    fn writes_wait_for_the_longest_suspension_and_no_longer() {
        let start = Instant::now();
        let mut orders = Orders::default();
        for (number, seconds) in [(1, 3), (2, 1)] {
            let until = start + seconds * SECOND;
            orders.take(Order::SuspendWrites(Suspension { number, until }));
        }
        assert_eq!(orders.writes_wait(start + SECOND), Some(2 * SECOND));
        assert_eq!(orders.writes_wait(start + 3 * SECOND), None);
        assert!(orders.take(Order::ResumeWrites(1)));
        assert_eq!(orders.writes_wait(start), Some(SECOND));
        assert!(orders.take(Order::Expire(start + SECOND)));
        assert_eq!(orders, Orders::default());
    }
}
