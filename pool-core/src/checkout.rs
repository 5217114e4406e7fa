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
use crate::open;
use crate::put_back::{Vetting, close, suspect};
use crate::raw::claim::{Claim, Holder};
use crate::raw::wait::{Ask, NEVER, Turn, Wait};
use crate::rt::{Handle, timeout};
use crate::shared::{Core, Parts, Refusal, Shared};
use crate::timekeeper::{self, Duty};

type Place = &'static Location<'static>;

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
    place: Place,
) -> Pin<Box<impl Future<Output = CheckedOut<B, H>>>> {
    Box::pin(async move {
        let (holder, unsure) = match tried {
            Quick::Fit(claim) => return Ok(claim),
            Quick::Unsure(vetting) => (vetting.claim().holder().clone(), Some(vetting)),
            Quick::Nothing(holder) => (holder, None),
        };
        slowly(holder, place, unsure).await
    })
}

/// What can be told of an idle connection without waiting.
pub(crate) enum Quick<B: Backend, H: Holder<Parts<B>>> {
    Fit(Claim<Parts<B>, H>),
    /// It must be looked at more closely.
    Unsure(Vetting<B, H>),
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
    let (entry, shared) = vetting.split();
    let now = shared.now();
    if entry.is_plain(shared.generation(), now)
        && shared.backend.check(&mut entry.conn, When::Checkout) == Health::Good
    {
        vetting.claim().facts().note(place, now);
        return Quick::Fit(vetting.release());
    }
    Quick::Unsure(vetting)
}

async fn slowly<B: Backend, H: Holder<Parts<B>>>(
    holder: H,
    place: Place,
    mut candidate: Option<Vetting<B, H>>,
) -> Result<Claim<Parts<B>, H>, GetError<B::Error>> {
    let shared = &holder.core().outside;
    let started = clock::exact();
    let mut ask = match shared.config.pool_timeout {
        None => Ask {
            deadline: NEVER,
            first: false,
            only_with_room: false,
            mark: place,
        },
        Some(Duration::ZERO) => Ask {
            deadline: NEVER,
            first: false,
            only_with_room: true,
            mark: place,
        },
        Some(limit) => {
            let deadline = started.saturating_add(clock::micros(limit));
            Ask {
                deadline,
                first: false,
                only_with_room: false,
                mark: place,
            }
        }
    };
    loop {
        let vetting = match candidate.take() {
            Some(vetting) => vetting,
            None => turn(&holder, ask, started).await?,
        };
        if let Some(claim) = vet(vetting, place).await? {
            return Ok(claim);
        }
        // It had its turn. Its own slot comes free within `close_timeout`, whatever `pool_timeout` is.
        ask.first = true;
        if ask.only_with_room {
            let limit = clock::micros(shared.config.close_timeout);
            ask.deadline = clock::exact().saturating_add(limit);
            ask.only_with_room = false;
        }
    }
}

/// Waits for a connection.
async fn turn<B: Backend, H: Holder<Parts<B>>>(
    holder: &H,
    ask: Ask<Place>,
    started: u64,
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
            if ask.deadline != NEVER {
                duty = keepers.joined(handle.id(), ask.deadline);
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
            Turn::Expired | Turn::NoRoom => Err(timed_out(core, started)),
        })
    })
    .await
}

#[cold]
fn timed_out<B: Backend>(core: &Core<B>, started: u64) -> GetError<B::Error> {
    let shared = &core.outside;
    GetError::TimedOut(Box::new(TimedOut {
        waited: Duration::from_micros(clock::exact().saturating_sub(started)),
        seen: shared.status(core),
        longest: shared.holders(core).into_iter().next(),
        last_connect_error: shared.outage.last(),
    }))
}

/// Looks closely at a connection; `None` if it was unfit, and is gone.
async fn vet<B: Backend, H: Holder<Parts<B>>>(
    mut vetting: Vetting<B, H>,
    place: Place,
) -> Result<Option<Claim<Parts<B>, H>>, GetError<B::Error>> {
    let holder = vetting.claim().holder().clone();
    let shared: &Shared<B> = &holder.core().outside;
    let now = shared.now();
    let generation = shared.generation();
    let entry = vetting.entry();
    if entry.generation != generation || now > entry.expires {
        close(vetting.release());
        return Ok(None);
    }
    match shared.backend.check(&mut entry.conn, When::Checkout) {
        Health::Good => {}
        Health::NeedsReset | Health::Broken => return Ok(None),
        Health::Generation => {
            drop(vetting);
            suspect(shared, generation);
            return Ok(None);
        }
    }
    if now >= entry.ping_at {
        let ping = AssertUnwindSafe(async { shared.backend.ping(&mut entry.conn).await });
        match timeout(shared.config.ping_timeout, ping.catch_unwind()).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) if shared.backend.classify(&error) == Failure::Permanent => {
                return Err(GetError::Ping(Arc::new(error)));
            }
            _dead => {
                drop(vetting);
                suspect(shared, generation);
                return Ok(None);
            }
        }
    }
    vetting.claim().facts().note(place, shared.now());
    Ok(Some(vetting.release()))
}
