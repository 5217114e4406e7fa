//! Single statements on an engine, beyond the plain ones: typed, streamed, in a batch, copied.
//!
//! Each is a session in autocommit that lasts for one statement.

use std::panic::Location;
use std::sync::Arc;

use tokio_postgres::types::{FromSqlOwned, ToSql};

use super::Engine;
use crate::copy::{CopyIn, CopyOut};
use crate::error::Error;
use crate::factory::SessionFactory;
use crate::row::{self, FromRow};
use crate::session::{Held, Session};
use crate::stream::RowStream;
use crate::tally::Counts;
use crate::test_transaction::TestTransaction;

impl Engine {
    /// Runs one statement by itself and reads each row as a tuple or a struct; see [`FromRow`]. Otherwise as
    /// [`query`](Self::query).
    ///
    /// # Errors
    /// Also [`ErrorKind::Row`](crate::ErrorKind::Row) for a row that does not fit; the statement has run.
    #[track_caller]
    pub fn query_as<T: FromRow>(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<Vec<T>, Error>> + Send {
        let rows = self.query(sql, params);
        async { row::read_all(&rows.await?) }
    }

    /// Runs one statement that gives exactly one row, and reads it. As [`query_as`](Self::query_as).
    #[track_caller]
    pub fn query_one_as<T: FromRow>(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<T, Error>> + Send {
        let row = self.query_one(sql, params);
        async { T::from_row(&row.await?) }
    }

    /// Runs one statement that gives one row or none, and reads it. As [`query_as`](Self::query_as).
    #[track_caller]
    pub fn query_opt_as<T: FromRow>(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<Option<T>, Error>> + Send {
        let row = self.query_opt(sql, params);
        async { row.await?.as_ref().map(T::from_row).transpose() }
    }

    /// Runs one statement that gives exactly one row of one column, and reads that. As
    /// [`query_as`](Self::query_as).
    #[track_caller]
    pub fn query_scalar<T: FromSqlOwned>(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<T, Error>> + Send {
        let row = self.query_one(sql, params);
        async { row::scalar(&row.await?) }
    }

    /// Runs one statement by itself and gives its rows as they arrive. The stream keeps the connection until its
    /// end.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    ///
    /// # Errors
    /// As [`query`](Self::query); what fails later comes in the stream's place of a row.
    #[track_caller]
    pub fn query_stream(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<RowStream<'static>, Error>> + Send {
        self.alone().into_stream(sql, params)
    }

    /// Runs several statements, separated by semicolons, outside a transaction of ours: the server runs them as
    /// one of its own, unless they say otherwise. They take no parameters.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    ///
    /// # Errors
    /// As [`query`](Self::query).
    #[track_caller]
    pub fn batch(&self, sql: &str) -> impl Future<Output = Result<(), Error>> + Send {
        let mut session = self.alone();
        let place = Location::caller();
        async move { session.run_batch(place, sql).await }
    }

    /// Starts a `COPY … FROM STDIN` by itself; it is kept once [`CopyIn::finish`] succeeds.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    ///
    /// # Errors
    /// As [`Session::copy_in`].
    #[track_caller]
    pub fn copy_in(
        &self,
        sql: &str,
    ) -> impl Future<Output = Result<CopyIn<'static>, Error>> + Send {
        CopyIn::start(Held::Owned(Box::new(self.alone())), Location::caller(), sql)
    }

    /// Starts a `COPY … TO STDOUT` by itself.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    ///
    /// # Errors
    /// As [`Session::copy_out`].
    #[track_caller]
    pub fn copy_out(
        &self,
        sql: &str,
    ) -> impl Future<Output = Result<CopyOut<'static>, Error>> + Send {
        CopyOut::start(Held::Owned(Box::new(self.alone())), Location::caller(), sql)
    }

    /// Makes sessions for a test: all run in one transaction that is never committed, so they leave nothing.
    ///
    /// Code under test takes the factory as it takes any other. A session's commit is seen by the sessions after
    /// it, its rollback and its drop undo what it did; when the last factory and session are gone, everything is
    /// rolled back. Tests side by side each take their own, and see nothing of each other.
    ///
    /// All sessions share one connection, borrowed from this engine's pool at the first statement, so one waits
    /// for the other, and two at the same time in one task wait in vain (10 seconds, then
    /// [`ErrorKind::PoolTimeout`](crate::ErrorKind::PoolTimeout)). The isolation level is the server's default,
    /// whatever the options say. Not undone is what PostgreSQL does not undo: values of sequences. What needs to
    /// run outside transactions (`VACUUM`) is refused; that, and what must commit in earnest, is tested on a
    /// database of its own.
    ///
    /// ```no_run
    /// use pool_postgres::{Engine, Error, SessionFactory};
    ///
    /// async fn sign_up(sessions: &SessionFactory, name: &str) -> Result<i64, Error> {
    ///     sessions
    ///         .begin(async |s| {
    ///             let sql = "INSERT INTO users (name) VALUES ($1) RETURNING id";
    ///             s.query_scalar(sql, &[&name]).await
    ///         })
    ///         .await
    /// }
    ///
    /// # async fn example(engine: Engine) -> Result<(), Error> {
    /// let sessions = engine.test_transaction();
    /// let id = sign_up(&sessions, "Ada").await?;
    /// let mut session = sessions.session();
    /// let name: String = session.query_scalar("SELECT name FROM users WHERE id = $1", &[&id]).await?;
    /// assert_eq!(name, "Ada");
    /// # Ok(()) }
    /// ```
    pub fn test_transaction(&self) -> SessionFactory {
        let source = TestTransaction::new(self.clone());
        SessionFactory::from_source(Arc::new(source), self.options())
    }

    /// What this engine's sessions have met since it was built.
    pub fn counts(&self) -> Counts {
        self.tally.counts()
    }

    /// A session for one statement.
    pub(super) fn alone(&self) -> Session {
        let options = self.options().autocommit();
        Session::new(Arc::new(self.clone()), options)
    }
}
