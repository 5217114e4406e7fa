//! Points in time as plain numbers: microseconds since a moment shortly before the first look at a clock.
//!
//! The fast path reads a number that a thread of the process moves on every [`PERIOD`] ([`coarse`]); all
//! else reads tokio's clock ([`exact`]), which tests can pause. A reader marks the number as seen. Once it has moved
//! [`UNSEEN`] times without that, the thread waits to be woken by the next reader, so pools that nobody uses burn
//! nothing; after [`REST`] more it ends.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::policy::TimeSource;
use crate::rt;

/// How far the coarse clock may lag behind, about.
const PERIOD: Duration = Duration::from_millis(50);
/// By how much the coarse clock may lag behind when the machine is busy, in microseconds.
pub(crate) const LAG: u64 = 200_000;
/// After so many moves that nobody saw, the thread waits.
const UNSEEN: u32 = 20;
/// After how long of waiting it ends.
const REST: Duration = Duration::from_mins(1);

/// The coarse time, in its lowest bit whether it was seen; zero while nobody moves it on.
static TICK: AtomicU64 = AtomicU64::new(0);
const SEEN: u64 = 1;
/// Who moves [`TICK`] on.
static TICKER: Mutex<Ticker> = Mutex::new(Ticker::Gone);
/// Wakes the thread that waits.
static WANTED: Condvar = Condvar::new();

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ticker {
    Gone,
    Ticking,
    Waiting,
}

/// A moment that lies before every point in time that this process will see.
pub(crate) fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(|| {
        let now = Instant::now();
        // A paused clock may stand a little earlier than the first look at the real one.
        now.checked_sub(Duration::from_hours(1)).unwrap_or(now)
    })
}

/// A span in the clock's unit; more than any point in time, where it does not fit.
pub(crate) fn micros(span: Duration) -> u64 {
    let seconds = span.as_secs().saturating_mul(1_000_000);
    seconds.saturating_add(u64::from(span.subsec_micros()))
}

/// A part of a span, from nothing to all of it.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "spans that are too long to be exact are years"
)]
pub(crate) fn part(span: u64, part: f64) -> u64 {
    ((span as f64 * part) as u64).min(span)
}

/// The time by tokio's clock.
pub(crate) fn exact() -> u64 {
    micros(
        rt::Instant::now()
            .into_std()
            .saturating_duration_since(origin()),
    )
}

/// A point in time given by a caller.
pub(crate) fn from_instant(at: Instant) -> u64 {
    micros(at.saturating_duration_since(origin()))
}

/// The point in time for tokio's timers.
pub(crate) fn to_instant(at: u64) -> rt::Instant {
    rt::Instant::from_std(origin() + Duration::from_micros(at))
}

/// The time by the coarse clock, at most about [`PERIOD`] late.
#[inline]
pub(crate) fn coarse() -> u64 {
    if cfg!(pool_shuttle) {
        return exact(); // No thread of the real world moves a schedule's time on.
    }
    // Ordering: Relaxed; a number on its own.
    let tick = TICK.load(Ordering::Relaxed);
    if tick & SEEN == 0 {
        return unseen(tick);
    }
    tick
}

/// The time by the source that a pool was told to use.
#[inline]
pub(crate) fn now(source: TimeSource) -> u64 {
    match source {
        TimeSource::Coarse => coarse(),
        TimeSource::Exact => exact(),
    }
}

/// The time by a source, read from its clock itself: for what looks seldom and should wake no thread.
pub(crate) fn by(source: TimeSource) -> u64 {
    match source {
        TimeSource::Coarse if !cfg!(pool_shuttle) => real(),
        TimeSource::Coarse | TimeSource::Exact => exact(),
    }
}

fn real() -> u64 {
    micros(Instant::now().saturating_duration_since(origin()))
}

/// For the first that reads a move, or finds that there are none.
#[cold]
fn unseen(tick: u64) -> u64 {
    if tick == 0 {
        return start();
    }
    // Where it moved on meanwhile, the next reader marks it. Ordering: Relaxed; as above.
    let _ = TICK.compare_exchange(tick, tick | SEEN, Ordering::Relaxed, Ordering::Relaxed);
    tick
}

#[cold]
fn start() -> u64 {
    let mut ticker = TICKER.lock();
    let now = real() | SEEN;
    match *ticker {
        Ticker::Ticking => return now,
        Ticker::Waiting => {
            WANTED.notify_one();
        }
        Ticker::Gone => {
            let thread = thread::Builder::new().name("pool-clock".into());
            if thread.spawn(tick).is_err() {
                // Where no thread can be had, every reader comes by here and gets the real time.
                return now;
            }
        }
    }
    *ticker = Ticker::Ticking;
    TICK.store(now, Ordering::Relaxed);
    now
}

fn tick() {
    loop {
        let mut unseen = 0;
        while unseen < UNSEEN {
            thread::sleep(PERIOD);
            let before = TICK.swap(real() & !SEEN, Ordering::Relaxed);
            unseen = if before & SEEN == 0 { unseen + 1 } else { 0 };
        }
        let mut ticker = TICKER.lock();
        *ticker = Ticker::Waiting;
        TICK.store(0, Ordering::Relaxed);
        while *ticker == Ticker::Waiting {
            if WANTED.wait_for(&mut ticker, REST).timed_out() && *ticker == Ticker::Waiting {
                *ticker = Ticker::Gone;
                return;
            }
        }
    }
}

#[cfg(all(test, not(any(pool_loom, pool_shuttle))))]
mod tests {
    use super::*;

    /// Yields until `reached`, for a minute at the most.
    fn until(reached: impl Fn() -> bool) {
        let begun = Instant::now();
        while !reached() {
            assert!(begun.elapsed() < Duration::from_mins(1), "never reached");
            thread::yield_now();
        }
    }

    #[test]
    fn the_clock_goes_while_it_is_read_and_rests_when_it_is_not() {
        for _ in 0..2 {
            let first = coarse();
            until(|| coarse() > first + micros(PERIOD));
            assert!(coarse() <= real() | SEEN);
            until(|| TICK.load(Ordering::Relaxed) == 0);
            assert!(*TICKER.lock() == Ticker::Waiting);
        }
    }
}
