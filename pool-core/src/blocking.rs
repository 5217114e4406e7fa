//! The same pool for threads without a runtime.
//!
//! A [`BlockingPool`] is a [`Pool`] and one thread, on which a runtime of its own opens, pings, resets and
//! closes connections and keeps the time. Callers stay on their own threads: taking what is idle touches
//! neither that thread nor the runtime, and who has to wait sleeps in the pool's one queue.
//!
//! # What always holds
//! - The thread outlives every handle of the pool, so nobody waits for work that nobody does.
//! - It ends once the last handle is dropped and the connections are closed. Dropping a handle never blocks,
//!   so it may happen on any thread, an asynchronous one included.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder as RuntimeBuilder, Handle, Runtime};
use tokio::sync::oneshot;

use crate::backend::Backend;
use crate::config::Builder;
use crate::error::{BuildError, GetError};
use crate::guard::{OwnedPooledConnection, PooledConnection};
use crate::options::GetOptions;
use crate::pool::Pool;
use crate::status::{CloseReport, Status};

/// A [`Pool`] whose callers are threads; a handle that is cheap to clone.
///
/// Settings, guards, errors and the order of the queue are the [`Pool`]'s. What neither waits nor blocks is
/// called on [`pool`](Self::pool): `invalidate_all`, `resize`, `stats` and so on.
///
/// When the last handle is dropped the pool is closed in the background, as [`Pool::close`] does it: its
/// thread ends when all connections are back and closed, or at the end of
/// [`close_deadline`](Builder::close_deadline).
///
/// ```
/// use std::thread;
/// use pool_core::{BlockingPool, FnBackend, Pool};
///
/// let settings = Pool::builder(FnBackend::values(|| String::from("hello"))).pool_size(2).max_overflow(0);
/// let pool = BlockingPool::new(settings)?;
/// thread::scope(|threads| {
///     for _ in 0..8 {
///         threads.spawn(|| assert_eq!(*pool.get().unwrap(), "hello"));
///     }
/// });
/// assert!(pool.close().is_clean());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # In asynchronous code
/// A method that has to block the calling thread **panics** where that thread drives asynchronous tasks
/// ("Cannot start a runtime from within a runtime", from tokio): it would hold up everybody else on that
/// thread, perhaps the one who has the connection. There, use [`pool`](Self::pool) and await, or
/// `tokio::task::spawn_blocking`, inside which blocking is right.
pub struct BlockingPool<B: Backend> {
    inner: Arc<Inner<B>>,
}

struct Inner<B: Backend> {
    pool: Pool<B>,
    runtime: Handle,
    /// Tells the thread, by being dropped, that the last handle is gone.
    _alive: oneshot::Sender<()>,
}

