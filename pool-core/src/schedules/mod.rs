//! Random schedules of the whole pool: tasks that check out, return, fail and are cancelled, with the next step
//! given to whoever the dice say.
//!
//! Run them with `cargo xtask prove` (100,000 of them) or `cargo xtask test` (a few). Where the models of the protocol
//! try every order of a few steps, these try some orders of very many, over the public API and with time, tasks and
//! timers among what is shuffled. A task that waits for ever is a deadlock, and fails; a failure prints the
//! schedule, which `shuttle::replay` runs again.

mod ending;
mod sharing;
mod storms;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use shuttle::future::{JoinHandle, block_on, spawn, yield_now};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, MaxSteps, Runner};

use crate::{
    Backend, Builder, GetOptions, Health, OwnedPooledConnection, Pool, Status, When, rt,
    virtual_time,
};

/// How many stories share the schedules of one run.
const STORIES: usize = 8;

/// Tells a story in as many schedules as its share comes to: `POOL_SCHEDULES` for all stories, where that is set.
fn explore<F: Future<Output = ()> + 'static>(story: impl Fn() -> F + Send + Sync + 'static) {
    let told = std::env::var("POOL_SCHEDULES").ok();
    let all: usize = told.and_then(|all| all.parse().ok()).unwrap_or(2_000);
    let share = all.div_ceil(STORIES);
    let mut config = Config::new();
    config.stack_size = 0x2_0000;
    config.max_steps = MaxSteps::FailAfter(200_000);
    let story = Arc::new(move || {
        virtual_time::begin();
        fastrand::seed(thread_rng().r#gen());
        drop(spawn(virtual_time::drive()));
        block_on(async {
            story().await;
            // No task outlives the pools that it serves.
            while rt::tasks() > 0 {
                yield_now().await;
            }
        });
    });
    // Most by dice alone; some by priorities that change seldom, which finds what needs a long run of one task.
    let by_priority = share / 4;
    let scheduler = RandomScheduler::new(share - by_priority);
    let told = Arc::clone(&story);
    Runner::new(scheduler, config.clone()).run(move || told());
    if by_priority > 0 {
        let scheduler = PctScheduler::new(3, by_priority);
        Runner::new(scheduler, config).run(move || story());
    }
}

/// A number below `end`, by the schedule's dice.
fn dice(end: usize) -> usize {
    thread_rng().gen_range(0..end)
}

async fn dawdle(end: usize) {
    for _ in 0..dice(end) {
        yield_now().await;
    }
}

/// Polls a future to its end or, half of the time, up to some poll; then drops it after a while.
async fn cut<F: Future>(future: F) -> Option<F::Output> {
    let mut left = if dice(2) == 0 { usize::MAX } else { dice(6) };
    let mut future = pin!(future);
    let output = poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let polled = future.as_mut().poll(cx);
        if left == 0 && polled.is_pending() {
            cx.waker().wake_by_ref();
        }
        polled.map(Some)
    });
    let output = output.await;
    if output.is_none() {
        dawdle(3).await; // It is still there, and may be handed something.
    }
    output
}

#[derive(Debug)]
struct Misfortune;

impl std::fmt::Display for Misfortune {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("misfortune")
    }
}

impl std::error::Error for Misfortune {}

/// What the connections of one backend know of each other. Plain numbers: they lend the pool no order.
#[derive(Default)]
struct Seen {
    live: AtomicUsize,
    most: AtomicUsize,
    fickle: AtomicBool,
}

