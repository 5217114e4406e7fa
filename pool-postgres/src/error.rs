//! Why something failed: one opaque type, with what a caller needs to decide what to do next.

mod from;
mod misfit;
mod statement;

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use tokio_postgres::types::ToSql;

use statement::Statement;

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
    /// The server rejected the statement as it is written: its syntax, a name, a type, where it stands.
    Statement,
    /// A value does not fit: out of range, malformed, null where none may be, divided by zero (classes 21, 22).
    Data,
    /// A constraint would be violated: unique, foreign key, check, not null, exclusion (class 23).
    Constraint,
    /// The user may not do that (42501).
    Permission,
    /// A lock or an object is not to be had now (55P03, 55006).
    Busy,
    /// A prepared statement no longer fits its tables, or is gone; begun anew it is prepared anew.
    Stale,
    /// The server has run out of something: memory, disk, a limit (classes 53, 54).
    Resources,
    /// A function or a trigger raised it (class P0, and those of other languages).
    Raised,
    /// The server itself is at fault: an internal error, a file, a configuration (classes 58, F0, XX).
    Server,
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
    /// A transaction could not be confined to its [`Scope`](crate::Scope): a setting did not take, or what has to be
    /// true is not. Nothing of it ran.
    Scope,
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
/// parameters or passwords. The alternate form (`{:#}`) adds lines: the server's detail and hint, and the
/// statement with a caret under the place that the server points to:
///
/// ```text
/// column "nmae" does not exist (42703)
///   line 1: SELECT nmae FROM users WHERE id = $1
///                  ^
///   hint: Perhaps you meant to reference the column "users.name".
/// ```
///
/// Which SQLSTATE is of which kind, and what to do about it, is in `docs/errors.md`. Cheap to clone.
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
    outcome: Outcome,
    statement: Option<Statement>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What the server said.
#[derive(Clone, Default)]
struct Server {
    code: String,
    detail: Option<String>,
    hint: Option<String>,
    /// Where in the statement, in characters, from one.
    position: Option<u32>,
    constraint: Option<String>,
    table: Option<String>,
    column: Option<String>,
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
            outcome: outcome_of(kind),
            statement: None,
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
            inner.statement.clone_from(&ours.0.statement);
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

    /// The same error, with something added that helps.
    pub(crate) fn adding(mut self, remark: &str) -> Self {
        let message = &mut self.inner().message;
        message.push_str("; ");
        message.push_str(remark);
        self
    }

    /// The same error, of another kind.
    pub(crate) fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.inner().kind = kind;
        self
    }

    /// The same error, naming the node that it came from.
    pub fn with_node(mut self, node: impl Into<String>) -> Self {
        self.inner().node = Some(node.into());
        self
    }

    /// The same error with another outcome, where more is known than its kind tells.
    pub(crate) fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.inner().outcome = outcome;
        self
    }

    /// The same error about this statement, unless it is about one already or about none.
    ///
    /// The parameters go along only where the engine
    /// [shows them](crate::EngineBuilder::show_parameters).
    pub(crate) fn with_statement(
        mut self,
        sql: &str,
        parameters: Option<&[&(dyn ToSql + Sync)]>,
    ) -> Self {
        if self.0.statement.is_none() && is_about_a_statement(&self.0) {
            let mut statement = Statement::new(sql, self.position());
            statement.parameters = parameters.map(|values| format!("{values:?}").into());
            self.inner().statement = Some(statement);
        }
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
        self.0.server.as_ref()?.detail.as_deref()
    }

    /// The server's hint.
    pub fn hint(&self) -> Option<&str> {
        self.0.server.as_ref()?.hint.as_deref()
    }

    /// Where in the statement the server found it: a number of characters, the first being 1.
    pub fn position(&self) -> Option<u32> {
        self.0.server.as_ref()?.position
    }

    /// The constraint that would be violated.
    pub fn constraint(&self) -> Option<&str> {
        self.0.server.as_ref()?.constraint.as_deref()
    }

    /// The table that it is about, where the server names one.
    pub fn table(&self) -> Option<&str> {
        self.0.server.as_ref()?.table.as_deref()
    }

    /// The column that it is about, where the server names one.
    pub fn column(&self) -> Option<&str> {
        self.0.server.as_ref()?.column.as_deref()
    }

    /// The beginning of the statement that failed: up to 240 characters, and fewer where it names a password.
    pub fn statement(&self) -> Option<&str> {
        Some(&self.0.statement.as_ref()?.text)
    }

    /// The statement's parameters, as Rust shows them; only where the engine was told to
    /// [show them](crate::EngineBuilder::show_parameters).
    pub fn parameters(&self) -> Option<&str> {
        self.0.statement.as_ref()?.parameters.as_deref()
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
        match self.0.kind {
            K::Connect
            | K::TooManyConnections
            | K::PoolTimeout
            | K::PoolOverload
            | K::PoolSuspended
            | K::PoolDown
            | K::Serialization
            | K::Busy
            | K::Stale => true,
            K::ConnectionLost => matches!(self.0.outcome, Outcome::NotSent | Outcome::NotApplied),
            _ => false,
        }
    }

    /// Whether the connection that it came over can be used again.
    pub fn connection_is_good(&self) -> bool {
        self.0.fit
    }

    /// Whether what was asked for has happened.
    ///
    /// Of a statement in a transaction that was lost it is [`NotApplied`](Outcome::NotApplied): the server rolls
    /// back what is not committed.
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }
}

/// Whether what was asked for has happened, as far as an error's kind tells.
fn outcome_of(kind: ErrorKind) -> Outcome {
    use ErrorKind as K;
    match kind {
        K::Statement
        | K::Data
        | K::Constraint
        | K::Permission
        | K::Busy
        | K::Stale
        | K::Resources
        | K::Raised
        | K::Server
        | K::TransactionFailed
        | K::ReadOnly
        | K::Serialization
        | K::Cancelled => Outcome::NotApplied,
        K::OutcomeUnknown | K::ConnectionLost | K::Timeout => Outcome::Unknown,
        K::RowCount | K::Row => Outcome::Applied,
        _ => Outcome::NotSent,
    }
}

/// Whether a statement has a part in it: none has where no connection was to be had.
fn is_about_a_statement(inner: &Inner) -> bool {
    use ErrorKind as K;
    inner.server.is_some()
        || inner.outcome != Outcome::NotSent
        || matches!(inner.kind, K::Parameter | K::ConnectionLost)
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(node) = &self.0.node {
            write!(f, "{node}: ")?;
        }
        f.write_str(&self.0.message)?;
        if f.alternate() {
            self.write_more(f)?;
        }
        Ok(())
    }
}

impl Error {
    /// What the alternate form adds.
    fn write_more(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(statement) = &self.0.statement {
            let shown = statement.caret.as_ref().unwrap_or(&statement.text);
            for line in shown.lines() {
                write!(f, "\n  {line}")?;
            }
            if let Some(parameters) = &statement.parameters {
                write!(f, "\n  parameters: {parameters}")?;
            }
        }
        if let Some(detail) = self.detail() {
            write!(f, "\n  detail: {detail}")?;
        }
        if let Some(hint) = self.hint() {
            write!(f, "\n  hint: {hint}")?;
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
