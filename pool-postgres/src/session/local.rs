//! Settings for one transaction, set by a statement. Those that a factory sets for all of its sessions' transactions
//! are in `scope`.
//!
//! All go through `set_config(…, true)`, which is `SET LOCAL`: names and values are parameters, so there is
//! nothing to quote, and the server takes them back at the end of the transaction, however it ends.

use std::panic::Location;

use super::Session;
use crate::error::{Error, ErrorKind};
use crate::sql_text::quote_identifier;

/// Sets for the transaction alone.
pub(super) const SET_LOCAL: &str = "SELECT set_config($1, $2, true)";

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
        if let Some(locals) = &self.locals {
            let held = |why| Error::new(ErrorKind::Usage, why);
            locals.may_set(name).map_err(held)?;
        }
        self.collect(place, SET_LOCAL, &[&name, &value]).await?;
        Ok(())
    }
}
