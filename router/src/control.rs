//! What an operator does while a database runs: keeps reads from a node, holds writes, watches.
//!
//! Every order that changes something is an event, is logged, and shows in the status until it is taken back. Orders
//! hold for this process alone, and for every clone of the handle in it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::database::Database;
use crate::events::{EventKind, Events};
use crate::explain::{Explanation, explain};
use crate::orders::{Order, Reads, Suspension};
use crate::request::Request;
use crate::shared::Shared;
use crate::which::{UnknownNode, Which};

/// A year: no suspension is longer.
const LONGEST: Duration = Duration::from_hours(365 * 24);
/// Tells one suspension from another.
static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Database {
    /// Keeps reads away from a node, before it is worked on; what runs there goes on to its end.
    ///
    /// Its monitor goes on looking, so it is fit to serve the moment it is [resumed](Self::resume). While it is the
    /// primary this changes nothing: writes, and reads that no replica can serve, have nowhere else to go
    /// ([`suspend_writes`](Self::suspend_writes) holds writes). [`drained`](Self::drained) waits for its end.
    ///
    /// # Errors
    /// If there is no such node; the error names those that there are.
    pub fn drain(&self, node: impl Into<Which>) -> Result<(), UnknownNode> {
        let node = node.into().among(&self.shared().nodes)?;
        self.shared().order(Order::Drain(node));
        Ok(())
    }

    /// Lets reads go to a node again.
    ///
    /// # Errors
    /// As [`drain`](Self::drain).
    pub fn resume(&self, node: impl Into<Which>) -> Result<(), UnknownNode> {
        let node = node.into().among(&self.shared().nodes)?;
        self.shared().order(Order::Resume(node));
        Ok(())
    }

    /// Waits until no transaction of this database runs on a node. Bound it by a timeout of your own.
    ///
    /// # Errors
    /// As [`drain`](Self::drain).
    ///
    /// # Cancel safety
    /// Only waits: may be dropped at any point.
    pub async fn drained(&self, node: impl Into<Which>) -> Result<(), UnknownNode> {
        let shared = self.shared();
        let node = node.into().among(&shared.nodes)?;
        shared.nodes[node].idle().await;
        Ok(())
    }

    /// Has reads go to the primary only, or to where they are routed. Transactions that run already stay where they
    /// are.
    pub fn reads(&self, reads: Reads) {
        self.shared().order(Order::Reads(reads));
    }

    /// Holds write transactions before they begin, for a planned switchover: they wait until the returned guard is
    /// dropped, or until `limit` has passed, and then go to the node that is the primary by then.
    ///
    /// Those that run already go on; [`SuspendedWrites::quiet`] waits for their end. A writer's `pool_timeout` starts
    /// only after the wait. Several suspensions may overlap.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// # async fn switch_over() {}
    /// # async fn example(db: pool_router::Database) {
    /// let suspended = db.suspend_writes(Duration::from_secs(10));
    /// suspended.quiet().await; // No write transaction of this process is under way.
    /// switch_over().await;
    /// drop(suspended); // Those who waited go to the new primary.
    /// # }
    /// ```
    pub fn suspend_writes(&self, limit: Duration) -> SuspendedWrites {
        let now = Instant::now();
        let suspension = Suspension {
            // Relaxed: only the number itself matters.
            number: NUMBER.fetch_add(1, Relaxed),
            until: now + limit.min(LONGEST),
        };
        self.shared().order(Order::SuspendWrites(suspension));
        SuspendedWrites {
            shared: Arc::clone(self.shared()),
            suspension,
        }
    }

    /// What happens to the nodes from now on.
    pub fn events(&self) -> Events {
        self.shared().teller.observe()
    }

    /// Where a read with this promise would go at this moment, and why; asks nobody.
    ///
    /// ```no_run
    /// # fn example(db: pool_router::Database) {
    /// use pool_router::Consistency;
    ///
    /// println!("{}", db.explain(Consistency::default()));
    /// # }
    /// ```
    pub fn explain(&self, request: impl Into<Request>) -> Explanation {
        let view = self.shared().view();
        explain(&view, &request.into(), Instant::now(), fastrand::u64(..))
    }
}

/// Writes wait while this lives; made by [`Database::suspend_writes`].
#[must_use = "dropping it lets the writes go on"]
pub struct SuspendedWrites {
    shared: Arc<Shared>,
    suspension: Suspension,
}

impl SuspendedWrites {
    /// Waits until no write transaction of this database is under way in this process.
    ///
    /// It may be that one never ends; bound it by a timeout of your own. Writes begin again once the limit has
    /// passed, so look at [`remaining`](Self::remaining) afterwards.
    ///
    /// # Cancel safety
    /// Only waits: may be dropped at any point.
    pub async fn quiet(&self) {
        self.shared.no_writes().await;
    }

    /// How long the suspension lasts from now, unless it is dropped before; zero once its limit has passed.
    pub fn remaining(&self) -> Duration {
        self.suspension
            .until
            .saturating_duration_since(Instant::now())
    }
}

impl Drop for SuspendedWrites {
    fn drop(&mut self) {
        self.shared
            .order(Order::ResumeWrites(self.suspension.number));
    }
}

impl fmt::Debug for SuspendedWrites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SuspendedWrites")
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Carries an order out: publishes it, tells of it, and lets those who waited for it go on.
    pub(crate) fn order(&self, order: Order) {
        if !self.take(order) {
            return;
        }
        let name = |node: usize| Arc::clone(&self.nodes[node].name);
        let kind = match order {
            Order::Drain(node) => {
                tracing::warn!(node = &*name(node), "reads are kept away from the node");
                EventKind::Drained { node: name(node) }
            }
            Order::Resume(node) => {
                tracing::info!(node = &*name(node), "reads may go to the node again");
                EventKind::Resumed { node: name(node) }
            }
            Order::Reads(reads) => {
                tracing::warn!(%reads, "where reads go was changed");
                EventKind::Reads(reads)
            }
            Order::SuspendWrites(suspension) => {
                let limit = suspension.until.saturating_duration_since(Instant::now());
                tracing::warn!(?limit, "writes wait");
                EventKind::WritesSuspended { limit }
            }
            Order::ResumeWrites(_) | Order::Expire(_) => {
                let goes_on = self.view().orders.writes_wait(Instant::now()).is_none();
                self.resumed.notify_waiters();
                if !goes_on {
                    return;
                }
                tracing::info!("writes go on");
                EventKind::WritesResumed
            }
        };
        self.teller.tell(kind);
    }
}
