//! A SQLite file whose connections a test can count, break and hold up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use pool_core::compat::R2d2;
use pool_core::{Builder, Pool};
use r2d2_sqlite::SqliteConnectionManager;
use tempfile::TempDir;
use tokio::sync::watch;

pub(crate) type Sqlite = R2d2<SqliteConnectionManager>;

/// See the module. The file is gone when this is dropped.
pub(crate) struct File {
    folder: TempDir,
    script: Arc<Script>,
}

struct Script {
    opened: AtomicUsize,
    live: watch::Sender<usize>,
    most_live: AtomicUsize,
    /// Statements on connections up to this number fail.
    broken: AtomicUsize,
    /// Statements on the connection of this number stand before the gate.
    held: AtomicUsize,
    gate: Gate,
}

/// Holds one statement up.
struct Gate {
    arrived: Mutex<Option<mpsc::Sender<()>>>,
    open: Mutex<Option<mpsc::Receiver<()>>>,
}

/// The test's side of the gate; opens it when it is dropped.
pub(crate) struct Held {
    has_arrived: mpsc::Receiver<()>,
    _open: mpsc::Sender<()>,
}

impl Held {
    /// Blocks until a statement stands before the gate.
    pub(crate) fn has_arrived(&self) {
        let arrived = self.has_arrived.recv_timeout(Duration::from_secs(30));
        arrived.expect("no statement came to the gate");
    }
}

/// Counts one connection for as long as SQLite has it open.
struct Live(Arc<Script>);

impl Live {
    fn new(script: &Arc<Script>) -> Self {
        script.live.send_modify(|live| {
            *live += 1;
            script.most_live.fetch_max(*live, Ordering::Relaxed);
        });
        Self(Arc::clone(script))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.send_modify(|live| *live -= 1);
    }
}

impl Script {
    /// Whether to interrupt the statement that runs on this connection.
    fn interrupts(&self, number: usize) -> bool {
        if self.held.load(Ordering::Relaxed) == number {
            let take = |end: &Mutex<Option<mpsc::Sender<()>>>| end.lock().unwrap().take();
            if let Some(arrived) = take(&self.gate.arrived) {
                arrived.send(()).expect("the test waits for it");
                let open = self.gate.open.lock().unwrap().take();
                let _ = open.expect("set with the other end").recv();
            }
        }
        number <= self.broken.load(Ordering::Relaxed)
    }
}

impl File {
    pub(crate) fn new() -> Self {
        let script = Script {
            opened: AtomicUsize::new(0),
            live: watch::Sender::new(0),
            most_live: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
            held: AtomicUsize::new(usize::MAX),
            gate: Gate {
                arrived: Mutex::new(None),
                open: Mutex::new(None),
            },
        };
        Self {
            folder: TempDir::new().unwrap(),
            script: Arc::new(script),
        }
    }

    /// A builder over r2d2_sqlite's manager. `SELECT 1` is enough for a connection to notice what the test
    /// has done to it.
    pub(crate) fn settings(&self) -> Builder<Sqlite> {
        let script = Arc::clone(&self.script);
        let path = self.folder.path().join("test.sqlite");
        let manager = SqliteConnectionManager::file(path).with_init(move |conn| {
            // Ordering: Relaxed throughout; what a test does to a connection, it does before it goes on.
            let number = script.opened.fetch_add(1, Ordering::Relaxed) + 1;
            conn.busy_timeout(Duration::from_secs(30))?;
            conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;")?;
            let live = Live::new(&script);
            conn.progress_handler(1, Some(move || live.0.interrupts(number)))?;
            conn.execute_batch("CREATE TABLE IF NOT EXISTS notes (writer INTEGER, note INTEGER)")
        });
        Pool::builder(pool_core::compat::R2d2(manager))
            .pool_size(4)
            .max_overflow(0)
    }

    /// How many connections were ever opened.
    pub(crate) fn opened(&self) -> usize {
        self.script.opened.load(Ordering::Relaxed)
    }

    pub(crate) fn live(&self) -> usize {
        *self.script.live.borrow()
    }

    /// How many connections were open at most at the same time.
    pub(crate) fn most_live(&self) -> usize {
        self.script.most_live.load(Ordering::Relaxed)
    }

    /// Ready once SQLite has this many connections open.
    pub(crate) async fn connections(&self, wanted: usize) {
        let mut live = self.script.live.subscribe();
        drop(live.wait_for(|live| *live == wanted).await.unwrap());
    }

    /// From now on statements fail on all connections that were opened so far.
    pub(crate) fn break_all(&self) {
        self.script.broken.store(self.opened(), Ordering::Relaxed);
    }

    /// From now on a statement on the connection of that number stands still until `Held` is dropped.
    pub(crate) fn hold(&self, number: usize) -> Held {
        let (arrived, has_arrived) = mpsc::channel();
        let (open, opened) = mpsc::channel();
        *self.script.gate.arrived.lock().unwrap() = Some(arrived);
        *self.script.gate.open.lock().unwrap() = Some(opened);
        self.script.held.store(number, Ordering::Relaxed);
        Held {
            has_arrived,
            _open: open,
        }
    }
}
