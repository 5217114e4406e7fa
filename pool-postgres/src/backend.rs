//! How a pool opens, checks, cleans and closes PostgreSQL connections.

use std::future::poll_fn;
use std::sync::Arc;

use pool_core::{Backend, Failure, Health, When};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, SimpleQueryMessage};

use crate::address::{EngineOptions, Place, SslMode, Target, TargetSessionAttrs};
use crate::conduct::Conduct;
use crate::connection::{PgConnection, Way};
use crate::dial::{Encryption, Shaken, attempts, dial};
use crate::error::{Error, ErrorKind};
use crate::listen::Inbox;
use crate::reset::ResetPolicy;
use crate::statements::{Schema, Statements};
use crate::tally::Tally;
use crate::wire::{Recorded, Wire};

/// Opens, checks, cleans and closes connections to one database.
pub struct PgBackend {
    target: Arc<Target>,
    /// Where notifications go; without one they are dropped.
    inbox: Option<Inbox>,
    tally: Arc<Tally>,
    conduct: Arc<Conduct>,
    schema: Arc<Schema>,
}

impl PgBackend {
    /// Fills in what the options leave open, from the environment.
    pub(crate) fn new(options: EngineOptions, conduct: Conduct) -> Result<Self, Error> {
        Ok(Self {
            target: Arc::new(Target::new(options)?),
            inbox: None,
            tally: Arc::default(),
            conduct: Arc::new(conduct),
            schema: Arc::default(),
        })
    }

    /// Connects to the same place; what the server notifies of goes to `inbox`.
    pub(crate) fn listening(&self, inbox: Inbox) -> Self {
        Self {
            target: Arc::clone(&self.target),
            inbox: Some(inbox),
            tally: Arc::clone(&self.tally),
            conduct: Arc::clone(&self.conduct),
            schema: Arc::clone(&self.schema),
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
        let wire = Arc::new(Wire::new(self.conduct.longest_message));
        let stream = Recorded::new(channel, Arc::clone(&wire));
        let (client, connection) = self
            .target
            .login
            .connect_raw(stream, Shaken)
            .await
            .map_err(|error| Error::at_start(error).with_node(place.to_string()))?;
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
        };
        Ok(PgConnection::new(
            client,
            wire,
            (task, gone),
            way,
            Arc::clone(&self.conduct),
            statements,
            Arc::clone(&self.tally),
        ))
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
    let answer = connection.driver().simple_query(sql).await;
    let answer = answer.map_err(|error| connection.fault(error))?;
    connection.settled();
    connection.is_clean();
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((
            row.try_get(0).ok()? == Some("t"),
            row.try_get(1).ok()? == Some("on"),
        )),
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
        if when == When::Checkout {
            return Health::Good;
        }
        let ended = conn.has_ended();
        let at_rest = ended || !conn.is_unsettled();
        match self.conduct.reset {
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
        let untouched = conn.is_untouched();
        let answer = conn.driver().simple_query("").await;
        answer.map_err(|error| conn.fault(error))?;
        conn.settled();
        if untouched {
            conn.is_clean();
        }
        Ok(())
    }

    /// Brings a connection to rest and does what the [`ResetPolicy`] says; all of it acknowledged.
    async fn reset(&self, conn: &mut PgConnection) -> Result<(), Error> {
        crate::reset::reset(conn).await
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
