//! Time for random schedules: a number, and a task of the schedule's own that moves it.
//!
//! [`drive`] is one task among all others. Whenever it has been picked often enough, it moves time on to the
//! earliest timer and wakes that: so a timer may fire at any step, and where nobody else can run it fires at
//! once. While no timer is set it sleeps, so a schedule in which everybody waits for somebody is still seen
//! as the deadlock that it is.
//!
//! A schedule runs on one thread of the operating system; what is kept here is that thread's, and [`begin`]
//! clears it before the next schedule.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};

/// The longest a timer that is due next is held back, in steps of the schedule that come by [`drive`].
const HELD_BACK: u32 = 24;

thread_local! {
    static TIMERS: RefCell<Timers> = RefCell::default();
}

#[derive(Default)]
struct Timers {
    now: Duration,
    /// By time and number; the waker of whoever polled it last.
    set: BTreeMap<(Duration, u64), Waker>,
    /// Numbers are never used again: a timer that outlives its schedule ends without a trace.
    numbers: u64,
    /// Whoever moves time on, while there is nothing to move it to.
    driver: Option<Waker>,
}

/// Begins a schedule: time stands at its origin, and nothing is set.
pub(crate) fn begin() {
    TIMERS.with_borrow_mut(|timers| {
        timers.now = Duration::ZERO;
        timers.set.clear();
        timers.driver = None;
    });
}

/// Moves time on, for ever.
pub(crate) async fn drive() {
    loop {
        poll_fn(|cx| TIMERS.with_borrow_mut(|timers| timers.poll_set(cx))).await;
        for _ in 0..thread_rng().gen_range(0..HELD_BACK) {
            shuttle::future::yield_now().await;
        }
        let due = TIMERS.with_borrow_mut(|timers| {
            let ((at, _), waker) = timers.set.pop_first()?;
            timers.now = timers.now.max(at);
            Some(waker)
        });
        if let Some(waker) = due {
            waker.wake();
        }
    }
}

impl Timers {
    /// Ready while a timer is set.
    fn poll_set(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.set.is_empty() {
            self.driver = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

/// A point in time: the origin is the same for all schedules of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(std::time::Instant);

fn origin() -> std::time::Instant {
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    *ORIGIN.get_or_init(std::time::Instant::now)
}

impl Instant {
    pub(crate) fn now() -> Self {
        Self(origin() + TIMERS.with_borrow(|timers| timers.now))
    }

    pub(crate) fn from_std(at: std::time::Instant) -> Self {
        Self(at)
    }

    pub(crate) fn into_std(self) -> std::time::Instant {
        self.0
    }
}

/// Ready at a point in time.
pub(crate) struct Sleep {
    at: Duration,
    number: Option<u64>,
}

pub(crate) fn sleep(span: Duration) -> Sleep {
    let now = TIMERS.with_borrow(|timers| timers.now);
    Sleep {
        at: now.saturating_add(span),
        number: None,
    }
}

pub(crate) fn sleep_until(at: Instant) -> Sleep {
    Sleep {
        at: at.0.saturating_duration_since(origin()),
        number: None,
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let driver = TIMERS.with_borrow_mut(|timers| {
            if timers.now >= self.at {
                return None;
            }
            let number = *self.number.get_or_insert_with(|| {
                timers.numbers += 1;
                timers.numbers
            });
            timers.set.insert((self.at, number), cx.waker().clone());
            Some(timers.driver.take())
        });
        match driver {
            None => Poll::Ready(()),
            Some(driver) => {
                if let Some(driver) = driver {
                    driver.wake();
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let at = self.at;
            // The thread that is being torn down has no timers left.
            let _ = TIMERS.try_with(|timers| timers.borrow_mut().set.remove(&(at, number)));
        }
    }
}
