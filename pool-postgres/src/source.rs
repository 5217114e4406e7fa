//! Where a session's connection comes from: an engine, a router, a tenancy layer.
//!
//! A [`Session`](crate::Session) borrows nothing until its first statement; then it asks its
//! [`ConnectionSource`] for a [`Lease`]: a connection, and what the source wants done with it. A lease
//! lasts for one transaction, so a transaction never changes its server.
//!
//! What always holds: a lease's [`Guard`] is answered before the session shows anything of the
//! transaction to its user, and a lease that was refused goes back to its pool rolled back.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::panic::Location;
use std::pin::Pin;
use std::time::Duration;

use pool_core::OwnedPooledConnection;

use crate::backend::PgBackend;
use crate::connection::PgConnection;
use crate::error::Error;
use crate::seeing::End;
use crate::test_transaction::Joined;

/// The future that [`ConnectionSource::checkout`] returns.
pub type CheckoutFuture<'a> = Pin<Box<dyn Future<Output = Result<Lease, Error>> + Send + 'a>>;

/// Hands out connections to sessions; implemented by [`Engine`](crate::Engine).
///
/// A source that chooses between servers chooses anew at each checkout. Its failures come as
/// [`Error::from_source`].
pub trait ConnectionSource: Send + Sync + 'static {
    /// Hands out a connection for one transaction.
    ///
    /// # Cancel safety
    /// The future may be dropped at any point; a source must leave nothing checked out then.
    fn checkout<'a>(&'a self, request: Checkout<'a>) -> CheckoutFuture<'a>;
}

/// What a session asks of its source.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Checkout<'a> {
    /// The line that called the session's method: shown by pool timeouts as the holder's place.
    pub place: &'static Location<'static>,
    /// Whether the transaction is begun READ ONLY.
    pub read_only: bool,
    /// How many leases of this transaction came to nothing before: refused by their guard, or dead before
    /// they answered.
    pub attempt: u32,
    /// Why the former lease came to nothing.
    pub refused: Option<&'a Error>,
}

impl Checkout<'_> {
    /// A first request.
    pub fn new(place: &'static Location<'static>, read_only: bool) -> Self {
        Self {
            place,
            read_only,
            attempt: 0,
            refused: None,
        }
    }
}

/// A connection lent to one transaction, with what its source wants done.
///
/// Dropping it gives the connection back to its pool.
#[must_use = "dropping a lease gives the connection back"]
pub struct Lease {
    pub(crate) connection: Lent,
    pub(crate) guard: Option<Guard>,
    pub(crate) token_system: Option<u64>,
    pub(crate) observer: Option<Box<dyn LeaseObserver>>,
}

impl Lease {
    /// Lends a connection, without conditions.
    pub fn new(connection: OwnedPooledConnection<PgBackend>) -> Self {
        Self::of(Lent::Pooled(connection))
    }

    /// Lends a connection inside a transaction that somebody else ends.
    pub(crate) fn joined(connection: Joined) -> Self {
        Self::of(Lent::Joined(connection))
    }

    fn of(connection: Lent) -> Self {
        Self {
            connection,
            guard: None,
            token_system: None,
            observer: None,
        }
    }

    /// Whether the session's transaction is a savepoint in a larger one.
    pub(crate) fn is_joined(&self) -> bool {
        matches!(self.connection, Lent::Joined(_))
    }

    /// What begins a session's part of a larger transaction; to be sent at once. `None` for a transaction of its
    /// own.
    pub(crate) fn savepoint(&mut self) -> Option<String> {
        match &mut self.connection {
            Lent::Pooled(_) => None,
            Lent::Joined(joined) => Some(joined.begin()),
        }
    }

    /// What keeps a session's part of a larger transaction; to be sent at once.
    pub(crate) fn release(&mut self) -> Option<String> {
        match &mut self.connection {
            Lent::Pooled(_) => None,
            Lent::Joined(joined) => Some(joined.release()),
        }
    }

    /// Has a statement decide whether the transaction counts.
    pub fn with_guard(mut self, guard: Guard) -> Self {
        self.guard = Some(guard);
        self
    }

