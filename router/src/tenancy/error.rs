//! Why there is no session for a tenant.

use std::error::Error as StdError;
use std::fmt;

use pool_postgres::{Error, ErrorKind};

use super::id::{BadTenantId, TenantId};
use crate::error::StartError;

/// Why there is no session for a tenant.
///
/// A session's methods fail with an [`Error`] of [`ErrorKind::Source`] where a tenant was moved or suspended after the
/// session was made; [`TenantError::behind`] finds this error in it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TenantError {
    /// The text is no tenant's id: a client's mistake (400).
    BadId(BadTenantId),
    /// There is no such tenant (404).
    Unknown {
        /// Which.
        tenant: TenantId,
    },
    /// The tenant is suspended (403).
    Suspended {
        /// Which.
        tenant: TenantId,
    },
    /// The tenant is on its way to another place: try again later (503).
    Moving {
        /// Which.
        tenant: TenantId,
    },
    /// The tenant lives elsewhere than when this session was made: make another one.
    Moved {
        /// Which.
        tenant: TenantId,
    },
    /// The tenant has as many connections as it may have, and as many that wait (503).
    Crowded {
        /// Which.
        tenant: TenantId,
        /// How many transactions of it run.
        connections: usize,
        /// How many wait.
        waiting: usize,
    },
    /// The session is another tenant's, or nobody's.
    Foreign {
        /// Whose it should be.
        expected: TenantId,
        /// Whose it is.
        found: Option<String>,
    },
    /// The tenant's placement names a database that [`Builder::database`](super::Builder::database) did not.
    NoSuchDatabase {
        /// The name.
        name: String,
        /// Those that there are.
        given: Vec<String>,
    },
    /// The placement can't be used.
    Placement {
        /// Whose.
        tenant: TenantId,
        /// What is wrong with it.
        why: String,
    },
    /// The resolver failed; nothing is known of the tenant.
    Resolver {
        /// Which tenant was asked for.
        tenant: TenantId,
        /// Why.
        cause: Error,
    },
}

impl TenantError {
    /// The tenancy's error in an error of a session's.
    pub fn behind(error: &Error) -> Option<&Self> {
        let mut cause: Option<&(dyn StdError + 'static)> = error.source();
        while let Some(error) = cause {
            if let Some(ours) = error.downcast_ref() {
                return Some(ours);
            }
            cause = error.source();
        }
        None
    }

    /// The HTTP status that fits: 400, 403, 404, 503, or 500.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::BadId(_) => 400,
            Self::Unknown { .. } => 404,
            Self::Suspended { .. } => 403,
            Self::Moving { .. }
            | Self::Moved { .. }
            | Self::Crowded { .. }
            | Self::Resolver { .. } => 503,
            Self::Foreign { .. } | Self::NoSuchDatabase { .. } | Self::Placement { .. } => 500,
        }
    }

    /// Whether trying again later may help.
    pub fn is_retryable(&self) -> bool {
        self.http_status() == 503
    }

    pub(crate) fn of_start(tenant: &TenantId, error: &StartError) -> Self {
        let why = crate::monitor::chain(error);
        Self::Placement {
            tenant: tenant.clone(),
            why,
        }
    }
}

impl fmt::Display for TenantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadId(_) => f.write_str("that is no tenant's id"),
            Self::Unknown { tenant } => write!(f, "there is no tenant {tenant}"),
            Self::Suspended { tenant } => write!(f, "the tenant {tenant} is suspended"),
            Self::Moving { tenant } => write!(
                f,
                "the tenant {tenant} is being moved to another place: try again later"
            ),
            Self::Moved { tenant } => write!(
                f,
                "the tenant {tenant} was moved after this session was made: make another one"
            ),
            Self::Crowded {
                tenant,
                connections,
                waiting,
            } => write!(
                f,
                "the tenant {tenant} has {connections} transactions under way and {waiting} that wait, which is as \
                 many as it may have"
            ),
            Self::Foreign {
                expected,
                found: Some(found),
            } => write!(
                f,
                "the session is of {found}, and one of {expected} is needed"
            ),
            Self::Foreign {
                expected,
                found: None,
            } => write!(
                f,
                "the session is no tenant's, and one of {expected} is needed"
            ),
            Self::NoSuchDatabase { name, given } => write!(
                f,
                "a tenant's placement names the database {name:?}, and there are {given:?}"
            ),
            Self::Placement { tenant, why } => {
                write!(
                    f,
                    "the placement of the tenant {tenant} can't be used: {why}"
                )
            }
            Self::Resolver { tenant, .. } => {
                write!(
                    f,
                    "it could not be found out where the tenant {tenant} lives"
                )
            }
        }
    }
}

impl StdError for TenantError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::BadId(cause) => Some(cause),
            Self::Resolver { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

impl From<BadTenantId> for TenantError {
    fn from(bad: BadTenantId) -> Self {
        Self::BadId(bad)
    }
}

/// So that `?` works in code whose errors are a session's.
impl From<TenantError> for Error {
    fn from(error: TenantError) -> Self {
        Error::from_source(
            ErrorKind::Source,
            "there is no session for the tenant",
            error,
        )
    }
}
