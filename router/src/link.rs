//! A monitor's connection to its node.
//!
//! Made by the connect code of the pool's own connections, so it goes where they go, by the same TLS and
//! password; not part of the pool, and told apart on the server by its `application_name`.

use std::time::Instant;

use pool_core::Backend;
use pool_postgres::{Engine, Error, ErrorKind, PgBackend, PgConnection};
use tokio_postgres::SimpleQueryMessage;

use crate::look;
use crate::sample::Sample;

/// One connection, for looks only.
pub(crate) struct Link {
    connection: PgConnection,
    engine: Engine,
}

impl Link {
    /// Opens a connection beside the pools.
    pub(crate) async fn open(engine: &Engine) -> Result<Self, Error> {
        let backend: &PgBackend = engine.pool().backend();
        Ok(Self { connection: backend.connect().await?, engine: engine.clone() })
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

    /// Closes the connection; ready once the server has let go.
    pub(crate) async fn close(self) {
        self.engine.pool().backend().close(self.connection).await;
    }
}
