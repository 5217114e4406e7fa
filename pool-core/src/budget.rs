//! One cap on connections, shared by any number of pools.

use std::fmt;
use std::sync::Weak;

use crate::backend::Backend;
use crate::put_back;
use crate::raw::budget::{Budget as Permits, Sharer, Ticket};
use crate::raw::core::Core as RawCore;
use crate::shared::{Core, Parts};
use crate::stats::CloseReason;
use crate::sync::Arc;

/// A number of connections that many pools share: a handle that is cheap to clone.
///
/// Never more than that many exist over all of them. While they are scarce, the pool that has
/// least is next, and of those alike they take turns;
/// an idle connection of one pool is closed for the sake of another's waiter, and a pool that holds more than
/// its fair share (by [`budget_weight`](crate::Builder::budget_weight)) gives up what comes back to it. A pool
/// that is dropped gives everything back. An idle pool has no task and holds less than a kilobyte.
///
/// ```
/// # struct Echo;
/// # impl pool_core::Backend for Echo {
/// #     type Connection = String;
/// #     type Error = std::convert::Infallible;
/// #     async fn connect(&self) -> Result<String, Self::Error> { Ok(String::from("hello")) }
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use pool_core::{Budget, Pool};
///
/// let budget = Budget::new(1); // What the server allows us.
/// let (one, two) = (Pool::builder(Echo).budget(&budget).build()?, Pool::builder(Echo).budget(&budget).build()?);
/// drop(one.get().await?);
/// // The first pool's idle connection gives way.
/// let conn = two.get().await?;
/// assert_eq!((one.status().open, two.status().in_use), (0, 1));
/// # drop(conn);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Budget(Arc<Permits>);

/// A budget's numbers at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BudgetStatus {
    /// How many connections may exist over all pools.
    pub total: usize,
    /// How many more may be opened.
    pub free: usize,
    /// How many pools take part.
    pub pools: usize,
    /// How many of them wait for a connection that the budget has no room for.
    pub starving: usize,
}

impl Budget {
    /// At most `connections` over all pools that are built with it; at least one, or nothing could be opened.
    ///
    /// # Panics
    /// If `connections` is zero.
    pub fn new(connections: usize) -> Self {
        assert!(
            connections > 0,
            "a budget of 0 connections would let no pool open any: give at least 1"
        );
        Self(Arc::new(Permits::new(connections)))
    }

    /// Its numbers now.
    pub fn status(&self) -> BudgetStatus {
        let seen = self.0.numbers();
        BudgetStatus {
            total: seen.total,
            free: seen.free,
            pools: seen.pools,
            starving: seen.starving,
        }
    }

    /// Lets a pool take part; `Err` with what is promised in all, if that is more than there is.
    pub(crate) fn join<B: Backend>(
        &self,
        core: &std::sync::Arc<Core<B>>,
        weight: usize,
        promised: usize,
    ) -> Result<Ticket, usize> {
        let pool: Weak<Core<B>> = std::sync::Arc::downgrade(core);
        Permits::join(&self.0, pool, weight, promised)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Budget").field(&self.status()).finish()
    }
}

impl<B: Backend> Sharer for RawCore<Parts<B>> {
    fn give_way(&self, any: bool) {
        let Some(core) = self.outside.core() else {
            return;
        };
        if let Some(closing) = Core::<B>::give_way(&core, self.outside.config.min_idle, any) {
            put_back::finish_closing(closing, CloseReason::Yielded);
        } else {
            self.outside.attempted.notify_waiters(); // One that pauses between two attempts may go.
        }
    }

    fn offer_room(&self) {
        RawCore::offer_room(self);
    }
}
