//! Whether the server has room for what the pool may open: looked at once, at the first connect.
//!
//! A limit that is too large shows otherwise only under load, on the day when all instances need it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::SimpleQueryMessage;

use crate::connection::PgConnection;
use crate::error::Error;

/// The server's limit, what is kept for superusers and the like, what is taken, and the user's or the database's
/// own limit, if there is one.
const LIMITS: &str = "SELECT current_setting('max_connections'), \
     current_setting('superuser_reserved_connections')::int8 \
     + coalesce(current_setting('reserved_connections', true), '0')::int8, \
     (SELECT sum(numbackends) FROM pg_stat_database), \
     (SELECT min(allowed) FROM (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user \
     UNION ALL SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS it (allowed) \
     WHERE allowed >= 0)";

/// What a pool may open, until it was compared with what its server allows.
#[derive(Default)]
pub(crate) struct Room {
    capacity: OnceLock<usize>,
    compared: AtomicBool,
}

/// What a server allows.
#[derive(Debug, PartialEq, Eq)]
struct Limits {
    server: u64,
    reserved: u64,
    taken: u64,
    own: Option<u64>,
}

impl Room {
    /// Tells how many connections the pool may open.
    pub(crate) fn set_capacity(&self, capacity: usize) {
        // Said once, when the engine is built.
        let _ = self.capacity.set(capacity);
    }

    /// Asks the server for its limits, at the first connect, and logs them beside the pool's.
    ///
    /// # Errors
    /// If the connection broke. A server that does not answer such questions is no error.
    pub(crate) async fn compare(&self, connection: &PgConnection) -> Result<(), Error> {
        // Ordering: Relaxed; at worst it is logged twice.
        if self.compared.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(&capacity) = self.capacity.get() else {
            return Ok(());
        };
        let answer = connection.driver().simple_query(LIMITS).await;
        let limits = match answer.map_err(|error| connection.fault(error)) {
            Ok(messages) => Limits::read(&messages),
            Err(error) if error.connection_is_good() => {
                tracing::debug!(%error, "the server does not tell its limits");
                None
            }
            Err(error) => return Err(error),
        };
        connection.settled();
        if !self.compared.swap(true, Ordering::Relaxed)
            && let Some(limits) = limits
        {
            limits.tell(u64::try_from(capacity).unwrap_or(u64::MAX));
        }
        Ok(())
    }
}

impl Limits {
    fn read(messages: &[SimpleQueryMessage]) -> Option<Self> {
        messages.iter().find_map(|message| {
            let SimpleQueryMessage::Row(row) = message else {
                return None;
            };
            let number = |column: usize| row.try_get(column).ok()??.parse().ok();
            Some(Self {
                server: number(0)?,
                reserved: number(1)?,
                taken: number(2)?,
                own: number(3),
            })
        })
    }

    /// How many more connections the server would accept of us, the one that asked counted.
    fn free(&self) -> u64 {
        let others = self.taken.saturating_sub(1);
        let free = self.server.saturating_sub(self.reserved + others);
        self.own.map_or(free, |own| free.min(own))
    }

    fn tell(&self, pool: u64) {
        let Self {
            server,
            reserved,
            taken,
            own,
        } = self;
        let free = self.free();
        if pool > free {
            tracing::warn!(
                pool,
                server,
                reserved,
                taken,
                own,
                free,
                "the pool may open more connections than the server has free: lower pool_size or max_overflow, or \
                 raise the server's max_connections"
            );
        } else {
            tracing::info!(
                pool,
                server,
                reserved,
                taken,
                own,
                free,
                "connected for the first time"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Limits;

    #[test]
    fn what_is_free_is_less_than_what_is_reserved_and_taken_by_others_leave() {
        let limits = Limits {
            server: 100,
            reserved: 3,
            taken: 11,
            own: None,
        };
        assert_eq!(limits.free(), 87, "its own connection is no other's");
        assert_eq!(
            Limits {
                own: Some(5),
                ..limits
            }
            .free(),
            5
        );
        let full = Limits {
            server: 10,
            reserved: 3,
            taken: 10,
            own: None,
        };
        assert_eq!(full.free(), 0);
    }
}
