//! The pool for threads without a runtime. Its own thread runs on real time, so what is waited for here is
//! always an event.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pool_core::{BlockingPool, BuildError, Builder, FnBackend, GetError, Pool, StartError};
use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;

/// For what must happen; far more than it takes.
const LONG: Duration = Duration::from_secs(30);

const BRIEF: Duration = Duration::from_millis(20);

type Numbers = FnBackend<u32, io::Error>;

thread_local! {
    /// Tells of the end of a pool's thread.
    static END: RefCell<Option<Ended>> = const { RefCell::new(None) };
}

struct Ended(Sender<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// What a pool's thread does, as seen from outside.
struct Watch {
    ended: Receiver<()>,
    closed: Receiver<u32>,
}

impl Watch {
    fn thread_ended(&self) {
        self.ended
            .recv_timeout(LONG)
            .expect("the pool's thread goes on");
    }

    fn thread_goes_on(&self) {
        assert!(
            self.ended.try_recv().is_err(),
            "the pool's thread has ended"
        );
    }
}

/// Numbers 1, 2, 3, …, opened by a thread whose end can be watched.
fn watched() -> (Numbers, Watch) {
    let (ends, ended) = mpsc::channel();
    let (goodbyes, closed) = mpsc::channel();
    let (ends, goodbyes) = (Mutex::new(Some(ends)), Mutex::new(goodbyes));
    let opened = Mutex::new(0);
    let connect = move || {
        if let Some(ends) = ends.lock().take() {
            END.with_borrow_mut(|end| *end = Some(Ended(ends)));
        }
        let mut opened = opened.lock();
        *opened += 1;
        let number = *opened;
        async move { Ok(number) }
    };
    let close = move |number| {
        let _ = goodbyes.lock().send(number);
        async {}
    };
    (
        FnBackend::new(connect).close(close),
        Watch { ended, closed },
    )
}

fn settings(size: usize) -> Builder<Numbers> {
    Pool::builder(watched().0).pool_size(size).max_overflow(0)
}

fn pool(size: usize) -> BlockingPool<Numbers> {
    BlockingPool::new(settings(size)).unwrap()
}

/// Waits until that many callers stand in the queue.
fn waiting(pool: &BlockingPool<Numbers>, callers: usize) {
    let begun = Instant::now();
    while pool.status().waiting != callers {
        assert!(begun.elapsed() < LONG, "{}", pool.status());
        thread::yield_now();
    }
}

fn plain_runtime() -> Runtime {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn threads_share_the_connections_and_none_is_used_twice_at_once() {
    let pool = pool(3);
    let in_use = Mutex::new([false; 4]);
    thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                for _ in 0..200 {
                    let conn = pool.get().unwrap();
                    let number = *conn as usize;
                    assert!(!std::mem::replace(&mut in_use.lock()[number], true));
                    thread::yield_now();
                    in_use.lock()[number] = false;
                }
            });
        }
    });
    let status = pool.status();
    assert_eq!((status.in_use, status.waiting), (0, 0), "{status}");
}

#[test]
fn a_thread_that_finds_nothing_idle_sleeps_until_a_return() {
    let pool = pool(1);
    let held = pool.get().unwrap();
    thread::scope(|threads| {
        let waiter = threads.spawn(|| *pool.get().unwrap());
        waiting(&pool, 1);
        drop(held);
        assert_eq!(waiter.join().unwrap(), 1);
    });
}

#[test]
fn threads_are_served_in_the_order_in_which_they_came() {
    let pool = pool(1);
    let held = pool.get().unwrap();
    let served = Mutex::new(Vec::new());
    thread::scope(|threads| {
        for caller in 0..4 {
            let (pool, served) = (&pool, &served);
            threads.spawn(move || {
                let _conn = pool.get().unwrap();
                served.lock().push(caller);
            });
            waiting(pool, caller + 1);
        }
        drop(held);
    });
    assert_eq!(*served.lock(), [0, 1, 2, 3]);
}

