//! How a pool opens, checks, cleans and closes PostgreSQL connections.

use std::future::poll_fn;
use std::sync::Arc;

use pool_core::{Backend, Failure, Health, HookFuture, When};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_postgres::{AsyncMessage, Client};

use crate::address::{Place, Target};
use crate::conduct::Conduct;
use crate::connection::{PgConnection, Way};
use crate::demotion::Demotions;
use crate::dial::Encryption;
use crate::error::{Error, ErrorKind};
use crate::listen::Inbox;
use crate::open::open;
use crate::reset::ResetPolicy;
use crate::room::Room;
use crate::seeing::{End, Seeing};
use crate::statements::{Schema, Statements};
use crate::tally::Tally;
use crate::wire::Wire;

/// What a user has done to each connection once, right after it was opened.
pub(crate) type SetUp = Arc<dyn for<'a> Fn(&'a mut PgConnection) -> HookFuture<'a> + Send + Sync>;

/// Opens, checks, cleans and closes connections to one database.
pub struct PgBackend {
    target: Arc<Target>,
    set_up: Arc<[SetUp]>,
    room: Arc<Room>,
    /// Where notifications go; without one they are dropped.
    inbox: Option<Inbox>,
    tally: Arc<Tally>,
    conduct: Arc<Conduct>,
    schema: Arc<Schema>,
    seeing: Arc<Seeing>,
    demotions: Arc<Demotions>,
}

impl PgBackend {
    pub(crate) fn new(target: Target, conduct: Conduct, set_up: Vec<SetUp>) -> Self {
        Self {
            seeing: Seeing::new(conduct.seeing.clone(), target.dbname.clone()),
            target: Arc::new(target),
            set_up: set_up.into(),
            room: Arc::default(),
            inbox: None,
            tally: Arc::default(),
            conduct: Arc::new(conduct),
            schema: Arc::default(),
            demotions: Arc::default(),
        }
    }

    /// Connects to the same place; what the server notifies of goes to `inbox`.
    pub(crate) fn listening(&self, inbox: Inbox) -> Self {
        Self {
            target: Arc::clone(&self.target),
            set_up: Arc::clone(&self.set_up),
            room: Arc::clone(&self.room),
            inbox: Some(inbox),
            tally: Arc::clone(&self.tally),
            conduct: Arc::clone(&self.conduct),
            schema: Arc::clone(&self.schema),
            seeing: Arc::clone(&self.seeing),
            demotions: Arc::clone(&self.demotions),
        }
    }

    pub(crate) fn seeing(&self) -> &Arc<Seeing> {
        &self.seeing
    }

    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    /// Where the sessions on these connections count.
    pub(crate) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Does what is done once to each connection.
    async fn prepare(&self, connection: &mut PgConnection) -> Result<(), Error> {
        if !self.target.pooled {
            self.room.compare(connection).await?;
        }
        self.set_up(connection).await?;
        connection.is_clean();
        Ok(())
    }

    /// Does what the user wants done, and sees that nothing is left under way.
    async fn set_up(&self, connection: &mut PgConnection) -> Result<(), Error> {
        for set_up in &*self.set_up {
            set_up(connection).await.map_err(|cause| {
                Error::from_boxed(ErrorKind::Hook, "after_connect failed", cause)
            })?;
        }
        if self.set_up.is_empty() {
            return Ok(());
        }
        // Answered when all is that they left under way.
        let answer = connection.driver().simple_query("").await;
        answer.map_err(|error| connection.fault(error))?;
        connection.settled();
        if connection.is_in_transaction() {
            return Err(Error::new(
                ErrorKind::Hook,
                "after_connect left a transaction open: commit it, or leave out BEGIN",
            ));
        }
        Ok(())
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// The record of a connection that is to be made.
    pub(crate) fn new_record(&self) -> Arc<Wire> {
        Arc::new(Wire::new(self.conduct.longest_message))
    }

    /// Makes a connection of what the driver has logged in.
    pub(crate) fn attach<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        (client, connection): (Client, tokio_postgres::Connection<S, S>),
        wire: Arc<Wire>,
        place: &Place,
        encryption: Encryption,
    ) -> PgConnection {
        let (present, gone) = watch::channel(());
        let (inbox, record) = (self.inbox.clone(), Arc::clone(&wire));
        let task = tokio::spawn(async move {
            drive(connection, inbox, &record).await;
            drop(present);
        });
        let statements = Statements::new(self.conduct.statements, Arc::clone(&self.schema));
        let way = Way {
            target: Arc::clone(&self.target),
            place: place.clone(),
            encryption,
            rank: self.demotions.rank(),
        };
        let server = match place {
            Place::Tcp { host, port, .. } => Some((host.clone(), *port)),
            Place::Unix { .. } => None,
        };
        PgConnection::new(
            client,
            (wire, self.seeing.sight(server)),
            (task, gone),
            way,
            Arc::clone(&self.conduct),
            statements,
            Arc::clone(&self.tally),
        )
    }
}

