//! From a caller's wish to a connection that is fit for use.
//!
//! The fast path claims an idle slot and looks at numbers ([`quick`]). What it can't settle goes the slow
//! way: wait in the queue, ping, replace what is too old or dead, and wait again at the head of the queue,
//! for a caller that was given an unfit connection has not lost its turn.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, Location};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;

use crate::backend::{Backend, Failure, Health, When};
use crate::clock;
use crate::error::{GetError, TimedOut};
use crate::events::EventKind;
use crate::hooks::OnCheckout;
use crate::open;
use crate::options::{GetOptions, Patience};
use crate::put_back::{Vetting, close, suspect, terminate};
use crate::raw::claim::{Claim, Holder};
use crate::raw::wait::{Ask, NEVER, Turn, Wait};
use crate::rt::{Handle, timeout};
use crate::rules::Span;
use crate::shared::{Core, Parts, Refusal, Shared};
use crate::stats::CloseReason;
use crate::tally::Timed;
use crate::timekeeper::{self, Duty};

type Place = &'static Location<'static>;

/// How many connections a hook may send away before its caller is told.
const TRIES: u32 = 3;

/// From when on a connection counts as no longer fresh: before, it needs no ping.
const FRESH: u64 = 1_000_000;

/// How a checkout ends.
type CheckedOut<B, H> = Result<Claim<Parts<B>, H>, GetError<<B as Backend>::Error>>;

/// Checks a connection out, the slow way: after [`quick`] has not found one that is fit.
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
    Box::pin(async move {
        let (holder, unsure) = match tried {
            Quick::Fit(claim) => return Ok(claim),
            Quick::Unsure(vetting, health) => {
                (vetting.claim().holder().clone(), Some((vetting, health)))
            }
            Quick::Nothing(holder) => (holder, None),
        };
        let mut waiting = Waiting {
            shared: &holder.core().outside,
            since: None,
        };
        let checkout = slowly(&holder, options, unsure, &mut waiting);
        #[cfg(feature = "tracing")]
        let checkout =
            crate::trace::waiting(holder.core().outside.config.name.as_deref(), checkout);
        let result = checkout.await;
        waiting.ended(&result);
        result
    })
}

/// What can be told of an idle connection without waiting.
pub(crate) enum Quick<B: Backend, H: Holder<Parts<B>>> {
    Fit(Claim<Parts<B>, H>),
    /// It must be looked at more closely; what the backend said of it, where it was asked.
    Unsure(Vetting<B, H>, Option<Health>),
    /// Nothing is idle.
    Nothing(H),
}

/// Claims an idle connection, and hands it out if nothing speaks against that.
#[inline]
pub(crate) fn quick<B: Backend, H: Holder<Parts<B>>>(holder: H, place: Place) -> Quick<B, H> {
    let claim = match Core::<B>::claim(holder) {
        Ok(claim) => claim,
        Err(holder) => return Quick::Nothing(holder),
    };
    let mut vetting = Vetting::new(claim);
    let (entry, facts, shared) = vetting.split();
    let now = shared.now();
    if entry.generation != shared.epoch()
        || now >= facts.proven().saturating_add(shared.ping_after)
        || now > facts.expires()
    {
        return Quick::Unsure(vetting, None);
    }
    let health = shared.backend.check(&mut entry.conn, When::Checkout);
    if health != Health::Good {
        return Quick::Unsure(vetting, Some(health));
    }
    if facts.note(place, now) {
        entry.timed = clock::exact();
    }
    Quick::Fit(vetting.release())
}

/// Times how long a caller waits, also one that leaves.
struct Waiting<'a, B: Backend> {
    shared: &'a Shared<B>,
    /// Since when it has stood in the queue; `None` before and after.
    since: Option<u64>,
}

impl<B: Backend> Waiting<'_, B> {
    fn waited(&self) -> u64 {
        let since = self.since.unwrap_or_else(clock::exact);
        clock::exact().saturating_sub(since)
    }

    fn ended<T>(&mut self, result: &Result<T, GetError<B::Error>>) {
        let waited = self.waited();
        if self.since.take().is_none() {
            return; // It never waited.
        }
        let tally = &self.shared.tally;
        self.shared.timed(Timed::Wait, waited);
        match result {
            Ok(_) => tally.served_late.raise(),
            Err(GetError::TimedOut(_) | GetError::Suspended { .. }) => {
                tally.timeouts.raise();
                #[cfg(feature = "metrics")]
                crate::export::timeout(&self.shared.config);
                self.shared.tell(|| EventKind::TimedOut {
                    waited: Duration::from_micros(waited),
                });
            }
            Err(GetError::QueueFull { .. }) => tally.queue_full.raise(),
            Err(_) => {}
        }
    }
}

impl<B: Backend> Drop for Waiting<'_, B> {
    fn drop(&mut self) {
        if self.since.is_some() {
            self.shared.timed(Timed::Wait, self.waited());
            self.shared.tally.gave_up.raise();
        }
    }
}

