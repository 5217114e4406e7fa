//! Why something failed: one opaque type, with what a caller needs to decide what to do next.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use pool_core::{ConnectError, GetError};

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The URL (or `key=value` text) can't be read.
    Url,
    /// A setting can't be used.
    Config,
    /// No connection could be opened: refused, unreachable, too slow, still starting.
    Connect,
    /// The server refused the user or the password.
    Authentication,
    /// Encryption was demanded and is not to be had, or a certificate did not pass.
    Tls,
    /// The server has no such database.
    NoSuchDatabase,
    /// The server has no connection left for us (53300).
    TooManyConnections,
    /// No connection came free within `pool_timeout`.
    PoolTimeout,
    /// The pool is asked for more than it can serve: its wait queue is full, or this caller was sent away.
    PoolOverload,
    /// The pool was suspended until the caller's time was over.
    PoolSuspended,
    /// A hook of the pool's refused the connection: see the cause.
    Hook,
    /// The pool is closed.
    PoolClosed,
    /// Opening connections keeps failing, so the pool refuses until a probe succeeds.
    PoolDown,
    /// The server rejected the statement.
    Statement,
    /// A parameter does not fit its Rust type, or there are too many or too few.
    Parameter,
    /// A row does not fit the Rust type that it was to be read as; the statement has run.
    Row,
    /// A statement gave another number of rows than was asked for.
    RowCount,
    /// The transaction had failed, and was (or can only be) rolled back.
    TransactionFailed,
    /// The statement writes, and the transaction or the server is read-only (25006).
    ReadOnly,
    /// The transaction lost against another one: begin it again (40001, 40P01).
    Serialization,
    /// The connection broke after `COMMIT` was sent and before its answer came.
    OutcomeUnknown,
    /// The connection broke, or the server ended it.
    ConnectionLost,
    /// The server did not answer in time.
    Timeout,
    /// The statement was cancelled (57014).
    Cancelled,
    /// A call that makes no sense where it was made.
    Usage,
    /// Where connections come from failed (routing, tenancy): see the cause.
    Source,
    /// A commit token can't be honoured.
    Token,
}

/// Whether what was asked for has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing was sent.
    NotSent,
    /// The server refused it: nothing of it is in force.
    NotApplied,
    /// It may or may not have happened.
    Unknown,
    /// It has happened; what failed came after.
    Applied,
}

/// Why something failed.
///
/// `Display` gives facts in one line, without the cause ([`source`](StdError::source) has that) and without
/// parameters or passwords. The alternate form (`{:#}`) adds the server's detail and hint. Cheap to clone.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    node: Option<String>,
    server: Option<Server>,
    /// Whether the connection that it came over (if any) can be used again.
    fit: bool,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What the server said.
#[derive(Clone)]
struct Server {
    code: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl Error {
    /// An error without a cause. The message holds facts, in lower case.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            node: None,
            server: None,
            fit: !is_loss(kind),
            source: None,
        }))
    }

    /// An error with a cause.
    pub fn from_source(
        kind: ErrorKind,
        message: impl Into<String>,
        cause: impl StdError + Send + Sync + 'static,
    ) -> Self {
        let mut error = Self::new(kind, message);
        let inner = error.inner();
        // What the server said, and what became of the connection, hold for whoever passes the error on.
        if let Some(ours) = (&cause as &dyn Any).downcast_ref::<Self>() {
            inner.server.clone_from(&ours.0.server);
            inner.fit &= ours.0.fit;
        }
        inner.source = Some(Arc::new(cause));
        error
    }

    /// An error with a cause that is in a box already.
    pub(crate) fn from_boxed(
        kind: ErrorKind,
        message: impl Into<String>,
        cause: Box<dyn StdError + Send + Sync>,
    ) -> Self {
        let mut error = Self::new(kind, message);
        error.inner().source = Some(Arc::from(cause));
        error
    }

    /// The same error, naming the node that it came from.
    pub fn with_node(mut self, node: impl Into<String>) -> Self {
        self.inner().node = Some(node.into());
        self
    }

    fn inner(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The server's five-character code, where the server answered.
    pub fn sqlstate(&self) -> Option<&str> {
        self.0.server.as_ref().map(|server| &*server.code)
    }

    /// The server's detail. It may hold values of the row that was refused.
    pub fn detail(&self) -> Option<&str> {
        self.0
            .server
            .as_ref()
            .and_then(|server| server.detail.as_deref())
    }

    /// The server's hint.
    pub fn hint(&self) -> Option<&str> {
        self.0
            .server
            .as_ref()
            .and_then(|server| server.hint.as_deref())
    }

    /// The node that it came from, where there are several.
    pub fn node(&self) -> Option<&str> {
        self.0.node.as_deref()
    }

    /// Whether the same unit of work, begun anew, may succeed without anybody's doing.
    ///
    /// Only of what is known not to have happened: an unknown outcome is never retryable.
    pub fn is_retryable(&self) -> bool {
        use ErrorKind as K;
        matches!(
            self.0.kind,
            K::Connect
                | K::TooManyConnections
                | K::PoolTimeout
                | K::PoolOverload
                | K::PoolSuspended
                | K::PoolDown
                | K::Serialization
        )
    }

    /// Whether the connection that it came over can be used again.
    pub fn connection_is_good(&self) -> bool {
        self.0.fit
    }

    /// Whether what was asked for has happened.
    pub fn outcome(&self) -> Outcome {
        use ErrorKind as K;
        match self.0.kind {
            K::Statement | K::TransactionFailed | K::ReadOnly | K::Serialization | K::Cancelled => {
                Outcome::NotApplied
            }
            K::OutcomeUnknown | K::ConnectionLost | K::Timeout => Outcome::Unknown,
            K::RowCount | K::Row => Outcome::Applied,
            _ => Outcome::NotSent,
        }
    }
}

