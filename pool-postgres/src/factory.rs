//! Session factories: what a service keeps, to make a session for each request.

use std::fmt;
use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Error;
use crate::session::{IsolationLevel, Session, SessionOptions};
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
}

impl SessionFactory {
    /// Sessions on this engine, with the server's defaults.
    pub fn new(engine: Engine) -> Self {
        Self::from_source(Arc::new(engine), SessionOptions::default())
    }

    /// Sessions on any source.
    pub fn from_source(source: Arc<dyn ConnectionSource>, options: SessionOptions) -> Self {
        Self { source, options }
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

    /// A session. Borrows nothing until its first statement.
    pub fn session(&self) -> Session {
        Session::new(Arc::clone(&self.source), self.options)
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
        let options = SessionOptions {
            autocommit: false,
            ..self.options
        };
        let mut session = Session::new(Arc::clone(&self.source), options);
        async move {
            session.set_managed();
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
