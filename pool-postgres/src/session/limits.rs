//! How long statements and transactions may take: what the server is told, and what is watched here.
//!
//! The server gets its limits with `BEGIN`, by `SET LOCAL`, so that nothing of them is left behind. A server that
//! has died or hangs keeps no limits, so each statement has a guard here as well, which goes off [`GRACE`]
//! later than the server's should have. Whoever is met by it leaves the connection to the pool, which cancels
//! what still runs before anybody else gets it.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::options::SessionOptions;
use crate::error::{Error, ErrorKind};

/// How much later than the server's own limit the guard goes off.
pub(super) const GRACE: Duration = Duration::from_millis(500);

/// Appends what tells the server its limits.
pub(super) fn set_local(options: SessionOptions, sql: &mut String) {
    let settings = [
        ("statement_timeout", options.statement_timeout),
        ("lock_timeout", options.lock_timeout),
        (
            "idle_in_transaction_session_timeout",
            options.idle_in_transaction_timeout,
        ),
    ];
    for (name, limit) in settings {
        if let Some(limit) = limit {
            let _ = write!(sql, ";SET LOCAL {name}={}", whole_millis(limit));
        }
    }
}

/// Milliseconds as the server takes them, rounded up: a limit must not turn into none.
fn whole_millis(limit: Duration) -> i32 {
    i32::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

/// When a statement is given up, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    at: Instant,
    which: Which,
    length: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Which {
    /// The server was told the same limit and should have kept it.
    Guard,
    /// Nobody but us keeps it.
    Statement,
    Transaction,
}

impl Limit {
    /// The limit of a statement that starts now. `ends` is when its transaction has to be over.
    pub(super) fn of_statement(
        options: SessionOptions,
        in_transaction: bool,
        ends: Option<Instant>,
        now: Instant,
    ) -> Option<Self> {
        let statement = options.statement_timeout.filter(|limit| !limit.is_zero());
        let statement = statement.and_then(|length| {
            let (which, at) = if in_transaction {
                (Which::Guard, now.checked_add(length)?.checked_add(GRACE)?)
            } else {
                (Which::Statement, now.checked_add(length)?)
            };
            Some(Self { at, which, length })
        });
        let transaction = ends.map(|at| Self {
            at,
            which: Which::Transaction,
            length: options.transaction_timeout.unwrap_or_default(),
        });
        [statement, transaction]
            .into_iter()
            .flatten()
            .min_by_key(|limit| limit.at)
    }

    /// The limit of a commit, or a rollback, that is sent now. That it began late enough to end after its transaction's time is no
    /// reason to give it up.
    pub(super) fn of_end(options: SessionOptions, now: Instant) -> Option<Self> {
        Self::of_statement(options, true, None, now)
    }

    /// What whoever ran into it is told.
    pub(crate) fn exceeded(self) -> Error {
        let length = self.length;
        Error::new(
            ErrorKind::Timeout,
            match self.which {
                Which::Guard => format!(
                    "the statement took longer than statement_timeout ({length:?}), and the server had not \
                     ended it {GRACE:?} after that"
                ),
                Which::Statement => {
                    format!("the statement took longer than statement_timeout ({length:?})")
                }
                Which::Transaction => {
                    format!("the transaction took longer than transaction_timeout ({length:?})")
                }
            },
        )
    }

    pub(crate) fn at(self) -> Instant {
        self.at
    }

    /// Fails if the limit has passed already.
    pub(super) fn check(limit: Option<Self>, now: Instant) -> Result<(), Error> {
        match limit {
            Some(limit) if limit.at <= now => Err(limit.exceeded()),
            _ => Ok(()),
        }
    }
}

/// Waits for something no longer than the limit.
pub(crate) async fn within<T>(
    limit: Option<Limit>,
    work: impl Future<Output = T>,
) -> Result<T, Error> {
    let Some(limit) = limit else {
        return Ok(work.await);
    };
    timeout_at(limit.at, work)
        .await
        .map_err(|_| limit.exceeded())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_reach_the_server_rounded_up_and_none_stays_unsaid() {
        let mut sql = String::from("BEGIN");
        set_local(SessionOptions::default(), &mut sql);
        assert_eq!(sql, "BEGIN");
        let options = SessionOptions::default()
            .statement_timeout(Duration::from_micros(1))
            .lock_timeout(Duration::from_secs(2))
            .idle_in_transaction_timeout(Duration::MAX);
        set_local(options, &mut sql);
        assert_eq!(
            sql,
            "BEGIN;SET LOCAL statement_timeout=1;SET LOCAL lock_timeout=2000;\
             SET LOCAL idle_in_transaction_session_timeout=2147483647"
        );
    }

    #[test]
    fn the_earlier_limit_holds() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let options = SessionOptions::default()
            .statement_timeout(second)
            .transaction_timeout(10 * second);
        let limit = |in_transaction, ends| {
            Limit::of_statement(options, in_transaction, ends, now).map(|limit| limit.at - now)
        };
        assert_eq!(limit(true, None), Some(second + GRACE));
        assert_eq!(limit(false, None), Some(second));
        assert_eq!(limit(true, Some(now + second / 2)), Some(second / 2));
        let none = Limit::of_statement(SessionOptions::default(), true, None, now);
        assert!(none.is_none());
        let forever = SessionOptions::default().statement_timeout(Duration::MAX);
        assert!(Limit::of_statement(forever, true, None, now).is_none());
    }
}
