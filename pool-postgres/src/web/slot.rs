//! Where a request's session lies while nobody uses it.
//!
//! # What always holds
//! The session has one owner: the slot, a [`RequestSession`], or whoever took it out for good.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use http::Extensions;
use parking_lot::Mutex;

use crate::session::Session;

/// A request's session, in the request's extensions.
#[derive(Clone)]
pub(super) struct Slot(Arc<Mutex<Place>>);

/// Where a request's session is.
pub(super) enum Place {
    /// Here.
    Kept(Box<Session>),
    /// With a [`RequestSession`].
    Lent,
    /// Taken out by [`RequestSession::into_session`], or by the layer at the end.
    Gone,
}

impl Slot {
    pub(super) fn new(session: Session) -> Self {
        Self(Arc::new(Mutex::new(Place::Kept(Box::new(session)))))
    }

    /// Takes what is here; from now on nobody else gets it.
    pub(super) fn end(&self) -> Place {
        std::mem::replace(&mut *self.0.lock(), Place::Gone)
    }

    fn borrow(&self) -> Result<Box<Session>, NoSession> {
        let mut place = self.0.lock();
        match std::mem::replace(&mut *place, Place::Lent) {
            Place::Kept(session) => Ok(session),
            Place::Lent => Err(NoSession::InUse),
            Place::Gone => {
                *place = Place::Gone;
                Err(NoSession::Gone)
            }
        }
    }
}

/// A request's session, for a handler; made by [`SessionLayer`](super::SessionLayer).
///
/// With axum it is an extractor. It dereferences to the [`Session`]. Dropped, it is there for whoever asks next (a
/// middleware, say), and in the end the layer commits or rolls back.
///
/// ```no_run
/// # #[cfg(feature = "axum")] {
/// use pool_postgres::Error;
/// use pool_postgres::web::RequestSession;
///
/// async fn rename(mut session: RequestSession, name: String) -> Result<(), String> {
///     let done = session.execute("UPDATE users SET name = $1 WHERE id = 7", &[&name]).await;
///     done.map_err(|error: Error| error.to_string())?; // Committed if the answer is no error.
///     Ok(())
/// }
/// # }
/// ```
#[must_use = "dropping it leaves the session to the layer"]
pub struct RequestSession {
    /// Present until it is dropped or taken out.
    session: Option<Box<Session>>,
    slot: Slot,
}

impl RequestSession {
    /// The session of the request that has these extensions.
    ///
    /// # Errors
    /// [`NoSession`]: there is no layer around this service, or somebody else has the session.
    pub fn from_extensions(extensions: &Extensions) -> Result<Self, NoSession> {
        let slot = extensions.get::<Slot>().ok_or(NoSession::NoLayer)?.clone();
        let session = Some(slot.borrow()?);
        Ok(Self { session, slot })
    }

    /// Takes the session out of the layer's hands: whoever has it ends its transaction. For what outlives the
    /// handler, such as a body that is streamed.
    pub fn into_session(mut self) -> Session {
        let _lent = self.slot.end();
        *self.session.take().expect("taken out here alone")
    }
}

impl Deref for RequestSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session.as_ref().expect("present until it is dropped")
    }
}

impl DerefMut for RequestSession {
    fn deref_mut(&mut self) -> &mut Session {
        self.session.as_mut().expect("present until it is dropped")
    }
}

impl Drop for RequestSession {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let mut place = self.slot.0.lock();
            // Behind the layer's back nothing is put back: the session is dropped, and rolls back.
            if matches!(*place, Place::Lent) {
                *place = Place::Kept(session);
            }
        }
    }
}

impl fmt::Debug for RequestSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequestSession")
            .field(&self.session)
            .finish()
    }
}

/// Why a request has no session to give. All are mistakes in how the service is put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoSession {
    /// No [`SessionLayer`](super::SessionLayer) is around the service.
    NoLayer,
    /// Another [`RequestSession`] of the same request is still there.
    InUse,
    /// It was taken out, or the request is over.
    Gone,
}

impl fmt::Display for NoSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoLayer => {
                "the request has no session: put a SessionLayer around the routes that take one"
            }
            Self::InUse => {
                "the request's session is in use: a handler takes one RequestSession and passes it on as &mut Session"
            }
            Self::Gone => "the request's session was taken out of the layer's hands before",
        })
    }
}

impl std::error::Error for NoSession {}
