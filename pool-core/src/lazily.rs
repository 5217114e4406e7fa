//! A part of a pool that takes no room until it is used: ten thousand pools of which most are idle are small.

use std::ops::Deref;
use std::sync::OnceLock;

/// Made at its first use.
pub(crate) struct Lazily<T>(OnceLock<Box<T>>);

impl<T> Default for Lazily<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> Lazily<T> {
    /// The part, if it was used before.
    pub(crate) fn made(&self) -> Option<&T> {
        self.0.get().map(|made| &**made)
    }
}

impl<T: Default> Deref for Lazily<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0.get_or_init(Box::default)
    }
}
