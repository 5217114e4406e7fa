//! Managers written for r2d2, whose calls block the thread.
//!
//! Each call (connect, ping, and dropping a connection, which may say goodbye over the network) is made on a
//! thread for blocking work of the tokio runtime, a bounded number at a time.
//!
//! # Who has the connection
//! A blocking call cannot be interrupted. So a connection that is pinged moves into the call and comes back
//! with its answer; if nobody waits for that any more, the call drops the connection at its end. What stays
//! behind meanwhile is empty, and [`Backend::check`] calls it broken: nobody gets half a connection, and a
//! ping that came too late puts nothing back.

use std::error::Error;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::resume_unwind;
use std::sync::Arc;

use ::r2d2::ManageConnection;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::{Errors, health};
use crate::backend::{Backend, Failure, Health, When};

/// A [`Backend`] from a manager written for r2d2; made by [`R2d2`](fn@R2d2).
///
/// What a caller does with such a connection blocks too: in asynchronous code it belongs onto a thread for
/// blocking work. Threads without a runtime use a [`BlockingPool`](crate::BlockingPool).
///
/// ```
/// # struct Manager;
/// # impl r2d2::ManageConnection for Manager {
/// #     type Connection = String;
/// #     type Error = std::io::Error;
/// #     fn connect(&self) -> Result<String, Self::Error> { Ok("hello".into()) }
/// #     fn is_valid(&self, _: &mut String) -> Result<(), Self::Error> { Ok(()) }
/// #     fn has_broken(&self, _: &mut String) -> bool { false }
/// # }
/// use pool_core::{BlockingPool, Pool, compat};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let pool = Pool::builder(compat::R2d2(Manager)).build()?;
/// let conn = pool.get_owned().await?;
/// let length = tokio::task::spawn_blocking(move || conn.len()).await?;
/// assert_eq!(length, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
///
/// let pool = BlockingPool::new(Pool::builder(compat::R2d2(Manager)))?;
/// assert_eq!(pool.get()?.len(), 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # A call that never returns
/// When the time of a call is over (`connect_timeout`, `ping_timeout`, `close_timeout`) the pool goes on
/// without it. The connection stays with the call and is closed when that ends; it is never reused. Until
/// then it may exist on the server outside the pool's count, and the call occupies one of
/// [`max_blocking`](Self::max_blocking) places; when all are occupied, later calls wait until their own time
/// is over. So set the time limits that the manager's client has.
pub struct R2d2<M: ManageConnection, E = <M as ManageConnection>::Error> {
    manager: Arc<M>,
    errors: Errors<M::Error, E>,
    front: Front,
}

/// How many calls may block at once, if nothing else is said.
const MAX_BLOCKING: usize = 16;

/// Makes a [`Backend`] from a manager written for r2d2.
///
/// Its error has to be one that may be sent to and shared between threads. r2d2 does not ask for that, though
/// nearly all managers do it; for the others there is [`R2d2::map_err`].
#[allow(non_snake_case, reason = "reads as the constructor that it is")]
pub fn R2d2<M: ManageConnection>(manager: M) -> R2d2<M> {
    R2d2 {
        manager: Arc::new(manager),
        errors: Errors::converted(|error| error),
        front: Front::of(MAX_BLOCKING),
    }
}

impl<M: ManageConnection, E: 'static> R2d2<M, E> {
    /// How many of the manager's calls may block at once, each on a thread of its own.
    ///
    /// Default 16. A further call waits, within its own time limit.
    ///
    /// # Panics
    /// At zero: nothing could ever be opened.
    #[track_caller]
    pub fn max_blocking(mut self, calls: usize) -> Self {
        assert!(
            calls > 0,
            "max_blocking is 0, so nothing could ever be opened: set at least 1"
        );
        self.front = Front::of(calls.min(Semaphore::MAX_PERMITS));
        self
    }

    /// Converts the manager's errors: for a manager whose own may not be sent to another thread.
    ///
    /// The conversion runs where the error arose.
    ///
    /// ```
    /// # #[derive(Debug)]
    /// # struct Local(std::rc::Rc<str>);
    /// # impl std::fmt::Display for Local {
    /// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(&self.0) }
    /// # }
    /// # impl std::error::Error for Local {}
    /// # struct Manager;
    /// # impl r2d2::ManageConnection for Manager {
    /// #     type Connection = u8;
    /// #     type Error = Local;
    /// #     fn connect(&self) -> Result<u8, Self::Error> { Ok(7) }
    /// #     fn is_valid(&self, _: &mut u8) -> Result<(), Self::Error> { Ok(()) }
    /// #     fn has_broken(&self, _: &mut u8) -> bool { false }
    /// # }
    /// # use pool_core::{Pool, compat};
    /// let backend = compat::R2d2(Manager).map_err(|error| std::io::Error::other(error.to_string()));
    /// let pool = Pool::builder(backend).build()?;
    /// # Ok::<(), pool_core::BuildError>(())
    /// ```
    pub fn map_err<F>(self, convert: impl Fn(E) -> F + Send + Sync + 'static) -> R2d2<M, F> {
        let first = self.errors.convert;
        R2d2 {
            manager: self.manager,
            errors: Errors::converted(move |error| convert(first(error))),
            front: self.front,
        }
    }

    /// Tells what an error says about the other connections; see [`Backend::classify`].
    ///
    /// Default: [`Failure::Transient`]. Forgotten by a later [`map_err`](Self::map_err).
    pub fn classify(mut self, classify: impl Fn(&E) -> Failure + Send + Sync + 'static) -> Self {
        self.errors.classify = Some(Box::new(classify));
        self
    }

    /// The manager.
    pub fn manager(&self) -> &M {
        &self.manager
    }
}

