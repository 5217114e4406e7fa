//! What the adapters promise of any manager, held by managers made for it.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::catch_unwind;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use futures::future::join_all;
use pool_core::compat::{Bb8, R2d2};
use pool_core::{ConnectError, Failure, GetError, Pool, PrePing};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Says goodbye when it is dropped, and blocks for that, as the clients of databases do.
struct Polite(UnboundedSender<bool>);

impl Drop for Polite {
    fn drop(&mut self) {
        // Panics on a thread that drives asynchronous tasks.
        let goodbye = || {
            let runtime = Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {});
        };
        let _ = self.0.send(catch_unwind(goodbye).is_ok());
    }
}

struct PoliteManager(UnboundedSender<bool>);

impl r2d2::ManageConnection for PoliteManager {
    type Connection = Polite;
    type Error = io::Error;
    fn connect(&self) -> io::Result<Polite> {
        Ok(Polite(self.0.clone()))
    }
    fn is_valid(&self, _: &mut Polite) -> io::Result<()> {
        Err(io::Error::other("the server has gone"))
    }
    fn has_broken(&self, _: &mut Polite) -> bool {
        false
    }
}

#[tokio::test]
async fn a_connection_whose_drop_blocks_is_dropped_where_blocking_is_allowed() {
    let (said, mut goodbyes) = unbounded_channel();
    let backend = R2d2(PoliteManager(said)).max_blocking(1);
    let pool = Pool::builder(backend).pre_ping(PrePing::Always).build();
    let pool = pool.unwrap();
    pool.get().await.unwrap().invalidate();
    assert_eq!(goodbyes.recv().await, Some(true), "closed politely");
    drop(pool.get().await.unwrap());
    let conn = pool.get().await.unwrap();
    assert_eq!(goodbyes.recv().await, Some(true), "found dead by a ping");
    drop(conn.detach());
    assert_eq!(goodbyes.recv().await, Some(true), "detached");
    assert!(pool.close().await.is_clean());
}

/// Opens nothing before the test says so.
struct Gated {
    arrived: Mutex<mpsc::Sender<()>>,
    open: Mutex<mpsc::Receiver<()>>,
    opened: AtomicUsize,
}

impl r2d2::ManageConnection for Gated {
    type Connection = usize;
    type Error = io::Error;
    fn connect(&self) -> io::Result<usize> {
        self.arrived.lock().unwrap().send(()).unwrap();
        let open = self.open.lock().unwrap();
        open.recv().map_err(io::Error::other)?;
        Ok(self.opened.fetch_add(1, Ordering::Relaxed) + 1)
    }
    fn is_valid(&self, _: &mut usize) -> io::Result<()> {
        Ok(())
    }
    fn has_broken(&self, _: &mut usize) -> bool {
        false
    }
}