#[test]
fn a_timeout_of_the_callers_own_holds_instead_of_the_pools() {
    let pool = BlockingPool::new(settings(1).pool_timeout(LONG)).unwrap();
    let held = pool.get().unwrap();
    let line = line!() - 1;
    for limit in [Duration::ZERO, BRIEF] {
        let begun = Instant::now();
        match pool.get_timeout(limit) {
            Err(GetError::TimedOut(timed_out)) => {
                let longest = timed_out.longest.expect("one is held");
                assert_eq!(
                    (longest.place.file(), longest.place.line()),
                    (file!(), line)
                );
            }
            other => panic!("{other:?}"),
        }
        assert!(begun.elapsed() >= limit && begun.elapsed() < LONG);
    }
    drop(held);
    assert_eq!(*pool.get_timeout(Duration::ZERO).unwrap(), 1);
}

#[test]
fn try_get_never_blocks_and_never_opens() {
    let pool = pool(1);
    assert!(pool.try_get().is_none());
    assert_eq!(pool.status().open, 0);
    drop(pool.get().unwrap());
    let held = pool.try_get().unwrap();
    assert!(pool.try_get_owned().is_none());
    drop(held);
    assert!(pool.try_get_owned().is_some());
}

#[test]
fn a_failure_to_connect_reaches_the_thread_that_waits_for_it() {
    let refused = || async { Err::<u32, _>(io::Error::from(io::ErrorKind::ConnectionRefused)) };
    let pool = BlockingPool::new(Pool::builder(FnBackend::new(refused))).unwrap();
    let error = pool.get().unwrap_err();
    let cause = error.backend_error().unwrap();
    assert_eq!(cause.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn threads_that_wait_for_a_pool_that_is_closed_are_refused() {
    let pool = BlockingPool::new(settings(1).close_deadline(BRIEF)).unwrap();
    let held = pool.get().unwrap();
    thread::scope(|threads| {
        let waiter = threads.spawn(|| pool.get().map(|conn| *conn));
        waiting(&pool, 1);
        let report = pool.close();
        assert_eq!(report.still_held.len(), 1);
        let refused = waiter.join().unwrap();
        assert!(matches!(refused, Err(GetError::Closed)), "{refused:?}");
    });
    drop(held);
    assert!(pool.close().is_clean());
}

#[test]
fn dropping_the_last_handle_closes_the_connections_and_ends_the_thread() {
    let (backend, watch) = watched();
    let pool = BlockingPool::new(Pool::builder(backend)).unwrap();
    drop(pool.get().unwrap());
    let another = pool.clone();
    drop(pool);
    assert_eq!(*another.get().unwrap(), 1);
    watch.thread_goes_on();
    drop(another);
    watch.thread_ended();
    assert_eq!(watch.closed.try_iter().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_pool_may_be_made_and_dropped_in_asynchronous_code() {
    let (backend, watch) = watched();
    plain_runtime().block_on(async {
        let pool = BlockingPool::new(Pool::builder(backend)).unwrap();
        let conn = pool.pool().get_owned().await.unwrap();
        assert_eq!(*conn, 1);
        drop(pool);
        watch.thread_goes_on();
        drop(conn);
        let refused = BlockingPool::new(settings(0)).unwrap_err();
        assert!(matches!(
            refused,
            StartError::Settings(BuildError::NoCapacity)
        ));
    });
}

#[test]
fn a_pool_may_be_dropped_on_its_own_thread() {
    let (backend, watch) = watched();
    let pool = BlockingPool::new(Pool::builder(backend)).unwrap();
    drop(pool.get().unwrap());
    let last = pool.clone();
    let (others_dropped, go_on) = oneshot::channel();
    pool.block_on(async {
        tokio::spawn(async move {
            go_on.await.unwrap();
            drop(last);
        });
    });
    drop(pool);
    others_dropped.send(()).unwrap();
    watch.thread_ended();
}

#[test]
fn a_guard_that_outlives_the_pool_has_its_connection_closed_politely() {
    let (backend, watch) = watched();
    let pool = BlockingPool::new(Pool::builder(backend)).unwrap();
    let conn = pool.get_owned().unwrap();
    drop(pool);
    watch.thread_goes_on();
    assert_eq!(*conn, 1);
    drop(conn);
    assert_eq!(watch.closed.recv_timeout(LONG), Ok(1));
    watch.thread_ended();
}

#[test]
fn the_thread_does_not_wait_for_a_guard_longer_than_the_deadline() {
    let (backend, watch) = watched();
    let settings = Pool::builder(backend).close_deadline(BRIEF);
    let pool = BlockingPool::new(settings).unwrap();
    let conn = pool.get_owned().unwrap();
    drop(pool);
    watch.thread_ended();
    drop(conn);
}

#[test]
fn in_asynchronous_code_what_is_idle_is_had_and_blocking_panics_instead_of_standing_still() {
    let many = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    for runtime in [plain_runtime(), many.unwrap()] {
        let pool = pool(1);
        drop(pool.get().unwrap());
        let there = pool.clone();
        let task = async move {
            let _held = there.get().unwrap();
            drop(there.get());
        };
        let panic = runtime.block_on(runtime.spawn(task)).unwrap_err();
        let message = panic.into_panic();
        let message = message.downcast_ref::<&str>().copied();
        assert!(
            message.is_some_and(
                |text| text.starts_with("Cannot start a runtime from within a runtime")
            ),
            "{message:?}"
        );
        drop(pool.get().unwrap()); // The panic has cost one connection, and nothing else.
    }
}

#[test]
fn blocking_is_right_inside_of_spawn_blocking() {
    let pool = pool(1);
    let held = pool.get().unwrap();
    let there = pool.clone();
    let runtime = plain_runtime();
    runtime.block_on(async {
        let waiter = tokio::task::spawn_blocking(move || *there.get().unwrap());
        waiting(&pool, 1);
        drop(held);
        assert_eq!(waiter.await.unwrap(), 1);
    });
    drop(runtime);
    drop(pool.get().unwrap());
    assert!(pool.close().is_clean());
}

#[test]
fn threads_and_tasks_share_one_pool() {
    let pool = pool(1);
    let shared = pool.pool().clone();
    let both = Arc::new(Barrier::new(2));
    let task = thread::spawn({
        let both = Arc::clone(&both);
        move || {
            plain_runtime().block_on(async {
                let held = shared.get().await.unwrap();
                both.wait();
                while shared.status().waiting == 0 {
                    tokio::task::yield_now().await;
                }
                drop(held);
            });
        }
    });
    both.wait();
    assert_eq!(*pool.get().unwrap(), 1);
    task.join().unwrap();
}

#[test]
fn the_pools_own_runtime_does_its_work_wherever_the_pool_was_made() {
    let elsewhere = plain_runtime();
    let pool = elsewhere.block_on(async { pool(1) });
    drop(elsewhere);
    let conn = futures::executor::block_on(pool.pool().get_owned());
    assert_eq!(*conn.unwrap(), 1);
}

#[test]
fn a_process_without_file_descriptors_gets_an_error() {
    let this = std::env::current_exe().unwrap();
    let script = "ulimit -n 64; exec \"$0\" --ignored --exact blocking::without_file_descriptors";
    let child = Command::new("sh").args(["-c", script]).arg(this).output();
    let child = child.unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

#[test]
#[ignore = "run by the test above, in a process whose limit is low"]
fn without_file_descriptors() {
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    let error = BlockingPool::new(settings(1)).unwrap_err();
    drop(files);
    assert!(matches!(error, StartError::Runtime(_)), "{error:?}");
    assert!(std::error::Error::source(&error).is_some());
    drop(pool(1).get().unwrap());
}
