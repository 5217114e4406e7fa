//! What one tenant takes: its transactions under way, those that wait, and how many of both it may have.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use pool_postgres::{Error, LeaseObserver};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error::TenantError;
use super::id::TenantId;

/// How much of what all tenants share one of them may take, so that none of them starves the others.
///
/// ```
/// use pool_router::tenancy::Limits;
///
/// let limits = Limits::default().connections(5).waiting(100);
/// # let _ = limits;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    connections: usize,
    waiting: usize,
    patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: Semaphore::MAX_PERMITS,
            waiting: usize::MAX,
            patience: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// How many transactions a tenant may have under way at a time, over all nodes; further ones wait among
    /// themselves and not in the pools' queues. Default: no limit of its own; at least 1.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// How many may wait for that; one more is refused at once ([`TenantError::Crowded`]). Default: no limit.
    pub fn waiting(mut self, waiting: usize) -> Self {
        self.waiting = waiting;
        self
    }

    /// How long one may wait for that, before it waits for the pool. Default 30 seconds.
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }
}

/// One tenant's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantCounts {
    /// Transactions that were given a connection.
    pub transactions: u64,
    /// Statements that failed.
    pub failures: u64,
    /// Transactions that were refused because there were too many.
    pub refused: u64,
    /// Transactions under way now.
    pub under_way: usize,
    /// Transactions that wait for the tenant's own limit now.
    pub waiting: usize,
}

impl TenantCounts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.transactions += other.transactions;
        self.failures += other.failures;
        self.refused += other.refused;
        self.under_way += other.under_way;
        self.waiting += other.waiting;
    }
}

impl fmt::Display for TenantCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} transactions, {} failures, {} refused; {} under way, {} waiting",
            self.transactions, self.failures, self.refused, self.under_way, self.waiting
        )
    }
}

/// Where a tenant's transactions are counted. Outlives a change of its place.
pub(crate) struct Load {
    limits: Limits,
    room: Arc<Semaphore>,
    waiting: AtomicUsize,
    under_way: AtomicUsize,
    transactions: AtomicU64,
    failures: AtomicU64,
    refused: AtomicU64,
}

impl Load {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            room: Arc::new(Semaphore::new(limits.connections)),
            waiting: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            transactions: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Waits for room for one more transaction.
    pub(crate) async fn enter(self: &Arc<Self>, tenant: &TenantId) -> Result<Riding, TenantError> {
        let crowded = || {
            self.refused.fetch_add(1, Relaxed);
            TenantError::Crowded {
                tenant: tenant.clone(),
                connections: self.under_way.load(Relaxed),
                waiting: self.waiting.load(Relaxed),
            }
        };
        let room = Arc::clone(&self.room);
        let permit = if let Ok(permit) = Arc::clone(&room).try_acquire_owned() {
            permit
        } else {
            let place = Waiting::join(self);
            if place.ahead >= self.limits.waiting {
                drop(place);
                return Err(crowded());
            }
            match timeout(self.limits.patience, room.acquire_owned()).await {
                Ok(Ok(permit)) => permit,
                // It is never closed, so what is left is that the time is over.
                Ok(Err(_)) | Err(_) => return Err(crowded()),
            }
        };
        self.under_way.fetch_add(1, Relaxed);
        Ok(Riding {
            load: Arc::clone(self),
            _permit: permit,
        })
    }

    pub(crate) fn counts(&self) -> TenantCounts {
        TenantCounts {
            transactions: self.transactions.load(Relaxed),
            failures: self.failures.load(Relaxed),
            refused: self.refused.load(Relaxed),
            under_way: self.under_way.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
        }
    }
}

/// One that waits, counted until it is dropped.
struct Waiting<'a> {
    load: &'a Load,
    /// How many waited before.
    ahead: usize,
}

impl<'a> Waiting<'a> {
    fn join(load: &'a Load) -> Self {
        let ahead = load.waiting.fetch_add(1, Relaxed);
        Self { load, ahead }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.load.waiting.fetch_sub(1, Relaxed);
    }
}

/// One transaction under way, counted until it is dropped: with its lease.
pub(crate) struct Riding {
    load: Arc<Load>,
    _permit: OwnedSemaphorePermit,
}

impl Riding {
    /// Takes note that it has a connection.
    pub(crate) fn begun(&self) {
        self.load.transactions.fetch_add(1, Relaxed);
    }
}

impl LeaseObserver for Riding {
    fn failed(&self, _: &Error) {
        self.load.failures.fetch_add(1, Relaxed);
    }
}

impl Drop for Riding {
    fn drop(&mut self) {
        self.load.under_way.fetch_sub(1, Relaxed);
    }
}
