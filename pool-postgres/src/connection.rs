//! One connection: the driver's client, the record of its wire, and its prepared statements.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use crate::address::{Place, Target};
use crate::conduct::Conduct;
use crate::demotion::Rank;
use crate::dial::{Encryption, dial};
use crate::error::{Error, ErrorKind, Outcome};
use crate::reset::ResetPolicy;
use crate::seeing::{End, Sight};
use crate::statements::{Reuse, Stamp, Statements};
use crate::tally::Tally;
use crate::unnamed::{Plan, typed};
use crate::wire::{TransactionStatus, Wire};

/// The message that asks a server to cancel what a connection is doing begins so.
const CANCEL_REQUEST: [u8; 8] = [0, 0, 0, 16, 4, 210, 22, 46];

/// A connection to a PostgreSQL server.
///
/// It comes out of the pool by [`Engine::connect`](crate::Engine::connect), and its client is the driver's own.
/// At its return an open transaction is rolled back and a statement that still runs is cancelled. What becomes of
/// settings, temporary tables and the like is for the [`ResetPolicy`](crate::ResetPolicy) to say.
pub struct PgConnection {
    client: Client,
    wire: Arc<Wire>,
    statements: Statements,
    conduct: Arc<Conduct>,
    /// Something may be queued with the driver whose answer nobody has seen.
    unsettled: AtomicBool,
    /// Its transaction's end is queued and need not be waited for.
    ended: AtomicBool,
    /// It may carry what nobody else must get.
    soiled: AtomicBool,
    /// How many requests had been written when it was last as new.
    clean_at: AtomicU64,
    /// The task that moves bytes between client and server.
    task: JoinHandle<()>,
    /// Its sender goes with the task.
    gone: watch::Receiver<()>,
    way: Way,
    tally: Arc<Tally>,
    sight: Arc<Sight>,
}

/// How the server was reached, for the cancel requests that go the same way.
pub(crate) struct Way {
    pub(crate) target: Arc<Target>,
    pub(crate) place: Place,
    pub(crate) encryption: Encryption,
    pub(crate) rank: Rank,
}

impl PgConnection {
    pub(crate) fn new(
        client: Client,
        (wire, sight): (Arc<Wire>, Arc<Sight>),
        (task, gone): (JoinHandle<()>, watch::Receiver<()>),
        way: Way,
        conduct: Arc<Conduct>,
        statements: Statements,
        tally: Arc<Tally>,
    ) -> Self {
        Self {
            client,
            clean_at: AtomicU64::new(wire.written()),
            wire,
            statements,
            conduct,
            unsettled: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            soiled: AtomicBool::new(false),
            task,
            gone,
            way,
            tally,
            sight,
        }
    }

    /// The driver's client.
    ///
    /// What is done with it is not seen, so the connection is asked where it stands when it comes back.
    pub fn client(&self) -> &Client {
        self.driver()
    }

    /// The driver's client, for what needs it exclusively (its transactions). As [`client`](Self::client).
    pub fn client_mut(&mut self) -> &mut Client {
        self.unsettle();
        &mut self.client
    }

    /// The server's process for this connection, as in `pg_stat_activity`.
    pub fn process_id(&self) -> Option<i32> {
        self.wire.key().map(|(process, _)| process)
    }

    /// The server's version, as it names it.
    pub fn server_version(&self) -> Option<String> {
        self.wire.server_version()
    }

    /// Whether the server was (or became) a standby, as far as it has told.
    pub fn in_hot_standby(&self) -> Option<bool> {
        self.wire.in_hot_standby()
    }

    /// Whether the error of one who meant to write says that the server is a standby; takes note of it if so. Where it
    /// was the primary before, its name leads to another server by now, or will; every connection of its age is in the
    /// same case.
    pub(crate) fn was_demoted(&self, error: &Error) -> bool {
        let demoted = error.kind() == ErrorKind::ReadOnly && self.in_hot_standby() == Some(true);
        if demoted {
            self.way.rank.refused();
        }
        demoted
    }

    /// Whether it leads to a standby, and is of those that were open when one refused a write.
    pub(crate) fn leads_to_a_standby(&self) -> bool {
        self.way.rank.was_there() && self.in_hot_standby() == Some(true)
    }

    /// The client, for code of ours that says [`settled`](Self::settled) once it has all answers. If it is
    /// dropped half-way, nobody says so, and the connection is cleaned at its return.
    pub(crate) fn driver(&self) -> &Client {
        self.unsettle();
        &self.client
    }

