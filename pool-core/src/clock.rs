//! Points in time as plain numbers: microseconds since a moment shortly before the first look at a clock.
//!
//! The fast path reads a number that a thread of the process moves on every [`PERIOD`] ([`coarse`]); all
//! else reads tokio's clock ([`exact`]), which tests can pause. The thread ends after [`REST`] and is started
//! again by the first reader that finds it gone, so a process that no longer uses a pool has none.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::policy::TimeSource;
use crate::rt;

/// How far the coarse clock may lag behind, about.
const PERIOD: Duration = Duration::from_millis(50);
/// By how much the coarse clock may lag behind when the machine is busy, in microseconds.
pub(crate) const LAG: u64 = 200_000;
/// After how long the ticking thread ends, unless somebody starts it again.
const REST: Duration = Duration::from_mins(1);

/// The coarse time; zero while nobody moves it on.
static TICK: AtomicU64 = AtomicU64::new(0);
/// Whether a thread moves [`TICK`] on.
static TICKING: Mutex<bool> = Mutex::new(false);

/// A moment that lies before every point in time that this process will see.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(|| {
        let now = Instant::now();
        // A paused clock may stand a little earlier than the first look at the real one.
        now.checked_sub(Duration::from_hours(1)).unwrap_or(now)
    })
}

/// A span in the clock's unit; more than any point in time, where it does not fit.
pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
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
    match TICK.load(Ordering::Relaxed) {
        0 => start(),
        now => now,
    }
}

/// The time by the source that a pool was told to use.
#[inline]
pub(crate) fn now(source: TimeSource) -> u64 {
    match source {
        TimeSource::Coarse => coarse(),
        TimeSource::Exact => exact(),
    }
}

fn real() -> u64 {
    micros(Instant::now().saturating_duration_since(origin()))
}

#[cold]
fn start() -> u64 {
    let mut ticking = TICKING.lock();
    let now = real();
    if !*ticking {
        // Where no thread can be had, every reader comes by here and gets the real time.
        let started = thread::Builder::new().name("pool-clock".into()).spawn(tick);
        if started.is_ok() {
            *ticking = true;
            TICK.store(now, Ordering::Relaxed);
        }
    }
    now
}

fn tick() {
    let end = real() + micros(REST);
    loop {
        thread::sleep(PERIOD);
        let now = real();
        if now >= end {
            break;
        }
        TICK.store(now, Ordering::Relaxed);
    }
    let mut ticking = TICKING.lock();
    TICK.store(0, Ordering::Relaxed);
    *ticking = false;
}