    /// Has the commit say where in the log of this cluster it stands; takes the cluster's system
    /// identifier. Costs no round trip. Ignored for read-only transactions.
    pub fn with_token(mut self, system_identifier: u64) -> Self {
        self.token_system = Some(system_identifier);
        self
    }

    /// Has somebody told how the lease goes, beside those who are told already. The observer is dropped when the lease
    /// ends.
    pub fn with_observer(mut self, observer: Box<dyn LeaseObserver>) -> Self {
        self.observer = Some(match self.observer.take() {
            Some(before) => Box::new(Both(before, observer)),
            None => observer,
        });
        self
    }

    /// The connection.
    pub fn connection(&self) -> &PgConnection {
        &self.connection
    }

    /// Ends the lease and has its connection closed.
    pub(crate) fn close(self) {
        match self.connection {
            Lent::Pooled(connection) => connection.invalidate(),
            Lent::Joined(mut joined) => joined.close(),
        }
    }

    pub(crate) fn answered(&self, round_trip: Duration) {
        if let Some(observer) = &self.observer {
            observer.answered(round_trip);
        }
    }

    /// Tells the observer, and the pool where the error says something about other connections.
    pub(crate) fn failed(&mut self, error: &Error) {
        self.connection.sight().end(End::Failed(error));
        if let Some(observer) = &self.observer {
            observer.failed(error);
        }
        if !error.connection_is_good() {
            self.connection.report(error);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("guard", &self.guard)
            .field("token_system", &self.token_system)
            .finish_non_exhaustive()
    }
}

/// Whose connection a lease lends.
pub(crate) enum Lent {
    Pooled(OwnedPooledConnection<PgBackend>),
    Joined(Joined),
}

impl Lent {
    pub(crate) fn report(&mut self, error: &Error) {
        match self {
            Self::Pooled(connection) => {
                connection.report(error);
            }
            Self::Joined(joined) => joined.report(error),
        }
    }
}

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Pooled(connection) => connection,
            Self::Joined(joined) => joined,
        }
    }
}

/// The rows that a guard's statement gave, as text; NULL is `None`.
pub type GuardRows = Vec<Vec<Option<String>>>;

type Verify = Box<dyn FnOnce(&GuardRows) -> Result<(), Error> + Send>;

/// A statement whose answer decides whether a transaction counts.
///
/// It is sent in the same flight as `BEGIN` and the first statement, before both and outside the
/// transaction, so it sees what was true before the transaction's snapshot was taken. Where the verdict is
/// an error, the session throws away what it received, gives the connection back rolled back and asks its
/// source again, with [`Checkout::attempt`] raised and the verdict in [`Checkout::refused`].
#[must_use = "a guard does nothing until it is given to a lease"]
pub struct Guard {
    pub(crate) sql: String,
    pub(crate) verify: Verify,
}

impl Guard {
    /// A guard of this statement (or several, separated by semicolons) and this verdict on its rows.
    pub fn new(
        sql: impl Into<String>,
        verify: impl FnOnce(&GuardRows) -> Result<(), Error> + Send + 'static,
    ) -> Self {
        Self {
            sql: sql.into(),
            verify: Box::new(verify),
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("sql", &self.sql)
            .finish_non_exhaustive()
    }
}

/// Is told how a lease goes. Dropped when the lease ends, so it can count what is outstanding.
///
/// Its methods run in the session's task and must not block.
pub trait LeaseObserver: Send + Sync {
    /// The server answered a statement, this long after it was sent.
    fn answered(&self, round_trip: Duration) {
        let _ = round_trip;
    }

    /// A statement failed.
    fn failed(&self, error: &Error) {
        let _ = error;
    }
}

/// Two who are told.
struct Both(Box<dyn LeaseObserver>, Box<dyn LeaseObserver>);

impl LeaseObserver for Both {
    fn answered(&self, round_trip: Duration) {
        self.0.answered(round_trip);
        self.1.answered(round_trip);
    }

    fn failed(&self, error: &Error) {
        self.0.failed(error);
        self.1.failed(error);
    }
}
