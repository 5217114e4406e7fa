//! The pool's handle.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use crate::backend::Backend;
use crate::checkout::{self, Quick, Vetted};
use crate::clock;
use crate::config::{Builder, Config};
use crate::error::{BuildError, GetError};
use crate::guard::{OwnedPooledConnection, PooledConnection};
use crate::hooks::Hooks;
use crate::lifecycle::{Manner, begin_close};
use crate::options::GetOptions;
use crate::policy::{QueueDiscipline, Reuse, ShedMode};
use crate::put_back;
use crate::raw::claim::Holder;
use crate::raw::rare::{Limits, Order, Shed as Shedding};
use crate::rt;
use crate::rules::Rules;
use crate::shared::{Core, Parts, Shared};
use crate::status::Status;

/// A pool of connections; a handle that is cheap to clone.
///
/// When the last handle is dropped the pool is closed: what is idle is closed then, what is in use when it
/// comes back.
///
/// ```
/// # struct Echo;
/// # impl pool_core::Backend for Echo {
/// #     type Connection = String;
/// #     type Error = std::convert::Infallible;
/// #     async fn connect(&self) -> Result<String, Self::Error> { Ok(String::from("hello")) }
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use std::time::Duration;
/// use pool_core::Pool;
///
/// let pool = Pool::builder(Echo)
///     .pool_size(5)
///     .max_overflow(10)
///     .pool_timeout(Duration::from_secs(30))
///     .build()?;
/// let conn = pool.get().await?;
/// assert_eq!(pool.status().in_use, 1);
/// drop(conn);
/// assert_eq!(pool.status().idle, 1);
/// assert!(pool.close().await.is_clean());
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct Pool<B: Backend> {
    core: Arc<Core<B>>,
    alive: Arc<Alive<B>>,
}

/// Closes the pool when its last handle is dropped.
struct Alive<B: Backend>(Arc<Core<B>>);

impl<B: Backend> Drop for Alive<B> {
    fn drop(&mut self) {
        begin_close(&self.0, Manner::Polite);
    }
}

impl<B: Backend> Clone for Pool<B> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            alive: Arc::clone(&self.alive),
        }
    }
}

impl<B: Backend> fmt::Debug for Pool<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl<B: Backend> Pool<B> {
    /// Starts to build a pool over a backend.
    pub fn builder(backend: B) -> Builder<B> {
        Builder::new(backend)
    }

    pub(crate) fn new(
        backend: Arc<B>,
        config: &Config,
        hooks: Hooks<B::Connection>,
    ) -> Result<Self, BuildError> {
        let capacity = config.capacity();
        let rules = Rules::of(config);
        let cores = rt::processors();
        let shed = match config.queue {
            QueueDiscipline::Fifo => None,
            QueueDiscipline::Shed(shed) => Some(Shedding {
                target: clock::micros(shed.target),
                interval: clock::micros(shed.interval),
                floor: shed.floor,
                shadow: shed.mode == ShedMode::Shadow,
            }),
        };
        let limits = Limits {
            size: config.pool_size,
            keep: rules.keep(config.pool_size, capacity),
            capacity,
            connecting: config.max_connecting,
            spread: cores.min(capacity / 4).max(1),
            waiting: config.max_waiting.unwrap_or(usize::MAX),
            shed,
        };
        let order = match config.reuse {
            Reuse::Packed => Order::Packed,
            Reuse::Lifo => Order::Lifo,
            Reuse::Fifo => Order::Fifo,
        };
        let budget = config.budget.clone();
        let (weight, promised) = (config.budget_weight, config.min_idle);
        let core = Arc::new_cyclic(|me| {
            let outside = Shared::new(backend, rules, hooks, me.clone());
            let core = Core::<B>::new(limits, order, outside);
            #[cfg(all(feature = "lab", not(pool_shuttle)))]
            let core = core.swapped(&config.swap);
            core
        });
        if let Some(budget) = budget {
            let joined = budget.join(&core, weight as usize, promised);
            let ticket = joined.map_err(|promised| BuildError::BudgetTooSmall {
                promised,
                budget: budget.status().total,
            })?;
            // Set once, here.
            let _ = core.outside.ticket.set(ticket);
        }
        let alive = Arc::new(Alive(Arc::clone(&core)));
        Ok(Self { core, alive })
    }

    /// The name given to the builder.
    pub fn name(&self) -> Option<&str> {
        self.core.outside.config.name.as_deref()
    }

    /// The backend that opens this pool's connections.
    pub fn backend(&self) -> &B {
        &self.core.outside.backend
    }

