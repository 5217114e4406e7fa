//! What is known about the backend from failed attempts to connect.
//!
//! The first failure in a row goes to the caller at the head of the queue, and the next attempt follows
//! at once; from the second on attempts pause; from `down_after` on the pool is *down*: everybody gets the
//! cause at once, and one opener probes until it succeeds.

use std::time::Duration;

use crate::backend::Failure;
use crate::error::ConnectError;
use crate::sync::{AtomicBool, Mutex, Ordering};

/// The failures in a row, and the last cause.
pub(crate) struct Outage<E> {
    state: Mutex<State<E>>,
    /// A hint that saves the mutex while all is well.
    troubled: AtomicBool,
}

struct State<E> {
    failures: u32,
    /// Attempts in a row for which the other side had no room, and we had something to wait for.
    full: u32,
    last: Option<ConnectError<E>>,
    probing: bool,
    down: bool,
}

/// Who learns of a failed attempt, and what the opener does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Tell the first in the queue; try again after the pause, if somebody still wants it.
    Retry(Duration),
    /// Tell everybody, and stop.
    Stop,
    /// Tell everybody; the pool is down, and this opener probes after the pause.
    Probe(Duration),
}

impl<E> Outage<E> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                failures: 0,
                full: 0,
                last: None,
                probing: false,
                down: false,
            }),
            troubled: AtomicBool::new(false),
        }
    }

    /// Notes a failed attempt. `probing` says whether the opener that made it is the probe.
    pub(crate) fn failed(
        &self,
        cause: &ConnectError<E>,
        failure: Failure,
        probing: bool,
        down_after: u32,
        backoff: (Duration, Duration),
    ) -> Verdict {
        let before; // Dropped without the mutex: a destructor is user code.
        let mut state = self.state.lock();
        state.failures = state.failures.saturating_add(1);
        before = state.last.replace(cause.clone());
        // Ordering: Relaxed; a hint, the mutex carries the rest.
        self.troubled.store(true, Ordering::Relaxed);
        let verdict = if failure == Failure::Permanent {
            state.down = false;
            state.probing &= !probing;
            Verdict::Stop
        } else if down_after != 0 && state.failures >= down_after {
            state.down = true;
            if probing || !state.probing {
                state.probing = true;
                Verdict::Probe(pause(state.failures - 1, backoff))
            } else {
                Verdict::Stop
            }
        } else if state.failures == 1 {
            Verdict::Retry(Duration::ZERO)
        } else {
            Verdict::Retry(pause(state.failures - 1, backoff))
        };
        drop(state);
        drop(before);
        verdict
    }

    /// Notes that the other side has no room, while the pool has connections that will come back: no failure to
    /// tell anybody of. Returns the pause before the next attempt.
    pub(crate) fn full(&self, cause: &ConnectError<E>, backoff: (Duration, Duration)) -> Duration {
        let mut state = self.state.lock();
        state.full = state.full.saturating_add(1);
        let before = state.last.replace(cause.clone());
        let full = state.full;
        // Ordering: Relaxed; a hint, the mutex carries the rest.
        self.troubled.store(true, Ordering::Relaxed);
        drop(state);
        drop(before); // Without the mutex: a destructor is user code.
        pause(full, backoff)
    }

    /// Notes that a connection was opened; true if that ends a row of failures.
    pub(crate) fn recovered(&self) -> bool {
        // Ordering: Relaxed; a hint: a failure noted meanwhile may stay for one more success.
        if !self.troubled.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = self.state.lock();
        let before = std::mem::replace(
            &mut *state,
            State {
                failures: 0,
                full: 0,
                last: None,
                probing: false,
                down: false,
            },
        );
        self.troubled.store(false, Ordering::Relaxed);
        drop(state);
        drop(before);
        true
    }

    /// How many attempts have failed in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.state.lock().failures
    }

    /// Notes that the probe ended without a success: the next caller starts another.
    pub(crate) fn probe_lost(&self) {
        self.state.lock().probing = false;
    }

    /// Whether newcomers are refused: the failures in a row and the cause.
    pub(crate) fn refuses(&self) -> Option<(u32, ConnectError<E>)> {
        // Ordering: Relaxed; a hint: who misses it joins the queue and learns from the probe.
        if !self.troubled.load(Ordering::Relaxed) {
            return None;
        }
        let state = self.state.lock();
        if !state.down || !state.probing {
            return None;
        }
        Some((state.failures, state.last.clone()?))
    }

    /// How the last attempt failed, if none has succeeded since.
    pub(crate) fn last(&self) -> Option<ConnectError<E>> {
        self.state.lock().last.clone()
    }
}

/// The pause before attempt `after + 1`: a random part of a doubling span.
fn pause(after: u32, (shortest, longest): (Duration, Duration)) -> Duration {
    let span = shortest
        .saturating_mul(1 << after.saturating_sub(1).min(20))
        .min(longest);
    span.mul_f64(fastrand::f64())
}