async fn slowly<B: Backend, H: Holder<Parts<B>>>(
    holder: &H,
    options: GetOptions,
    mut candidate: Option<(Vetting<B, H>, Option<Health>)>,
    waiting: &mut Waiting<'_, B>,
) -> CheckedOut<B, H> {
    let shared = waiting.shared;
    let started = clock::exact();
    let patience = options.patience(shared.config.pool_timeout.map(Span::get), started);
    let mut ask = Ask {
        deadline: NEVER,
        since: started,
        now: started,
        first: false,
        only_with_room: patience == Patience::None,
        mark: options.place,
    };
    ask.deadline = match patience {
        Patience::Until(deadline) => deadline,
        // Only for what is opened for it, and not for ever where that goes to somebody else.
        Patience::None => {
            started.saturating_add(clock::micros(shared.config.connect_timeout.get()))
        }
    };
    let mut tries = TRIES;
    loop {
        let (vetting, health) = if let Some(candidate) = candidate.take() {
            candidate
        } else {
            waiting.since.get_or_insert(started);
            (turn(holder, ask).await?, None)
        };
        match vet(vetting, health, options.place).await? {
            Vetted::Fit(claim) => return Ok(claim),
            Vetted::Unfit => {}
            Vetted::SentAway => {
                tries -= 1;
                if tries == 0 {
                    return Err(GetError::Refused(None));
                }
            }
        }
        // It had its turn. Its own slot comes free within `close_timeout`, whatever `pool_timeout` is.
        ask.first = true;
        ask.now = clock::exact();
        if ask.only_with_room {
            let limit = clock::micros(shared.config.close_timeout.get());
            ask.deadline = ask.now.saturating_add(limit);
            ask.only_with_room = false;
        }
    }
}

/// Waits for a connection.
async fn turn<B: Backend, H: Holder<Parts<B>>>(
    holder: &H,
    ask: Ask<Place>,
) -> Result<Vetting<B, H>, GetError<B::Error>> {
    let core = holder.core();
    let shared = &core.outside;
    if let Some((failures, cause)) = shared.outage.refuses() {
        let idle = Core::<B>::claim_by(holder).map(Vetting::new);
        return idle.ok_or(GetError::Down { failures, cause });
    }
    let Some(handle) = shared.runtime() else {
        let idle = Core::<B>::claim_by(holder).map(Vetting::new);
        return idle.ok_or(GetError::NoRuntime);
    };
    let outside = Handle::try_current().is_err();
    let owned = || -> Arc<Core<B>> { shared.core().expect("a holder keeps its core alive") };
    let mut wait = pin!(Wait::new(holder.clone()));
    poll_fn(|cx| {
        let mut duty = Duty::Nothing;
        let turn = wait.as_mut().poll_turn(cx, ask, |keepers| {
            if let Some(at) = shared.first_look(&ask) {
                duty = keepers.joined(handle.id(), at);
            }
        });
        match duty {
            Duty::Nothing => {}
            Duty::Start => timekeeper::start(&handle, owned()),
            Duty::Hurry => shared.sooner.notify_waiters(),
        }
        Poll::Ready(match turn {
            Turn::Pending(opening) => {
                if let Some(opening) = opening {
                    let core = owned();
                    open::start(&handle, opening.into_owned(&core));
                    open::start_wanted(&handle, &core);
                }
                // A remembered runtime that has ended drops at once what is spawned on it, and is then forgotten.
                if outside && shared.runtime().is_none() {
                    return Poll::Ready(Err(GetError::NoRuntime));
                }
                return Poll::Pending;
            }
            Turn::Got(claim) => Ok(Vetting::new(claim)),
            Turn::Refused(Refusal::Connect(cause)) => Err(GetError::Connect(cause)),
            Turn::Refused(Refusal::Closed) | Turn::Closed => Err(GetError::Closed),
            Turn::Full => Err(GetError::QueueFull {
                waiting: core.counts().waiting,
            }),
            Turn::Shed => Err(GetError::Shed {
                waited: waited_since(ask.since),
            }),
            Turn::Expired | Turn::NoRoom => Err(timed_out(core, ask.since)),
        })
    })
    .await
}

fn waited_since(since: u64) -> Duration {
    Duration::from_micros(clock::exact().saturating_sub(since))
}

#[cold]
pub(crate) fn timed_out<B: Backend>(core: &Core<B>, since: u64) -> GetError<B::Error> {
    let shared = &core.outside;
    let waited = waited_since(since);
    let seen = shared.status(core);
    if seen.suspended {
        return GetError::Suspended { waited };
    }
    GetError::TimedOut(Box::new(TimedOut {
        waited,
        seen,
        longest: shared.holders(core).into_iter().next(),
        last_connect_error: shared.outage.last(),
    }))
}

