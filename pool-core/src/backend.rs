//! What a pool needs to know about the connections it keeps: how to open, check, reset and close one.
//!
//! A [`Backend`] is stateless as far as the pool is concerned: it is shared by reference between all
//! tasks, and everything that changes lives in its `Connection`. Only [`Backend::connect`] must be
//! written; the rest has defaults that suit a plain value.

use std::error::Error;
use std::future::Future;

/// Opens, checks, resets and closes the connections of a [`Pool`](crate::Pool).
///
/// Every method but [`check`](Self::check), [`classify`](Self::classify) and
/// [`terminate`](Self::terminate) may do I/O, and the pool bounds each in time
/// ([`connect_timeout`](crate::Builder::connect_timeout), [`ping_timeout`](crate::Builder::ping_timeout),
/// [`close_timeout`](crate::Builder::close_timeout)). None is ever called while the pool holds a lock. A
/// panic in any of them costs that one connection, whose room is freed.
///
/// ```
/// use std::convert::Infallible;
/// use pool_core::{Backend, Pool};
///
/// /// A pool of reusable buffers.
/// struct Buffers;
/// impl Backend for Buffers {
///     type Connection = Vec<u8>;
///     type Error = Infallible;
///     async fn connect(&self) -> Result<Vec<u8>, Infallible> {
///         Ok(Vec::with_capacity(4096))
///     }
/// }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let pool = Pool::builder(Buffers).pool_size(2).build()?;
/// let mut buffer = pool.get().await?;
/// buffer.extend_from_slice(b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub trait Backend: Send + Sync + 'static {
    /// What the pool hands out.
    type Connection: Send + 'static;
    /// Why opening, pinging or resetting failed.
    type Error: Error + Send + Sync + 'static;

    /// Opens one connection.
    ///
    /// Runs in a task of its own, so it goes on when the caller that wanted it has left, and is dropped
    /// after `connect_timeout` or when the pool closes.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    /// Tells how a connection is, without I/O and without waiting.
    ///
    /// Called at every checkout and every return, in the caller's thread, so it must take nanoseconds.
    /// At a return it may put bytes into the connection's send queue. Default: always [`Health::Good`].
    fn check(&self, conn: &mut Self::Connection, when: When) -> Health {
        let _ = (conn, when);
        Health::Good
    }

    /// Asks the other side whether the connection still works.
    ///
    /// Called at a checkout where [`PrePing`](crate::PrePing) says so, and for all idle connections after
    /// one was found dead. It must leave no state behind. Default: succeeds at once.
    fn ping(
        &self,
        conn: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = conn;
        async { Ok(()) }
    }

    /// Brings a connection back to the state of a new one.
    ///
    /// Called after a return for which [`check`](Self::check) answered [`Health::NeedsReset`]; nobody gets
    /// the connection before it succeeds, and an error closes it. Default: succeeds at once.
    fn reset(
        &self,
        conn: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = conn;
        async { Ok(()) }
    }

    /// Closes a connection politely; ready once the other side is known to have let go.
    ///
    /// The slot is vacant again when this is, at the latest after `close_timeout`. Default: drops it.
    fn close(&self, conn: Self::Connection) -> impl Future<Output = ()> + Send {
        drop(conn);
        async {}
    }

    /// Closes a connection at once, without I/O: the broken ones, and all where no runtime is at hand.
    ///
    /// Default: drops it.
    fn terminate(&self, conn: Self::Connection) {
        drop(conn);
    }

    /// Tells what an error of [`connect`](Self::connect), [`ping`](Self::ping) or
    /// [`PooledConnection::report`](crate::PooledConnection::report) says about the other connections.
    ///
    /// Default: [`Failure::Transient`].
    fn classify(&self, error: &Self::Error) -> Failure {
        let _ = error;
        Failure::Transient
    }
}

/// When [`Backend::check`] is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum When {
    /// A caller is about to get the connection.
    Checkout,
    /// A caller has just given it back.
    Return,
}

/// What [`Backend::check`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// Fit for the next caller as it is.
    Good,
    /// Fit after [`Backend::reset`]; nobody gets it before. At a checkout it is read as `Broken`: a
    /// connection that was left in need of a reset should have said so at its return.
    NeedsReset,
    /// Unusable: closed with [`Backend::terminate`], and its room is freed.
    Broken,
    /// As `Broken`, and all connections of its age are suspect: see [`Failure::Generation`].
    Generation,
}

/// What an error says about the future and about other connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// It may pass: the pool tries again, with backoff.
    Transient,
    /// It will not pass by itself (a wrong password, no such database): every waiter learns it at once.
    Permanent,
    /// The other side accepts no more connections. While this pool has others, whoever waits goes on waiting for
    /// one of them to come back, within its own time, and opening is tried again with backoff; a pool that has
    /// none takes it as `Transient`.
    Full,
    /// All connections opened before now are suspect (the server restarted): idle ones are pinged side by
    /// side, those in use are closed when they come back.
    Generation,
}
