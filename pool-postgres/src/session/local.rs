//! Settings for one transaction: set by a statement, or by a factory for all of its sessions' transactions.
//!
//! All go through `set_config(…, true)`, which is `SET LOCAL`: names and values are parameters, so there is
//! nothing to quote (but in [`Locals`], which travel with `BEGIN`), and the server takes them back at the end of the transaction, however it ends.

use std::fmt::Write as _;
use std::panic::Location;

use super::Session;
use crate::error::{Error, ErrorKind};
use crate::sql_text::{quote_identifier, quote_literal};

const SET_LOCAL: &str = "SELECT set_config($1, $2, true)";

impl Session {
    /// Sets a setting for this transaction, as `SET LOCAL` does; begins the transaction if need be.
    ///
    /// The name and the value are handed over as they are, whatever is in them. Inside a savepoint that is
    /// rolled back, the setting is too.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] in autocommit, where there is no transaction and something would be left behind; the
    /// server's for names and values that it doesn't know.
    #[track_caller]
    pub fn set_local(
        &mut self,
        name: &str,
        value: &str,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        let place = Location::caller();
        async move { self.set_local_at(place, name, value).await }
    }

    /// Takes on a role for this transaction, as `SET LOCAL ROLE` does.
    ///
    /// It guards against mistakes and not against hostile SQL, which can say `RESET ROLE`.
    ///
    /// # Errors
    /// As [`set_local`](Self::set_local).
    #[track_caller]
    pub fn set_local_role(&mut self, role: &str) -> impl Future<Output = Result<(), Error>> + Send {
        self.set_local("role", role)
    }

    /// Sets in which schemas names are looked up for this transaction. The schemas' names are quoted.
    ///
    /// # Errors
    /// As [`set_local`](Self::set_local).
    #[track_caller]
    pub fn set_local_search_path(
        &mut self,
        schemas: &[&str],
    ) -> impl Future<Output = Result<(), Error>> + Send {
        let place = Location::caller();
        let path: Vec<_> = schemas
            .iter()
            .map(|schema| quote_identifier(schema))
            .collect();
        let path = path.join(", ");
        async move { self.set_local_at(place, "search_path", &path).await }
    }

    async fn set_local_at(
        &mut self,
        place: &'static Location<'static>,
        name: &str,
        value: &str,
    ) -> Result<(), Error> {
        if self.options.autocommit {
            return Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "{name:?} can only be set for a transaction, and this session is in autocommit mode: use \
                     a session without it"
                ),
            ));
        }
        self.collect(place, SET_LOCAL, &[&name, &value]).await?;
        Ok(())
    }
}

/// What a factory sets for each of its transactions, as SQL that follows `BEGIN`.
#[derive(Clone, Default)]
pub(crate) struct Locals {
    sql: String,
    /// A name or a value that can't be sent.
    fault: Option<String>,
}

impl Locals {
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        if name.contains('\0') || value.contains('\0') {
            self.fault.get_or_insert_with(|| format!("{name:?}"));
            return;
        }
        let _ = write!(
            self.sql,
            ";SELECT pg_catalog.set_config({}, {}, true)",
            quote_literal(name),
            quote_literal(value)
        );
    }

    /// Whether they can be set.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where there is no transaction, and for a NUL.
    pub(super) fn check(&self, in_transaction: bool) -> Result<(), Error> {
        if let Some(name) = &self.fault {
            return Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "the setting {name} or its value holds a NUL, which PostgreSQL takes nowhere in a text"
                ),
            ));
        }
        if !self.sql.is_empty() && !in_transaction {
            return Err(Error::new(
                ErrorKind::Usage,
                "the factory's settings (with_local) are for transactions, and this session is in autocommit \
                 mode: use one without it",
            ));
        }
        Ok(())
    }

    /// What sets them, behind `BEGIN`.
    pub(super) fn sql(&self) -> &str {
        &self.sql
    }
}
