//! The slow way: wait in the queue, ping, and wait again at the head of the queue where what came was unfit, for a
//! caller that was given an unfit connection has not lost its turn.
//!
//! The future is written out by hand, because a hundred thousand of them may stand in a queue: what an `async`
//! block keeps of its arguments and of each step side by side was several times as large. What few callers need (a
//! ping) is made when it is needed.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::{CheckedOut, Quick, Vetted, ping, vet_now};
use crate::backend::{Backend, Health};
use crate::clock;
use crate::error::{GetError, TimedOut};
use crate::events::EventKind;
use crate::open;
use crate::options::{GetOptions, Patience};
use crate::put_back::Vetting;
use crate::raw::claim::{Holder, Opening};
use crate::raw::wait::{Ask, Turn, Wait};
use crate::rt::Handle;
use crate::rules::Span;
use crate::shared::{Core, Parts, Refusal, Shared};
use crate::tally::Timed;
use crate::timekeeper::{self, Duty};

type Place = &'static Location<'static>;

/// What a turn in the queue comes to.
type Given<B, H> = Result<Vetting<B, H>, GetError<<B as Backend>::Error>>;

/// How many connections a hook may send away before its caller is told.
const TRIES: u8 = 3;

/// Checks a connection out, the slow way: after [`quick`](super::quick) has not found one that is fit.
///
/// Boxed: its state is large, and moving it about would cost the fast way more than all else.
///
/// # Cancel safety
/// May be dropped at any point. In the queue, its turn passes to the next; a connection that was being opened
/// for it goes on opening and serves the next caller; one that was being pinged is terminated.
#[cold]
pub(crate) fn slow<B: Backend, H: Holder<Parts<B>>>(
    tried: Quick<B, H>,
    options: GetOptions,
) -> Pin<Box<impl Future<Output = CheckedOut<B, H>>>> {
    let checkout = begin(tried, options, ping::<B, H>);
    #[cfg(feature = "tracing")]
    let checkout = {
        let name = checkout.shared().config.name.clone();
        crate::trace::waiting(name.as_deref(), checkout)
    };
    Box::pin(checkout)
}

fn begin<B: Backend, H: Holder<Parts<B>>, N, F>(
    tried: Quick<B, H>,
    options: GetOptions,
    ping: N,
) -> Slow<B, H, N, F> {
    let (holder, step) = match tried {
        Quick::Fit(claim) => {
            let holder = claim.holder().clone();
            (holder, Step::Look(Vetting::new(claim), Some(Health::Good)))
        }
        Quick::Unsure(vetting, health) => (
            vetting.claim().holder().clone(),
            Step::Look(vetting, health),
        ),
        Quick::Nothing(holder) => (holder, Step::Ask),
    };
    let config = &holder.core().outside.config;
    let started = clock::exact();
    let patience = options.patience(config.pool_timeout.map(Span::get), started);
    let (deadline, only_with_room) = match patience {
        Patience::Until(deadline) => (deadline, false),
        // Only for what is opened for it, and not for ever where that goes to somebody else.
        Patience::None => {
            let limit = clock::micros(config.connect_timeout.get());
            (started.saturating_add(limit), true)
        }
    };
    Slow {
        wait: Wait::new(holder),
        step,
        ping,
        place: options.place,
        started,
        deadline,
        only_with_room,
        had_its_turn: false,
        stood: false,
        tries: TRIES,
    }
}

pin_project! {
    /// See the module. `N` starts a ping, and `F` is the ping.
    struct Slow<B: Backend, H: Holder<Parts<B>>, N, F> {
        #[pin]
        wait: Wait<Parts<B>, H>,
        step: Step<B, H, F>,
        ping: N,
        place: Place,
        started: u64,
        deadline: u64,
        only_with_room: bool,
        // It joins at the head: what it was given was unfit.
        had_its_turn: bool,
        // It stands or stood in the queue, and the time is not recorded yet.
        stood: bool,
        tries: u8,
    }

    impl<B: Backend, H: Holder<Parts<B>>, N, F> PinnedDrop for Slow<B, H, N, F> {
        fn drop(this: Pin<&mut Self>) {
            if this.stood {
                let shared = this.shared();
                shared.timed(Timed::Wait, waited(this.started));
                shared.tally.gave_up.raise();
            }
        }
    }
}

enum Step<B: Backend, H: Holder<Parts<B>>, F> {
    /// Look closely at a connection; what the backend said of it, where it was asked.
    Look(Vetting<B, H>, Option<Health>),
    Ping(Pin<Box<F>>),
    /// Join the queue.
    Ask,
    Queued,
}