impl<B: Backend> Clone for BlockingPool<B> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<B: Backend> fmt::Debug for BlockingPool<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingPool")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl<B: Backend> BlockingPool<B> {
    /// Checks the settings, starts the pool's thread and makes the pool; opens nothing.
    ///
    /// May be called anywhere, in asynchronous code too.
    ///
    /// # Errors
    /// [`StartError::Settings`] where [`Builder::build`] fails, [`StartError::Runtime`] where the system gives
    /// us no thread or no timer.
    pub fn new(settings: Builder<B>) -> Result<Self, StartError> {
        let runtime = RuntimeBuilder::new_current_thread().enable_all().build();
        let runtime = Background(Some(runtime.map_err(StartError::Runtime)?));
        let handle = runtime.handle();
        let pool = {
            // The pool keeps the runtime in mind that it is built in, for work that comes up outside any.
            let _inside = handle.enter();
            settings.build().map_err(StartError::Settings)?
        };
        let (alive, all_dropped) = oneshot::channel();
        let served = pool.clone();
        thread::Builder::new()
            .name("pool".into())
            .spawn(move || runtime.serve(&served, all_dropped))
            .map_err(StartError::Runtime)?;
        let inner = Inner {
            pool,
            runtime: handle,
            _alive: alive,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The pool itself: for all that does not wait, and for asynchronous code that shares it.
    ///
    /// A clone of it that outlives the last [`BlockingPool`] belongs to a closed pool.
    ///
    /// ```
    /// # use pool_core::{BlockingPool, FnBackend, Pool};
    /// # let pool = BlockingPool::new(Pool::builder(FnBackend::values(|| 7)))?;
    /// pool.pool().invalidate_all();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pool(&self) -> &Pool<B> {
        &self.inner.pool
    }

    /// Checks a connection out, as [`Pool::get`]: blocks the calling thread unless one is idle.
    ///
    /// ```
    /// # use pool_core::{BlockingPool, FnBackend, Pool};
    /// # let pool = BlockingPool::new(Pool::builder(FnBackend::values(|| 7)))?;
    /// assert_eq!(*pool.get()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Pool::get`].
    ///
    /// # Panics
    /// In asynchronous code, if it has to block.
    #[inline]
    #[track_caller]
    pub fn get(&self) -> Result<PooledConnection<'_, B>, GetError<B::Error>> {
        self.get_with(GetOptions::new())
    }

    /// As [`get`](Self::get), waiting this long instead of `pool_timeout`. Zero never waits for others.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use pool_core::{BlockingPool, FnBackend, GetError, Pool};
    /// # let settings = Pool::builder(FnBackend::values(|| 7)).pool_size(1).max_overflow(0);
    /// # let pool = BlockingPool::new(settings)?;
    /// let held = pool.get()?;
    /// let error = pool.get_timeout(Duration::from_millis(10)).unwrap_err();
    /// assert!(matches!(error, GetError::TimedOut(_)));
    /// # drop(held);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Panics
    /// As [`get`](Self::get).
    #[inline]
    #[track_caller]
    pub fn get_timeout(
        &self,
        limit: Duration,
    ) -> Result<PooledConnection<'_, B>, GetError<B::Error>> {
        self.get_with(GetOptions::new().timeout(limit))
    }

    /// As [`get`](Self::get), waiting as the options say.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Panics
    /// As [`get`](Self::get).
    #[inline]
    #[track_caller]
    pub fn get_with(
        &self,
        options: GetOptions,
    ) -> Result<PooledConnection<'_, B>, GetError<B::Error>> {
        self.checked_out(self.pool().get_with(options))
    }

    /// As [`get`](Self::get), with a guard that borrows nothing: it may go to another thread, and outlive
    /// the pool.
    ///
    /// ```
    /// # use pool_core::{BlockingPool, FnBackend, Pool};
    /// # let pool = BlockingPool::new(Pool::builder(FnBackend::values(|| 7)))?;
    /// let conn = pool.get_owned()?;
    /// std::thread::spawn(move || assert_eq!(*conn, 7)).join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Panics
    /// As [`get`](Self::get).
    #[inline]
    #[track_caller]
    pub fn get_owned(&self) -> Result<OwnedPooledConnection<B>, GetError<B::Error>> {
        self.get_owned_with(GetOptions::new())
    }

    /// As [`get_owned`](Self::get_owned), waiting as the options say.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Panics
    /// As [`get`](Self::get).
    #[inline]
    #[track_caller]
    pub fn get_owned_with(
        &self,
        options: GetOptions,
    ) -> Result<OwnedPooledConnection<B>, GetError<B::Error>> {
        self.checked_out(self.pool().get_owned_with(options))
    }

    /// Polls a checkout once, and blocks only if it has to wait.
    #[track_caller]
    fn checked_out<F: Future>(&self, checkout: F) -> F::Output {
        let mut checkout = pin!(checkout);
        let polled = {
            let _inside = self.inner.runtime.enter();
            // Nobody is told by this waker; the next poll, which follows at once, brings a real one.
            let mut cx = Context::from_waker(Waker::noop());
            checkout.as_mut().poll(&mut cx)
        };
        match polled {
            Poll::Ready(checked_out) => checked_out,
            Poll::Pending => self.inner.runtime.block_on(checkout),
        }
    }

    /// Takes an idle connection, if there is one that needs neither a ping nor replacing; never blocks.
    ///
    /// ```
    /// # use pool_core::{BlockingPool, FnBackend, Pool};
    /// # let pool = BlockingPool::new(Pool::builder(FnBackend::values(|| 7)))?;
    /// assert!(pool.try_get().is_none(), "nothing was opened yet");
    /// drop(pool.get()?);
    /// assert!(pool.try_get().is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[track_caller]
    pub fn try_get(&self) -> Option<PooledConnection<'_, B>> {
        self.pool().try_get()
    }

    /// As [`try_get`](Self::try_get), with a guard that borrows nothing.
    #[inline]
    #[track_caller]
    pub fn try_get_owned(&self) -> Option<OwnedPooledConnection<B>> {
        self.pool().try_get_owned()
    }

    /// The pool's numbers at this moment.
    pub fn status(&self) -> Status {
        self.pool().status()
    }

    /// Runs a future on the calling thread, inside the pool's runtime: for connections whose methods are
    /// asynchronous, and for the pool's own.
    ///
    /// ```
    /// # use std::{io, net, thread};
    /// use pool_core::{BlockingPool, FnBackend, Pool};
    /// use tokio::{io::AsyncReadExt, net::TcpStream};
    ///
    /// # let server = net::TcpListener::bind("127.0.0.1:0")?;
    /// # let addr = server.local_addr()?;
    /// # thread::spawn(move || io::Write::write_all(&mut server.accept()?.0, b"!"));
    /// let pool = BlockingPool::new(Pool::builder(FnBackend::new(move || TcpStream::connect(addr))))?;
    /// let mut conn = pool.get()?;
    /// let byte = pool.block_on(conn.read_u8())?;
    /// assert_eq!(byte, b'!');
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// In asynchronous code, always.
    #[track_caller]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.inner.runtime.block_on(future)
    }

    /// Closes the pool, as [`Pool::close`]: blocks until everything is back and closed, or until
    /// [`close_deadline`](Builder::close_deadline).
    ///
    /// ```
    /// # use pool_core::{BlockingPool, FnBackend, GetError, Pool};
    /// # let pool = BlockingPool::new(Pool::builder(FnBackend::values(|| 7)))?;
    /// assert!(pool.close().is_clean());
    /// assert!(matches!(pool.get(), Err(GetError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// In asynchronous code, always.
    #[track_caller]
    pub fn close(&self) -> CloseReport {
        self.block_on(self.pool().close())
    }
}

