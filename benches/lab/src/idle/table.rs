//! The idle structures beside each other: by the clock on the wall, and what they keep warm in virtual time.
//!
//! Figures of the clock are medians of rounds in which all take turns; only ratios within one run mean anything.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use pool_core::{Builder, Pool};
use serde::Serialize;

use super::{Candidate, Traits};
use crate::draw::{Arrivals, Holds};
use crate::every;
use crate::sim::{self, Numbers, Setup};

/// The connections of every pool here.
const CONNECTIONS: usize = 16;
/// Cycles in one figure of one thread.
const CYCLES: u32 = 50_000;
/// How long two threads go on for one figure.
const TOGETHER: Duration = Duration::from_millis(150);

/// One structure's row.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Claim and give of the bare structure, in nanoseconds; `None` for the pool's own words, which have no door.
    pub bare_ns: Option<f64>,
    /// Get and return in the pool, one task, in nanoseconds.
    pub pool_ns: f64,
    /// Gets and returns in the pool on two threads, in millions a second.
    pub together: f64,
    /// The 99th percentile of get and return on two threads, in nanoseconds.
    pub p99_ns: u64,
    /// Bytes of the structure for 1,000 slots.
    pub bytes: Option<usize>,
    /// How many connections are left open at 5% load with an idle timeout.
    pub warm: f64,
    /// What it promises.
    pub traits: Traits,
}

/// One contender: how to build a pool with it, and how to run it bare.
struct Contender {
    name: &'static str,
    traits: Traits,
    bytes: Option<usize>,
    bare: Option<fn() -> f64>,
    swap: fn(Builder<Numbers>) -> Builder<Numbers>,
}

fn bare<S: Candidate>() -> f64 {
    let set = S::of(CONNECTIONS);
    for slot in 0..CONNECTIONS {
        set.put(slot);
    }
    let begun = Instant::now();
    for _ in 0..CYCLES {
        if let Some(slot) = black_box(set.claim()) {
            let _ = black_box(set.give(slot));
        }
    }
    begun.elapsed().as_secs_f64() * 1e9 / f64::from(CYCLES)
}

fn contender<S: Candidate>() -> Contender {
    Contender {
        name: S::NAME,
        traits: S::TRAITS,
        bytes: Some(S::bytes(1_000)),
        bare: Some(bare::<S>),
        swap: |builder| builder.swap_idle_set(S::of),
    }
}

/// The pool as it ships, then every structure.
fn contenders() -> Vec<Contender> {
    let mut all = vec![Contender {
        name: "ours, as it ships",
        traits: super::Words::TRAITS,
        bytes: None,
        bare: None,
        swap: |builder| builder,
    }];
    macro_rules! add {
        ($name:ident, $set:ty) => {
            all.push(contender::<$set>());
        };
    }
    every!(add);
    all
}

fn pool(contender: &Contender) -> Result<Pool<Numbers>> {
    let builder = Pool::builder(Numbers::default())
        .pool_size(CONNECTIONS)
        .max_overflow(0);
    Ok((contender.swap)(builder).build()?)
}

async fn warmed(pool: &Pool<Numbers>) -> Result<()> {
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(pool.get_owned().await?);
    }
    Ok(())
}

async fn alone(pool: &Pool<Numbers>) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..CYCLES {
        black_box(*pool.get().await?);
    }
    Ok(begun.elapsed().as_secs_f64() * 1e9 / f64::from(CYCLES))
}

/// Millions a second of two threads, and each cycle's length.
fn together(pool: &Pool<Numbers>, lengths: &mut Histogram<u64>) -> Result<f64> {
    let work = || -> Result<(u64, Histogram<u64>)> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        runtime.block_on(async {
            let (mut cycles, mut lengths) = (0_u64, Histogram::<u64>::new(3)?);
            let begun = Instant::now();
            while begun.elapsed() < TOGETHER {
                for _ in 0..255 {
                    black_box(*pool.get().await?);
                }
                // One in 256 is timed: reading the clock costs more than a cycle.
                let one = Instant::now();
                black_box(*pool.get().await?);
                lengths.saturating_record(u64::try_from(one.elapsed().as_nanos())?);
                cycles += 256;
            }
            Ok((cycles, lengths))
        })
    };
    let (one, other) = std::thread::scope(|scope| {
        let (one, other) = (scope.spawn(work), scope.spawn(work));
        (one.join().expect("it ends"), other.join().expect("it ends"))
    });
    let ((one, first), (other, second)) = (one?, other?);
    lengths.add(first)?;
    lengths.add(second)?;
    #[allow(clippy::cast_precision_loss, reason = "fewer than 2^53 cycles")]
    Ok((one + other) as f64 / TOGETHER.as_secs_f64() / 1e6)
}

