//! A TCP proxy that does to connections what networks do: delay, stall, throttle, split, cut, refuse.
//!
//! It runs on the background runtime, so a test that keeps its own thread busy delays nothing here. Each
//! lever takes effect before it returns, and setting it to what it is changes nothing. Levers hold for
//! connections that are open and for those to come.

mod pump;

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as blocking};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::background::runtime;
use crate::config::{APP, PASSWORD};
use crate::{Error, port};

/// Which end of a connection the bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What the client sends.
    Client,
    /// What the server answers.
    Server,
}

/// A proxy before one server; made by [`crate::Node::proxy`]. Dropping it closes its connections and port.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    control: Arc<Control>,
    /// Tells the listener whether to accept, and gets its answer. Closing it ends the proxy.
    listen: mpsc::UnboundedSender<(bool, blocking::SyncSender<()>)>,
}

/// What the levers set and the connections read.
#[derive(Debug)]
struct Control {
    server: u16,
    levers: watch::Sender<Levers>,
    open: AtomicUsize,
    round_trips: AtomicU64,
    /// How many bytes may still pass from each side until that connection is cut.
    cut_after: Mutex<CutAfter>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Levers {
    delay: Duration,
    black_hole: bool,
    throttle: Option<u64>,
    split_bytes: bool,
    /// Raised by each cut: a connection that sees it change is over.
    cuts: u64,
}

#[derive(Debug, Default)]
struct CutAfter {
    client: Option<u64>,
    server: Option<u64>,
}

impl Proxy {
    /// A proxy before a server on this machine.
    pub async fn before(server: u16) -> Result<Self, Error> {
        let started = runtime().spawn(async move {
            let port = port::free()?;
            let listener = bind(port)
                .await
                .map_err(Error::io("listen at", port_path(port).as_ref()))?;
            let control = Arc::new(Control {
                server,
                levers: watch::Sender::new(Levers::default()),
                open: AtomicUsize::new(0),
                round_trips: AtomicU64::new(0),
                cut_after: Mutex::default(),
            });
            let (listen, orders) = mpsc::unbounded_channel();
            runtime().spawn(serve(listener, port, Arc::clone(&control), orders));
            Ok(Self {
                port,
                control,
                listen,
            })
        });
        started
            .await
            .map_err(|error| Error::Refused(error.to_string()))?
    }

    /// Its TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the database `app` is reached through it, as the user `app`.
    pub fn url(&self) -> String {
        self.url_for(APP)
    }

    /// [`Proxy::url`] for another database.
    pub fn url_for(&self, database: &str) -> String {
        format!(
            "postgresql://{APP}:{PASSWORD}@127.0.0.1:{}/{database}",
            self.port
        )
    }

    /// Holds all bytes back this long, in each direction: a round trip takes twice as much longer.
    pub fn set_delay(&self, delay: Duration) {
        self.set(|levers| levers.delay = delay);
    }

    /// Stalls everything: connections stay open, new ones are accepted, and nothing passes. Lifted, what was
    /// held back goes on, as after a lost route.
    pub fn black_hole(&self, on: bool) {
        self.set(|levers| levers.black_hole = on);
    }

    /// Lets through at most so many bytes a second, for each connection and direction; `None` for all.
    pub fn throttle(&self, bytes_per_second: Option<u64>) {
        self.set(|levers| levers.throttle = bytes_per_second.map(|rate| rate.max(1)));
    }

    /// Passes each byte on in a write of its own.
    pub fn split_bytes(&self, on: bool) {
        self.set(|levers| levers.split_bytes = on);
    }

    /// Closes all connections that are open now; what was held back in them is lost.
    pub fn cut(&self) {
        self.set(|levers| levers.cuts += 1);
    }

    /// Passes on exactly so many more bytes from one side, counted over all connections, then closes the
    /// connection that brought the last of them. Happens once.
    pub fn cut_after(&self, side: Side, bytes: u64) {
        *self.control.cut_after().of(side) = Some(bytes);
    }

    /// Closes the port, so that new connections are refused; `false` opens it again. Open connections stay.
    pub fn refuse(&self, refuse: bool) {
        let (done, is_done) = blocking::sync_channel(1);
        if self.listen.send((!refuse, done)).is_ok() {
            // The listener answers at once: the background runtime is never blocked.
            let _ = is_done.recv();
        }
    }

    /// How often a client sent something and got an answer.
    ///
    /// What a client sends before an answer reaches it belongs to one round trip, however many packets it
    /// takes. Without a delay an answer can overtake the rest of a burst: set one of a few milliseconds
    /// where the exact number counts. Starting a connection takes round trips too.
    pub fn round_trips(&self) -> u64 {
        // Ordering: Relaxed; the caller saw the answer itself, which came after the count.
        self.control.round_trips.load(Ordering::Relaxed)
    }

    /// How many client connections are open.
    pub fn connections(&self) -> usize {
        // Ordering: Relaxed; a number to look at.
        self.control.open.load(Ordering::Relaxed)
    }

    fn set(&self, change: impl FnOnce(&mut Levers)) {
        self.control.levers.send_modify(change);
    }
}

impl Control {
    fn cut_after(&self) -> std::sync::MutexGuard<'_, CutAfter> {
        self.cut_after
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of `read` bytes may pass, and whether the connection ends after them.
    fn admit(&self, side: Side, read: usize) -> (usize, bool) {
        let mut cut_after = self.cut_after();
        let left = cut_after.of(side);
        let bytes = read as u64;
        match *left {
            // Fits: it is at most `read`.
            Some(few) if few <= bytes => {
                *left = None;
                (usize::try_from(few).unwrap_or(read), true)
            }
            Some(many) => {
                *left = Some(many - bytes);
                (read, false)
            }
            None => (read, false),
        }
    }
}

impl CutAfter {
    fn of(&mut self, side: Side) -> &mut Option<u64> {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }
}

/// Accepts until the proxy is dropped; its connections end with it.
async fn serve(
    listener: TcpListener,
    port: u16,
    control: Arc<Control>,
    mut orders: mpsc::UnboundedReceiver<(bool, blocking::SyncSender<()>)>,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some((accept, done)) = order else { return };
                if !accept {
                    listener = None;
                } else if listener.is_none() {
                    listener = bind_again(port).await;
                }
                // The caller may have gone.
                let _ = done.send(());
            }
            accepted = accept(listener.as_ref()) => {
                if let Ok(client) = accepted {
                    connections.spawn(pump::connection(client, Arc::clone(&control)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<tokio::net::TcpStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => std::future::pending().await,
    }
}

pub(crate) async fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

/// How an address is named in an error.
pub(crate) fn port_path(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Takes a port back that was given up for a while.
async fn bind_again(port: u16) -> Option<TcpListener> {
    for _ in 0..500 {
        match bind(port).await {
            Ok(listener) => return Some(listener),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    tracing::error!(
        port,
        "somebody else took the proxy's port; it goes on refusing"
    );
    None
}