/// What a close look at a connection came to. Where it is not fit, it is gone.
pub(crate) enum Vetted<B: Backend, H: Holder<Parts<B>>> {
    Fit(Claim<Parts<B>, H>),
    Unfit,
    /// By a hook, which would rather have another.
    SentAway,
}

/// Looks closely at a connection, and pings it where that is due.
async fn vet<B: Backend, H: Holder<Parts<B>>>(
    mut vetting: Vetting<B, H>,
    health: Option<Health>,
    place: Place,
) -> Result<Vetted<B, H>, GetError<B::Error>> {
    if let Some(unfit) = look(&mut vetting, health) {
        return Ok(unfit.apply(vetting));
    }
    let holder = vetting.claim().holder().clone();
    let shared: &Shared<B> = &holder.core().outside;
    if needs_ping(&mut vetting) {
        let generation = shared.generation();
        let (entry, facts, _) = vetting.split();
        facts.hand(place, shared.now()); // It is idle no more.
        let ping = AssertUnwindSafe(async { shared.backend.ping(&mut entry.conn).await });
        match timeout(shared.config.ping_timeout.get(), ping.catch_unwind()).await {
            Ok(Ok(Ok(()))) => facts.prove(shared.now()),
            Ok(Ok(Err(error))) if shared.backend.classify(&error) == Failure::Permanent => {
                return Err(GetError::Ping(Arc::new(error)));
            }
            _dead => {
                drop(vetting);
                suspect(shared, generation);
                return Ok(Vetted::Unfit);
            }
        }
    }
    hand_out(vetting, place)
}

/// As [`vet`], for a caller that can't wait: `Err` with a connection that must be pinged first.
pub(crate) fn vet_now<B: Backend, H: Holder<Parts<B>>>(
    mut vetting: Vetting<B, H>,
    health: Option<Health>,
    place: Place,
) -> Result<Vetted<B, H>, Vetting<B, H>> {
    if let Some(unfit) = look(&mut vetting, health) {
        return Ok(unfit.apply(vetting));
    }
    if needs_ping(&mut vetting) {
        return Err(vetting);
    }
    Ok(hand_out(vetting, place).unwrap_or(Vetted::SentAway))
}

/// Why a connection is unfit.
enum Unfit {
    Close(CloseReason),
    Broken,
    Generation(u64),
}

impl Unfit {
    fn apply<B: Backend, H: Holder<Parts<B>>>(self, vetting: Vetting<B, H>) -> Vetted<B, H> {
        match self {
            Self::Close(reason) => close(vetting.release(), reason),
            Self::Broken => drop(vetting),
            Self::Generation(generation) => {
                let holder = vetting.claim().holder().clone();
                drop(vetting);
                suspect(&holder.core().outside, generation);
            }
        }
        Vetted::Unfit
    }
}

fn look<B: Backend, H: Holder<Parts<B>>>(
    vetting: &mut Vetting<B, H>,
    health: Option<Health>,
) -> Option<Unfit> {
    let (entry, facts, shared) = vetting.split();
    let generation = shared.generation();
    if entry.generation != generation {
        return Some(Unfit::Close(CloseReason::Invalidated));
    }
    if shared.now() > facts.expires() {
        return Some(Unfit::Close(CloseReason::Expired));
    }
    match health.unwrap_or_else(|| shared.backend.check(&mut entry.conn, When::Checkout)) {
        Health::Good => None,
        Health::NeedsReset | Health::Broken => Some(Unfit::Broken),
        Health::Generation => Some(Unfit::Generation(generation)),
    }
}

fn needs_ping<B: Backend, H: Holder<Parts<B>>>(vetting: &mut Vetting<B, H>) -> bool {
    let (entry, facts, shared) = vetting.split();
    let after = if entry.fresh {
        shared.ping_after.max(FRESH) // One that was just opened.
    } else {
        shared.ping_after
    };
    shared.now() >= facts.proven().saturating_add(after)
}

/// Asks the hook, and notes who has it.
fn hand_out<B: Backend, H: Holder<Parts<B>>>(
    mut vetting: Vetting<B, H>,
    place: Place,
) -> Result<Vetted<B, H>, GetError<B::Error>> {
    let (entry, facts, shared) = vetting.split();
    if let Some(hook) = shared
        .hooks
        .as_ref()
        .and_then(|hooks| hooks.checkout.as_ref())
    {
        match hook(&mut entry.conn) {
            OnCheckout::Keep => {}
            OnCheckout::Close => {
                close(vetting.release(), CloseReason::Refused);
                return Ok(Vetted::SentAway);
            }
            OnCheckout::Refuse(cause) => {
                terminate(vetting.release(), CloseReason::Refused);
                return Err(GetError::Refused(Some(cause.into())));
            }
        }
    }
    entry.fresh = false;
    if facts.note(place, shared.now()) {
        entry.timed = clock::exact();
    }
    shared.tell(|| EventKind::CheckedOut {
        connection: entry.serial,
    });
    Ok(Vetted::Fit(vetting.release()))
}
