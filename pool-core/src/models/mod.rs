//! Models of the protocol: small stories of two or three threads, run in every order that the memory model
//! allows (up to a bound on preemptions), over the code that ships.
//!
//! Run them with `cargo xtask models`. Each says what breaks it, and was seen to break that way. The
//! scaffolding orders nothing: threads are joined, values are plain.

mod budget;
mod cancelling;
mod claims;
mod closing;
mod joining;
mod opening;
mod overflow;
mod resizing;
mod suspending;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use crate::raw::Parts;
use crate::raw::budget::Ticket;
use crate::raw::claim::{Claim, Closing, Holder, Opening};
use crate::raw::core::{Core, Surplus};
use crate::raw::rare::{Counts, Limits, Order};
use crate::raw::wait::{Ask, NEVER, Turn, Wait};
use crate::sync::Arc;

/// A pool of numbers.
struct Numbers;

impl Parts for Numbers {
    type Value = u32;
    type Facts = ();
    type Refusal = &'static str;
    type Guarded = ();
    type Outside = Option<Ticket>;
    type Mark = ();

    const COARSE: u64 = 0;

    fn exact(coarse: u64) -> u64 {
        coarse
    }

    fn ticket(outside: &Option<Ticket>) -> Option<&Ticket> {
        outside.as_ref()
    }

    fn handed((): &(), (): (), _now: u64) {}

    fn stray<H: Holder<Self>>(claim: Claim<Self, H>) {
        give(claim);
    }
}

type Rig = Arc<Core<Numbers>>;
type Held = Claim<Numbers, Rig>;

/// Runs a story in every order with up to `preemptions` forced switches.
fn check(preemptions: usize, story: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(story);
}

/// A core that keeps `keep` connections and may have `capacity`.
fn rig(keep: usize, capacity: usize) -> Rig {
    rig_with(Limits::plain(keep, capacity), Order::Packed)
}

fn rig_with(limits: Limits, order: Order) -> Rig {
    Arc::new(Core::new(limits, order, None))
}

const PATIENT: Ask<()> = Ask {
    deadline: NEVER,
    since: 0,
    now: 0,
    first: false,
    only_with_room: false,
    mark: (),
};

/// Polls a place in the queue once, with a waker that wakes nobody.
fn poll(wait: Pin<&mut Wait<Numbers, Rig>>, ask: Ask<()>) -> Turn<Numbers, Rig> {
    wait.poll_turn(&mut Context::from_waker(Waker::noop()), ask, |()| {})
}

/// Waits in the queue once, and gives what opening that asks for.
fn queue(wait: Pin<&mut Wait<Numbers, Rig>>) -> Option<Opening<Numbers, Rig>> {
    match poll(wait, PATIENT) {
        Turn::Pending(opening) => opening,
        _ => panic!("there is nothing to have yet"),
    }
}

/// What a wait came to that must have ended with a connection.
fn served(wait: Pin<&mut Wait<Numbers, Rig>>) -> Held {
    match poll(wait, PATIENT) {
        Turn::Got(claim) => claim,
        _ => panic!("the first in the queue must have been served"),
    }
}

/// A connection that was just opened, in use.
fn opened(rig: &Rig, number: u32) -> Held {
    let mut wait = pin!(Wait::new(rig.clone()));
    let opening = queue(wait.as_mut()).expect("there is room");
    assert!(
        Core::landed(opening, number, 0).is_none(),
        "it goes to the one who waits"
    );
    served(wait)
}

/// Waits until served, opening where asked to; `None` if refused.
fn get(rig: &Rig) -> Option<Held> {
    if let Some(claim) = Core::claim_by(rig) {
        return Some(claim);
    }
    loom::future::block_on(wait_for(Wait::new(rig.clone())))
}

async fn wait_for(wait: Wait<Numbers, Rig>) -> Option<Held> {
    let mut wait = pin!(wait);
    poll_fn(|cx| {
        loop {
            match wait.as_mut().poll_turn(cx, PATIENT, |()| {}) {
                Turn::Pending(None) => return Poll::Pending,
                Turn::Pending(Some(opening)) => close(Core::landed(opening, 7, 0)),
                Turn::Got(claim) => return Poll::Ready(Some(claim)),
                _ => return Poll::Ready(None),
            }
        }
    })
    .await
}

/// Returns a connection as the pool does.
fn give<H: Holder<Numbers>>(claim: Claim<Numbers, H>) {
    let kept = Core::give_back(claim, |holder| {
        for surplus in Core::trim(holder) {
            close(Some(surplus));
        }
    });
    if let Err(claim) = kept {
        close(Core::settle(claim, 0));
    }
}

/// Closes what was one too many.
fn close<H: Holder<Numbers>>(surplus: Option<Surplus<Numbers, H>>) {
    if let Some((closing, _)) = surplus {
        close_now(closing);
    }
}

fn close_now<H: Holder<Numbers>>(mut closing: Closing<Numbers, H>) {
    closing.value_mut().take();
    Core::vacate(closing);
}

/// Closes a connection in use on the spot.
fn discard(mut claim: Held) {
    claim.value_mut().take();
    Core::discard(claim);
}

/// Nobody waits, opens, uses or closes anything, and `idle` connections are idle.
fn assert_at_rest(rig: &Rig, idle: usize) {
    let seen = rig.counts();
    let rest = Counts {
        size: seen.size,
        capacity: seen.capacity,
        taken: idle,
        idle,
        detached: seen.detached,
        shed: seen.shed,
        ..Counts::default()
    };
    assert_eq!(seen, rest, "at rest with {idle} idle");
    // What is idle can be had: each bit stands for a connection.
    let held: Vec<_> = std::iter::from_fn(|| Core::claim_by(rig)).collect();
    assert_eq!(held.len(), idle);
    for claim in held {
        assert!(claim.value().is_some(), "an idle slot holds a connection");
        assert!(
            Core::give_back(claim, |_| panic!("nothing is too many")).is_ok(),
            "no flag is up, so a return needs no mutex"
        );
    }
}
