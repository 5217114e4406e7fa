//! What a commit tells.

use crate::token::CommitToken;

/// A transaction that is known to have committed.
///
/// Returned by [`Session::commit`](crate::Session::commit), and never for one that may not have:
/// that is an [`Error`](crate::Error).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the token lets a later read see this commit; `let _ =` says that none is needed"]
#[non_exhaustive]
pub struct Committed {
    /// Where the commit stands in the primary's log. `None` if the transaction wrote nothing, or if its
    /// source asks for no tokens (a plain [`Engine`](crate::Engine) does not).
    pub token: Option<CommitToken>,
    /// Whether the commit is as safe as the server was told to make it.
    pub durability: Durability,
    /// The transaction may have written, but the place of its commit could not be learned: the connection
    /// broke right after the commit's success. A read that must see it has to go to the primary.
    pub token_lost: bool,
}

/// How far a commit got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// As `synchronous_commit` asks.
    Durable,
    /// Committed on the primary, but the wait for a synchronous standby was given up (a warning came with
    /// the success): a failover may lose it. Also said of a commit during which a deferred trigger raised
    /// a plain warning, because the two look alike.
    LocalOnly,
}

impl Committed {
    /// Nothing was begun, or nothing was written.
    pub(crate) fn nothing() -> Self {
        Self {
            token: None,
            durability: Durability::Durable,
            token_lost: false,
        }
    }
}
