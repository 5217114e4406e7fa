//! What the shop believes: what became of each order that it tried to write, and which ticks are committed.
//!
//! What always holds: each attempt has a number of its own, and its fate says no more than the library
//! reported. At the end the database is compared with this.

use std::sync::Mutex;
use std::time::Instant;

use pool_router::Error;
use pool_router::Outcome;

use super::checks::lock;

/// What became of an attempt to write an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is under way.
    Pending,
    /// The commit was acknowledged.
    Acknowledged,
    /// It was given up, or reported as failed for certain.
    NotWritten,
    /// It was reported that nobody can tell.
    Unknown,
    /// It was acknowledged by a primary that had been replaced, and lost with it.
    Lost,
}

/// All attempts, and the ticks.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Indexed by the order's number.
    orders: Mutex<Vec<Fate>>,
    /// When each tick's commit was acknowledged; both rise.
    ticks: Mutex<Vec<(Instant, i64)>>,
}

impl Fate {
    /// What a failed commit says of the order.
    pub(crate) fn of_commit(error: &Error) -> Self {
        match error.outcome() {
            Outcome::NotSent | Outcome::NotApplied => Self::NotWritten,
            Outcome::Applied => Self::Acknowledged,
            _ => Self::Unknown,
        }
    }
}

impl Ledger {
    /// The number of a new attempt.
    pub(crate) fn open(&self) -> i64 {
        let mut orders = lock(&self.orders);
        orders.push(Fate::Pending);
        number(orders.len() - 1)
    }

    /// Notes what became of an attempt.
    pub(crate) fn settle(&self, order: i64, fate: Fate) {
        let mut orders = lock(&self.orders);
        if let Some(known) = index(order).and_then(|index| orders.get_mut(index)) {
            *known = fate;
        }
    }

    /// What is known of an order; `None` if nobody ever tried to write it.
    pub(crate) fn fate(&self, order: i64) -> Option<Fate> {
        lock(&self.orders).get(index(order)?).copied()
    }

    /// Every attempt's fate, by number.
    pub(crate) fn fates(&self) -> Vec<Fate> {
        lock(&self.orders).clone()
    }

    /// Notes that a tick is committed.
    pub(crate) fn ticked(&self, tick: i64) {
        lock(&self.ticks).push((Instant::now(), tick));
    }

    /// The newest tick whose commit was acknowledged at that moment.
    pub(crate) fn tick_at(&self, moment: Instant) -> i64 {
        let ticks = lock(&self.ticks);
        let after = ticks.partition_point(|(at, _)| *at <= moment);
        after.checked_sub(1).map_or(0, |last| ticks[last].1)
    }
}

fn index(order: i64) -> Option<usize> {
    usize::try_from(order).ok()
}

fn number(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}
