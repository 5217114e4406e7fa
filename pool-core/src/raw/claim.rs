//! What the safe code above sees of an owned slot.
//!
//! A [`Claim`] is a [`Seat`] together with something that keeps its core alive, so its methods need no
//! `unsafe` from their callers. [`Opening`], [`Resetting`] and [`Closing`] are claims that the core counts
//! apart; each has its own ways on, in [`core`](super::core).

use super::Parts;
use super::core::Core;
use super::slot::{Seat, SlotId};
use crate::sync::Arc;

/// Keeps a core alive, by a borrow or by a count.
///
/// # Safety
/// `core` returns the same core every time, and that core outlives the holder.
pub(crate) unsafe trait Holder<P: Parts>: Clone {
    fn core(&self) -> &Core<P>;
}

// SAFETY: a borrow is outlived by what it borrows.
unsafe impl<P: Parts> Holder<P> for &Core<P> {
    #[inline]
    fn core(&self) -> &Core<P> {
        self
    }
}

// SAFETY: a count keeps what it counts alive, where it is.
unsafe impl<P: Parts> Holder<P> for Arc<Core<P>> {
    #[inline]
    fn core(&self) -> &Core<P> {
        self
    }
}

/// A slot that is in use by whoever holds this.
#[must_use = "a claim that is dropped leaks its slot"]
pub(crate) struct Claim<P: Parts, H: Holder<P>> {
    seat: Seat<P>,
    holder: H,
}

impl<P: Parts, H: Holder<P>> Claim<P, H> {
    #[inline]
    pub(super) fn new(seat: Seat<P>, holder: H) -> Self {
        Self { seat, holder }
    }

    #[inline]
    pub(super) fn into_parts(self) -> (Seat<P>, H) {
        (self.seat, self.holder)
    }

    /// What keeps the core alive.
    #[inline]
    pub(crate) fn holder(&self) -> &H {
        &self.holder
    }

    #[inline]
    pub(crate) fn core(&self) -> &Core<P> {
        self.holder.core()
    }

    /// The slot's value; `None` once it was taken out with [`value_mut`](Self::value_mut).
    #[inline]
    pub(crate) fn value(&self) -> Option<&P::Value> {
        self.seat.value()
    }

    #[inline]
    pub(crate) fn value_mut(&mut self) -> &mut Option<P::Value> {
        self.seat.value_mut()
    }

    /// The slot's value, its facts and the core, at the same time.
    #[inline]
    pub(crate) fn split(&mut self) -> (&mut Option<P::Value>, &P::Facts, &Core<P>) {
        let (value, facts) = self.seat.split();
        (value, facts, self.holder.core())
    }

    #[inline]
    pub(crate) fn facts(&self) -> &P::Facts {
        &self.seat.slot().facts
    }

    /// Where its slot stands.
    pub(crate) fn id(&self) -> SlotId {
        self.seat.id()
    }

    /// The same claim, kept alive by a count instead of a borrow.
    pub(crate) fn into_owned(self, core: &Arc<Core<P>>) -> Claim<P, Arc<Core<P>>> {
        assert!(
            std::ptr::eq(self.core(), &raw const **core),
            "a claim stays with its own core"
        );
        Claim {
            seat: self.seat,
            holder: Arc::clone(core),
        }
    }
}

macro_rules! counted {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[must_use = "a claim that is dropped leaks its slot"]
        pub(crate) struct $name<P: Parts, H: Holder<P>>(pub(super) Claim<P, H>);

        impl<P: Parts, H: Holder<P>> $name<P, H> {
            /// The slot's value.
            pub(crate) fn value_mut(&mut self) -> &mut Option<P::Value> {
                self.0.value_mut()
            }

            pub(crate) fn holder(&self) -> &H {
                self.0.holder()
            }

            /// The same claim, kept alive by a count instead of a borrow.
            pub(crate) fn into_owned(self, core: &Arc<Core<P>>) -> $name<P, Arc<Core<P>>> {
                $name(self.0.into_owned(core))
            }
        }
    };
}

counted! {
    /// A vacant slot that was taken to open a connection in it. It counts against the capacity. Goes on
    /// to [`landed`](Core::landed) or [`give_up`](Core::give_up).
    Opening
}
impl<P: Parts, H: Holder<P>> Opening<P, H> {
    pub(crate) fn facts(&self) -> &P::Facts {
        self.0.facts()
    }
}

impl<P: Parts, H: Holder<P>> Resetting<P, H> {
    pub(crate) fn facts(&self) -> &P::Facts {
        self.0.facts()
    }
}

counted! {
    /// A slot whose connection is being reset or checked after its return. Goes on to
    /// [`ready`](Core::ready) or [`spoil`](Core::spoil).
    Resetting
}
counted! {
    /// A slot whose connection is being closed. Goes on to [`vacate`](Core::vacate), when its value is
    /// gone.
    Closing
}
