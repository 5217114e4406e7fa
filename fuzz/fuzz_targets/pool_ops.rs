//! Any sequence of operations on a pool, held against a plain model of it.
//!
//! Connections open at once and time is paused, so after each operation the pool comes to rest, and the model can
//! say how it must stand then: how many are idle, in use and waiting, and who was served.
#![no_main]

mod model;

use std::convert::Infallible;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pool_core::{Backend, Health, OwnedPooledConnection, Pool, PrePing, TimeSource, When};
use tokio::task::{JoinHandle, yield_now};

use crate::model::{Asked, Model};

/// The unit in which time passes; no multiple of it is near `pool_timeout`.
const TICK: Duration = Duration::from_millis(1_010);
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Arbitrary, Debug)]
struct Story {
    size: u8,
    overflow: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Get,
    TryGet,
    Return(u8),
    Invalidate(u8),
    Break(u8),
    Leave(u8),
    Resize(u8, u8),
    Suspend,
    Resume,
    InvalidateAll,
    Pass(u8),
    Close,
}

/// Connections that open at once, and are broken when they say so.
struct Plain;

impl Backend for Plain {
    type Connection = bool;
    type Error = Infallible;

    async fn connect(&self) -> Result<bool, Infallible> {
        Ok(true)
    }

    fn check(&self, good: &mut bool, _: When) -> Health {
        if *good { Health::Good } else { Health::Broken }
    }
}

type Held = OwnedPooledConnection<Plain>;
type Waiting = JoinHandle<Option<Held>>;

/// The pool, and those who use it: in the same order as the model has them.
struct Scene {
    pool: Pool<Plain>,
    held: Vec<Held>,
    waiting: Vec<Waiting>,
}

/// Lets everything that can go on go on.
async fn settle() {
    for _ in 0..40 {
        yield_now().await;
    }
}

impl Scene {
    /// Sees whose wait has ended, in the order in which they came.
    async fn collect(&mut self) -> Vec<bool> {
        let mut ended = Vec::new();
        let mut still = Vec::new();
        for waiting in self.waiting.drain(..) {
            if waiting.is_finished() {
                let got = waiting.await.expect("no wait panics");
                ended.push(got.is_some());
                self.held.extend(got);
            } else {
                still.push(waiting);
            }
        }
        self.waiting = still;
        ended
    }

    async fn step(&mut self, step: Step, model: &mut Model) {
        match step {
            Step::Get => {
                let pool = self.pool.clone();
                self.waiting
                    .push(tokio::spawn(async move { pool.get_owned().await.ok() }));
                model.get();
            }
            Step::TryGet => {
                let got = self.pool.try_get_owned();
                assert_eq!(got.is_some(), model.try_get(), "try_get");
                self.held.extend(got);
            }
            Step::Return(which) => {
                if let Some(which) = among(which, self.held.len()) {
                    drop(self.held.remove(which));
                    model.give_back(which);
                }
            }
            Step::Invalidate(which) => {
                if let Some(which) = among(which, self.held.len()) {
                    self.held.remove(which).invalidate();
                    model.close_one(which);
                }
            }
            Step::Break(which) => {
                if let Some(which) = among(which, self.held.len()) {
                    *self.held[which] = false;
                    drop(self.held.remove(which));
                    model.close_one(which);
                }
            }
            Step::Leave(which) => {
                if let Some(which) = among(which, self.waiting.len()) {
                    self.waiting.remove(which).abort();
                    model.leave(which);
                }
            }
            Step::Resize(size, overflow) => {
                let (size, overflow) = limits(size, overflow);
                self.pool.resize(size, overflow).expect("in range");
                model.resize(size, overflow);
            }
            Step::Suspend => {
                self.pool.suspend();
                model.suspend();
            }
            Step::Resume => {
                self.pool.resume();
                model.resume();
            }
            Step::InvalidateAll => {
                self.pool.invalidate_all();
                model.invalidate_all();
            }
            Step::Pass(ticks) => {
                let ticks = u32::from(ticks) % 40;
                tokio::time::advance(TICK * ticks).await;
                model.pass(TICK * ticks);
            }
            Step::Close => {
                let pool = self.pool.clone();
                drop(tokio::spawn(async move { pool.close().await }));
                model.close();
            }
        }
        settle().await;
        let ended = self.collect().await;
        let expected: Vec<_> = model
            .ended()
            .iter()
            .map(|end| *end == Asked::Served)
            .collect();
        assert_eq!(ended, expected, "whose wait ended, and who was served");
        let seen = self.pool.status();
        let now = (seen.idle, seen.in_use, seen.waiting, seen.open);
        assert_eq!(now, model.numbers(), "idle, in use, waiting, open: {seen}");
    }
}

fn among(which: u8, count: usize) -> Option<usize> {
    (count > 0).then(|| usize::from(which) % count)
}

fn limits(size: u8, overflow: u8) -> (usize, usize) {
    (1 + usize::from(size) % 4, usize::from(overflow) % 3)
}

fuzz_target!(|story: Story| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime can be built");
    runtime.block_on(async {
        let (size, overflow) = limits(story.size, story.overflow);
        let pool = Pool::builder(Plain)
            .pool_size(size)
            .max_overflow(overflow)
            .pool_timeout(TIMEOUT)
            .pre_ping(PrePing::Never)
            .recycle(None)
            .idle_timeout(None)
            .time_source(TimeSource::Exact)
            .build()
            .expect("the settings are in range");
        let mut model = Model::new(size, overflow, TIMEOUT);
        let (held, waiting) = (Vec::new(), Vec::new());
        let mut scene = Scene {
            pool,
            held,
            waiting,
        };
        for step in story.steps {
            scene.step(step, &mut model).await;
        }
    });
});
