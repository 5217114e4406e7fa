//! Advisory locks: on a connection that is held for it, and for the length of a transaction.
//!
//! # What always holds
//! A connection that may still have a lock never goes back to its pool: from before the lock is asked for until the
//! server has confirmed that it is gone the connection is [`Doomed`], closed wherever its holder is dropped.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::{Row, SimpleQueryMessage};

use crate::connection::PgConnection;
use crate::engine::{Connection, Engine};
use crate::error::{Error, ErrorKind};
use crate::fnv::fnv1a;
use crate::session::{Session, exactly_one};

/// How long the server may take to confirm an unlock before the connection is closed instead.
const UNLOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// What an advisory lock is on: one number of 64 bits, two of 32, or a name.
///
/// The server keeps one number and two numbers apart; a name is turned into one number (FNV-1a of its UTF-8 bytes,
/// the same in every version of this crate), so it can meet a number that somebody else chose.
///
/// ```
/// use pool_postgres::LockKey;
/// assert_eq!(LockKey::from(7_i64).to_string(), "7");
/// assert_eq!(LockKey::from((1, 2)).to_string(), "1, 2");
/// assert_eq!(LockKey::from("nightly report"), LockKey::from("nightly report"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockKey(Key);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    One(i64),
    Two(i32, i32),
}

impl From<i64> for LockKey {
    fn from(number: i64) -> Self {
        Self(Key::One(number))
    }
}

impl From<(i32, i32)> for LockKey {
    fn from((class, object): (i32, i32)) -> Self {
        Self(Key::Two(class, object))
    }
}

impl From<&str> for LockKey {
    fn from(name: &str) -> Self {
        Self(Key::One(fnv1a(name.as_bytes()).cast_signed()))
    }
}

/// As the arguments of the server's functions.
impl fmt::Display for LockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Key::One(number) => write!(f, "{number}"),
            Key::Two(class, object) => write!(f, "{class}, {object}"),
        }
    }
}

/// Whether others may hold the same lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LockMode {
    /// Nobody else.
    #[default]
    Exclusive,
    /// Others that ask for it as shared.
    Shared,
}

impl LockMode {
    fn suffix(self) -> &'static str {
        match self {
            Self::Exclusive => "",
            Self::Shared => "_shared",
        }
    }
}

/// An advisory lock that is held on a connection of its own; made by [`Engine::advisory_lock`].
///
/// It takes a slot of the pool for as long as it is held. Dropped, the lock is given up in the background and the
/// connection goes back; where the server does not confirm that, the connection is closed, which ends the lock too.
///
/// The lock is the connection's: if that breaks, the server lets go of it and somebody else may take it while you
/// still work. Work that must not go on then waits for [`lost`](Self::lost) beside it.
///
/// ```no_run
/// # async fn work() {}
/// # async fn example(engine: pool_postgres::Engine) -> Result<(), pool_postgres::Error> {
/// if let Some(lock) = engine.try_advisory_lock("nightly report").await? {
///     tokio::select! {
///         () = work() => lock.release().await?,
///         () = lock.lost() => { /* stop: another instance may have begun */ }
///     }
/// }
/// # Ok(()) }
/// ```
#[must_use = "dropping it gives the lock up at once"]
pub struct AdvisoryLock {
    /// Present until the lock is released or dropped.
    held: Option<Doomed>,
    key: LockKey,
    mode: LockMode,
}

impl AdvisoryLock {
    /// What it is on.
    pub fn key(&self) -> LockKey {
        self.key
    }

    /// Whether the connection has broken, so far as is known here: then somebody else may have the lock. Asks
    /// nobody; a network that swallows packets is noticed by TCP's keepalive.
    pub fn is_lost(&self) -> bool {
        self.held
            .as_ref()
            .is_none_or(|held| held.connection().is_closed())
    }

    /// Waits until the connection breaks. Never ready while the lock is held.
    ///
    /// # Cancel safety
    /// May be dropped at any point.
    pub async fn lost(&self) {
        if let Some(held) = &self.held {
            held.connection().gone().await;
        }
    }

    /// Gives the lock up and the connection back, and waits until that is done.
    ///
    /// # Cancel safety
    /// Dropped half-way, the lock is given up all the same.
    ///
    /// # Errors
    /// [`ErrorKind::ConnectionLost`]: the lock had been lost before, so what was done under it was perhaps not alone.
    pub async fn release(mut self) -> Result<(), Error> {
        match self.held.take() {
            Some(held) => unlock(held, self.key, self.mode).await,
            None => Ok(()),
        }
    }
}

