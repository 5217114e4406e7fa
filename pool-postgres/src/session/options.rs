//! How a session's transactions begin.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How a session's transactions begin and what they may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question of its own"
)]
#[non_exhaustive]
pub struct SessionOptions {
    /// Begin READ ONLY. Default: as the server's `default_transaction_read_only` says.
    pub read_only: bool,
    /// The isolation level. Default: as the server's `default_transaction_isolation` says.
    pub isolation: Option<IsolationLevel>,
    /// With SERIALIZABLE READ ONLY: wait for a snapshot that cannot fail. Default: no.
    pub deferrable: bool,
    /// Each statement stands alone, without BEGIN. Default: no.
    pub autocommit: bool,
    /// How long a statement may take. Default: as the server's `statement_timeout` says.
    pub statement_timeout: Option<Duration>,
    /// How long a transaction may take, from `BEGIN` on. Default: no limit.
    pub transaction_timeout: Option<Duration>,
    /// How long a statement waits for a lock. Default: as the server's `lock_timeout` says.
    pub lock_timeout: Option<Duration>,
    /// How long a transaction may stand between two statements. Default: as the server's
    /// `idle_in_transaction_session_timeout` says.
    pub idle_in_transaction_timeout: Option<Duration>,
    /// Whether the first statement of a transaction is sent once more where the connection turns out to have
    /// been dead. Default: yes.
    pub retry_dead: bool,
    /// How many rows a statement may give where they are collected (`query` and its kin). Default one
    /// million.
    pub max_rows: usize,
    /// Whether statements are prepared for one use. Default: no.
    pub single_use: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            isolation: None,
            deferrable: false,
            autocommit: false,
            statement_timeout: None,
            transaction_timeout: None,
            lock_timeout: None,
            idle_in_transaction_timeout: None,
            retry_dead: true,
            max_rows: Self::MAX_ROWS,
            single_use: false,
        }
    }
}

impl SessionOptions {
    /// The default of [`max_rows`](Self::max_rows).
    pub const MAX_ROWS: usize = 1_000_000;

    /// Limits how long a statement may take; `None` leaves it to the server's `statement_timeout`, zero takes
    /// that off.
    ///
    /// In a transaction the server is told, with `BEGIN` and for the transaction alone, and ends what takes
    /// longer with 57014 ([`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled)). If it has not done so half a
    /// second later, the statement is given up with [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) and
    /// cancelled in the background. Without a transaction (autocommit) nobody but the session keeps the limit.
    /// Of a `COMMIT` that takes longer the outcome is unknown. Precise to a millisecond.
    pub fn statement_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.statement_timeout = limit.into();
        self
    }

    /// Limits how long a transaction may take, from `BEGIN` to the sending of `COMMIT`; `None` for no limit.
    ///
    /// Kept by the session: a statement that still runs then is given up with
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) and cancelled in the background, and later ones are
    /// refused. What stands idle is noticed at its next call (see
    /// [`idle_in_transaction_timeout`](Self::idle_in_transaction_timeout)).
    pub fn transaction_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.transaction_timeout = limit.into();
        self
    }

    /// Limits how long a statement of a transaction waits for a lock, after which the server refuses it with
    /// 55P03; `None` leaves it to the server's `lock_timeout`, zero takes that off. Without effect in autocommit.
    pub fn lock_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.lock_timeout = limit.into();
        self
    }

    /// Limits how long a transaction may stand between two statements, after which the server ends it together
    /// with its connection; `None` leaves it to the server's `idle_in_transaction_session_timeout`, zero takes
    /// that off.
    pub fn idle_in_transaction_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.idle_in_transaction_timeout = limit.into();
        self
    }

    /// Whether the first statement of a transaction is sent once more, on another connection, if its own was
    /// dead before any answer came. Default yes.
    ///
    /// Safe for what a transaction undoes, because one whose `BEGIN` was never answered cannot have
    /// committed. What lives outside transactions may be done twice: values of sequences, advisory locks of
    /// the session, files and other servers that a function writes to. Never done in autocommit, for batches,
    /// pipelines and copies.
    pub fn retry_dead(mut self, again: bool) -> Self {
        self.retry_dead = again;
        self
    }

    /// Limits how many rows are collected: more are an error that advises
    /// [`query_stream`](crate::Session::query_stream), and what came is thrown away. Default one million;
    /// `usize::MAX` for no limit.
    pub fn max_rows(mut self, rows: usize) -> Self {
        self.max_rows = rows;
        self
    }

    /// Prepares each statement for one use and forgets it: for texts that never come again, so that they drive
    /// none out of the connection's [cache](crate::EngineBuilder::statement_cache). Pipelines and copies use the
    /// cache all the same.
    pub fn single_use(mut self) -> Self {
        self.single_use = true;
        self
    }

    /// Begins READ ONLY.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Begins with this isolation level.
    pub fn isolation(mut self, level: impl Into<Option<IsolationLevel>>) -> Self {
        self.isolation = level.into();
        self
    }

    /// Waits for a snapshot that cannot fail; has an effect with SERIALIZABLE READ ONLY.
    pub fn deferrable(mut self) -> Self {
        self.deferrable = true;
        self
    }

    /// Has each statement stand alone.
    pub fn autocommit(mut self) -> Self {
        self.autocommit = true;
        self
    }

    /// Whether each statement stands outside transactions.
    pub(crate) fn is_alone(self) -> bool {
        self.autocommit && !self.read_only
    }

    /// The statement that begins such a transaction.
    pub(crate) fn begin(self) -> &'static str {
        BEGIN[self.isolation.map_or(0, |level| level as usize + 1)]
            [usize::from(self.read_only) + 2 * usize::from(self.deferrable)]
    }
}