impl<M: ManageConnection + fmt::Debug, E> fmt::Debug for R2d2<M, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("R2d2").field(&self.manager).finish()
    }
}

impl<M, E> Backend for R2d2<M, E>
where
    M: ManageConnection,
    E: Error + Send + Sync + 'static,
{
    type Connection = R2d2Connection<M::Connection>;
    type Error = E;

    async fn connect(&self) -> Result<Self::Connection, E> {
        let (manager, convert) = (Arc::clone(&self.manager), Arc::clone(&self.errors.convert));
        let front = self.front.clone();
        self.front
            .run(move || match manager.connect() {
                Ok(conn) => Ok(R2d2Connection {
                    conn: Some(conn),
                    front,
                }),
                Err(error) => Err(convert(error)),
            })
            .await
    }

    fn check(&self, conn: &mut Self::Connection, _: When) -> Health {
        match &mut conn.conn {
            Some(conn) => health(self.manager.has_broken(conn)),
            None => Health::Broken,
        }
    }

    async fn ping(&self, conn: &mut Self::Connection) -> Result<(), E> {
        let (manager, convert) = (Arc::clone(&self.manager), Arc::clone(&self.errors.convert));
        // If this future is dropped, what it leaves behind is empty, and so broken.
        let mut away = conn.take();
        let ping = move || {
            let valid = away.conn.as_mut().map(|conn| manager.is_valid(conn));
            let valid = valid.unwrap_or(Ok(()));
            (away, valid.map_err(&*convert))
        };
        let (back, valid) = self.front.run(ping).await;
        *conn = back;
        valid
    }

    async fn close(&self, conn: Self::Connection) {
        let close = move || {
            let mut conn = conn;
            drop(conn.conn.take());
        };
        self.front.run(close).await;
    }

    fn classify(&self, error: &E) -> Failure {
        self.errors.classify(error)
    }
}

/// A connection of a manager written for r2d2; use it as the connection itself.
///
/// Dropped in asynchronous code it is closed on a thread for blocking work, for that may block.
pub struct R2d2Connection<C: Send + 'static> {
    /// Empty while it is away to be pinged; nobody has it in use then.
    conn: Option<C>,
    front: Front,
}

impl<C: Send + 'static> R2d2Connection<C> {
    /// The manager's own connection: after [`detach`](crate::PooledConnection::detach).
    ///
    /// ```
    /// # struct Manager;
    /// # impl r2d2::ManageConnection for Manager {
    /// #     type Connection = String;
    /// #     type Error = std::io::Error;
    /// #     fn connect(&self) -> Result<String, Self::Error> { Ok("hello".into()) }
    /// #     fn is_valid(&self, _: &mut String) -> Result<(), Self::Error> { Ok(()) }
    /// #     fn has_broken(&self, _: &mut String) -> bool { false }
    /// # }
    /// # use pool_core::{BlockingPool, Pool, compat};
    /// # let pool = BlockingPool::new(Pool::builder(compat::R2d2(Manager)))?;
    /// let kept: String = pool.get()?.detach().into_inner();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_inner(mut self) -> C {
        self.conn.take().expect(AWAY)
    }

    fn take(&mut self) -> Self {
        Self {
            conn: self.conn.take(),
            front: self.front.clone(),
        }
    }
}

const AWAY: &str = "a connection is away only while the pool pings it";

impl<C: Send + 'static> Deref for R2d2Connection<C> {
    type Target = C;
    fn deref(&self) -> &C {
        self.conn.as_ref().expect(AWAY)
    }
}

impl<C: Send + 'static> DerefMut for R2d2Connection<C> {
    fn deref_mut(&mut self) -> &mut C {
        self.conn.as_mut().expect(AWAY)
    }
}

impl<C: fmt::Debug + Send + 'static> fmt::Debug for R2d2Connection<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("R2d2Connection").field(&self.conn).finish()
    }
}

impl<C: Send + 'static> Drop for R2d2Connection<C> {
    fn drop(&mut self) {
        let Some(conn) = self.conn.take() else { return };
        if let Ok(runtime) = Handle::try_current() {
            let front = self.front.clone();
            runtime.spawn(async move { front.run(move || drop(conn)).await });
        }
    }
}

/// A bound on the calls that block at the same time.
#[derive(Clone)]
struct Front(Arc<Semaphore>);

impl Front {
    fn of(calls: usize) -> Self {
        Self(Arc::new(Semaphore::new(calls)))
    }

    /// Makes a call that blocks, on another thread.
    ///
    /// # Cancel safety
    /// A call that still waits for its place never begins, and is dropped. Any other goes on to its end, and
    /// what it gives is dropped then.
    async fn run<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> T {
        let place = Arc::clone(&self.0).acquire_owned().await;
        let place = place.expect("never closed");
        let call = spawn_blocking(move || {
            let _place = place;
            call()
        });
        match call.await {
            Ok(value) => value,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // Its runtime ended before the call began. Whoever waits for it has a time limit.
            Err(_cancelled) => std::future::pending().await,
        }
    }
}
