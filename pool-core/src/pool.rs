//! The pool's handle.

use std::fmt;
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::backend::Backend;
use crate::checkout::{self, Quick};
use crate::config::{Builder, Config};
use crate::error::GetError;
use crate::guard::{OwnedPooledConnection, PooledConnection};
use crate::put_back;
use crate::raw::claim::Holder;
use crate::raw::rare::Limits;
use crate::rt::timeout;
use crate::shared::{Core, Parts, Refusal, Shared};
use crate::status::{CloseReport, Status};

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
        begin_close(&self.0);
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

    pub(crate) fn new(backend: Arc<B>, config: Config) -> Self {
        let capacity = config.capacity();
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let limits = Limits {
            keep: config.pool_size,
            capacity,
            connecting: config.max_connecting,
            spread: cores.min(capacity / 4).max(1),
        };
        let core =
            Arc::new_cyclic(|me| Core::<B>::new(limits, Shared::new(backend, config, me.clone())));
        let alive = Arc::new(Alive(Arc::clone(&core)));
        Self { core, alive }
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
                tried => checkout::slow(tried, place)
                    .await
                    .map(PooledConnection::new),
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
        let core = Arc::clone(&self.core);
        async move {
            match checkout::quick(core, place) {
                Quick::Fit(claim) => Ok(OwnedPooledConnection::new(claim)),
                tried => checkout::slow(tried, place)
                    .await
                    .map(OwnedPooledConnection::new),
            }
        }
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
            match checkout::quick(holder.clone(), place) {
                Quick::Fit(claim) => break Some(claim),
                Quick::Nothing(_) => break None,
                Quick::Unsure(vetting) => skipped.push(vetting),
            }
        };
        for vetting in skipped {
            put_back::after_look(vetting);
        }
        fit
    }

    /// The pool's numbers at this moment.
    pub fn status(&self) -> Status {
        self.core.outside.status(&self.core)
    }

    /// Makes every connection that was opened before now unfit: idle ones are closed, those in use when they
    /// come back, those being opened when they land.
    ///
    /// Nobody is interrupted, and nothing is opened before somebody wants it.
    pub fn invalidate_all(&self) {
        let shared = &self.core.outside;
        while !shared.outdate(shared.generation()) {}
        for claim in Core::<B>::claim_all(&self.core) {
            put_back::close(claim);
        }
    }

    /// Closes the pool: refuses newcomers and those who wait, closes what is idle, waits up to
    /// [`close_deadline`](Builder::close_deadline) for what is in use, and closes that as it comes back.
    ///
    /// May be called any number of times and from many tasks: each waits for the same end. What comes back
    /// later is closed all the same.
    ///
    /// # Cancel safety
    /// May be dropped at any point; the pool stays closed, and goes on closing its connections.
    pub fn close(&self) -> impl Future<Output = CloseReport> + Send {
        let core = &self.core;
        async move {
            begin_close(core);
            let shared = &core.outside;
            let config = &shared.config;
            drained_within(core, config.close_deadline, |status| {
                status.in_use == 0 && status.connecting == 0
            })
            .await;
            let limit = config.close_timeout.max(config.reset_timeout);
            let held = shared.status(core).in_use;
            drained_within(core, limit, |status| {
                status.open + status.connecting <= held
            })
            .await;
            CloseReport {
                still_held: shared.holders(core),
                abandoned: shared.status(core).abandoned,
            }
        }
    }
}

/// Ready once the pool is `done`, at the latest after `limit`.
async fn drained_within<B: Backend>(
    core: &Core<B>,
    limit: Duration,
    done: impl Fn(&Status) -> bool,
) {
    let drained = async {
        loop {
            let mut vacated = pin!(core.outside.drained.notified());
            // Registered before the look, so that a slot vacated in between is not missed.
            vacated.as_mut().enable();
            if done(&core.outside.status(core)) {
                return;
            }
            vacated.await;
        }
    };
    // Whoever has not come back in time stands in the report.
    let _ = timeout(limit, drained).await;
}

/// Refuses everybody from now on, and begins to close what is idle.
fn begin_close<B: Backend>(core: &Arc<Core<B>>) {
    let idle = Core::<B>::close(core, &Refusal::Closed);
    core.outside.shutdown.begin();
    for closing in idle {
        put_back::finish_closing(closing);
    }
}
