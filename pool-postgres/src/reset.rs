//! What a connection that comes back may still carry for whoever borrows it next.
//!
//! Two steps. It is brought to rest: what nobody waits for any more is read to its end for a moment, then
//! cancelled. Then the policy says what is undone. Whatever was sent here is acknowledged before the connection can
//! be had again, and a failure closes it: a reset that was struck half-way would leave the last borrower's role to
//! the next. The one exception is the plain `ROLLBACK` of a connection at rest, which is queued (see
//! `PgBackend::check`): nothing can be on its way that could strike it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::SimpleQueryMessage;

use crate::connection::PgConnection;
use crate::error::{Error, ErrorKind};
use crate::sql_text::quote_identifier;

/// How long a returned connection gets to finish what it is at by itself, before that is cancelled.
const PATIENCE: Duration = Duration::from_millis(50);

/// Undoes what a session can leave behind, and tells which statements were prepared by SQL. `DISCARD ALL` would also
/// drop the statements that we have prepared. Names are qualified: a temporary table may be called like anything.
const BY_PARTS: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; UNLISTEN *; \
     SELECT NULL WHERE pg_catalog.pg_advisory_unlock_all() IS NULL; DISCARD SEQUENCES; DISCARD TEMP; \
     SELECT name FROM pg_catalog.pg_prepared_statements WHERE from_sql";

/// What is undone when a connection comes back to its pool.
///
/// In any case a statement that still runs, rows that nobody read and an open `COPY` are finished or cancelled, and
/// the connection is closed where that fails. `docs/errors.md` has a table of what each policy leaves to the next
/// borrower.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetPolicy {
    /// Rolls back an open transaction; otherwise sends nothing. The `ROLLBACK` goes ahead of the next borrower's
    /// first statement, so it costs no round trip. Settings, temporary tables, `LISTEN` and session locks stay.
    #[default]
    Rollback,
    /// Makes the connection as new: besides the transaction also settings, role, session authorization, cursors,
    /// temporary tables, sequences' last values, `LISTEN`, advisory locks and names prepared by SQL. Statements that
    /// this library has prepared stay valid.
    ///
    /// One round trip after each return of a connection that was used, before it can be had again. Settings go back
    /// to those of the connection's start; then what
    /// [`after_connect`](crate::EngineBuilder::after_connect) says is done again.
    Full,
    /// Undoes nothing. A connection that comes back inside a transaction, or is busy and stays so, is closed.
    None,
    /// Rolls back, then runs these statements, separated by semicolons, after each return of a connection that was
    /// used. One that fails closes the connection.
    Custom(Arc<str>),
}

impl ResetPolicy {
    /// A policy that runs these statements.
    pub fn custom(sql: impl Into<Arc<str>>) -> Self {
        Self::Custom(sql.into())
    }
}

/// Brings a connection to rest and does what its policy says.
pub(crate) async fn reset(connection: &PgConnection) -> Result<(), Error> {
    let policy = &connection.conduct().reset;
    let at_rest = finish_by_itself(connection).await;
    if *policy == ResetPolicy::None && (!at_rest || connection.is_in_transaction()) {
        return Err(give_up(connection, at_rest).await);
    }
    if !at_rest {
        interrupt(connection).await?;
    }
    if connection.is_in_transaction() {
        run(connection, "ROLLBACK").await?;
    }
    if connection.becomes_as_new() {
        reset_by_parts(connection).await?;
    }
    if let ResetPolicy::Custom(sql) = policy {
        run(connection, sql).await?;
    }
    if connection.statements().has_lost_many() {
        run(connection, "DEALLOCATE ALL").await?;
    }
    connection.settled();
    if connection.is_in_transaction() || connection.is_unsettled() {
        return Err(restless());
    }
    connection.is_clean();
    Ok(())
}

fn restless() -> Error {
    Error::new(
        ErrorKind::ConnectionLost,
        "the connection did not come to rest",
    )
}

/// Whether a connection finishes by itself what it is at.
async fn finish_by_itself(connection: &PgConnection) -> bool {
    // An empty query is answered when all before it has been. Refused, it is for the next step to find out.
    timeout(PATIENCE, run(connection, "")).await.is_ok()
}

/// Cancels what a connection is at.
///
/// The server closes the request's connection when it has sent the signal; a pooler in between may close it before,
/// so the cancel could strike whoever is next on the pooler's connection to us.
async fn interrupt(connection: &PgConnection) -> Result<(), Error> {
    connection.cancel().await?;
    if connection.is_pooled() {
        return Err(restless());
    }
    // The first may be struck by the cancel itself; after the second nothing of it is left.
    for _ in 0..2 {
        match run(connection, "").await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Cancelled => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ends what a connection that is to be closed is at.
async fn give_up(connection: &PgConnection, at_rest: bool) -> Error {
    match if at_rest {
        Ok(())
    } else {
        connection.cancel().await
    } {
        Ok(()) => restless(),
        Err(error) => error,
    }
}

/// Makes a connection at rest as new.
async fn reset_by_parts(connection: &PgConnection) -> Result<(), Error> {
    let answers = run(connection, BY_PARTS).await?;
    let names = answers.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten(),
        _ => None,
    });
    let drop_them: Vec<_> = names
        .map(|name| format!("DEALLOCATE {}", quote_identifier(name)))
        .collect();
    if !drop_them.is_empty() {
        let before = connection.stamp();
        run(connection, &drop_them.join("; ")).await?;
        connection.statements().survived(before, connection.stamp());
    }
    Ok(())
}

async fn run(connection: &PgConnection, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
    let answer = connection.driver().simple_query(sql).await;
    answer.map_err(|error| connection.fault(error))
}
