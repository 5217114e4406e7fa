//! Managers written for bb8: asynchronous, so each call is passed on as it is.

use std::error::Error;
use std::fmt;

use ::bb8::ManageConnection;

use super::{Errors, health};
use crate::backend::{Backend, Failure, Health, When};

/// A [`Backend`] from a manager written for bb8; made by [`Bb8`](fn@Bb8).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # struct Manager;
/// # impl bb8::ManageConnection for Manager {
/// #     type Connection = String;
/// #     type Error = std::io::Error;
/// #     async fn connect(&self) -> Result<String, Self::Error> { Ok("hello".into()) }
/// #     async fn is_valid(&self, _: &mut String) -> Result<(), Self::Error> { Ok(()) }
/// #     fn has_broken(&self, _: &mut String) -> bool { false }
/// # }
/// use pool_core::{Pool, compat};
///
/// let pool = Pool::builder(compat::Bb8(Manager)).pool_size(8).build()?;
/// assert_eq!(*pool.get().await?, "hello");
///
/// struct Service {
///     pool: Pool<compat::Bb8<Manager>>,
/// }
/// # let _ = Service { pool };
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct Bb8<M: ManageConnection, E = <M as ManageConnection>::Error> {
    manager: M,
    errors: Errors<M::Error, E>,
}

/// Makes a [`Backend`] from a manager written for bb8.
///
/// Its error has to be a [`std::error::Error`] that may be shared between threads. bb8 does not ask for that,
/// though nearly all managers do it; for the others there is [`Bb8::map_err`].
#[allow(non_snake_case, reason = "reads as the constructor that it is")]
pub fn Bb8<M: ManageConnection>(manager: M) -> Bb8<M> {
    Bb8 {
        manager,
        errors: Errors::converted(|error| error),
    }
}

impl<M: ManageConnection, E: 'static> Bb8<M, E> {
    /// Converts the manager's errors: for a manager whose own are no [`std::error::Error`].
    ///
    /// ```
    /// # struct Manager;
    /// # impl bb8::ManageConnection for Manager {
    /// #     type Connection = u8;
    /// #     type Error = std::cell::Cell<u8>;
    /// #     async fn connect(&self) -> Result<u8, Self::Error> { Ok(7) }
    /// #     async fn is_valid(&self, _: &mut u8) -> Result<(), Self::Error> { Ok(()) }
    /// #     fn has_broken(&self, _: &mut u8) -> bool { false }
    /// # }
    /// # use pool_core::{Pool, compat};
    /// let backend = compat::Bb8(Manager).map_err(|error| std::io::Error::other(format!("{error:?}")));
    /// let pool = Pool::builder(backend).build()?;
    /// # Ok::<(), pool_core::BuildError>(())
    /// ```
    pub fn map_err<F>(self, convert: impl Fn(E) -> F + Send + Sync + 'static) -> Bb8<M, F> {
        let first = self.errors.convert;
        Bb8 {
            manager: self.manager,
            errors: Errors::converted(move |error| convert(first(error))),
        }
    }

    /// Tells what an error says about the other connections; see [`Backend::classify`].
    ///
    /// Default: [`Failure::Transient`]. Forgotten by a later [`map_err`](Self::map_err).
    pub fn classify(mut self, classify: impl Fn(&E) -> Failure + Send + Sync + 'static) -> Self {
        self.errors.classify = Some(Box::new(classify));
        self
    }

    /// The manager.
    pub fn manager(&self) -> &M {
        &self.manager
    }
}

impl<M: ManageConnection + fmt::Debug, E> fmt::Debug for Bb8<M, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bb8").field(&self.manager).finish()
    }
}

impl<M, E> Backend for Bb8<M, E>
where
    M: ManageConnection,
    E: Error + Send + Sync + 'static,
{
    type Connection = M::Connection;
    type Error = E;

    async fn connect(&self) -> Result<M::Connection, E> {
        let opened = self.manager.connect().await;
        opened.map_err(&*self.errors.convert)
    }

    fn check(&self, conn: &mut M::Connection, _: When) -> Health {
        health(self.manager.has_broken(conn))
    }

    async fn ping(&self, conn: &mut M::Connection) -> Result<(), E> {
        let valid = self.manager.is_valid(conn).await;
        valid.map_err(&*self.errors.convert)
    }

    fn classify(&self, error: &E) -> Failure {
        self.errors.classify(error)
    }
}
