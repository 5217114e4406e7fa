//! One checkout and return after another, for counting instructions:
//! `valgrind --tool=callgrind target/release/examples/cycle 100000`. Without an argument, times them.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pool_core::{Backend, Pool};

/// Cycles timed at a time.
const COUNT: u32 = 2_000_000;

struct Numbers;

impl Backend for Numbers {
    type Connection = u64;
    type Error = Infallible;
    async fn connect(&self) -> Result<u64, Infallible> {
        Ok(7)
    }
}

#[inline(never)]
async fn cycles(pool: &Pool<Numbers>, count: u32) {
    for _ in 0..count {
        if let Ok(conn) = pool.get().await {
            black_box(*conn);
        }
    }
}

#[inline(never)]
fn exchanges(word: &AtomicU64, count: u32) {
    for _ in 0..count {
        for (from, to) in [(0, 1), (1, 0)] {
            let _ = black_box(word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed));
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let pool = Pool::builder(Numbers).build()?;
    if let Some(count) = std::env::args().nth(1) {
        let count = count.parse()?;
        runtime.block_on(cycles(&pool, count));
        return Ok(());
    }
    let word = AtomicU64::new(0);
    let per_cycle = |begun: Instant| begun.elapsed().as_secs_f64() * 1e9 / f64::from(COUNT);
    for _ in 0..7 {
        let begun = Instant::now();
        exchanges(&word, COUNT);
        let bare = per_cycle(begun);
        let begun = Instant::now();
        runtime.block_on(cycles(&pool, COUNT));
        let ours = per_cycle(begun);
        println!(
            "get + return {ours:.1} ns, two compare-exchanges {bare:.1} ns: {:.2}x",
            ours / bare
        );
    }
    Ok(())
}
