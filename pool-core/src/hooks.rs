//! The four places at which a pool's user has a say.
//!
//! | hook | runs | its outcomes |
//! |---|---|---|
//! | `on_connect` | once for each connection, after it was opened, within `connect_timeout`; may do I/O | `Ok`: kept. `Err`: closed, and the caller gets the error as [`ConnectError::Hook`](crate::ConnectError::Hook) |
//! | `on_checkout` | before a connection is handed out, in the caller's thread; no I/O | [`OnCheckout::Keep`]: handed out. `Close`: closed, and another is tried, up to three in all. `Refuse`: closed, and the caller gets [`GetError::Refused`](crate::GetError::Refused) |
//! | `on_return` | when a connection comes back fit, before anybody else gets it, in the returner's thread; no I/O | [`OnReturn::Keep`]: as without a hook. `Close`: closed |
//! | `on_close` | before a connection is closed, for whatever reason | none |
//!
//! Order at a return: `Backend::check`, `on_return`, then reset where that is needed, then the queue or the idle
//! ones. A panic in a hook closes its connection and frees the room; in `on_connect` it counts as a failed
//! attempt, in `on_checkout` and `on_return` it goes on to the thread that called, in `on_close` it goes no
//! further. Everything else that happens is told as an [`Event`](crate::Event), in the same order. A pool without
//! hooks pays nothing for them.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use crate::stats::CloseReason;

/// Why a hook did not want a connection.
pub type HookError = Box<dyn Error + Send + Sync + 'static>;

/// What an `on_connect` hook returns.
pub type HookFuture<'a> = Pin<Box<dyn Future<Output = Result<(), HookError>> + Send + 'a>>;

/// What an `on_checkout` hook decides.
#[derive(Debug)]
#[non_exhaustive]
pub enum OnCheckout {
    /// Hand it out.
    Keep,
    /// Close it and try another.
    Close,
    /// Close it and tell the caller.
    Refuse(HookError),
}

/// What an `on_return` hook decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnReturn {
    /// Keep it for the next caller.
    Keep,
    /// Close it.
    Close,
}

type ConnectHook<C> = dyn for<'a> Fn(&'a mut C) -> HookFuture<'a> + Send + Sync;
type CheckoutHook<C> = dyn Fn(&mut C) -> OnCheckout + Send + Sync;
type ReturnHook<C> = dyn Fn(&mut C) -> OnReturn + Send + Sync;
type CloseHook<C> = dyn Fn(&mut C, CloseReason) + Send + Sync;

/// A pool's hooks.
pub(crate) struct Hooks<C> {
    pub(crate) connect: Option<Arc<ConnectHook<C>>>,
    pub(crate) checkout: Option<Arc<CheckoutHook<C>>>,
    pub(crate) give_back: Option<Arc<ReturnHook<C>>>,
    pub(crate) close: Option<Arc<CloseHook<C>>>,
}

impl<C> Default for Hooks<C> {
    fn default() -> Self {
        Self {
            connect: None,
            checkout: None,
            give_back: None,
            close: None,
        }
    }
}

impl<C> Clone for Hooks<C> {
    fn clone(&self) -> Self {
        Self {
            connect: self.connect.clone(),
            checkout: self.checkout.clone(),
            give_back: self.give_back.clone(),
            close: self.close.clone(),
        }
    }
}

impl<C> Hooks<C> {
    pub(crate) fn are_none(&self) -> bool {
        self.connect.is_none() && self.close.is_none() && !self.watch_use()
    }

    /// Whether checkouts or returns must be looked at.
    pub(crate) fn watch_use(&self) -> bool {
        self.checkout.is_some() || self.give_back.is_some()
    }
}

impl<C> fmt::Debug for Hooks<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("on_connect", &self.connect.is_some())
            .field("on_checkout", &self.checkout.is_some())
            .field("on_return", &self.give_back.is_some())
            .field("on_close", &self.close.is_some())
            .finish()
    }
}