/// How many connections are open after 20 minutes at 5% load that began with all in use, with an idle timeout of a
/// minute.
fn warm(contender: &Contender) -> f64 {
    let hold = Duration::from_millis(50);
    let arrivals = Arrivals::Trace(low_load(hold));
    let setup = Setup::new(arrivals, Holds::Constant(hold), usize::MAX / 2, 5);
    let setup = Setup {
        warm_up: 0,
        ..setup
    };
    let seen = sim::run(&setup, |builder| {
        let builder = builder.pool_size(CONNECTIONS).max_overflow(0);
        (contender.swap)(builder.idle_timeout(Duration::from_mins(1)))
    });
    seen.open_at_end
}

/// All at once, then at random.
fn low_load(hold: Duration) -> Vec<crate::draw::Request> {
    use crate::draw::{Load, Request};
    let at_once = (0..CONNECTIONS).map(|_| Request {
        at: 0.0,
        hold: hold.as_secs_f64(),
    });
    #[allow(clippy::cast_precision_loss, reason = "a few connections")]
    let rate = 0.05 * CONNECTIONS as f64 / hold.as_secs_f64();
    let later = Load::new(Arrivals::Poisson { rate }, Holds::Constant(hold), 5)
        .take_while(|(at, _)| *at < Duration::from_mins(20))
        .map(|(at, hold)| Request {
            at: at.as_secs_f64(),
            hold: hold.as_secs_f64(),
        });
    at_once.chain(later).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs all against each other, so many rounds; with none, only what virtual time tells.
///
/// # Errors
/// Where a pool can't be built.
pub fn rows(rounds: usize) -> Result<Vec<Row>> {
    let contenders = contenders();
    let mut figures: Vec<[Vec<f64>; 3]> = contenders.iter().map(|_| Default::default()).collect();
    let mut lengths = Vec::new();
    for _ in &contenders {
        lengths.push(Histogram::<u64>::new(3)?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let pools = contenders.iter().map(pool).collect::<Result<Vec<_>>>()?;
    for pool in &pools {
        runtime.block_on(warmed(pool))?;
    }
    for _ in 0..rounds {
        for (place, contender) in contenders.iter().enumerate() {
            let [bare, alone_ns, both] = &mut figures[place];
            if let Some(run) = contender.bare {
                bare.push(run());
            }
            alone_ns.push(runtime.block_on(alone(&pools[place]))?);
            both.push(together(&pools[place], &mut lengths[place])?);
        }
    }
    let mut rows = Vec::new();
    for ((contender, figures), lengths) in contenders.iter().zip(figures).zip(lengths) {
        let [bare, alone_ns, both] = figures;
        rows.push(Row {
            name: contender.name,
            bare_ns: contender.bare.map(|_| median(bare)),
            pool_ns: median(alone_ns),
            together: median(both),
            p99_ns: lengths.value_at_quantile(0.99),
            bytes: contender.bytes,
            warm: warm(contender),
            traits: contender.traits,
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_low_load_ours_keeps_few_connections_warm_and_a_fifo_keeps_all() {
        let rows = rows(0).expect("the pools can be built");
        let warm = |name: &str| {
            let row = rows.iter().find(|row| row.name.contains(name));
            row.expect("it is there").warm
        };
        assert!(warm("as it ships") <= 8.0, "{rows:?}");
        assert!(
            (warm("through the door") - warm("as it ships")).abs() < 0.5,
            "{rows:?}"
        );
        assert!(warm("ArrayQueue") > 12.0, "{rows:?}");
    }
}