impl<B, H, N, F> Future for Slow<B, H, N, F>
where
    B: Backend,
    H: Holder<Parts<B>>,
    N: Fn(Vetting<B, H>, Place) -> F,
    F: Future<Output = Result<Vetted<B, H>, GetError<B::Error>>>,
{
    type Output = CheckedOut<B, H>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.as_mut().poll_steps(cx));
        self.ended(&result);
        Poll::Ready(result)
    }
}

impl<B, H, N, F> Slow<B, H, N, F>
where
    B: Backend,
    H: Holder<Parts<B>>,
    N: Fn(Vetting<B, H>, Place) -> F,
    F: Future<Output = Result<Vetted<B, H>, GetError<B::Error>>>,
{
    fn poll_steps(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CheckedOut<B, H>> {
        loop {
            let this = self.as_mut().project();
            let vetted = match std::mem::replace(this.step, Step::Ask) {
                Step::Look(vetting, health) => vet_now(vetting, health, this.place)?,
                Step::Ping(mut ping) => match ping.as_mut().poll(cx) {
                    Poll::Ready(vetted) => vetted?,
                    Poll::Pending => {
                        *this.step = Step::Ping(ping);
                        return Poll::Pending;
                    }
                },
                Step::Ask => {
                    let vetting = ready!(self.as_mut().poll_join(cx))?;
                    self.as_mut().step(Step::Look(vetting, None));
                    continue;
                }
                Step::Queued => {
                    *this.step = Step::Queued;
                    let vetting = ready!(self.as_mut().poll_turn(cx))?;
                    self.as_mut().step(Step::Look(vetting, None));
                    continue;
                }
            };
            match vetted {
                Vetted::Fit(claim) => return Poll::Ready(Ok(claim)),
                Vetted::Due(vetting) => {
                    let ping = (this.ping)(vetting, this.place);
                    *this.step = Step::Ping(Box::pin(ping));
                    continue;
                }
                Vetted::Unfit => {}
                Vetted::SentAway => {
                    *this.tries -= 1;
                    if *this.tries == 0 {
                        return Poll::Ready(Err(GetError::Refused(None)));
                    }
                }
            }
            *this.had_its_turn = true;
        }
    }
}

impl<B: Backend, H: Holder<Parts<B>>, N, F> Slow<B, H, N, F> {
    fn core(&self) -> &Core<B> {
        self.wait.holder().core()
    }

    fn shared(&self) -> &Shared<B> {
        &self.core().outside
    }

    fn owned(&self) -> Arc<Core<B>> {
        self.shared().core().expect("a holder keeps its core alive")
    }

    fn step(self: Pin<&mut Self>, next: Step<B, H, F>) {
        *self.project().step = next;
    }

    /// What is idle, for one that can't wait; else why not.
    fn idle_or(&self, why: GetError<B::Error>) -> Given<B, H> {
        let idle = Core::<B>::claim_by(self.wait.holder());
        idle.map(Vetting::new).ok_or(why)
    }

    /// Takes a place in the queue.
    fn poll_join(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Given<B, H>> {
        *self.as_mut().project().stood = true;
        if let Some((failures, cause)) = self.shared().outage.refuses() {
            return Poll::Ready(self.idle_or(GetError::Down { failures, cause }));
        }
        let here = Handle::try_current().ok();
        let outside = here.is_none();
        let Some(handle) = here.or_else(|| self.shared().remembered()) else {
            return Poll::Ready(self.idle_or(GetError::NoRuntime));
        };
        let now = if self.had_its_turn {
            let now = clock::exact();
            if self.only_with_room {
                // It had its turn. Its own slot comes free within `close_timeout`, whatever `pool_timeout` is.
                let limit = clock::micros(self.shared().config.close_timeout.get());
                let this = self.as_mut().project();
                *this.deadline = now.saturating_add(limit);
                *this.only_with_room = false;
            }
            now
        } else {
            self.started
        };
        let this = self.as_mut().project();
        *this.step = Step::Queued;
        let ask = Ask {
            deadline: *this.deadline,
            since: *this.started,
            now,
            first: *this.had_its_turn,
            only_with_room: *this.only_with_room,
            mark: *this.place,
        };
        let first_look = this.wait.holder().core().outside.first_look(&ask);
        let mut duty = Duty::Nothing;
        let turn = this.wait.poll_turn(cx, ask, |keepers| {
            if let Some(at) = first_look {
                duty = keepers.joined(handle.id(), at);
            }
        });
        match duty {
            Duty::Nothing => {}
            Duty::Start => timekeeper::start(&handle, self.owned()),
            Duty::Hurry => self.shared().sooner.notify_waiters(),
        }
        match turn {
            Turn::Pending(opening) => {
                if opening.is_none() {
                    self.warn_of_own();
                }
                self.pending(opening, &handle, outside)
            }
            over => Poll::Ready(self.over(over)),
        }
    }

    /// Tells where it waits for others while its own task holds a connection.
    fn warn_of_own(&self) {
        if let Some(holder) = self.shared().held_by_waiter(self.core()) {
            let place = self.place;
            self.shared()
                .tell(|| EventKind::WaitsWhileHolding { place, holder });
        }
    }

    /// Looks how its place in the queue stands.
    fn poll_turn(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Given<B, H>> {
        let ask = Ask {
            deadline: self.deadline,
            since: self.started,
            now: self.started,
            first: false,
            only_with_room: false,
            mark: self.place,
        };
        match self.as_mut().project().wait.poll_turn(cx, ask, |_| {}) {
            Turn::Pending(opening) => {
                let here = Handle::try_current().ok();
                let outside = here.is_none();
                match here.or_else(|| self.shared().remembered()) {
                    Some(handle) => self.pending(opening, &handle, outside),
                    None => Poll::Ready(Err(GetError::NoRuntime)),
                }
            }
            over => Poll::Ready(self.over(over)),
        }
    }

    /// Goes on waiting, and begins to open what is to be opened.
    fn pending(
        &self,
        opening: Option<Opening<Parts<B>, H>>,
        handle: &Handle,
        outside: bool,
    ) -> Poll<Given<B, H>> {
        if let Some(opening) = opening {
            let core = self.owned();
            open::start(handle, opening.into_owned(&core));
            open::start_wanted(handle, &core);
        }
        // A remembered runtime that has ended drops at once what is spawned on it, and is then forgotten.
        if outside && self.shared().remembered().is_none() {
            return Poll::Ready(Err(GetError::NoRuntime));
        }
        Poll::Pending
    }

    fn over(&self, turn: Turn<Parts<B>, H>) -> Given<B, H> {
        match turn {
            Turn::Got(claim) => Ok(Vetting::new(claim)),
            Turn::Refused(Refusal::Connect(cause)) => Err(GetError::Connect(cause)),
            Turn::Refused(Refusal::Closed) | Turn::Closed => Err(GetError::Closed),
            Turn::Full => Err(GetError::QueueFull {
                waiting: self.core().counts().waiting,
            }),
            Turn::Shed => Err(GetError::Shed {
                waited: Duration::from_micros(waited(self.started)),
            }),
            Turn::Pending(_) | Turn::Expired | Turn::NoRoom => {
                Err(timed_out(self.core(), self.started))
            }
        }
    }

    /// Records how long it stood, if it did.
    fn ended<T>(self: Pin<&mut Self>, result: &Result<T, GetError<B::Error>>) {
        if !self.stood {
            return;
        }
        let waited = waited(self.started);
        let shared = self.shared();
        let tally = &shared.tally;
        shared.timed(Timed::Wait, waited);
        match result {
            Ok(_) => tally.served_late.raise(),
            Err(GetError::TimedOut(_) | GetError::Suspended { .. }) => {
                tally.timeouts.raise();
                #[cfg(feature = "metrics")]
                crate::export::timeout(&shared.config);
                shared.tell(|| EventKind::TimedOut {
                    waited: Duration::from_micros(waited),
                });
            }
            Err(GetError::QueueFull { .. }) => tally.queue_full.raise(),
            Err(_) => {}
        }
        *self.project().stood = false;
    }
}

/// How long one that began at `started` has waited, in microseconds.
fn waited(started: u64) -> u64 {
    clock::exact().saturating_sub(started)
}

#[cold]
pub(crate) fn timed_out<B: Backend>(core: &Core<B>, started: u64) -> GetError<B::Error> {
    let shared = &core.outside;
    let waited = Duration::from_micros(waited(started));
    let seen = shared.status(core);
    if seen.suspended {
        return GetError::Suspended { waited };
    }
    GetError::TimedOut(Box::new(TimedOut {
        waited,
        seen,
        longest: shared.holders(core).into_iter().next(),
        own: shared.held_by_waiter(core),
        last_connect_error: shared.outage.last(),
    }))
}
