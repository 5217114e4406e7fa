//! What becomes of a connection that is returned.
//!
//! | it is | it goes |
//! |---|---|
//! | good | to the first in the queue, else among the idle; closed if `pool_size` are idle already |
//! | in need of a reset | aside; maintenance resets it, then as above |
//! | over its age, of a suspect generation, held for too long or by a panicking task, refused by a hook | aside; maintenance closes it |
//! | broken | terminated on the spot; its room is free at once |
//!
//! Nothing here waits or does I/O, and all of it works outside a runtime.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Backend, Health, When};
use crate::clock;
use crate::entry::{Entry, Facts, OUTCAST};
use crate::events::EventKind;
use crate::hooks::OnReturn;
use crate::maintenance::{self, Job};
use crate::raw::claim::{Claim, Closing, Holder};
use crate::raw::core::Surplus;
use crate::raw::rare::Why;
use crate::shared::{Core, Parts, Shared};
use crate::stats::CloseReason;
use crate::tally::Timed;

/// A claim whose connection is terminated if this is dropped: for the time in which user code looks at it.
pub(crate) struct Vetting<B: Backend, H: Holder<Parts<B>>>(Option<Claim<Parts<B>, H>>);

impl<B: Backend, H: Holder<Parts<B>>> Vetting<B, H> {
    #[inline]
    pub(crate) fn new(claim: Claim<Parts<B>, H>) -> Self {
        Self(Some(claim))
    }

    #[inline]
    pub(crate) fn claim(&self) -> &Claim<Parts<B>, H> {
        self.0.as_ref().expect("held until released")
    }

    /// The connection, what is known of it, and what stands beside the core, at the same time.
    #[inline]
    pub(crate) fn split(&mut self) -> (&mut Entry<B::Connection>, &Facts, &Shared<B>) {
        let (value, facts, core) = self.0.as_mut().expect("held until released").split();
        (
            value.as_mut().expect("a slot in use holds a connection"),
            facts,
            &core.outside,
        )
    }

    /// The claim, found fit or on its way elsewhere.
    #[inline]
    pub(crate) fn release(mut self) -> Claim<Parts<B>, H> {
        self.0.take().expect("held until released")
    }
}

impl<B: Backend, H: Holder<Parts<B>>> Drop for Vetting<B, H> {
    #[inline]
    fn drop(&mut self) {
        if let Some(claim) = self.0.take() {
            terminate(claim, CloseReason::Broken);
        }
    }
}

/// An idle connection that was taken out with others and waits for its turn: goes back if this is dropped.
pub(crate) struct Untouched<B: Backend, H: Holder<Parts<B>>>(Option<Claim<Parts<B>, H>>);

impl<B: Backend, H: Holder<Parts<B>>> Untouched<B, H> {
    pub(crate) fn new(claim: Claim<Parts<B>, H>) -> Self {
        Self(Some(claim))
    }

    pub(crate) fn take(mut self) -> Claim<Parts<B>, H> {
        self.0.take().expect("taken once")
    }
}

impl<B: Backend, H: Holder<Parts<B>>> Drop for Untouched<B, H> {
    fn drop(&mut self) {
        if let Some(claim) = self.0.take() {
            unmoved(claim);
        }
    }
}

/// Returns a connection after use.
#[inline]
pub(crate) fn after_use<B: Backend, H: Holder<Parts<B>>>(claim: Claim<Parts<B>, H>) {
    if std::thread::panicking() {
        return close(claim, CloseReason::Broken);
    }
    let mut vetting = Vetting::new(claim);
    let (entry, facts, shared) = vetting.split();
    let now = shared.now();
    if facts.is_timed() {
        note_hold(shared, entry.timed);
    }
    let health = shared.backend.check(&mut entry.conn, When::Return);
    if health != Health::Good || entry.generation != shared.epoch() || now > facts.expires() {
        return with_care(vetting, health, now);
    }
    facts.rest(now);
    give(vetting.release(), now);
}

#[cold]
fn note_hold<B: Backend>(shared: &Shared<B>, since: u64) {
    let held = clock::exact().saturating_sub(since);
    shared.timed(Timed::Hold, held);
    if let Some(core) = shared.core() {
        // Without the lock: what exists by the counts, less what the words show as idle.
        let in_use = shared.tally.exist().saturating_sub(core.idle_about());
        shared.tally.held(in_use, held);
    }
}

