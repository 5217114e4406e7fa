//! How a session's transactions begin.

use std::fmt;
use std::str::FromStr;

/// How a session's transactions begin and what they may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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
}

impl SessionOptions {
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
