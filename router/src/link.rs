//! A monitor's connection to its node.
//!
//! Made by the connect code of the pool's own connections, so it goes where they go, by the same TLS and
//! password; not part of the pool, and told apart on the server by its `application_name`.

use std::time::Instant;

use pool_core::Backend;
use pool_postgres::{Engine, Error, ErrorKind, PgBackend, PgConnection};
use tokio_postgres::SimpleQueryMessage;

use crate::floor::Fork;
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
        Ok(Self {
            connection: backend.connect().await?,
            engine: engine.clone(),
        })
    }

    /// Looks at the node. `before` is what it said last.
    pub(crate) async fn look(&self, before: Option<&Sample>) -> Result<Sample, Error> {
        let asked_at = Instant::now();
        let row = self.row(look::STATEMENT).await?;
        let round_trip = asked_at.elapsed();
        row.and_then(|row| look::read(&row, asked_at, round_trip, before))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Source,
                    "the node did not say whether it is a primary or a replica",
                )
            })
    }

    /// Where the timelines before this one ended. Empty where the user may not read the server's files.
    pub(crate) async fn forks(&self, timeline: u32) -> Result<Vec<Fork>, Error> {
        let row = self.row(&look::history_statement(timeline)).await?;
        let file = row.and_then(|row| row.into_iter().next()).flatten();
        Ok(file.map_or_else(Vec::new, |file| look::read_history(timeline, &file)))
    }

    /// Closes the connection; ready once the server has let go.
    pub(crate) async fn close(self) {
        self.engine.pool().backend().close(self.connection).await;
    }

    /// The first row that a statement gives, as text.
    async fn row(&self, sql: &str) -> Result<Option<Vec<Option<String>>>, Error> {
        let messages = self
            .connection
            .client()
            .simple_query(sql)
            .await
            .map_err(Error::from)?;
        Ok(messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|column| row.get(column).map(str::to_owned))
                    .collect(),
            ),
            _ => None,
        }))
    }
}
