//! The guards: a connection in use, returned when the guard drops.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::backend::{Backend, Failure};
use crate::entry::{Entry, OUTCAST};
use crate::events::EventKind;
use crate::put_back;
use crate::raw::claim::{Claim, Holder};
use crate::shared::{Core, Parts};
use crate::stats::CloseReason;

/// The part that both guards share: a claim that is returned when this drops.
struct Held<B: Backend, H: Holder<Parts<B>>>(Option<Claim<Parts<B>, H>>);

impl<B: Backend, H: Holder<Parts<B>>> Held<B, H> {
    #[inline]
    fn entry(&self) -> &Entry<B::Connection> {
        let claim = self.0.as_ref().expect("held until the guard ends");
        claim.value().expect("a slot in use holds a connection")
    }

    #[inline]
    fn entry_mut(&mut self) -> &mut Entry<B::Connection> {
        let claim = self.0.as_mut().expect("held until the guard ends");
        claim
            .value_mut()
            .as_mut()
            .expect("a slot in use holds a connection")
    }

    fn release(&mut self) -> Claim<Parts<B>, H> {
        self.0.take().expect("held until the guard ends")
    }

    fn detach(&mut self) -> B::Connection {
        let mut claim = self.release();
        let entry = claim
            .value_mut()
            .take()
            .expect("a slot in use holds a connection");
        let holder = claim.holder().clone();
        let shared = &holder.core().outside;
        claim.facts().let_go(shared.now());
        Core::<B>::detach(claim);
        shared.tally.detached.raise();
        shared.tell(|| EventKind::Detached {
            connection: entry.serial,
        });
        put_back::note_vacated(holder.core());
        entry.conn
    }

    fn report(&mut self, error: &B::Error) -> Failure {
        let holder = self
            .0
            .as_ref()
            .expect("held until the guard ends")
            .holder()
            .clone();
        let shared = &holder.core().outside;
        let failure = shared.backend.classify(error);
        if failure == Failure::Generation {
            let generation = std::mem::replace(&mut self.entry_mut().generation, OUTCAST);
            put_back::suspect(shared, generation);
        }
        failure
    }
}

impl<B: Backend, H: Holder<Parts<B>>> Drop for Held<B, H> {
    #[inline]
    fn drop(&mut self) {
        if let Some(claim) = self.0.take() {
            put_back::after_use(claim);
        }
    }
}

macro_rules! guard {
    ($(#[$doc:meta])* $name:ident $(<$life:lifetime>)?, $holder:ty) => {
        $(#[$doc])*
        #[must_use = "dropping it returns the connection at once"]
        pub struct $name<$($life,)? B: Backend>(Held<B, $holder>);

        impl<$($life,)? B: Backend> $name<$($life,)? B> {
            #[inline]
            pub(crate) fn new(claim: Claim<Parts<B>, $holder>) -> Self {
                Self(Held(Some(claim)))
            }

            /// Returns the connection for closing instead of for reuse.
            ///
            /// It is closed politely in the background; its slot is vacant once that is done, within
            /// `close_timeout`.
            pub fn invalidate(mut self) {
                put_back::close(self.0.release(), CloseReason::Invalidated);
            }

            /// Takes the connection out of the pool for good; its room is free at once.
            ///
            /// It no longer counts against the capacity; [`Status::detached`](crate::Status::detached) says
            /// how many were taken out.
            #[must_use = "dropping it closes the connection without the protocol's goodbye"]
            pub fn detach(mut self) -> B::Connection {
                self.0.detach()
            }

            /// Tells the pool of an error that the connection gave, and what the backend makes of it.
            ///
            /// With [`Failure::Generation`] this connection is closed when it comes back, and all others of
            /// its age are suspect: idle ones are pinged side by side, those in use are closed when they come
            /// back.
            pub fn report(&mut self, error: &B::Error) -> Failure {
                self.0.report(error)
            }
        }

        impl<$($life,)? B: Backend> Deref for $name<$($life,)? B> {
            type Target = B::Connection;
            #[inline]
            fn deref(&self) -> &B::Connection {
                &self.0.entry().conn
            }
        }

        impl<$($life,)? B: Backend> DerefMut for $name<$($life,)? B> {
            #[inline]
            fn deref_mut(&mut self) -> &mut B::Connection {
                &mut self.0.entry_mut().conn
            }
        }

        impl<$($life,)? B: Backend<Connection: fmt::Debug>> fmt::Debug for $name<$($life,)? B> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&**self).finish()
            }
        }
    };
}

guard! {
    /// A connection in use, borrowed from its [`Pool`](crate::Pool); returned when it drops.
    ///
    /// Returning never blocks, does no I/O and works outside a runtime. A connection that is dropped while
    /// its thread panics is closed.
    PooledConnection<'a>, &'a Core<B>
}
guard! {
    /// A connection in use that keeps its pool's memory alive by a count; returned when it drops.
    ///
    /// As [`PooledConnection`], without a lifetime: for tasks, streams and structs.
    OwnedPooledConnection, Arc<Core<B>>
}