/// The runtime of one pool. Dropping it never blocks, so it may be dropped in asynchronous code.
struct Background(Option<Runtime>);

impl Background {
    fn handle(&self) -> Handle {
        self.runtime().handle().clone()
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("there until it is dropped")
    }

    /// Does the pool's work until the last handle is dropped, and then closes it.
    fn serve<B: Backend>(self, pool: &Pool<B>, all_dropped: oneshot::Receiver<()>) {
        self.runtime().block_on(async {
            let _ = all_dropped.await; // Nothing is ever sent: this is the sender's end.
            // Whoever still holds a connection then has it closed when it comes back.
            let _ = pool.close().await;
        });
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Why a [`BlockingPool`] could not be made.
///
/// ```
/// use pool_core::{BlockingPool, FnBackend, Pool, StartError};
///
/// let nothing = Pool::builder(FnBackend::values(|| 7)).pool_size(0).max_overflow(0);
/// assert!(matches!(BlockingPool::new(nothing), Err(StartError::Settings(_))));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The settings are refused; the cause names the one and the remedy.
    Settings(BuildError),
    /// The system gave no thread, or no file descriptor for the runtime on it: raise the limits of the
    /// process.
    Runtime(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Settings(_) => "the pool's settings are refused",
            Self::Runtime(_) => {
                "could not start the pool's thread (the process may be at its limit of threads or open files)"
            }
        })
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Settings(cause) => Some(cause),
            Self::Runtime(cause) => Some(cause),
        }
    }
}
