//! How a pool opens, checks, cleans and closes PostgreSQL connections.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use pool_core::{Backend, Failure, Health, When};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, SimpleQueryMessage};

use crate::address::{EngineOptions, Place, SslMode, Target, TargetSessionAttrs};
use crate::connection::PgConnection;
use crate::dial::{Encryption, Shaken, attempts, dial};
use crate::error::{Error, ErrorKind};
use crate::listen::Inbox;
use crate::tally::Tally;
use crate::wire::{Recorded, Wire};

/// How long a returned connection gets to finish what it is at by itself, before that is cancelled.
const PATIENCE: Duration = Duration::from_millis(50);

/// Opens, checks, cleans and closes connections to one database.
pub struct PgBackend {
    target: Arc<Target>,
    /// Where notifications go; without one they are dropped.
    inbox: Option<Inbox>,
    tally: Arc<Tally>,
}

impl PgBackend {
    /// Fills in what the options leave open, from the environment.
    pub(crate) fn new(options: EngineOptions) -> Result<Self, Error> {
        Ok(Self {
            target: Arc::new(Target::new(options)?),
            inbox: None,
            tally: Arc::default(),
        })
    }

    /// Connects to the same place; what the server notifies of goes to `inbox`.
    pub(crate) fn listening(&self, inbox: Inbox) -> Self {
        Self {
            target: Arc::clone(&self.target),
            inbox: Some(inbox),
            tally: Arc::clone(&self.tally),
        }
    }

    /// Where the sessions on these connections count.
    pub(crate) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Tries the places in turn; the first of the wanted kind will do.
    async fn open(&self, attrs: TargetSessionAttrs) -> Result<PgConnection, Error> {
        let mut last = None;
        for place in &self.target.places {
            match self.open_in_time(place).await {
                Ok(connection) => match check_attrs(&connection, attrs, place).await {
                    Ok(()) => return Ok(connection),
                    Err(error) => {
                        connection.close().await;
                        last = Some(error);
                    }
                },
                // Another server would say the same.
                Err(error) if error.kind() == ErrorKind::Authentication => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::new(ErrorKind::Config, "there is no host to connect to")))
    }

    /// Gives one of several places its share of `connect_timeout`; a single one has all that the pool gives.
    async fn open_in_time(&self, place: &Place) -> Result<PgConnection, Error> {
        let Some(patience) = self.target.patience else {
            return self.open_at(place).await;
        };
        timeout(patience, self.open_at(place))
            .await
            .unwrap_or_else(|_| {
                Err(Error::new(
                    ErrorKind::Connect,
                    format!(
                        "{place} did not answer within {patience:?}, its share of connect_timeout"
                    ),
                ))
            })
    }

    async fn open_at(&self, place: &Place) -> Result<PgConnection, Error> {
        let mut refused = None;
        for encryption in attempts(self.target.sslmode, place) {
            match self.log_in(place, *encryption).await {
                // The server wants it the other way, if it wants us at all; or its TLS does not work.
                Err(error)
                    if error.sqlstate() == Some("28000")
                        || (error.kind() == ErrorKind::Tls
                            && *encryption == Encryption::IfOffered) =>
                {
                    refused.get_or_insert(error);
                }
                other => return other,
            }
        }
        let error =
            refused.unwrap_or_else(|| Error::new(ErrorKind::Connect, "no attempt was made"));
        if self.target.sslmode == SslMode::Disable && error.to_string().contains("no encryption") {
            return Err(Error::from_source(
                ErrorKind::Tls,
                format!(
                    "{place} demands TLS, and sslmode=disable forbids it: set sslmode=require or better"
                ),
                error,
            ));
        }
        Err(error)
    }

