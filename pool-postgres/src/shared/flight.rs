//! One statement under way on a shared connection, and who polls for its answer.
//!
//! The caller polls it, so an answer costs no second task. Answers come in the order of the statements, so one whose
//! caller does not poll would hold up everybody behind it: whoever leaves hands the statement to a task of its own,
//! and whoever does not come back in time has it taken over. Either way it is read to its end.
//!
//! # What always holds
//! A flight's future is polled by one party at a time and dropped outside the lock.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_postgres::{Row, Statement};

use super::hub::Seat;
use crate::error::Error;

/// What comes back of a statement.
pub(super) enum Answer {
    Prepared(Statement),
    Rows(Vec<Row>, u64),
}

/// An answer, and the seat on which it was waited for.
pub(super) type Landed = (Result<Answer, Error>, Seat);

pub(super) type Course = Pin<Box<dyn Future<Output = Landed> + Send>>;

/// A statement under way.
pub(super) struct Flight(Mutex<State>);

enum State {
    /// Nothing is under way: not yet, or no more.
    Grounded,
    /// The caller polls; the waker is its last.
    Flown {
        course: Course,
        waker: Option<Waker>,
    },
    /// A task polls; the waker is the caller's, if it waits.
    TakenOver(Option<Waker>),
    /// The caller has left.
    Deserted,
    /// The task has the answer.
    Landed(Landed),
}

impl Flight {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State::Grounded)))
    }

    /// Sends what `course` sends at its first poll, and waits for its answer.
    pub(super) fn fly(self: Arc<Self>, course: Course) -> Airborne {
        *self.0.lock() = State::Flown {
            course,
            waker: None,
        };
        Airborne { flight: self }
    }

    /// Takes it over from a caller that does not poll; nothing happens if it is being polled right now.
    pub(super) fn take_over(self: &Arc<Self>, runtime: &Handle) {
        let Some(mut state) = self.0.try_lock() else {
            return;
        };
        if !matches!(*state, State::Flown { .. }) {
            return;
        }
        if let State::Flown { course, waker } =
            std::mem::replace(&mut *state, State::TakenOver(None))
        {
            *state = State::TakenOver(waker);
            drop(state);
            self.land_by_itself(course, runtime);
        }
    }

    fn land_by_itself(self: &Arc<Self>, course: Course, runtime: &Handle) {
        let flight = Arc::clone(self);
        runtime.spawn(async move {
            let landed = course.await;
            let mut state = flight.0.lock();
            // Of a caller that has left, nobody wants the answer: it goes with this task.
            if let State::TakenOver(waker) = &mut *state {
                let waker = waker.take();
                *state = State::Landed(landed);
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        });
    }
}

/// The caller's wait for an answer. Dropped early, the statement goes on by itself.
pub(super) struct Airborne {
    flight: Arc<Flight>,
}

impl Future for Airborne {
    type Output = Landed;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Landed> {
        let mut state = self.flight.0.lock();
        match &mut *state {
            State::Flown { course, waker } => match course.as_mut().poll(cx) {
                Poll::Ready(landed) => {
                    let over = std::mem::replace(&mut *state, State::Grounded);
                    drop(state);
                    drop(over);
                    Poll::Ready(landed)
                }
                Poll::Pending => {
                    keep(waker, cx);
                    Poll::Pending
                }
            },
            State::TakenOver(waker) => {
                keep(waker, cx);
                Poll::Pending
            }
            State::Landed(_) | State::Grounded | State::Deserted => {
                match std::mem::replace(&mut *state, State::Grounded) {
                    State::Landed(landed) => Poll::Ready(landed),
                    _ => Poll::Pending, // Polled after its end.
                }
            }
        }
    }
}

fn keep(kept: &mut Option<Waker>, cx: &Context<'_>) {
    match kept {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *kept = Some(cx.waker().clone()),
    }
}

impl Drop for Airborne {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut *self.flight.0.lock(), State::Deserted);
        if let State::Flown { course, .. } = state
            // Outside a runtime nobody can read the answer: the seat says so to its connection.
            && let Ok(runtime) = Handle::try_current()
        {
            self.flight.land_by_itself(course, &runtime);
        }
    }
}