/// Whether an error of this kind leaves no usable connection.
fn is_loss(kind: ErrorKind) -> bool {
    use ErrorKind as K;
    matches!(
        kind,
        K::ConnectionLost
            | K::OutcomeUnknown
            | K::Timeout
            | K::Connect
            | K::Authentication
            | K::Tls
            | K::NoSuchDatabase
            | K::TooManyConnections
    )
}

fn kind_of(code: &str) -> ErrorKind {
    use ErrorKind as K;
    match code {
        "28P01" | "28000" => K::Authentication,
        "3D000" => K::NoSuchDatabase,
        "53300" => K::TooManyConnections,
        "57P03" => K::Connect,
        "25P02" => K::TransactionFailed,
        "25006" => K::ReadOnly,
        "40001" | "40P01" => K::Serialization,
        "57014" => K::Cancelled,
        "25P03" | "25P04" | "57P01" | "57P02" | "57P04" | "57P05" => K::ConnectionLost,
        code if code.starts_with("08") => K::ConnectionLost,
        _ => K::Statement,
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(server) = error.as_db_error() {
            let code = server.code().code().to_owned();
            let ends = matches!(server.severity(), "FATAL" | "PANIC");
            let kind = kind_of(&code);
            let mut ours = Self::new(kind, format!("{} ({code})", server.message()));
            let inner = ours.inner();
            inner.fit = !ends && !is_loss(kind);
            inner.server = Some(Server {
                code,
                detail: server.detail().map(str::to_owned),
                hint: server.hint().map(str::to_owned),
            });
            return ours;
        }
        let closed = error.is_closed();
        // The driver's text is "what: cause"; the cause goes on as the cause.
        let text = error.to_string();
        let what = text.split(": ").next().unwrap_or(&text).to_owned();
        let parameter = [
            "error serializing parameter",
            "error deserializing",
            "expected ",
            "invalid column",
        ];
        let (kind, message) = if parameter.iter().any(|start| what.starts_with(start)) {
            (ErrorKind::Parameter, what)
        } else if what.starts_with("query returned an unexpected number of rows") {
            (ErrorKind::RowCount, what)
        } else if what.starts_with("authentication error") {
            (ErrorKind::Authentication, what)
        } else if what.starts_with("invalid configuration") {
            // All else was looked at before: only a password can be missing now.
            (
                ErrorKind::Authentication,
                "the server asks for a password, and none was given: put it in the URL, in the builder's \
                 `password`, or in PGPASSWORD"
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(node) = &self.0.node {
            write!(f, "{node}: ")?;
        }
        f.write_str(&self.0.message)?;
        if f.alternate()
            && let Some(server) = &self.0.server
        {
            if let Some(detail) = &server.detail {
                write!(f, "; detail: {detail}")?;
            }
            if let Some(hint) = &server.hint {
                write!(f, "; hint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Error");
        fields
            .field("kind", &self.0.kind)
            .field("message", &self.0.message);
        if let Some(node) = &self.0.node {
            fields.field("node", node);
        }
        if let Some(source) = &self.0.source {
            fields.field("source", source);
        }
        fields.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_ref()
            .map(|cause| &**cause as &(dyn StdError + 'static))
    }
}