fn gated() -> (Gated, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (arrived, has_arrived) = mpsc::channel();
    let (open, opened) = mpsc::channel();
    let manager = Gated {
        arrived: Mutex::new(arrived),
        open: Mutex::new(opened),
        opened: AtomicUsize::new(0),
    };
    (manager, has_arrived, open)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_calls_block_at_once_than_were_allowed() {
    let (manager, has_arrived, open) = gated();
    let backend = R2d2(manager).max_blocking(2);
    let pool = Pool::builder(backend).pool_size(8).max_connecting(8);
    let pool = pool.build().unwrap();
    let callers = join_all((0..8).map(|_| pool.get_owned()).map(tokio::spawn));
    for _ in 0..2 {
        has_arrived.recv().unwrap();
    }
    for _ in 0..6 {
        assert!(has_arrived.try_recv().is_err(), "a third call blocks");
        open.send(()).unwrap();
        has_arrived.recv().unwrap();
    }
    open.send(()).unwrap();
    open.send(()).unwrap();
    for caller in callers.await {
        assert!(caller.unwrap().is_ok());
    }
}

#[tokio::test]
async fn where_every_place_is_taken_by_a_call_that_does_not_return_callers_get_a_timeout() {
    let (manager, has_arrived, open) = gated();
    let limit = Duration::from_millis(50);
    let backend = R2d2(manager).max_blocking(1);
    let settings = Pool::builder(backend).connect_timeout(limit);
    let pool = settings.down_after(0).build().unwrap();
    for _ in 0..3 {
        let error = pool.get().await.unwrap_err();
        let timed_out =
            matches!(error, GetError::Connect(ConnectError::TimedOut(at)) if at == limit);
        assert!(timed_out, "{error:?}");
    }
    has_arrived.recv().unwrap();
    assert!(
        has_arrived.try_recv().is_err(),
        "the others never began, and never will"
    );
    // The first returns after all, the next one begins, and what was too late is not used.
    open.send(()).unwrap();
    open.send(()).unwrap();
    let conn = loop {
        match pool.get().await {
            Ok(conn) => break conn,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    };
    assert_eq!(**conn, 2);
}

#[test]
#[should_panic(expected = "max_blocking is 0, so nothing could ever be opened: set at least 1")]
fn no_places_at_all_are_refused() {
    let _ = R2d2(gated().0).max_blocking(0);
}

/// For both kinds of pools; does what its switches say.
#[derive(Clone, Default)]
struct Switched(Arc<Switches>);

#[derive(Default)]
struct Switches {
    opened: AtomicUsize,
    broken: AtomicBool,
    panics: AtomicBool,
    fails: AtomicBool,
}

/// An error that is none by the standard library's measure, and may not be shared.
#[derive(Debug)]
struct Odd(Cell<u32>);

/// An error that may not leave its thread.
#[derive(Debug)]
struct Local(Rc<str>);

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Local {}

impl Switched {
    fn open(&self) -> usize {
        self.panic_if_asked();
        self.0.opened.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn panic_if_asked(&self) {
        let panics = self.0.panics.swap(false, Ordering::Relaxed);
        assert!(!panics, "the test asked for it");
    }

    fn valid(&self) -> bool {
        self.panic_if_asked();
        !self.0.fails.load(Ordering::Relaxed)
    }
}

impl bb8::ManageConnection for Switched {
    type Connection = usize;
    type Error = Odd;
    async fn connect(&self) -> Result<usize, Odd> {
        Ok(self.open())
    }
    async fn is_valid(&self, _: &mut usize) -> Result<(), Odd> {
        self.valid().then_some(()).ok_or(Odd(Cell::new(42)))
    }
    fn has_broken(&self, _: &mut usize) -> bool {
        self.0.broken.swap(false, Ordering::Relaxed)
    }
}

impl r2d2::ManageConnection for Switched {
    type Connection = usize;
    type Error = Local;
    fn connect(&self) -> Result<usize, Local> {
        Ok(self.open())
    }
    fn is_valid(&self, _: &mut usize) -> Result<(), Local> {
        self.valid().then_some(()).ok_or(Local("local".into()))
    }
    fn has_broken(&self, _: &mut usize) -> bool {
        self.0.broken.swap(false, Ordering::Relaxed)
    }
}

macro_rules! in_both {
    ($($(#[$doc:meta])* $name:ident)*) => {
        mod of_bb8 {
            use super::*;
            $(#[tokio::test] async fn $name() {
                let switches = Switched::default();
                let backend = Bb8(switches.clone()).map_err(|error: Odd| {
                    io::Error::other(format!("odd {}", error.0.get()))
                });
                let backend = backend.classify(|_| Failure::Permanent);
                super::$name(backend, switches.0, "odd 42").await;
            })*
        }
        mod of_r2d2 {
            use super::*;
            $(#[tokio::test] async fn $name() {
                let switches = Switched::default();
                let backend = R2d2(switches.clone()).map_err(io_error);
                let backend = backend.classify(|_| Failure::Permanent);
                super::$name(backend, switches.0, "local").await;
            })*
        }
    };
}

#[allow(clippy::needless_pass_by_value, reason = "as an adapter wants it")]
fn io_error(error: Local) -> io::Error {
    io::Error::other(error.to_string())
}

in_both! {
    a_connection_that_the_manager_calls_broken_is_closed_when_it_comes_back
    a_panic_of_the_manager_costs_that_connection_alone
    an_error_is_converted_and_classified
}

trait Numbered: pool_core::Backend<Error = io::Error> {
    fn number(conn: &Self::Connection) -> usize;
}

impl Numbered for Bb8<Switched, io::Error> {
    fn number(conn: &usize) -> usize {
        *conn
    }
}

impl Numbered for R2d2<Switched, io::Error> {
    fn number(conn: &Self::Connection) -> usize {
        **conn
    }
}

async fn a_connection_that_the_manager_calls_broken_is_closed_when_it_comes_back<B: Numbered>(
    backend: B,
    switches: Arc<Switches>,
    _: &str,
) {
    let pool = Pool::builder(backend).build().unwrap();
    drop(pool.get().await.unwrap());
    let conn = pool.get().await.unwrap();
    assert_eq!(B::number(&conn), 1);
    switches.broken.store(true, Ordering::Relaxed);
    drop(conn);
    assert_eq!(pool.status().open, 0);
    assert_eq!(B::number(&*pool.get().await.unwrap()), 2);
}

async fn a_panic_of_the_manager_costs_that_connection_alone<B: Numbered>(
    backend: B,
    switches: Arc<Switches>,
    _: &str,
) {
    let settings = Pool::builder(backend).pre_ping(PrePing::Always);
    let pool = settings.pool_size(1).max_overflow(0).build().unwrap();
    drop(pool.get().await.unwrap());
    switches.panics.store(true, Ordering::Relaxed);
    assert_eq!(B::number(&*pool.get().await.unwrap()), 2);
    pool.get().await.unwrap().invalidate();
    switches.panics.store(true, Ordering::Relaxed);
    let panicked = pool.get().await;
    assert!(
        matches!(panicked, Err(GetError::Connect(ConnectError::Panicked))),
        "a panic while opening is told, and not waited for"
    );
    assert_eq!(B::number(&*pool.get().await.unwrap()), 3);
}

async fn an_error_is_converted_and_classified<B: Numbered>(
    backend: B,
    switches: Arc<Switches>,
    text: &str,
) {
    let pool = Pool::builder(backend).pre_ping(PrePing::Always).build();
    let pool = pool.unwrap();
    drop(pool.get().await.unwrap());
    switches.fails.store(true, Ordering::Relaxed);
    match pool.get().await {
        Err(GetError::Ping(cause)) => assert_eq!(cause.to_string(), text),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("the ping failed, and for good"),
    }
}