impl Drop for AdvisoryLock {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        // Without a runtime it stays doomed, and is closed.
        if let Ok(runtime) = Handle::try_current() {
            let (key, mode) = (self.key, self.mode);
            runtime.spawn(async move {
                if let Err(error) = unlock(held, key, mode).await {
                    tracing::debug!(%error, "an advisory lock ended with its connection");
                }
            });
        }
    }
}

impl fmt::Debug for AdvisoryLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdvisoryLock")
            .field("key", &self.key)
            .field("mode", &self.mode)
            .field("lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

/// A connection that is closed when this is dropped, unless it is spared.
struct Doomed(Option<Connection>);

impl Doomed {
    fn connection(&self) -> &PgConnection {
        self.0
            .as_ref()
            .expect("taken out by `spare` alone, which ends this")
    }

    /// Lets it go back to its pool.
    fn spare(mut self) {
        if let Some(connection) = self.0.take() {
            connection.settled();
        }
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            connection.invalidate();
        }
    }
}

/// Asks a function that answers with one value, as text.
async fn ask(connection: &PgConnection, sql: &str) -> Result<Option<String>, Error> {
    let answer = connection.driver().simple_query(sql).await?;
    Ok(answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

async fn unlock(held: Doomed, key: LockKey, mode: LockMode) -> Result<(), Error> {
    let sql = format!("SELECT pg_advisory_unlock{}({key})", mode.suffix());
    let lost =
        "the connection that held an advisory lock broke, so somebody else may have taken it";
    match timeout(UNLOCK_TIMEOUT, ask(held.connection(), &sql)).await {
        Ok(Ok(Some(answer))) if answer == "t" => {
            held.spare();
            Ok(())
        }
        Ok(Err(error)) => Err(Error::from_source(ErrorKind::ConnectionLost, lost, error)),
        Ok(Ok(_)) => Err(Error::new(
            ErrorKind::ConnectionLost,
            "the server says that an advisory lock was not held any more",
        )),
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            format!(
                "the server did not confirm an unlock within {UNLOCK_TIMEOUT:?}; the connection is closed"
            ),
        )),
    }
}

impl Engine {
    /// Waits for an advisory lock and holds it on a connection of its own. Exclusive; see
    /// [`advisory_lock_in`](Self::advisory_lock_in) for a shared one.
    ///
    /// # Cancel safety
    /// Dropped at any point, no lock is left behind: the connection is closed if it might have one.
    ///
    /// # Errors
    /// The pool's or the server's (`lock_timeout` counts here). [`ErrorKind::Usage`] on a standby, where the lock would
    /// exclude nobody elsewhere.
    #[track_caller]
    pub fn advisory_lock(
        &self,
        key: impl Into<LockKey>,
    ) -> impl Future<Output = Result<AdvisoryLock, Error>> + Send {
        self.advisory_lock_in(LockMode::Exclusive, key)
    }

    /// Waits for an advisory lock of this mode. As [`advisory_lock`](Self::advisory_lock).
    #[track_caller]
    pub fn advisory_lock_in(
        &self,
        mode: LockMode,
        key: impl Into<LockKey>,
    ) -> impl Future<Output = Result<AdvisoryLock, Error>> + Send {
        let (place, key) = (Location::caller(), key.into());
        async move {
            let held = self.doomed(place).await?;
            let sql = format!("SELECT pg_advisory_lock{}({key})", mode.suffix());
            let answer = ask(held.connection(), &sql).await;
            locked(held, answer.map(|_| true), key, mode)
                .map(|lock| lock.expect("the server answers once the lock is had"))
        }
    }

    /// Takes an advisory lock if it is free; `None` if it is not. Exclusive. As
    /// [`advisory_lock`](Self::advisory_lock), and never waits for whoever has it.
    #[track_caller]
    pub fn try_advisory_lock(
        &self,
        key: impl Into<LockKey>,
    ) -> impl Future<Output = Result<Option<AdvisoryLock>, Error>> + Send {
        self.try_advisory_lock_in(LockMode::Exclusive, key)
    }

    /// Takes an advisory lock of this mode if it is free. As [`try_advisory_lock`](Self::try_advisory_lock).
    #[track_caller]
    pub fn try_advisory_lock_in(
        &self,
        mode: LockMode,
        key: impl Into<LockKey>,
    ) -> impl Future<Output = Result<Option<AdvisoryLock>, Error>> + Send {
        let (place, key) = (Location::caller(), key.into());
        async move {
            let held = self.doomed(place).await?;
            let sql = format!("SELECT pg_try_advisory_lock{}({key})", mode.suffix());
            let answer = ask(held.connection(), &sql).await;
            locked(
                held,
                answer.map(|got| got.as_deref() == Some("t")),
                key,
                mode,
            )
        }
    }

