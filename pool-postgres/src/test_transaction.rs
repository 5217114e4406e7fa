//! Sessions that all run in savepoints of one transaction, which is never committed: for tests of code that uses
//! sessions.
//!
//! [`Shared`] holds one connection with a transaction open on it and lends it to one session at a time; the
//! next waits. To a session the savepoint is its transaction: it begins with `SAVEPOINT`, commits by `RELEASE`
//! and rolls back by `ROLLBACK TO`. When the last session and factory are gone, the connection goes back to
//! its pool, which rolls the whole transaction back.
//!
//! # What always holds
//! A session never sees another's half-done work: whoever gives the connection back has released its savepoint
//! or has queued its rollback behind all that it had sent. If the connection breaks, or somebody ends the outer
//! transaction, what was done before is gone or in force, and later sessions are refused instead of running
//! outside.

use std::ops::Deref;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pool_core::OwnedPooledConnection;
use tokio::sync::{Mutex as TurnMutex, OwnedMutexGuard};
use tokio::time::timeout;

use crate::backend::PgBackend;
use crate::connection::PgConnection;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::source::{Checkout, CheckoutFuture, ConnectionSource, Lease};
use crate::wire::TransactionStatus;

/// How long a session waits for the one before it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long what a dropped session left running may go on before it is cancelled.
const LEFTOVERS: Duration = Duration::from_millis(50);

/// The source of a test's sessions.
pub(crate) struct TestTransaction {
    engine: Engine,
    shared: Arc<TurnMutex<Shared>>,
    /// The line that holds the connection now.
    holder: Arc<Mutex<Option<&'static Location<'static>>>>,
}

#[derive(Default)]
struct Shared {
    connection: Option<OwnedPooledConnection<PgBackend>>,
    /// How many savepoints there were: they are never named alike.
    made: u64,
    /// Whether the connection had to be closed.
    broken: bool,
}

impl TestTransaction {
    pub(crate) fn new(engine: Engine) -> Self {
        Self {
            engine,
            shared: Arc::default(),
            holder: Arc::default(),
        }
    }

    async fn turn(&self, request: Checkout<'_>) -> Result<Joined, Error> {
        let turn = timeout(PATIENCE, Arc::clone(&self.shared).lock_owned()).await;
        let Ok(mut shared) = turn else {
            let holder = match *self.holder.lock() {
                Some(place) => format!(" held by the session of {place}"),
                None => String::new(),
            };
            return Err(Error::new(
                ErrorKind::PoolTimeout,
                format!(
                    "the one connection of a test transaction did not come free within {PATIENCE:?},{holder}: \
                     a session can't wait for another that is open beside it"
                ),
            ));
        };
        match &shared.connection {
            None if shared.broken => return Err(broken()),
            None => {
                let connection = self.engine.pool().get_owned_at(request.place).await?;
                connection.driver().simple_query("BEGIN").await?;
                connection.settled();
                shared.connection = Some(connection);
            }
            Some(connection) => come_to_rest(connection, shared.made).await?,
        }
        shared.made += 1;
        *self.holder.lock() = Some(request.place);
        Ok(Joined {
            savepoint: format!("test_{}", shared.made),
            shared,
            open: false,
            holder: Arc::clone(&self.holder),
        })
    }
}

fn broken() -> Error {
    Error::new(
        ErrorKind::ConnectionLost,
        "the connection of this test transaction broke, and all that was done on it is rolled back",
    )
}

/// Waits for what the session before left behind, and cancels it if it takes long.
async fn come_to_rest(connection: &PgConnection, last: u64) -> Result<(), Error> {
    if connection.is_closed() {
        return Err(broken());
    }
    if connection.is_unsettled() {
        // An empty query is answered when all before it has been.
        if timeout(LEFTOVERS, connection.driver().simple_query(""))
            .await
            .is_err()
        {
            connection.cancel().await?;
        }
        for _ in 0..2 {
            match connection
                .driver()
                .simple_query("")
                .await
                .map_err(Error::from)
            {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Cancelled => {}
                Err(error) => return Err(error),
            }
        }
        if connection.wire().transaction() == TransactionStatus::Failed {
            // The cancel struck the rollback itself.
            let again = roll_back_to(&format!("test_{last}"));
            connection.driver().simple_query(&again).await?;
        }
        connection.settled();
    }
    if !connection.is_in_transaction() {
        return Err(Error::new(
            ErrorKind::TransactionFailed,
            "the test transaction was ended by a statement of its sessions (COMMIT or ROLLBACK), so nothing \
             would be rolled back any more",
        ));
    }
    Ok(())
}

/// Undoes what was done since a savepoint, and forgets it.
fn roll_back_to(savepoint: &str) -> String {
    format!("ROLLBACK TO SAVEPOINT {savepoint}; RELEASE SAVEPOINT {savepoint}")
}

impl ConnectionSource for TestTransaction {
    fn checkout<'a>(&'a self, request: Checkout<'a>) -> CheckoutFuture<'a> {
        Box::pin(async move { Ok(Lease::joined(self.turn(request).await?)) })
    }
}

/// A session's turn on the connection.
///
/// Dropped, it undoes what was not released, without waiting.
pub(crate) struct Joined {
    shared: OwnedMutexGuard<Shared>,
    savepoint: String,
    /// Whether the savepoint has to be rolled back when the turn ends.
    open: bool,
    holder: Arc<Mutex<Option<&'static Location<'static>>>>,
}

impl Joined {
    /// What begins the session's part; from now on it counts as sent.
    pub(crate) fn begin(&mut self) -> String {
        self.open = true;
        format!("SAVEPOINT {}", self.savepoint)
    }

    /// What keeps the session's part; from now on it counts as sent.
    pub(crate) fn release(&mut self) -> String {
        self.open = false;
        format!("RELEASE SAVEPOINT {}", self.savepoint)
    }

    /// Has the connection closed, and with it the whole transaction.
    pub(crate) fn close(&mut self) {
        self.open = false;
        if let Some(connection) = self.shared.connection.take() {
            connection.invalidate();
        }
        self.shared.broken = true;
    }

    pub(crate) fn report(&mut self, error: &Error) {
        if let Some(connection) = &mut self.shared.connection {
            connection.report(error);
        }
    }
}

impl Deref for Joined {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.shared
            .connection
            .as_ref()
            .expect("a turn is given only with a connection")
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if std::mem::take(&mut self.open) {
            self.queue(&roll_back_to(&self.savepoint));
        }
        *self.holder.lock() = None;
    }
}
