//! A backend from closures: for pools that do not deserve a type of their own.
//!
//! [`FnBackend`] has a type that can be written down (`Pool<FnBackend<TcpStream, io::Error>>`), whatever
//! closures it was made from. They are boxed, which costs an indirect call, and one allocation for each
//! future; a checkout and a return make no future. A closure that was not given costs nothing.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::pin::Pin;

use crate::backend::{Backend, Failure, Health, When};

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Connect<C, E> = dyn Fn() -> Boxed<'static, Result<C, E>> + Send + Sync;
type Look<C, E> = dyn for<'a> Fn(&'a mut C) -> Boxed<'a, Result<(), E>> + Send + Sync;
type Reset<C> = dyn Fn(&mut C) + Send + Sync;
type Check<C> = dyn Fn(&mut C, When) -> Health + Send + Sync;
type Close<C> = dyn Fn(C) -> Boxed<'static, ()> + Send + Sync;
type Classify<E> = dyn Fn(&E) -> Failure + Send + Sync;

/// A [`Backend`] from closures.
///
/// Only the one that connects is needed. What has to happen at the end of every connection, whichever way
/// it ends, belongs into the connection's own `Drop`: [`close`](Self::close) is for the polite way alone.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use pool_core::{FnBackend, Pool};
/// use tokio::net::{TcpListener, TcpStream};
///
/// let server = TcpListener::bind("127.0.0.1:0").await?;
/// let addr = server.local_addr()?;
///
/// let pool = Pool::builder(FnBackend::new(move || TcpStream::connect(addr))).build()?;
/// assert_eq!(pool.get().await?.peer_addr()?, addr);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// An object pool, here of buffers that come back empty:
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # use pool_core::{FnBackend, Pool};
/// let buffers = FnBackend::values(|| Vec::with_capacity(4096)).reset_now(Vec::clear);
/// let pool = Pool::builder(buffers).pool_size(8).build()?;
/// pool.get().await?.extend_from_slice(b"hello");
/// let buffer = pool.get().await?;
/// assert!(buffer.is_empty() && buffer.capacity() >= 4096);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// A struct that holds such a pool names it without the closures:
///
/// ```
/// # use pool_core::{FnBackend, Pool};
/// struct Service {
///     buffers: Pool<FnBackend<Vec<u8>>>,
///     peers: Pool<FnBackend<tokio::net::TcpStream, std::io::Error>>,
/// }
/// ```
#[must_use = "a backend does nothing until a pool is built over it"]
pub struct FnBackend<C, E = Infallible> {
    connect: Box<Connect<C, E>>,
    ping: Option<Box<Look<C, E>>>,
    reset: Option<Box<Look<C, E>>>,
    reset_now: Option<Box<Reset<C>>>,
    check: Option<Box<Check<C>>>,
    close: Option<Box<Close<C>>>,
    classify: Option<Box<Classify<E>>>,
}

impl<C: Send + 'static> FnBackend<C> {
    /// A pool of plain values, made on the spot by a closure that cannot fail.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # use pool_core::{FnBackend, Pool};
    /// /// Three seats of a licence, handed from one user to the next.
    /// let seats = Pool::builder(FnBackend::values(|| "a seat")).pool_size(3).max_overflow(0).build()?;
    /// assert_eq!(*seats.get().await?, "a seat");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn values(make: impl Fn() -> C + Send + Sync + 'static) -> Self {
        Self::new(move || std::future::ready(Ok(make())))
    }
}