/// Moves bytes between client and server until the connection ends.
async fn drive<S: AsyncRead + AsyncWrite + Unpin>(
    mut connection: tokio_postgres::Connection<S, S>,
    inbox: Option<Inbox>,
    record: &Wire,
) {
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notification(notification))) => {
                if let Some(inbox) = &inbox {
                    inbox.put(&notification);
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!(%error, "a connection broke");
                // On record before the connection is dropped, which tells those who wait for answers.
                record.ends(|| Error::from(error));
                return;
            }
            None => return,
        }
    }
}

impl Backend for PgBackend {
    type Connection = PgConnection;
    type Error = Error;

    async fn connect(&self) -> Result<PgConnection, Error> {
        let mut connection = open(self).await?;
        match self.prepare(&mut connection).await {
            Ok(()) => Ok(connection),
            Err(error) => {
                connection.terminate();
                Err(error)
            }
        }
    }

    fn check(&self, conn: &mut PgConnection, when: When) -> Health {
        if conn.is_closed() {
            // What ended this one may have ended all of its age.
            return Health::Generation;
        }
        if when == When::Checkout {
            return Health::Good;
        }
        // One that still stands there was left by its caller.
        conn.sight().end(End::Dropped);
        let owners = conn.statements().are_for(None);
        if owners > self.conduct.most_scopes {
            // What the server keeps of all their tables is freed by nothing else.
            return Health::Broken;
        }
        let ended = conn.has_ended();
        let at_rest = ended || !conn.is_unsettled();
        match self.conduct.reset {
            _ if conn.is_soiled() => Health::NeedsReset,
            ResetPolicy::Rollback if !at_rest => Health::NeedsReset,
            ResetPolicy::Rollback => {
                if !ended && conn.is_in_transaction() {
                    // Queued, and not waited for: its answer comes before the next borrower's first.
                    conn.queue("ROLLBACK");
                }
                Health::Good
            }
            // There the reset closes it.
            ResetPolicy::None if ended || (at_rest && !conn.is_in_transaction()) => Health::Good,
            ResetPolicy::Full | ResetPolicy::Custom(_) if conn.is_untouched() => Health::Good,
            _ => Health::NeedsReset,
        }
    }

    async fn ping(&self, conn: &mut PgConnection) -> Result<(), Error> {
        if conn.leads_to_a_standby() {
            let why = "the server is a standby now, and refused a write";
            return Err(Error::new(ErrorKind::ReadOnly, why));
        }
        let untouched = conn.is_untouched();
        // Some poolers trip over an empty query.
        let nothing = if self.target.pooled { "SELECT 1" } else { "" };
        let answer = conn.driver().simple_query(nothing).await;
        answer.map_err(|error| conn.fault(error))?;
        conn.settled();
        if untouched {
            conn.is_clean();
        }
        Ok(())
    }

    /// Brings a connection to rest and does what the [`ResetPolicy`] says; all of it acknowledged.
    async fn reset(&self, conn: &mut PgConnection) -> Result<(), Error> {
        let as_new = conn.becomes_as_new();
        crate::reset::reset(conn).await?;
        if as_new {
            // What was set up is part of a new connection.
            self.set_up(conn).await?;
            conn.is_clean();
        }
        Ok(())
    }

    async fn close(&self, conn: PgConnection) {
        conn.close().await;
    }

    fn terminate(&self, conn: PgConnection) {
        conn.terminate();
    }

    fn classify(&self, error: &Error) -> Failure {
        match error.kind() {
            ErrorKind::Authentication
            | ErrorKind::NoSuchDatabase
            | ErrorKind::Tls
            | ErrorKind::Config
            | ErrorKind::Url => Failure::Permanent,
            ErrorKind::TooManyConnections => Failure::Full,
            // The last is reported only where a standby refused who meant to write.
            ErrorKind::ConnectionLost | ErrorKind::OutcomeUnknown | ErrorKind::ReadOnly => {
                Failure::Generation
            }
            _ => Failure::Transient,
        }
    }
}
