//! From a caller's wish to a connection that is fit for use.
//!
//! The fast path claims an idle slot and looks at numbers ([`quick`]). What it can't settle goes the slow
//! way ([`slow`]), which waits in the queue and looks more closely.

mod slow;

use std::panic::{AssertUnwindSafe, Location};
use std::sync::Arc;

use futures::FutureExt;

use crate::backend::{Backend, Failure, Health, When};
use crate::clock;
use crate::error::GetError;
use crate::events::EventKind;
use crate::hooks::OnCheckout;
use crate::put_back::{Vetting, close, suspect, terminate};
use crate::raw::claim::{Claim, Holder};
use crate::rt::timeout;
use crate::shared::{Core, Parts, Shared};
use crate::stats::CloseReason;

pub(crate) use slow::{slow, timed_out};

type Place = &'static Location<'static>;

/// From when on a connection counts as no longer fresh: before, it needs no ping.
const FRESH: u64 = 1_000_000;

/// How a checkout ends.
type CheckedOut<B, H> = Result<Claim<Parts<B>, H>, GetError<<B as Backend>::Error>>;

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

/// What a close look at a connection came to. Where it is not fit, it is gone.
pub(crate) enum Vetted<B: Backend, H: Holder<Parts<B>>> {
    Fit(Claim<Parts<B>, H>),
    /// It must be pinged first.
    Due(Vetting<B, H>),
    Unfit,
    /// By a hook, which would rather have another.
    SentAway,
}

/// Looks closely at a connection, without waiting.
pub(crate) fn vet_now<B: Backend, H: Holder<Parts<B>>>(
    mut vetting: Vetting<B, H>,
    health: Option<Health>,
    place: Place,
) -> Result<Vetted<B, H>, GetError<B::Error>> {
    if let Some(unfit) = look(&mut vetting, health) {
        return Ok(unfit.apply(vetting));
    }
    if needs_ping(&mut vetting) {
        return Ok(Vetted::Due(vetting));
    }
    hand_out(vetting, place)
}

/// Pings a connection that is due for it, and hands it out if it answers.
async fn ping<B: Backend, H: Holder<Parts<B>>>(
    mut vetting: Vetting<B, H>,
    place: Place,
) -> Result<Vetted<B, H>, GetError<B::Error>> {
    let holder = vetting.claim().holder().clone();
    let shared: &Shared<B> = &holder.core().outside;
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
    hand_out(vetting, place)
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