    async fn log_in(&self, place: &Place, encryption: Encryption) -> Result<PgConnection, Error> {
        let channel = dial(&self.target, place, encryption).await?;
        let wire = Arc::new(Wire::new());
        let stream = Recorded::new(channel, Arc::clone(&wire));
        let (client, connection) = self
            .target
            .login
            .connect_raw(stream, Shaken)
            .await
            .map_err(|error| Error::from(error).with_node(place.to_string()))?;
        let (present, gone) = watch::channel(());
        let inbox = self.inbox.clone();
        let task = tokio::spawn(async move {
            drive(connection, inbox).await;
            drop(present);
        });
        let target = Arc::clone(&self.target);
        Ok(PgConnection::new(
            client,
            wire,
            (task, gone),
            target,
            place.clone(),
            encryption,
            Arc::clone(&self.tally),
        ))
    }
}

/// Moves bytes between client and server until the connection ends.
async fn drive<S: AsyncRead + AsyncWrite + Unpin>(
    mut connection: tokio_postgres::Connection<S, S>,
    inbox: Option<Inbox>,
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
                return;
            }
            None => return,
        }
    }
}

async fn check_attrs(
    connection: &PgConnection,
    attrs: TargetSessionAttrs,
    place: &Place,
) -> Result<(), Error> {
    use TargetSessionAttrs as A;
    if matches!(attrs, A::Any) {
        return Ok(());
    }
    let sql = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')";
    let answer = connection.driver().simple_query(sql).await?;
    connection.settled();
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((row.get(0) == Some("t"), row.get(1) == Some("on"))),
        _ => None,
    });
    let (in_recovery, read_only) = row.unwrap_or((true, true));
    let (fits, wanted) = match attrs {
        A::ReadWrite => (!read_only, "read-write"),
        A::ReadOnly => (read_only, "read-only"),
        A::Primary => (!in_recovery, "primary"),
        A::Standby | A::PreferStandby => (in_recovery, "standby"),
        A::Any => (true, "any"),
    };
    if fits {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Connect,
        format!("{place} is not what target_session_attrs={wanted} asks for"),
    ))
}

impl Backend for PgBackend {
    type Connection = PgConnection;
    type Error = Error;

    async fn connect(&self) -> Result<PgConnection, Error> {
        match self.target.attrs {
            TargetSessionAttrs::PreferStandby => {
                match self.open(TargetSessionAttrs::Standby).await {
                    Err(_) => self.open(TargetSessionAttrs::Any).await,
                    found => found,
                }
            }
            attrs => self.open(attrs).await,
        }
    }

    fn check(&self, conn: &mut PgConnection, when: When) -> Health {
        if conn.is_closed() {
            // What ended this one may have ended all of its age.
            return Health::Generation;
        }
        if when == When::Checkout || conn.has_ended() {
            return Health::Good;
        }
        if conn.is_unsettled() {
            return Health::NeedsReset;
        }
        if conn.is_in_transaction() {
            // Queued, and not waited for: its answer comes before the next borrower's first.
            conn.queue("ROLLBACK");
        }
        Health::Good
    }

    async fn ping(&self, conn: &mut PgConnection) -> Result<(), Error> {
        conn.driver().simple_query("").await?;
        conn.settled();
        Ok(())
    }

    /// Brings a connection to rest: waits for what it is at, cancels that if it takes long, rolls back.
    async fn reset(&self, conn: &mut PgConnection) -> Result<(), Error> {
        // An empty query is answered when all before it has been.
        let at_rest = timeout(PATIENCE, conn.driver().simple_query("")).await;
        if at_rest.is_err() {
            conn.cancel().await?;
        }
        // The first may be struck by the cancel itself; after the second nothing of it is left.
        for _ in 0..2 {
            match conn.driver().simple_query("").await.map_err(Error::from) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Cancelled => {}
                Err(error) => return Err(error),
            }
            if at_rest.is_ok() {
                break;
            }
        }
        if conn.is_in_transaction() {
            conn.driver().simple_query("ROLLBACK").await?;
        }
        conn.settled();
        if conn.is_in_transaction() || conn.is_unsettled() {
            return Err(Error::new(
                ErrorKind::ConnectionLost,
                "the connection did not come to rest",
            ));
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
            ErrorKind::ConnectionLost | ErrorKind::OutcomeUnknown => Failure::Generation,
            _ => Failure::Transient,
        }
    }
}
