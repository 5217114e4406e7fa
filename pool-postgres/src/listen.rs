//! Notifications as a stream that outlives its connection.
//!
//! A listener has a connection of its own, outside the pool's count: it would hold a slot for good. A task keeps it,
//! and opens another when it breaks. What the server sent meanwhile is lost, as is what comes while the reader is too
//! far behind; the stream says so at that place, so that a reader can look at the tables themselves.
//!
//! # What always holds
//! `LISTEN` is in force before [`ListenEvent::MayHaveMissed`] is given: whoever reads the tables then misses
//! nothing that happens after.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::{Either, select};
use pool_core::{Backend, Failure};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::backend::PgBackend;
use crate::connection::PgConnection;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::sql_text::quote_identifier;

/// How many notifications are kept for a reader that is behind.
const KEPT: usize = 4096;
/// How long one attempt to connect may take, `LISTEN` included.
const ATTEMPT: Duration = Duration::from_secs(10);
/// The shortest and the longest pause between attempts to connect again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// The longest name of a channel: the server cuts off what is beyond.
const LONGEST_NAME: usize = 63;

/// What a [`Listener`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenEvent {
    /// Somebody notified a channel.
    Notification(Notification),
    /// Notifications may have been lost before this point: look at what they are about, then go on.
    MayHaveMissed(Missed),
}

/// Why notifications may have been lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missed {
    /// The connection broke; another one listens now.
    Reconnected,
    /// The reader was more than 4096 notifications behind.
    TooSlow,
}

/// One notification.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notification {
    /// The channel's name.
    pub channel: String,
    /// What was said; empty where nothing was.
    pub payload: String,
    /// The server process that notified.
    pub process_id: i32,
}

/// Where a connection puts its notifications.
#[derive(Clone)]
pub(crate) struct Inbox {
    events: mpsc::Sender<Result<ListenEvent, Error>>,
    overflowed: Arc<AtomicBool>,
}

impl Inbox {
    /// Keeps a notification, or the fact that there was no room for it. Never waits: the connection must be read on.
    pub(crate) fn put(&self, notification: &tokio_postgres::Notification) {
        let event = ListenEvent::Notification(Notification {
            channel: notification.channel().to_owned(),
            payload: notification.payload().to_owned(),
            process_id: notification.process_id(),
        });
        if self.events.try_send(Ok(event)).is_err() {
            // Ordering: Relaxed; that something was lost is said at the reader's next look, whichever that is.
            self.overflowed.store(true, Ordering::Relaxed);
        }
    }
}

/// What an engine knows of its listeners.
pub(crate) struct Listeners {
    count: AtomicUsize,
    closing: watch::Sender<bool>,
}

impl Listeners {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            count: AtomicUsize::new(0),
            closing: watch::Sender::new(false),
        })
    }

    pub(crate) fn count(&self) -> usize {
        // Ordering: Relaxed; a number for people.
        self.count.load(Ordering::Relaxed)
    }

    /// Ends all listeners, now and later.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }
}

/// A listener's connection, counted for as long as the task that keeps it.
struct Counted(Arc<Listeners>);

impl Counted {
    fn new(listeners: &Arc<Listeners>) -> Self {
        listeners.count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(listeners))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The notifications of some channels; made by [`Engine::listen`].
///
/// A stream that ends when the engine is closed, or with an error that trying again can't cure (the user was refused,
/// the database is gone). What breaks otherwise is opened anew for as long as it takes, with pauses of up to two
/// seconds; then comes [`ListenEvent::MayHaveMissed`].
#[must_use = "a listener that is dropped listens no more"]
pub struct Listener {
    events: mpsc::Receiver<Result<ListenEvent, Error>>,
    overflowed: Arc<AtomicBool>,
    channels: Vec<String>,
}

impl Listener {
    /// The next event; `None` once the listener has ended.
    ///
    /// # Cancel safety
    /// May be dropped at any point; no event is lost.
    ///
    /// # Errors
    /// What ended the listener. Nothing comes after it.
    #[expect(
        clippy::should_implement_trait,
        reason = "the name that streams have for it"
    )]
    pub fn next(&mut self) -> impl Future<Output = Option<Result<ListenEvent, Error>>> + Send {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx))
    }

    /// The channels that it listens to.
    pub fn channels(&self) -> &[String] {
        &self.channels
    }
}

