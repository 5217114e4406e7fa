//! CoDel: whoever has waited too long is sent away when its turn comes, ever faster while that does not help.
//!
//! Nichols and Jacobson, "Controlling Queue Delay", 2012 (RFC 8289). Once the wait at the head of the queue has been
//! above the target for an interval, the head is dropped, and again after the interval divided by the square root of
//! the number dropped, until the wait is below the target.

use std::collections::BTreeMap;
use std::time::Duration;

use pool_core::lab::{WaitQueue, Waiter};

/// See the module.
#[derive(Debug)]
pub struct CoDel {
    target: Duration,
    interval: Duration,
    /// Since when each has waited.
    waiting: BTreeMap<u64, Duration>,
    /// When the wait will have been above the target for an interval.
    above_until: Option<Duration>,
    /// While it drops: when it drops next.
    next_drop: Option<Duration>,
    dropped: u32,
}

impl CoDel {
    /// With this target, and this interval.
    pub fn new(target: Duration, interval: Duration) -> Self {
        Self {
            target,
            interval,
            waiting: BTreeMap::new(),
            above_until: None,
            next_drop: None,
            dropped: 0,
        }
    }

    fn pace(&self) -> Duration {
        self.interval.div_f64(f64::from(self.dropped.max(1)).sqrt())
    }
}

impl WaitQueue for CoDel {
    fn join(&mut self, waiter: Waiter) {
        self.waiting.insert(waiter.ticket, waiter.since);
    }

    fn leave(&mut self, ticket: u64) {
        self.waiting.remove(&ticket);
    }

    fn first(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(ticket, _)| *ticket)
    }

    fn sheds(&mut self, now: Duration, serving: bool) -> Option<u64> {
        if !serving {
            return None;
        }
        let (ticket, since) = self.waiting.first_key_value()?;
        let ticket = *ticket;
        // The last is always served.
        if now.saturating_sub(*since) < self.target || self.waiting.len() == 1 {
            self.above_until = None;
            self.next_drop = None;
            return None;
        }
        let above_until = *self.above_until.get_or_insert(now + self.interval);
        if now < above_until || self.next_drop.is_some_and(|at| now < at) {
            return None;
        }
        let goes_on = self.next_drop.unwrap_or(now);
        if self.next_drop.is_none() {
            // It dropped lately: it goes on from about the pace that helped then.
            self.dropped = self.dropped.saturating_sub(2);
        }
        self.dropped += 1;
        self.next_drop = Some(goes_on + self.pace());
        Some(ticket)
    }
}
