//! A session that is lent, or owned: what streams and copies hold while they last.

use std::ops::{Deref, DerefMut};

use super::Session;

pub(crate) enum Held<'s> {
    Lent(&'s mut Session),
    Owned(Box<Session>),
}

impl Deref for Held<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        match self {
            Self::Lent(session) => session,
            Self::Owned(session) => session,
        }
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        match self {
            Self::Lent(session) => session,
            Self::Owned(session) => session,
        }
    }
}
