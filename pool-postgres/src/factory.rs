//! Session factories: what a service keeps, to make a session for each request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::error::Error;
use crate::retry::Retry;
use crate::session::{IsolationLevel, Locals, Scope, Session, SessionOptions};
use crate::source::ConnectionSource;

/// Makes sessions that take their connections from one source.
///
/// Cheap to clone. Code that takes a factory runs unchanged on one database, on a routed one and on a
/// tenant's.
///
/// ```no_run
/// use pool_postgres::{Engine, Error, SessionFactory};
///
/// # async fn example() -> Result<(), Error> {
/// let engine = Engine::builder("postgresql://app:secret@localhost/shop").build()?;
/// let sessions = SessionFactory::new(engine);
/// let id = sessions
///     .begin::<Error, _>(async |s| {
///         let row = s.query_one("INSERT INTO users (name) VALUES ($1) RETURNING id", &[&"Ada"]).await?;
///         Ok(row.get::<_, i64>(0))
///     })
///     .await?;
/// # let _ = id; Ok(()) }
/// ```
#[derive(Clone)]
pub struct SessionFactory {
    source: Arc<dyn ConnectionSource>,
    options: SessionOptions,
    locals: Option<Arc<Locals>>,
}

impl SessionFactory {
    /// Sessions on this engine, which begin as [`Engine::with_options`] says; by default with the server's own
    /// defaults.
    pub fn new(engine: Engine) -> Self {
        let options = engine.options();
        Self::from_source(Arc::new(engine), options)
    }

    /// Sessions on any source.
    pub fn from_source(source: Arc<dyn ConnectionSource>, options: SessionOptions) -> Self {
        Self {
            source,
            options,
            locals: None,
        }
    }

    /// How this factory's sessions begin.
    pub fn options(&self) -> SessionOptions {
        self.options
    }

    /// A factory on the same source whose sessions begin otherwise.
    pub fn with_options(&self, options: SessionOptions) -> Self {
        Self {
            source: Arc::clone(&self.source),
            options,
            locals: self.locals.clone(),
        }
    }

    /// A factory whose sessions are read-only on the server.
    pub fn read_only(&self) -> Self {
        self.with_options(self.options.read_only())
    }

    /// A factory whose sessions begin with this isolation level.
    pub fn isolation(&self, level: impl Into<Option<IsolationLevel>>) -> Self {
        self.with_options(self.options.isolation(level))
    }

    /// A factory whose sessions run each statement by itself, without BEGIN.
    pub fn autocommit(&self) -> Self {
        self.with_options(self.options.autocommit())
    }

    /// A factory whose sessions' statements take no longer; see [`SessionOptions::statement_timeout`].
    pub fn statement_timeout(&self, limit: impl Into<Option<Duration>>) -> Self {
        self.with_options(self.options.statement_timeout(limit))
    }

    /// A factory whose sessions' transactions take no longer; see [`SessionOptions::transaction_timeout`].
    pub fn transaction_timeout(&self, limit: impl Into<Option<Duration>>) -> Self {
        self.with_options(self.options.transaction_timeout(limit))
    }

    /// A factory whose sessions wait no longer for a lock; see [`SessionOptions::lock_timeout`].
    pub fn lock_timeout(&self, limit: impl Into<Option<Duration>>) -> Self {
        self.with_options(self.options.lock_timeout(limit))
    }

    /// A factory whose sessions' transactions stand idle no longer; see
    /// [`SessionOptions::idle_in_transaction_timeout`].
    pub fn idle_in_transaction_timeout(&self, limit: impl Into<Option<Duration>>) -> Self {
        self.with_options(self.options.idle_in_transaction_timeout(limit))
    }

    /// A factory whose sessions send a first statement again, or not; see [`SessionOptions::retry_dead`].
    pub fn retry_dead(&self, again: bool) -> Self {
        self.with_options(self.options.retry_dead(again))
    }

    /// A factory whose transactions begin with this setting, as by `SET LOCAL`: a role, a `search_path`, a tenant.
    ///
    /// It travels with `BEGIN` and costs no round trip; nothing of it is left after the transaction. The name and
    /// the value are handed over as they are, whatever is in them; a `search_path` is a list of quoted names.
    /// Several are set in the order of the calls. If the server refuses one, no statement of the transaction runs.
    /// A session in autocommit is refused (its statements would leave it behind), and so is a NUL.
    ///
    /// ```no_run
    /// # use pool_postgres::{Error, SessionFactory};
    /// # async fn example(sessions: SessionFactory) -> Result<(), Error> {
    /// let sessions = sessions.with_local("role", "reporting").with_local("app.tenant", "acme");
    /// let rows = sessions.session().query("SELECT * FROM orders", &[]).await?;
    /// # let _ = rows; Ok(()) }
    /// ```
    pub fn with_local(&self, name: &str, value: &str) -> Self {
        let mut locals = self.locals.as_deref().cloned().unwrap_or_default();
        locals.add(name, value);
        Self {
            locals: Some(Arc::new(locals)),
            ..self.clone()
        }
    }

