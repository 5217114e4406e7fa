//! A monitor's connection to its node.
//!
//! Made by the engine's own connect code, so it goes where the pool's connections go and by the same TLS and
//! password; not part of the pool, and told apart on the server by its `application_name`.

use std::time::Instant;

use pool_postgres::{Engine, Error, ErrorKind, PgConnection};
use tokio_postgres::SimpleQueryMessage;

use crate::look;
use crate::sample::Sample;

/// What a monitor's `application_name` ends in.
const SUFFIX: &str = "monitor";

/// One connection, for looks only.
pub(crate) struct Link {
    connection: PgConnection,
}

impl Link {
    /// Opens a connection beside the engine's pool.
    pub(crate) async fn open(engine: &Engine) -> Result<Self, Error> {
        Ok(Self { connection: engine.open_beside_pool(SUFFIX).await? })
    }

    /// Looks at the node. `before` is what it said last.
    pub(crate) async fn look(&self, before: Option<&Sample>) -> Result<Sample, Error> {
        let asked_at = Instant::now();
        let messages = self.connection.client().simple_query(look::STATEMENT).await.map_err(Error::from)?;
        let round_trip = asked_at.elapsed();
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect::<Vec<_>>())
            }
            _ => None,
        });
        row.and_then(|row| look::read(&row, asked_at, round_trip, before)).ok_or_else(|| {
            Error::new(ErrorKind::Source, "the node did not say whether it is a primary or a replica")
        })
    }

    /// Closes the connection; ready once the server has let go or the limit has passed.
    pub(crate) async fn close(self) {
        drop(self.connection);
    }
}
