//! At most one message a second of each kind, with a count of what was held back.
//!
//! A [`Throttle`] stands for one kind of message. Whoever has one to give asks [`Throttle::admit`]; the answer
//! is how many were held back since the last that was let through, or that this one is held back too. Time
//! is passed in, so it needs no clock of its own.
//!
//! What always holds: every message is counted once, either by being let through or in the number that goes
//! with the next one that is.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long after a message others of its kind are held back.
const INTERVAL: Duration = Duration::from_secs(1);

/// One kind of message, let through at most once a second.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    held_back: u64,
}

impl Throttle {
    /// Whether a message may be given now: with how many were held back before it, or not at all.
    pub(crate) fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        let recent = state
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < INTERVAL);
        if recent {
            state.held_back += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_a_second_passes_and_tells_how_many_were_held_back() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(throttle.admit(start), Some(0), "the first passes");
        assert_eq!(throttle.admit(after(1)), None);
        assert_eq!(throttle.admit(after(999)), None);
        assert_eq!(throttle.admit(after(1000)), Some(2));
        assert_eq!(throttle.admit(after(1500)), None);
        assert_eq!(throttle.admit(after(60_000)), Some(1));
        assert_eq!(throttle.admit(after(62_000)), Some(0));
    }

    #[test]
    fn a_clock_read_out_of_order_holds_back() {
        let throttle = Throttle::default();
        let now = Instant::now() + Duration::from_secs(5);
        assert_eq!(throttle.admit(now), Some(0));
        assert_eq!(
            throttle.admit(now.checked_sub(Duration::from_secs(3)).unwrap_or(now)),
            None
        );
    }
}