    /// Checks a connection out: an idle one, a new one where there is room, else the first that comes back.
    ///
    /// Callers that wait are served in the order of their first poll.
    ///
    /// # Errors
    /// [`GetError::TimedOut`] when `pool_timeout` passes first, [`GetError::Connect`] and
    /// [`GetError::Down`] when no connection can be opened, [`GetError::Closed`] after
    /// [`close`](Self::close).
    ///
    /// # Cancel safety
    /// May be dropped at any point. In the queue, its turn passes to the next waiter; a connection being
    /// opened for it goes on opening and serves the next caller; one being pinged is closed.
    #[inline]
    #[track_caller]
    pub fn get(
        &self,
    ) -> impl Future<Output = Result<PooledConnection<'_, B>, GetError<B::Error>>> + Send {
        self.get_at(Location::caller())
    }

    /// As [`get`](Self::get), on behalf of the code at `place`: for layers above that captured their own
    /// caller.
    #[inline]
    pub fn get_at(
        &self,
        place: &'static Location<'static>,
    ) -> impl Future<Output = Result<PooledConnection<'_, B>, GetError<B::Error>>> + Send {
        let core = &*self.core;
        async move {
            match checkout::quick(core, place) {
                Quick::Fit(claim) => Ok(PooledConnection::new(claim)),
                tried => checkout::slow(tried, GetOptions::new().place(place))
                    .await
                    .map(PooledConnection::new),
            }
        }
    }

    /// As [`get`](Self::get), waiting as the options say.
    ///
    /// # Cancel safety
    /// As [`get`](Self::get).
    #[inline]
    pub fn get_with(
        &self,
        options: GetOptions,
    ) -> impl Future<Output = Result<PooledConnection<'_, B>, GetError<B::Error>>> + Send {
        let core = &*self.core;
        async move {
            match checkout::quick(core, options.place) {
                Quick::Fit(claim) => Ok(PooledConnection::new(claim)),
                tried => checkout::slow(tried, options)
                    .await
                    .map(PooledConnection::new),
            }
        }
    }

    /// As [`get_with`](Self::get_with), with a guard that borrows nothing.
    ///
    /// # Cancel safety
    /// As [`get`](Self::get).
    #[inline]
    pub fn get_owned_with(
        &self,
        options: GetOptions,
    ) -> impl Future<Output = Result<OwnedPooledConnection<B>, GetError<B::Error>>> + Send + use<B>
    {
        let core = Arc::clone(&self.core);
        async move {
            match checkout::quick(core, options.place) {
                Quick::Fit(claim) => Ok(OwnedPooledConnection::new(claim)),
                tried => checkout::slow(tried, options)
                    .await
                    .map(OwnedPooledConnection::new),
            }
        }
    }

    /// As [`get`](Self::get), with a guard that borrows nothing.
    ///
    /// # Cancel safety
    /// As [`get`](Self::get).
    #[inline]
    #[track_caller]
    pub fn get_owned(
        &self,
    ) -> impl Future<Output = Result<OwnedPooledConnection<B>, GetError<B::Error>>> + Send + use<B>
    {
        self.get_owned_at(Location::caller())
    }

    /// As [`get_owned`](Self::get_owned), on behalf of the code at `place`.
    #[inline]
    pub fn get_owned_at(
        &self,
        place: &'static Location<'static>,
    ) -> impl Future<Output = Result<OwnedPooledConnection<B>, GetError<B::Error>>> + Send + use<B>
    {
        self.get_owned_with(GetOptions::new().place(place))
    }

    /// Takes an idle connection, if there is one that needs neither a ping nor replacing.
    ///
    /// Never waits and never does I/O. `None` says nothing about room: [`get`](Self::get) may open one.
    #[inline]
    #[track_caller]
    pub fn try_get(&self) -> Option<PooledConnection<'_, B>> {
        Self::try_claim(&&*self.core, Location::caller()).map(PooledConnection::new)
    }

    /// As [`try_get`](Self::try_get), with a guard that borrows nothing.
    #[inline]
    #[track_caller]
    pub fn try_get_owned(&self) -> Option<OwnedPooledConnection<B>> {
        Self::try_claim(&self.core, Location::caller()).map(OwnedPooledConnection::new)
    }

    fn try_claim<H: Holder<Parts<B>>>(
        holder: &H,
        place: &'static Location<'static>,
    ) -> Option<crate::raw::claim::Claim<Parts<B>, H>> {
        let mut skipped = Vec::new();
        let fit = loop {
            let (vetting, health) = match checkout::quick(holder.clone(), place) {
                Quick::Fit(claim) => break Some(claim),
                Quick::Nothing(_) => break None,
                Quick::Unsure(vetting, health) => (vetting, health),
            };
            match checkout::vet_now(vetting, health, place) {
                Ok(Vetted::Fit(claim)) => break Some(claim),
                Ok(Vetted::SentAway) | Err(_) => break None,
                Ok(Vetted::Unfit) => {}
                Ok(Vetted::Due(due)) => skipped.push(due),
            }
        };
        for vetting in skipped {
            put_back::unmoved(vetting.release());
        }
        fit
    }

    /// The pool's numbers at this moment.
    pub fn status(&self) -> Status {
        self.core.outside.status(&self.core)
    }

    pub(crate) fn core(&self) -> &Arc<Core<B>> {
        &self.core
    }

    /// Whether this is the only handle, nothing is in use, and nobody waits.
    pub(crate) fn is_unused(&self) -> bool {
        let seen = self.core.counts();
        Arc::strong_count(&self.alive) == 1
            && seen.in_use() == 0
            && seen.waiting == 0
            && seen.connecting == 0
    }
}
