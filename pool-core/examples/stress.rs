//! Aborted tasks by the thousand over a backend that fails, and the pool whole at the end.
//!
//! For builds that a test harness does not suit, above all `-C panic=abort`, where nothing may panic:
//! `RUSTFLAGS="-C panic=abort" cargo run --release --example stress -- 200000`.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pool_core::{Backend, Health, Pool, PrePing, When};
use tokio::task::{JoinSet, yield_now};

/// How many tasks run at a time.
const WAVE: usize = 200;

/// Connections that are told apart from nothing, and counted.
struct Flaky(Arc<Counts>);

#[derive(Default)]
struct Counts {
    live: AtomicUsize,
    most: AtomicUsize,
}

struct Live(Arc<Counts>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn work() -> Result<(), std::io::Error> {
    for _ in 0..fastrand::u32(..4) {
        yield_now().await;
    }
    if fastrand::u32(..5) == 0 {
        return Err(std::io::Error::other("flaky"));
    }
    Ok(())
}

impl Backend for Flaky {
    type Connection = Live;
    type Error = std::io::Error;

    async fn connect(&self) -> Result<Live, Self::Error> {
        work().await?;
        let live = self.0.live.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(live, Ordering::SeqCst);
        Ok(Live(Arc::clone(&self.0)))
    }

    fn check(&self, _: &mut Live, when: When) -> Health {
        match fastrand::u32(..20) {
            0 => Health::Broken,
            1 => Health::Generation,
            2..=6 if when == When::Return => Health::NeedsReset,
            _ => Health::Good,
        }
    }

    async fn ping(&self, _: &mut Live) -> Result<(), Self::Error> {
        work().await
    }

    async fn reset(&self, _: &mut Live) -> Result<(), Self::Error> {
        work().await
    }

    async fn close(&self, conn: Live) {
        // Whether it went well is of no interest to a connection that goes.
        let _ = work().await;
        drop(conn);
    }
}

async fn use_once(pool: Pool<Flaky>) {
    if let Ok(conn) = pool.get().await {
        for _ in 0..fastrand::u32(..3) {
            yield_now().await;
        }
        if fastrand::u32(..8) == 0 {
            conn.invalidate();
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let tasks: usize = match std::env::args().nth(1) {
        Some(tasks) => tasks.parse()?,
        None => 20_000,
    };
    let counts = Arc::new(Counts::default());
    let pool = Pool::builder(Flaky(Arc::clone(&counts)))
        .pool_size(4)
        .max_overflow(3)
        .pool_timeout(Duration::from_millis(20))
        .backoff(Duration::from_millis(1), Duration::from_millis(2))
        .pre_ping(PrePing::Always)
        .build()?;
    for _ in 0..tasks.div_ceil(WAVE) {
        let mut wave = JoinSet::new();
        for _ in 0..WAVE {
            wave.spawn(use_once(pool.clone()));
        }
        for _ in 0..fastrand::usize(..WAVE / 2) {
            wave.join_next().await;
        }
        wave.abort_all();
        while wave.join_next().await.is_some() {}
    }
    let status = pool.status();
    println!("{tasks} tasks: {status}");
    let most = counts.most.load(Ordering::SeqCst);
    assert!(most <= status.capacity, "{most} were live at once");
    assert!(most > 0, "the tasks went past the pool");
    let report = pool.close().await;
    assert!(report.is_clean(), "something is still held");
    let left = counts.live.load(Ordering::SeqCst);
    assert_eq!(left, 0, "connections are left after the close");
    println!("whole: at most {most} of {} were live", status.capacity);
    Ok(())
}