/// A connection, counted while it lives.
struct Live(Arc<Seen>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A backend that takes a few steps for everything, and fails now and then while it is fickle.
#[derive(Clone, Default)]
struct Dice(Arc<Seen>);

impl Dice {
    fn fickle() -> Self {
        let dice = Self::default();
        dice.0.fickle.store(true, Ordering::Relaxed);
        dice
    }

    fn fails(&self, odds: usize) -> bool {
        self.0.fickle.load(Ordering::Relaxed) && dice(odds) == 0
    }

    async fn work(&self) -> Result<(), Misfortune> {
        dawdle(3).await;
        if self.fails(4) {
            return Err(Misfortune);
        }
        Ok(())
    }

    fn live(&self) -> usize {
        self.0.live.load(Ordering::Relaxed)
    }

    /// Counts the most that were live from here on.
    fn forget(&self) {
        self.0.most.store(self.live(), Ordering::Relaxed);
    }

    /// Fails no more.
    fn settle(&self) {
        self.0.fickle.store(false, Ordering::Relaxed);
    }
}

impl Backend for Dice {
    type Connection = Live;
    type Error = Misfortune;

    async fn connect(&self) -> Result<Live, Misfortune> {
        let live = self.0.live.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.most.fetch_max(live, Ordering::Relaxed);
        let conn = Live(Arc::clone(&self.0));
        self.work().await?;
        Ok(conn)
    }

    fn check(&self, _: &mut Live, when: When) -> Health {
        match when {
            _ if self.fails(8) => Health::Broken,
            _ if self.fails(12) => Health::Generation,
            When::Return if self.fails(4) => Health::NeedsReset,
            _ => Health::Good,
        }
    }

    async fn ping(&self, _: &mut Live) -> Result<(), Misfortune> {
        self.work().await
    }

    async fn reset(&self, _: &mut Live) -> Result<(), Misfortune> {
        self.work().await
    }

    async fn close(&self, conn: Live) {
        dawdle(2).await;
        drop(conn);
    }
}

/// A pool with a `pool_timeout` that time may reach at any step; or, half of the time, with none: a wake-up that is
/// lost then shows as a wait without end.
fn pool(backend: &Dice, size: usize, overflow: usize) -> Builder<Dice> {
    let limit = (dice(2) == 0).then_some(Duration::from_secs(30));
    Pool::builder(backend.clone())
        .pool_size(size)
        .max_overflow(overflow)
        .pool_timeout(limit)
        .backoff(Duration::from_millis(1), Duration::from_millis(4))
}

/// Checks out and returns a few times, cancelled here and there.
async fn customer(pool: Pool<Dice>) {
    for _ in 0..=dice(3) {
        match dice(5) {
            0 => drop(pool.try_get()),
            1 => {
                if let Some(Ok(conn)) = cut(pool.get_owned()).await {
                    dawdle(3).await;
                    conn.invalidate();
                }
            }
            _ => {
                if let Some(Ok(conn)) = cut(pool.get()).await {
                    dawdle(3).await;
                    drop(conn);
                }
            }
        }
    }
}

/// Lets two to four customers in.
fn customers(pool: &Pool<Dice>) -> Vec<JoinHandle<()>> {
    (0..2 + dice(3))
        .map(|_| spawn(customer(pool.clone())))
        .collect()
}

async fn all(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        task.await.expect("no task is aborted");
    }
}

/// Waits until nothing goes on in a pool.
async fn calm(pool: &Pool<Dice>) -> Status {
    loop {
        let seen = pool.status();
        let busy = seen.connecting + seen.resetting + seen.closing + seen.waiting + seen.in_use;
        if busy == 0 {
            return seen;
        }
        yield_now().await;
    }
}

/// Checks out, waiting as long as it takes. A failure from before may still be told once, and time may end an
/// opening at any step.
async fn surely(pool: &Pool<Dice>) -> OwnedPooledConnection<Dice> {
    loop {
        let patient = GetOptions::new().timeout(None);
        if let Ok(conn) = pool.get_owned_with(patient).await {
            return conn;
        }
    }
}

/// After the story: the pool is at rest, and its whole capacity can be had at the same time.
async fn whole(pool: &Pool<Dice>, backend: &Dice) {
    backend.settle();
    let seen = calm(pool).await;
    assert!(
        backend.0.most.load(Ordering::Relaxed) <= seen.capacity,
        "more were live than may be: {seen}"
    );
    let mut held = Vec::new();
    while held.len() < seen.capacity {
        held.push(surely(pool).await);
    }
    assert_eq!(backend.live(), seen.capacity, "each is there once");
    drop(held);
    // The pool may be replacing one at any time, so this is waited for as well.
    loop {
        let seen = calm(pool).await;
        if backend.live() == seen.open {
            assert!(
                seen.idle <= seen.size,
                "no more are kept than may be: {seen}"
            );
            return;
        }
        yield_now().await;
    }
}
