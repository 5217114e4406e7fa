//! Where a connection's password comes from.
//!
//! It is settled when the connection is opened and never kept longer: a provider is asked at each connect and a
//! password file read at each, so that what was rotated is used by the next connection.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::address::{PassFile, Place, Secret};
use crate::error::{Error, ErrorKind};

type Cause = Box<dyn StdError + Send + Sync>;
type Provided = Pin<Box<dyn Future<Output = Result<String, Cause>> + Send>>;

/// Asks somebody for the password.
pub(crate) type Provider = Arc<dyn Fn() -> Provided + Send + Sync>;

/// Makes a provider of what a user wrote.
pub(crate) fn provider<F, P, E>(ask: F) -> Provider
where
    F: Fn() -> P + Send + Sync + 'static,
    P: Future<Output = Result<String, E>> + Send + 'static,
    E: Into<Cause>,
{
    Arc::new(move || {
        let answer = ask();
        Box::pin(async { answer.await.map_err(Into::into) })
    })
}

/// Where passwords come from.
pub(crate) enum Passwords {
    Given(Secret),
    Provided { ask: Provider, patience: Duration },
    File(PassFile),
    None,
}

impl Passwords {
    /// The password for a place; `None` where there is none, which a server may be content with.
    pub(crate) async fn find(
        &self,
        place: &Place,
        dbname: &str,
        user: &str,
    ) -> Result<Option<Secret>, Error> {
        match self {
            Self::Given(secret) => Ok(Some(secret.clone())),
            Self::File(file) => Ok(file.find(place, dbname, user)),
            Self::None => Ok(None),
            Self::Provided { ask, patience } => match timeout(*patience, ask()).await {
                Ok(Ok(password)) if password.contains('\0') => Err(Error::new(
                    ErrorKind::Connect,
                    "the password provider gave a password that holds a NUL, which PostgreSQL can't take",
                )),
                Ok(Ok(password)) => Ok(Some(Secret(password))),
                Ok(Err(cause)) => Err(Error::from_boxed(
                    ErrorKind::Connect,
                    "the password provider failed",
                    cause,
                )),
                Err(_elapsed) => Err(Error::new(
                    ErrorKind::Connect,
                    format!(
                        "the password provider did not answer within {patience:?}, four fifths of \
                         connect_timeout"
                    ),
                )),
            },
        }
    }

    /// Whether asking again may give another password.
    pub(crate) fn may_have_changed(&self) -> bool {
        matches!(self, Self::Provided { .. } | Self::File(_))
    }

    /// What to add to an error of the server's that says that the password is wrong.
    pub(crate) fn origin(&self) -> Option<String> {
        match self {
            Self::File(file) => Some(format!(
                "the password came from the password file {}",
                file.path().display()
            )),
            Self::Provided { .. } => {
                Some("the password came from the password provider".to_owned())
            }
            Self::Given(_) | Self::None => None,
        }
    }
}