macro_rules! begin {
    ($level:literal) => {
        [
            concat!("BEGIN", $level),
            concat!("BEGIN", $level, " READ ONLY"),
            concat!("BEGIN", $level, " DEFERRABLE"),
            concat!("BEGIN", $level, " READ ONLY DEFERRABLE"),
        ]
    };
}

const BEGIN: [[&str; 4]; 5] = [
    begin!(""),
    begin!(" ISOLATION LEVEL READ UNCOMMITTED"),
    begin!(" ISOLATION LEVEL READ COMMITTED"),
    begin!(" ISOLATION LEVEL REPEATABLE READ"),
    begin!(" ISOLATION LEVEL SERIALIZABLE"),
];

/// How much of other transactions a transaction sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IsolationLevel {
    /// The same as [`Self::ReadCommitted`] in PostgreSQL.
    ReadUncommitted = 0,
    /// Each statement sees what was committed before it.
    ReadCommitted = 1,
    /// All statements see what was committed before the first.
    RepeatableRead = 2,
    /// As if transactions ran one after another; some fail with 40001 and can be tried again.
    Serializable = 3,
}

impl fmt::Display for IsolationLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadUncommitted => "read uncommitted",
            Self::ReadCommitted => "read committed",
            Self::RepeatableRead => "repeatable read",
            Self::Serializable => "serializable",
        })
    }
}

/// In any case, with spaces, underscores or hyphens between the words.
impl FromStr for IsolationLevel {
    type Err = UnknownIsolationLevel;

    fn from_str(name: &str) -> Result<Self, UnknownIsolationLevel> {
        match name.to_ascii_lowercase().replace(['_', '-'], " ").as_str() {
            "read uncommitted" => Ok(Self::ReadUncommitted),
            "read committed" => Ok(Self::ReadCommitted),
            "repeatable read" => Ok(Self::RepeatableRead),
            "serializable" => Ok(Self::Serializable),
            _ => Err(UnknownIsolationLevel(name.chars().take(80).collect())),
        }
    }
}

/// A name that is no [`IsolationLevel`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownIsolationLevel(String);

impl fmt::Display for UnknownIsolationLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not an isolation level: use read uncommitted, read committed, repeatable read or \
             serializable",
            self.0
        )
    }
}

impl std::error::Error for UnknownIsolationLevel {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begin_says_what_the_options_say() {
        assert_eq!(SessionOptions::default().begin(), "BEGIN");
        assert_eq!(
            SessionOptions::default().read_only().begin(),
            "BEGIN READ ONLY"
        );
        assert_eq!(
            SessionOptions::default()
                .isolation(IsolationLevel::Serializable)
                .read_only()
                .deferrable()
                .begin(),
            "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE"
        );
        assert_eq!(
            SessionOptions::default()
                .isolation(IsolationLevel::RepeatableRead)
                .begin(),
            "BEGIN ISOLATION LEVEL REPEATABLE READ"
        );
    }

    #[test]
    fn an_isolation_level_is_read_in_any_case_and_an_unknown_one_named() {
        assert_eq!(
            "Repeatable_Read".parse(),
            Ok(IsolationLevel::RepeatableRead)
        );
        let error = "snapshot"
            .parse::<IsolationLevel>()
            .expect_err("unknown")
            .to_string();
        assert!(
            error.contains("snapshot") && error.contains("serializable"),
            "{error}"
        );
    }
}