    /// A factory whose transactions are confined to a [`Scope`]: what it sets and what it proves travel with `BEGIN` and
    /// cost no round trip.
    ///
    /// There is one scope at most: confined again, to another one, all sessions of the factory fail with
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage).
    pub fn with_scope(&self, scope: &Scope) -> Self {
        let locals = match &self.locals {
            Some(locals) => Arc::new(locals.confined(scope)),
            None => Arc::clone(scope.locals()),
        };
        Self {
            locals: Some(locals),
            ..self.clone()
        }
    }

    /// A factory whose sessions collect no more rows at once; see [`SessionOptions::max_rows`].
    pub fn max_rows(&self, rows: usize) -> Self {
        self.with_options(self.options.max_rows(rows))
    }

    /// A factory whose sessions prepare each statement for one use; see [`SessionOptions::single_use`].
    pub fn single_use(&self) -> Self {
        self.with_options(self.options.single_use())
    }

    /// A session. Borrows nothing until its first statement.
    pub fn session(&self) -> Session {
        Session::new(Arc::clone(&self.source), self.options).with_locals(self.locals.clone())
    }

    /// Runs `work` in a transaction: commits on `Ok`, rolls back on `Err` and passes the error on.
    ///
    /// The error type has to be named, `begin::<AppError, _>`: the compiler cannot infer it. Inside, the
    /// session's `commit`, `rollback` and `close` are errors; savepoints work
    /// ([`Session::nested`]). The future is `Send` and can be spawned if what `work` holds is.
    ///
    /// # Cancel safety
    /// Dropped before the commit is sent, or on a panic in `work`, the transaction is rolled back. Dropped
    /// while the commit is under way, its outcome is unknown.
    ///
    /// # Errors
    /// Those of `work`, and those of [`Session::commit`].
    pub fn begin<E, T>(
        &self,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, E>,
    ) -> impl Future<Output = Result<T, E>>
    where
        E: From<Error>,
    {
        let mut session = self.managed();
        async move {
            match work(&mut session).await {
                Ok(value) => {
                    let _committed = session.commit_now().await?;
                    Ok(value)
                }
                Err(error) => {
                    session.rollback_now().await;
                    Err(error)
                }
            }
        }
    }
}

impl SessionFactory {
    /// Runs `work` in a transaction as [`begin`](Self::begin) does, and again from its start in a new one where
    /// it lost against another transaction (40001 or 40P01, met by a statement or by the commit).
    ///
    /// Whether it lost is seen by the session, so `work` may turn the error into its own. It is not tried again
    /// where the outcome is unknown, for anything else that fails, or once [`Retry::attempts`] are used up; then
    /// the last failure is passed on. What `work` does outside the transaction is done each time.
    ///
    /// ```no_run
    /// # use pool_postgres::{Error, IsolationLevel, Retry, SessionFactory};
    /// # async fn example(sessions: SessionFactory, from: i64, to: i64) -> Result<(), Error> {
    /// let sessions = sessions.isolation(IsolationLevel::Serializable);
    /// sessions
    ///     .begin_retrying::<Error, _>(Retry::serializable(), async move |s| {
    ///         s.execute("UPDATE accounts SET balance = balance - 1 WHERE id = $1", &[&from]).await?;
    ///         s.execute("UPDATE accounts SET balance = balance + 1 WHERE id = $1", &[&to]).await?;
    ///         Ok(())
    ///     })
    ///     .await
    /// # }
    /// ```
    ///
    /// The future can be spawned if the closure is `async move` and what it needs is `Copy` or cloned inside; one
    /// that borrows what it captured compiles, and fails at `spawn` with "`Send` is not general enough".
    ///
    /// # Cancel safety
    /// As [`begin`](Self::begin); dropped in a pause, nothing is open.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin), of the last attempt.
    pub fn begin_retrying<E, T>(
        &self,
        retry: Retry,
        mut work: impl AsyncFnMut(&mut Session) -> Result<T, E>,
    ) -> impl Future<Output = Result<T, E>>
    where
        E: From<Error>,
    {
        let mut session = self.managed();
        async move {
            let mut pauses = retry.pauses();
            loop {
                let failed = match work(&mut session).await {
                    Ok(value) => match session.commit_now().await {
                        Ok(_committed) => return Ok(value),
                        Err(error) => error.into(),
                    },
                    Err(error) => {
                        session.note_conflict();
                        session.rollback_now().await;
                        error
                    }
                };
                if !session.take_conflict() {
                    return Err(failed);
                }
                let Some(pause) = pauses.next() else {
                    return Err(failed);
                };
                tracing::debug!(
                    ?pause,
                    "a transaction lost against another one and is begun again"
                );
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// A session whose transaction this factory ends.
    fn managed(&self) -> Session {
        let options = SessionOptions {
            autocommit: false,
            ..self.options
        };
        let session = Session::new(Arc::clone(&self.source), options);
        let mut session = session.with_locals(self.locals.clone());
        session.set_managed();
        session
    }
}

impl From<Engine> for SessionFactory {
    fn from(engine: Engine) -> Self {
        Self::new(engine)
    }
}

impl fmt::Debug for SessionFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionFactory")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