impl<C, E> FnBackend<C, E>
where
    C: Send + 'static,
    E: Error + Send + Sync + 'static,
{
    /// Connections opened by a closure; see [`Backend::connect`].
    ///
    /// ```no_run
    /// # use pool_core::{FnBackend, Pool};
    /// # use tokio::net::TcpStream;
    /// let pool = Pool::builder(FnBackend::new(|| async {
    ///     let conn = TcpStream::connect("10.0.0.7:11211").await?;
    ///     conn.set_nodelay(true)?;
    ///     Ok::<_, std::io::Error>(conn)
    /// }))
    /// .build()?;
    /// # Ok::<(), pool_core::BuildError>(())
    /// ```
    pub fn new<Opening>(connect: impl Fn() -> Opening + Send + Sync + 'static) -> Self
    where
        Opening: Future<Output = Result<C, E>> + Send + 'static,
    {
        Self {
            connect: Box::new(move || Box::pin(connect())),
            ping: None,
            reset: None,
            reset_now: None,
            check: None,
            close: None,
            classify: None,
        }
    }

    /// Asks the other side whether the connection still works; see [`Backend::ping`].
    ///
    /// Default: it does. The future borrows the connection, so it has to be boxed:
    ///
    /// ```
    /// # use pool_core::FnBackend;
    /// # use tokio::io::{AsyncReadExt, AsyncWriteExt};
    /// # use tokio::net::TcpStream;
    /// let backend = FnBackend::new(|| TcpStream::connect("10.0.0.7:11211")).ping(|conn| {
    ///     Box::pin(async move {
    ///         conn.write_all(b"version\r\n").await?;
    ///         while conn.read_u8().await? != b'\n' {}
    ///         Ok(())
    ///     })
    /// });
    /// ```
    pub fn ping<F>(mut self, ping: F) -> Self
    where
        F: for<'a> Fn(&'a mut C) -> Pin<Box<dyn Future<Output = Result<(), E>> + Send + 'a>>
            + Send
            + Sync
            + 'static,
    {
        self.ping = Some(Box::new(ping));
        self
    }

    /// Brings a connection back to the state of a new one, in the background; see [`Backend::reset`].
    ///
    /// Default: nothing to do. Runs after every return, or with a [`check`](Self::check) after those for
    /// which that says [`Health::NeedsReset`]. Nobody gets the connection before it succeeds.
    ///
    /// ```
    /// # use pool_core::FnBackend;
    /// # use tokio::io::{self, AsyncWriteExt};
    /// # use tokio::net::TcpStream;
    /// async fn reset(conn: &mut TcpStream) -> io::Result<()> {
    ///     conn.write_all(b"RESET\r\n").await
    /// }
    /// let backend =
    ///     FnBackend::new(|| TcpStream::connect("10.0.0.7:6379")).reset(|conn| Box::pin(reset(conn)));
    /// ```
    pub fn reset<F>(mut self, reset: F) -> Self
    where
        F: for<'a> Fn(&'a mut C) -> Pin<Box<dyn Future<Output = Result<(), E>> + Send + 'a>>
            + Send
            + Sync
            + 'static,
    {
        self.reset = Some(Box::new(reset));
        self
    }

    /// As [`reset`](Self::reset), on the spot: for plain values, whose reset needs no I/O.
    ///
    /// Default: nothing to do. Runs in the thread of whoever returns the value, so it must be short. Runs
    /// before a `check` looks at the value, and not at all while its thread panics: that value is closed.
    ///
    /// ```
    /// # use pool_core::FnBackend;
    /// let backend = FnBackend::values(String::new).reset_now(|text| text.clear());
    /// ```
    pub fn reset_now(mut self, reset: impl Fn(&mut C) + Send + Sync + 'static) -> Self {
        self.reset_now = Some(Box::new(reset));
        self
    }

    /// Tells how a connection is, without I/O; see [`Backend::check`].
    ///
    /// Default: [`Health::NeedsReset`] at a return where a [`reset`](Self::reset) was given, else
    /// [`Health::Good`].
    ///
    /// ```
    /// # use pool_core::{FnBackend, Health};
    /// // A buffer that has grown past a megabyte is let go.
    /// let backend = FnBackend::values(Vec::<u8>::new).check(|buffer, _| {
    ///     if buffer.capacity() > 1 << 20 { Health::Broken } else { Health::Good }
    /// });
    /// ```
    pub fn check(mut self, check: impl Fn(&mut C, When) -> Health + Send + Sync + 'static) -> Self {
        self.check = Some(Box::new(check));
        self
    }

    /// Closes a connection politely; see [`Backend::close`].
    ///
    /// Default: drops it.
    ///
    /// ```
    /// # use pool_core::FnBackend;
    /// # use tokio::{io::AsyncWriteExt, net::TcpStream};
    /// let backend = FnBackend::new(|| TcpStream::connect("10.0.0.7:11211"))
    ///     .close(|mut conn| async move { drop(conn.write_all(b"quit\r\n").await) });
    /// ```
    pub fn close<Closing>(mut self, close: impl Fn(C) -> Closing + Send + Sync + 'static) -> Self
    where
        Closing: Future<Output = ()> + Send + 'static,
    {
        self.close = Some(Box::new(move |conn| Box::pin(close(conn))));
        self
    }

    /// Tells what an error says about the other connections; see [`Backend::classify`].
    ///
    /// Default: [`Failure::Transient`].
    ///
    /// ```
    /// # use std::io::ErrorKind;
    /// # use pool_core::{Failure, FnBackend};
    /// # use tokio::net::TcpStream;
    /// let backend = FnBackend::new(|| TcpStream::connect("10.0.0.7:11211")).classify(|error| {
    ///     match error.kind() {
    ///         ErrorKind::PermissionDenied => Failure::Permanent,
    ///         ErrorKind::ConnectionReset => Failure::Generation,
    ///         _ => Failure::Transient,
    ///     }
    /// });
    /// ```
    pub fn classify(mut self, classify: impl Fn(&E) -> Failure + Send + Sync + 'static) -> Self {
        self.classify = Some(Box::new(classify));
        self
    }
}

impl<C, E> fmt::Debug for FnBackend<C, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = [
            ("ping", self.ping.is_some()),
            ("reset", self.reset.is_some()),
            ("reset_now", self.reset_now.is_some()),
            ("check", self.check.is_some()),
            ("close", self.close.is_some()),
            ("classify", self.classify.is_some()),
        ];
        let names = given
            .iter()
            .filter_map(|(name, given)| given.then_some(name));
        f.write_str("FnBackend with connect")?;
        names.into_iter().try_for_each(|name| write!(f, ", {name}"))
    }
}

impl<C, E> Backend for FnBackend<C, E>
where
    C: Send + 'static,
    E: Error + Send + Sync + 'static,
{
    type Connection = C;
    type Error = E;

    fn connect(&self) -> impl Future<Output = Result<C, E>> + Send {
        (self.connect)()
    }

    #[inline]
    fn check(&self, conn: &mut C, when: When) -> Health {
        if when == When::Return
            && let Some(reset_now) = &self.reset_now
        {
            reset_now(conn);
        }
        match &self.check {
            Some(check) => check(conn, when),
            None if when == When::Return && self.reset.is_some() => Health::NeedsReset,
            None => Health::Good,
        }
    }

    async fn ping(&self, conn: &mut C) -> Result<(), E> {
        match &self.ping {
            Some(ping) => ping(conn).await,
            None => Ok(()),
        }
    }

    async fn reset(&self, conn: &mut C) -> Result<(), E> {
        match &self.reset {
            Some(reset) => reset(conn).await,
            None => Ok(()),
        }
    }

    async fn close(&self, conn: C) {
        match &self.close {
            Some(close) => close(conn).await,
            None => drop(conn),
        }
    }

    fn classify(&self, error: &E) -> Failure {
        match &self.classify {
            Some(classify) => classify(error),
            None => Failure::Transient,
        }
    }
}
