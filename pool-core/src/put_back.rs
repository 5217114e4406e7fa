//! What becomes of a connection that is returned.
//!
//! | it is | it goes |
//! |---|---|
//! | good | to the first in the queue, else among the idle; closed if `pool_size` are idle already |
//! | in need of a reset | aside; maintenance resets it, then as above |
//! | over its age, of a suspect generation, held by a panicking task | aside; maintenance closes it |
//! | broken | terminated on the spot; its room is free at once |
//!
//! Nothing here waits or does I/O, and all of it works outside a runtime.

use std::sync::Arc;

use crate::backend::{Backend, Health, When};
use crate::entry::{Entry, OUTCAST};
use crate::maintenance::{self, Job};
use crate::raw::claim::{Claim, Closing, Holder};
use crate::shared::{Core, Parts, Shared};

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

    #[inline]
    pub(crate) fn entry(&mut self) -> &mut Entry<B::Connection> {
        let value = self.0.as_mut().expect("held until released").value_mut();
        value.as_mut().expect("a slot in use holds a connection")
    }

    /// The connection, and what stands beside the core, at the same time.
    #[inline]
    pub(crate) fn split(&mut self) -> (&mut Entry<B::Connection>, &Shared<B>) {
        let (value, core) = self.0.as_mut().expect("held until released").split();
        (
            value.as_mut().expect("a slot in use holds a connection"),
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
            terminate(claim);
        }
    }
}

/// Returns a connection after use.
#[inline]
pub(crate) fn after_use<B: Backend, H: Holder<Parts<B>>>(claim: Claim<Parts<B>, H>) {
    if std::thread::panicking() {
        return close(claim);
    }
    let mut vetting = Vetting::new(claim);
    let (entry, shared) = vetting.split();
    let now = shared.now();
    let health = shared.backend.check(&mut entry.conn, When::Return);
    if health != Health::Good {
        return unfit(vetting, health);
    }
    if entry.generation != shared.generation() || now > entry.expires {
        return close(vetting.release());
    }
    entry.ping_at = ping_at(shared, now);
    give(vetting.release(), now);
}

/// Returns a connection that nobody has touched.
pub(crate) fn untouched<B: Backend, H: Holder<Parts<B>>>(claim: Claim<Parts<B>, H>) {
    let now = claim.core().outside.now();
    give(claim, now);
}

/// Gives back a connection that `try_get` found in need of a closer look, and left alone.
pub(crate) fn after_look<B: Backend, H: Holder<Parts<B>>>(mut vetting: Vetting<B, H>) {
    let holder = vetting.claim().holder().clone();
    let shared = &holder.core().outside;
    let now = shared.now();
    let entry = vetting.entry();
    if entry.generation != shared.generation() || now > entry.expires {
        close(vetting.release());
    } else if now >= entry.ping_at {
        give(vetting.release(), now);
    } // Else `check` did not find it good: it is terminated.
}

/// From when on a connection that was last used now is pinged.
#[inline]
pub(crate) fn ping_at<B: Backend>(shared: &Shared<B>, now: u64) -> u64 {
    now.saturating_add(shared.ping_after)
}

#[inline]
fn give<B: Backend, H: Holder<Parts<B>>>(claim: Claim<Parts<B>, H>, now: u64) {
    if let Err(claim) = Core::<B>::give_back(claim)
        && let Some(closing) = Core::<B>::settle(claim, now)
    {
        finish_closing(closing);
    }
}

#[cold]
fn unfit<B: Backend, H: Holder<Parts<B>>>(mut vetting: Vetting<B, H>, health: Health) {
    let holder = vetting.claim().holder().clone();
    match health {
        Health::NeedsReset => {
            let core = holder
                .core()
                .outside
                .core()
                .expect("a claim keeps its core alive");
            let aside = Core::<B>::set_aside(vetting.release());
            maintenance::push(&core, Job::Reset(aside.into_owned(&core)));
        }
        Health::Generation => {
            let generation = vetting.entry().generation;
            drop(vetting);
            suspect(&holder.core().outside, generation);
        }
        Health::Good | Health::Broken => drop(vetting),
    }
}

/// Makes a generation suspect: idle connections of it are pinged side by side, those in use are closed when
/// they come back.
pub(crate) fn suspect<B: Backend>(shared: &Shared<B>, generation: u64) {
    if generation == OUTCAST || !shared.outdate(generation) {
        return; // Known already, and connections opened since are spared.
    }
    let Some(core) = shared.core() else { return };
    for claim in Core::<B>::claim_all(&core) {
        maintenance::push(&core, Job::Check(Core::<B>::set_aside(claim)));
    }
}

/// Takes a connection out of use, to be closed politely by maintenance.
#[cold]
pub(crate) fn close<B: Backend, H: Holder<Parts<B>>>(claim: Claim<Parts<B>, H>) {
    finish_closing(Core::<B>::retire(claim));
}

/// Hands a connection that is to be closed to maintenance.
pub(crate) fn finish_closing<B: Backend, H: Holder<Parts<B>>>(closing: Closing<Parts<B>, H>) {
    let core = closing.holder().core().outside.core();
    let core: Arc<Core<B>> = core.expect("a claim keeps its core alive");
    maintenance::push(&core, Job::Close(closing.into_owned(&core)));
}

/// Closes a connection on the spot, without I/O.
#[cold]
pub(crate) fn terminate<B: Backend, H: Holder<Parts<B>>>(mut claim: Claim<Parts<B>, H>) {
    let entry = claim.value_mut().take();
    let holder = claim.holder().clone();
    if let Some(entry) = entry {
        holder.core().outside.terminate(entry.conn);
    }
    Core::<B>::discard(claim);
    note_vacated(holder.core());
}

/// Tells those who wait for a closed pool to drain.
pub(crate) fn note_vacated<B: Backend>(core: &Core<B>) {
    if core.outside.shutdown.has_begun() {
        core.outside.drained.notify_waiters();
    }
}
