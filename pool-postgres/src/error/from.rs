//! Errors made from what others report: the driver, the server itself, the pool.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::sync::Arc;

use pool_core::{ConnectError, GetError};
use tokio_postgres::error::{DbError, ErrorPosition, Severity};

use super::{Error, ErrorKind, Server, is_loss, misfit, outcome_of};
use crate::sqlstate::kind_of;

impl Error {
    /// An error of the server's; `ends` tells whether the connection ends with it.
    fn from_server(message: &str, ends: bool, server: Server) -> Self {
        use ErrorKind as K;
        let code = &server.code;
        let kind = match kind_of(code) {
            // What refuses a connection at its start is a statement's own failure later: ALTER DATABASE, say.
            K::Authentication if !ends => K::Permission,
            K::NoSuchDatabase if !ends => K::Statement,
            K::TooManyConnections if !ends => K::Resources,
            K::Connect if !ends => K::Server,
            kind => kind,
        };
        let mut ours = Self::new(kind, format!("{message} ({code})"));
        let inner = ours.inner();
        inner.fit = !ends && !is_loss(kind);
        inner.server = Some(server);
        ours
    }

    /// An error during the start of a connection, which it ends.
    pub(crate) fn at_start(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(server) => Self::from_db_error(server, true),
            None => Self::from(error),
        }
    }

    fn from_db_error(error: &DbError, ends: bool) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let server = Server {
            code: error.code().code().to_owned(),
            detail: owned(error.detail()),
            hint: owned(error.hint())
                .or_else(|| misfit::hint(error.code().code(), error.message())),
            position: match error.position() {
                Some(ErrorPosition::Original(position)) => Some(*position),
                _ => None,
            },
            constraint: owned(error.constraint()),
            table: owned(error.table()),
            column: owned(error.column()),
        };
        let mut ours = Self::from_server(error.message(), ends, server);
        if is_stale(error) {
            let inner = ours.inner();
            inner.kind = ErrorKind::Stale;
            inner.message = format!(
                "{}: it changed or went away after it was prepared on this connection",
                inner.message
            );
        }
        ours
    }

    /// An error that ended a connection, from the fields of its message; `field` gives them by their letters.
    pub(crate) fn from_fields<'a>(field: impl Fn(u8) -> Option<Cow<'a, str>>) -> Self {
        let owned = |kind| field(kind).map(Cow::into_owned);
        let server = Server {
            code: owned(b'C').unwrap_or_default(),
            detail: owned(b'D'),
            hint: owned(b'H'),
            ..Server::default()
        };
        let message = field(b'M').unwrap_or_default();
        let mut ours = Self::from_server(&message, true, server);
        let inner = ours.inner();
        inner.kind = ErrorKind::ConnectionLost;
        inner.outcome = outcome_of(inner.kind);
        ours
    }
}

/// Whether a statement that we have prepared gives other columns than before, or is gone.
///
/// Texts are translated. So the first is told by the place in the server's source (the code is that of all
/// unsupported features), the second by the name, which is one of the driver's: `s` and a number.
fn is_stale(error: &DbError) -> bool {
    match error.code().code() {
        "0A000" => error.routine() == Some("RevalidateCachedQuery"),
        "26000" => {
            let words = error.message().split(|c: char| !c.is_ascii_alphanumeric());
            let mut numbers = words.filter_map(|word| word.strip_prefix('s'));
            numbers.any(|number| number.parse::<u64>().is_ok())
        }
        _ => false,
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(server) = error.as_db_error() {
            let ends = match server.parsed_severity() {
                Some(severity) => matches!(severity, Severity::Fatal | Severity::Panic),
                None => matches!(server.severity(), "FATAL" | "PANIC"),
            };
            return Self::from_db_error(server, ends);
        }
        let error = match misfit::explain(error) {
            Ok(ours) => return ours,
            Err(error) => error,
        };
        let closed = error.is_closed();
        // The driver's text is "what: cause"; the cause goes on as the cause.
        let text = error.to_string();
        let what = text.split(": ").next().unwrap_or(&text).to_owned();
        let row = ["error deserializing", "invalid column"];
        let (kind, message) = if row.iter().any(|start| what.starts_with(start)) {
            (ErrorKind::Row, what)
        } else if what.starts_with("query returned an unexpected number of rows") {
            (ErrorKind::RowCount, what)
        } else if what.starts_with("authentication error") {
            (ErrorKind::Authentication, what)
        } else if what.starts_with("invalid configuration") {
            // All else was looked at before: only a password can be missing now.
            (
                ErrorKind::Authentication,
                "the server asks for a password, and none was given: put it in the URL, in PGPASSWORD \
                 or in the password file (~/.pgpass), or give the builder a `password` or a `password_provider`"
                    .to_owned(),
            )
        } else if what.starts_with("error performing TLS handshake") {
            (ErrorKind::Tls, what)
        } else if closed {
            (
                ErrorKind::ConnectionLost,
                "the connection was closed".to_owned(),
            )
        } else {
            (
                ErrorKind::ConnectionLost,
                format!("the connection broke: {what}"),
            )
        };
        let mut ours = Self::new(kind, message);
        if let Some(cause) = error.into_source() {
            ours.inner().source = Some(Arc::from(cause));
        }
        ours
    }
}

impl From<GetError<Error>> for Error {
    fn from(error: GetError<Error>) -> Self {
        let message = error.to_string();
        let backend = |cause: Option<&Arc<Error>>| -> Option<Arc<dyn StdError + Send + Sync>> {
            Some(Arc::clone(cause?) as _)
        };
        let (kind, cause) = match error {
            // The connection's own error says all there is to say.
            GetError::Connect(ConnectError::Backend(cause)) | GetError::Ping(cause) => {
                return Self::clone(&cause);
            }
            GetError::TimedOut(timed_out) => {
                let cause = timed_out.last_connect_error.as_ref();
                let cause = backend(cause.and_then(ConnectError::backend_error));
                (ErrorKind::PoolTimeout, cause)
            }
            GetError::Down { cause, .. } => (ErrorKind::PoolDown, backend(cause.backend_error())),
            GetError::QueueFull { .. } | GetError::Shed { .. } => (ErrorKind::PoolOverload, None),
            GetError::Suspended { .. } => (ErrorKind::PoolSuspended, None),
            GetError::Refused(cause) => (ErrorKind::Hook, cause),
            GetError::Connect(ConnectError::Hook(cause)) => (ErrorKind::Hook, Some(cause)),
            GetError::Closed => (ErrorKind::PoolClosed, None),
            GetError::NoRuntime => (ErrorKind::Usage, None),
            _ => (ErrorKind::Connect, None),
        };
        let mut ours = Self::new(kind, message);
        if let Some(cause) = cause {
            ours.inner().source = Some(cause);
        }
        ours
    }
}