    fn unsettle(&self) {
        // Ordering: Relaxed; who looks at it at the return has the connection to itself.
        self.unsettled.store(true, Ordering::Relaxed);
    }

    /// Says that all that was sent has been answered, or is on its way and known to the wire.
    pub(crate) fn settled(&self) {
        // Ordering: Relaxed, as in `unsettle`.
        self.unsettled.store(false, Ordering::Relaxed);
        self.sight.end(End::Answered);
    }

    /// Where the statement that runs on it stands to be seen.
    pub(crate) fn sight(&self) -> &Sight {
        &self.sight
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Ready once the connection has ended, whatever ended it.
    pub(crate) async fn gone(&self) {
        let mut gone = self.gone.clone();
        while gone.changed().await.is_ok() {}
    }

    /// Where the sessions of its engine count.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    pub(crate) fn conduct(&self) -> &Conduct {
        &self.conduct
    }

    /// Whether a pooler stands before the server: nothing must be left there that the next transaction needs.
    pub(crate) fn is_pooled(&self) -> bool {
        self.way.target.pooled
    }

    /// How the statement can be sent at once; `None` if it has to be prepared first.
    ///
    /// # Errors
    /// Behind a pooler, for a parameter without a type.
    pub(crate) fn plan<'a>(
        &self,
        sql: &str,
        reuse: Reuse,
        params: &'a [&'a (dyn ToSql + Sync)],
    ) -> Result<Option<Plan<'a>>, Error> {
        if self.is_pooled() {
            return Ok(Some(Plan::Unnamed(typed(params)?)));
        }
        Ok(match reuse {
            Reuse::Kept => self.cached(sql).map(Plan::Named),
            Reuse::Never => None,
        })
    }

    /// The statement, if it is prepared already.
    pub(crate) fn cached(&self, sql: &str) -> Option<Statement> {
        self.statements.get(self.stamp(), sql)
    }

    /// Prepares a statement, or finds it prepared.
    ///
    /// # Cancel safety
    /// Dropped half-way, it leaves nothing in the cache; a name that the server may know by then is not used
    /// again.
    pub(crate) async fn prepare(&self, sql: &str) -> Result<Statement, Error> {
        if let Some(statement) = self.cached(sql) {
            return Ok(statement);
        }
        let before = self.stamp();
        let statement = self.prepare_anew(sql).await?;
        self.statements.keep(before, self.stamp(), sql, &statement);
        Ok(statement)
    }

    /// Prepares a statement; one that is not for the next time leaves the cache as it is.
    ///
    /// # Cancel safety
    /// As [`prepare`](Self::prepare).
    pub(crate) async fn prepare_for(&self, sql: &str, reuse: Reuse) -> Result<Statement, Error> {
        if reuse == Reuse::Kept {
            return self.prepare(sql).await;
        }
        self.prepare_anew(sql).await
    }

    async fn prepare_anew(&self, sql: &str) -> Result<Statement, Error> {
        let preparing = self.statements.preparing();
        let answer = self.driver().prepare(sql).await;
        preparing.answered();
        // Nothing was executed, whatever became of the connection.
        answer.map_err(|error| {
            let error = self.fault(error);
            match error.kind() {
                ErrorKind::ConnectionLost => error.with_outcome(Outcome::NotSent),
                _ => error,
            }
        })
    }

    /// Takes note of a prepared statement that no longer fits, or is gone.
    pub(crate) fn forget(&self, error: &Error) {
        if error.sqlstate() == Some("26000") {
            self.statements.are_gone();
        } else {
            self.statements.are_stale();
            self.client.clear_type_cache();
        }
    }

    pub(crate) fn statements(&self) -> &Statements {
        &self.statements
    }

    /// This moment in what takes prepared statements away.
    pub(crate) fn stamp(&self) -> Stamp {
        self.statements.stamp(self.wire.cleared())
    }

    /// What an error of the driver's means here; says why the connection ended, where that is known.
    pub(crate) fn fault(&self, error: tokio_postgres::Error) -> Error {
        self.explain(Error::from(error))
    }

    /// Adds to the loss of this connection why it was lost, and that nothing was sent where nothing was.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let bare = error.kind() == ErrorKind::ConnectionLost && error.sqlstate().is_none();
        if !bare || !self.is_closed() {
            return error;
        }
        let error = match self.wire.end() {
            Some(end) => {
                Error::from_source(ErrorKind::ConnectionLost, "the connection has ended", end)
            }
            None => error,
        };
        // All that ever went out has been answered, so what got no answer did not go out.
        if self.wire.unanswered() == 0 {
            return error.with_outcome(Outcome::NotSent);
        }
        error
    }

    /// Whether nothing was asked of the server since it was as new.
    pub(crate) fn is_untouched(&self) -> bool {
        // Ordering: Relaxed, as in `unsettle`.
        !self.is_unsettled() && self.clean_at.load(Ordering::Relaxed) == self.wire.written()
    }

    /// Has it made as new at its return, whatever the policy says.
    pub(crate) fn demand_full_reset(&self) {
        // Ordering: Relaxed, as in `unsettle`.
        self.soiled.store(true, Ordering::Relaxed);
    }

    /// Whether that was demanded.
    pub(crate) fn is_soiled(&self) -> bool {
        // Ordering: Relaxed, as in `unsettle`.
        self.soiled.load(Ordering::Relaxed)
    }

    /// Whether a reset makes it as new: by its policy, or because that was demanded.
    pub(crate) fn becomes_as_new(&self) -> bool {
        self.conduct.reset == ResetPolicy::Full || self.is_soiled()
    }

    /// Says that it is as new.
    pub(crate) fn is_clean(&self) {
        // Ordering: Relaxed, as in `unsettle`.
        self.soiled.store(false, Ordering::Relaxed);
        // Ordering: Relaxed, as in `unsettle`.
        self.clean_at.store(self.wire.written(), Ordering::Relaxed);
    }

    /// Queues a simple query and does not wait. Its answers come before those to whatever is sent next.
    pub(crate) fn queue(&self, sql: &str) {
        // The driver queues at the first poll, and reads and drops the answers of a dropped future.
        let queued = self.client.simple_query_raw(sql).now_or_never();
        debug_assert!(queued.is_some(), "the driver queues without waiting");
    }

    /// Ends a transaction in which nothing can have gone wrong, without waiting.
    pub(crate) fn end_unacknowledged(&self, sql: &str) {
        self.queue(sql);
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether the transaction's end was queued just now; asked once.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.swap(false, Ordering::Relaxed)
    }

    /// Whether something may be under way that nobody waits for.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.unsettled.load(Ordering::Relaxed) || self.wire.unanswered() > 0
    }

    pub(crate) fn is_in_transaction(&self) -> bool {
        self.wire.transaction() != TransactionStatus::Idle
    }

    /// Asks the server to cancel what this connection is doing; ready once the request has been carried out.
    pub(crate) async fn cancel(&self) -> Result<(), Error> {
        let Some((process, secret)) = self.wire.key() else {
            return Err(Error::new(
                ErrorKind::Usage,
                "the server gave no key to cancel with",
            ));
        };
        let request = [
            &CANCEL_REQUEST[..],
            &process.to_be_bytes(),
            &secret.to_be_bytes(),
        ]
        .concat();
        let way = &self.way;
        let mut channel = dial(&way.target, &way.place, way.encryption).await?;
        let lost =
            |cause| Error::from_source(ErrorKind::Connect, "the cancel request broke", cause);
        channel.write_all(&request).await.map_err(lost)?;
        channel.flush().await.map_err(lost)?;
        // The server answers by closing, after it has sent the signal. A reset says the same.
        let mut nothing = [0; 16];
        while matches!(channel.read(&mut nothing).await, Ok(read) if read > 0) {}
        Ok(())
    }

    /// Says goodbye; ready once the server has let go. What the connection may still be at is cancelled first:
    /// the server would finish it before it hears the goodbye.
    pub(crate) async fn close(self) {
        if self.is_unsettled()
            && let Err(error) = self.cancel().await
        {
            tracing::debug!(%error, "what a connection was at could not be cancelled before it was closed");
        }
        let Self { client, task, .. } = self;
        let mut task = AbortOnDrop(task);
        drop(client); // The task sends Terminate, and reads to the end of the stream.
        let _ended = (&mut task.0).await;
    }

    /// Ends without a goodbye.
    pub(crate) fn terminate(self) {
        self.task.abort();
    }
}

/// Ends a connection's task with whoever waits for it.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for PgConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgConnection")
            .field("place", &self.way.place)
            .field("process_id", &self.process_id())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