impl Stream for Listener {
    type Item = Result<ListenEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Said at once, before what is kept: it has happened by now, so who looks at the tables sees it.
        if self.overflowed.swap(false, Ordering::Relaxed) {
            return Poll::Ready(Some(Ok(ListenEvent::MayHaveMissed(Missed::TooSlow))));
        }
        self.events.poll_recv(cx)
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("channels", &self.channels)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Listens to channels, on a connection of its own beside the pool; ready once `LISTEN` is in force.
    ///
    /// The connection is outside the pool's count, and of the hooks only `after_connect` sees it;
    /// [`Engine::listeners`] says how many there are. Names are taken literally, as `pg_notify` takes them.
    ///
    /// ```no_run
    /// use pool_postgres::{Engine, Error, ListenEvent};
    ///
    /// # async fn refresh() {}
    /// # async fn example(engine: Engine) -> Result<(), Error> {
    /// let mut changes = engine.listen(&["prices"]).await?;
    /// refresh().await; // From here on nothing is missed unsaid.
    /// while let Some(event) = changes.next().await {
    ///     match event? {
    ///         ListenEvent::Notification(n) => println!("{}: {}", n.channel, n.payload),
    ///         _ => refresh().await, // Something may have been missed.
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// May be dropped at any point.
    ///
    /// # Errors
    /// Those of connecting and of `LISTEN`. [`ErrorKind::Usage`] for no channel, and for a name that is empty, has a NUL
    /// in it or is longer than 63 bytes.
    pub async fn listen(&self, channels: &[&str]) -> Result<Listener, Error> {
        self.needs_the_server("LISTEN")?;
        let sql = statement(channels)?;
        let (sender, events) = mpsc::channel(KEPT);
        let overflowed = Arc::new(AtomicBool::new(false));
        let inbox = Inbox {
            events: sender,
            overflowed: Arc::clone(&overflowed),
        };
        let keeper = Keeper {
            backend: self.pool().backend().listening(inbox.clone()),
            events: inbox.events,
            sql,
            closing: self.listening().closing.subscribe(),
            _counted: Counted::new(self.listening()),
        };
        if *keeper.closing.borrow() {
            return Err(Error::new(ErrorKind::PoolClosed, "the engine is closed"));
        }
        let first = keeper.open().await?;
        tokio::spawn(keeper.keep(first));
        Ok(Listener {
            events,
            overflowed,
            channels: channels.iter().map(|name| (*name).to_owned()).collect(),
        })
    }

    /// How many listeners there are, each with a connection that the pool does not count.
    pub fn listeners(&self) -> usize {
        self.listening().count()
    }
}

/// `LISTEN` for each channel, as one text.
fn statement(channels: &[&str]) -> Result<String, Error> {
    let fault = |text: String| Err(Error::new(ErrorKind::Usage, text));
    if channels.is_empty() {
        return fault("there is no channel to listen to".to_owned());
    }
    let mut sql = String::new();
    for name in channels {
        if name.is_empty() || name.contains('\0') || name.len() > LONGEST_NAME {
            return fault(format!(
                "{name:?} is no name of a channel: it must have 1 to {LONGEST_NAME} bytes and no NUL"
            ));
        }
        sql.push_str("LISTEN ");
        sql.push_str(&quote_identifier(name));
        sql.push(';');
    }
    Ok(sql)
}

/// What keeps a listener's connection.
struct Keeper {
    backend: PgBackend,
    events: mpsc::Sender<Result<ListenEvent, Error>>,
    sql: String,
    closing: watch::Receiver<bool>,
    _counted: Counted,
}

impl Keeper {
    /// Opens a connection and has it listen.
    async fn open(&self) -> Result<PgConnection, Error> {
        let attempt = async {
            let connection = self.backend.connect().await?;
            match connection.driver().simple_query(&self.sql).await {
                Ok(_) => {
                    connection.settled();
                    Ok(connection)
                }
                Err(error) => {
                    connection.close().await;
                    Err(Error::from(error))
                }
            }
        };
        timeout(ATTEMPT, attempt).await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Connect,
                format!("no listening connection within {ATTEMPT:?}"),
            ))
        })
    }

    /// Keeps a connection open until nobody listens any more.
    async fn keep(self, first: PgConnection) {
        let mut connection = first;
        while self.unless_over(connection.gone()).await.is_some() {
            let event = match self.unless_over(self.open_again()).await {
                None => return,
                Some(Ok(fresh)) => {
                    connection = fresh;
                    Ok(ListenEvent::MayHaveMissed(Missed::Reconnected))
                }
                Some(Err(error)) => Err(error),
            };
            let ends = event.is_err();
            let told = self.unless_over(self.events.send(event)).await.is_some();
            if ends || !told {
                break;
            }
        }
        connection.close().await;
    }

    /// What comes of some work, unless the listener is dropped or the engine closed before.
    async fn unless_over<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        match select(pin!(self.over()), pin!(work)).await {
            Either::Left(_) => None,
            Either::Right((done, _)) => Some(done),
        }
    }

    /// Ready once the listener is dropped or the engine closed.
    async fn over(&self) {
        let mut closing = self.closing.clone();
        let closing = closing.wait_for(|closing| *closing);
        select(pin!(self.events.closed()), pin!(closing)).await;
    }

    /// Tries until it works or can't.
    async fn open_again(&self) -> Result<PgConnection, Error> {
        let mut pause = PAUSES.0;
        loop {
            sleep(pause).await;
            match self.open().await {
                Err(error) if self.backend.classify(&error) != Failure::Permanent => {
                    tracing::debug!(%error, "a listener could not connect again yet");
                    pause = (pause * 2).min(PAUSES.1);
                }
                done => return done,
            }
        }
    }
}