/// Returns a connection that somebody must look at.
#[cold]
fn with_care<B: Backend, H: Holder<Parts<B>>>(
    mut vetting: Vetting<B, H>,
    health: Health,
    now: u64,
) {
    let holder = vetting.claim().holder().clone();
    let (entry, facts, shared) = vetting.split();
    let overdue = facts.is_overdue();
    let held = now.saturating_sub(facts.since());
    shared.tell(|| EventKind::Returned {
        connection: entry.serial,
        held: Duration::from_micros(held),
    });
    facts.let_go(now);
    match health {
        Health::Good | Health::NeedsReset => {}
        Health::Generation => {
            let generation = entry.generation;
            terminate(vetting.release(), CloseReason::Broken);
            return suspect(&holder.core().outside, generation);
        }
        Health::Broken => return drop(vetting),
    }
    if entry.generation != shared.generation() {
        return close(vetting.release(), CloseReason::Invalidated);
    }
    if now > facts.expires() {
        return close(vetting.release(), CloseReason::Expired);
    }
    if overdue {
        return close(vetting.release(), CloseReason::HeldTooLong);
    }
    if let Some(hook) = shared
        .hooks
        .as_ref()
        .and_then(|hooks| hooks.give_back.as_ref())
        && hook(&mut entry.conn) == OnReturn::Close
    {
        return close(vetting.release(), CloseReason::Refused);
    }
    if health == Health::NeedsReset {
        let core = shared.core().expect("a claim keeps its core alive");
        let aside = Core::<B>::set_aside(vetting.release());
        return maintenance::push(&core, Job::Reset(aside.into_owned(&core)));
    }
    facts.rest(now);
    give(vetting.release(), now);
}

/// Returns a connection that nobody has touched.
pub(crate) fn untouched<B: Backend, H: Holder<Parts<B>>>(claim: Claim<Parts<B>, H>) {
    let now = claim.core().outside.now();
    claim.facts().let_go(now);
    give(claim, now);
}

/// Gives back a connection that was only looked at: it has been idle all the time.
pub(crate) fn unmoved<B: Backend, H: Holder<Parts<B>>>(claim: Claim<Parts<B>, H>) {
    let now = claim.core().outside.now();
    give(claim, now);
}

#[inline]
fn give<B: Backend, H: Holder<Parts<B>>>(claim: Claim<Parts<B>, H>, now: u64) {
    if let Err(claim) = Core::<B>::give_back(claim, |holder| trim::<B, H>(holder)) {
        finish(Core::<B>::settle(claim, now));
    }
}

/// Closes what is idle beyond the pool's limits.
#[cold]
pub(crate) fn trim<B: Backend, H: Holder<Parts<B>>>(holder: &H) {
    finish(Core::<B>::trim(holder));
}

/// Closes what came back and is not kept.
pub(crate) fn finish<B: Backend, H: Holder<Parts<B>>>(
    surplus: impl IntoIterator<Item = Surplus<Parts<B>, H>>,
) {
    for (closing, why) in surplus {
        let reason = match why {
            Why::Surplus => CloseReason::Overflow,
            Why::Resized => CloseReason::Resized,
            Why::Yielded => CloseReason::Yielded,
            Why::Closed => CloseReason::PoolClosed,
        };
        finish_closing(closing, reason);
    }
}

/// Makes a generation suspect: idle connections of it are pinged side by side, those in use are closed when
/// they come back.
pub(crate) fn suspect<B: Backend>(shared: &Shared<B>, generation: u64) {
    if generation == OUTCAST || !shared.outdate(generation) {
        return; // Known already, and connections opened since are spared.
    }
    let Some(core) = shared.core() else { return };
    let proves = shared.generation();
    for claim in Core::<B>::take_idle_where(&core, |_| true) {
        maintenance::push(&core, Job::Check(Core::<B>::set_aside(claim), proves));
    }
}

/// Takes a connection out of use, to be closed politely by maintenance.
#[cold]
pub(crate) fn close<B: Backend, H: Holder<Parts<B>>>(
    claim: Claim<Parts<B>, H>,
    reason: CloseReason,
) {
    let now = claim.core().outside.now();
    claim.facts().let_go(now);
    finish_closing(Core::<B>::retire(claim), reason);
}

/// Hands a connection that is to be closed to maintenance.
pub(crate) fn finish_closing<B: Backend, H: Holder<Parts<B>>>(
    closing: Closing<Parts<B>, H>,
    reason: CloseReason,
) {
    let core = closing.holder().core().outside.core();
    let core: Arc<Core<B>> = core.expect("a claim keeps its core alive");
    maintenance::push(&core, Job::Close(closing.into_owned(&core), reason));
}

/// Closes a connection on the spot, without I/O.
#[cold]
pub(crate) fn terminate<B: Backend, H: Holder<Parts<B>>>(
    mut claim: Claim<Parts<B>, H>,
    reason: CloseReason,
) {
    let entry = claim.value_mut().take();
    let holder = claim.holder().clone();
    let shared = &holder.core().outside;
    claim.facts().let_go(shared.now());
    if let Some(entry) = entry {
        shared.terminate(entry, reason);
    }
    Core::<B>::discard(claim);
    note_vacated(holder.core());
}

/// Tells those who wait for room to open in, or for a closed pool to drain.
pub(crate) fn note_vacated<B: Backend>(core: &Core<B>) {
    let shared = &core.outside;
    shared.attempted.notify_waiters();
    if shared.shutdown.has_begun() {
        shared.drained.notify_waiters();
        shared.end_events(core);
    }
}
