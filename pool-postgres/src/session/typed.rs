//! Statements whose rows are read as tuples, structs or single values.

use std::panic::Location;

use tokio_postgres::types::{FromSqlOwned, ToSql};

use super::{Session, at_most_one, exactly_one};
use crate::error::Error;
use crate::row::{self, FromRow};

impl Session {
    /// Runs a statement and reads each row as a tuple or a struct; see [`FromRow`].
    ///
    /// ```no_run
    /// # use pool_postgres::{Error, Session};
    /// # async fn example(s: &mut Session) -> Result<(), Error> {
    /// let names = s.query_as::<(i64, Option<String>)>("SELECT id, name FROM users", &[]).await?;
    /// # let _ = names; Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    ///
    /// # Errors
    /// Those of [`query`](Self::query), and [`ErrorKind::Row`](crate::ErrorKind::Row) for a row that does not
    /// fit, which leaves the transaction usable.
    #[track_caller]
    pub fn query_as<T: FromRow>(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<Vec<T>, Error>> + Send {
        let place = Location::caller();
        async move {
            let rows = self.collect(place, sql, params).await?;
            row::read_all(&rows)
        }
    }

    /// Runs a statement that gives exactly one row, and reads it; as [`query_as`](Self::query_as).
    ///
    /// # Errors
    /// Also [`ErrorKind::RowCount`](crate::ErrorKind::RowCount) for no row or several.
    #[track_caller]
    pub fn query_one_as<T: FromRow>(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<T, Error>> + Send {
        let place = Location::caller();
        async move {
            let row = exactly_one(self.collect(place, sql, params).await?)?;
            T::from_row(&row)
        }
    }

    /// Runs a statement that gives one row or none, and reads it; as [`query_as`](Self::query_as).
    ///
    /// # Errors
    /// Also [`ErrorKind::RowCount`](crate::ErrorKind::RowCount) for several rows.
    #[track_caller]
    pub fn query_opt_as<T: FromRow>(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<Option<T>, Error>> + Send {
        let place = Location::caller();
        async move {
            let row = at_most_one(self.collect(place, sql, params).await?)?;
            row.as_ref().map(T::from_row).transpose()
        }
    }

    /// Runs a statement that gives exactly one row of one column, and reads that.
    ///
    /// ```no_run
    /// # use pool_postgres::{Error, Session};
    /// # async fn example(s: &mut Session) -> Result<(), Error> {
    /// let users: i64 = s.query_scalar("SELECT count(*) FROM users", &[]).await?;
    /// # let _ = users; Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    ///
    /// # Errors
    /// Those of [`query_one_as`](Self::query_one_as).
    #[track_caller]
    pub fn query_scalar<T: FromSqlOwned>(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<T, Error>> + Send {
        let place = Location::caller();
        async move {
            let row = exactly_one(self.collect(place, sql, params).await?)?;
            row::scalar(&row)
        }
    }
}