    /// A connection to lock on.
    async fn doomed(&self, place: &'static Location<'static>) -> Result<Doomed, Error> {
        self.needs_the_server("an advisory lock with a guard")?;
        let connection = self.pool().get_owned_at(place).await?;
        if connection.in_hot_standby() == Some(true) {
            return Err(Error::new(
                ErrorKind::Usage,
                "an advisory lock on a standby excludes nobody on the primary or on other standbys: take it on \
                 the primary",
            ));
        }
        Ok(Doomed(Some(connection)))
    }
}

/// What a server's answer to the wish for a lock means.
fn locked(
    held: Doomed,
    answer: Result<bool, Error>,
    key: LockKey,
    mode: LockMode,
) -> Result<Option<AdvisoryLock>, Error> {
    match answer {
        Ok(true) => Ok(Some(AdvisoryLock {
            held: Some(held),
            key,
            mode,
        })),
        Ok(false) => {
            held.spare();
            Ok(None)
        }
        Err(error) => {
            // The server refused: there is no lock. A broken connection stays doomed.
            if error.connection_is_good() {
                held.spare();
            }
            Err(error)
        }
    }
}

impl Session {
    /// Waits for an advisory lock that lasts until the transaction ends. Exclusive.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query); the lock ends with the transaction in any case.
    ///
    /// # Errors
    /// Those of [`query`](Self::query). [`ErrorKind::Usage`] in a read-only session, which may be on a standby, where the
    /// lock would exclude nobody elsewhere, and in autocommit mode, where it would end at once; nothing was sent.
    #[track_caller]
    pub fn advisory_lock(
        &mut self,
        key: impl Into<LockKey>,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        self.advisory_lock_in(LockMode::Exclusive, key)
    }

    /// Waits for an advisory lock of this mode. As [`advisory_lock`](Self::advisory_lock).
    #[track_caller]
    pub fn advisory_lock_in(
        &mut self,
        mode: LockMode,
        key: impl Into<LockKey>,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        let (place, key) = (Location::caller(), key.into());
        async move {
            self.lock_at(place, "pg_advisory_xact_lock", mode, key)
                .await?;
            Ok(())
        }
    }

    /// Takes an advisory lock that lasts until the transaction ends, if it is free, and says whether it was.
    /// Exclusive. As [`advisory_lock`](Self::advisory_lock).
    #[track_caller]
    pub fn try_advisory_lock(
        &mut self,
        key: impl Into<LockKey>,
    ) -> impl Future<Output = Result<bool, Error>> + Send {
        self.try_advisory_lock_in(LockMode::Exclusive, key)
    }

    /// Takes an advisory lock of this mode, if it is free. As [`try_advisory_lock`](Self::try_advisory_lock).
    #[track_caller]
    pub fn try_advisory_lock_in(
        &mut self,
        mode: LockMode,
        key: impl Into<LockKey>,
    ) -> impl Future<Output = Result<bool, Error>> + Send {
        let (place, key) = (Location::caller(), key.into());
        async move {
            let rows = self
                .lock_at(place, "pg_try_advisory_xact_lock", mode, key)
                .await?;
            Ok(exactly_one(rows)?.get(0))
        }
    }

    async fn lock_at(
        &mut self,
        place: &'static Location<'static>,
        function: &str,
        mode: LockMode,
        key: LockKey,
    ) -> Result<Vec<Row>, Error> {
        self.may_lock()?;
        let suffix = mode.suffix();
        match key.0 {
            Key::One(number) => {
                let sql = format!("SELECT {function}{suffix}($1)");
                self.collect(place, &sql, &[&number]).await
            }
            Key::Two(class, object) => {
                let sql = format!("SELECT {function}{suffix}($1, $2)");
                self.collect(place, &sql, &[&class, &object]).await
            }
        }
    }

    fn may_lock(&self) -> Result<(), Error> {
        let fault = if self.options().read_only {
            "a read-only session may be on a standby, where an advisory lock excludes nobody elsewhere: take it in a \
             session that may write"
        } else if self.options().autocommit {
            "in autocommit mode an advisory lock would end with its own statement: take it in a transaction, or by \
             Engine::advisory_lock"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Usage, fault))
    }
}
