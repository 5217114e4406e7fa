//! Twice as many requests as the pool can serve, come what may: callers do not slow down because they wait.
//!
//! Capacity is measured first, with more callers than connections that each come back at once. Then requests arrive at
//! random (exponential gaps) at twice that rate. Served *in time* is who waited no longer than five times the target.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use pool_core::{Backend, GetError, Pool, QueueDiscipline, Shed};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::contender::WAIT;
use crate::report::{Report, Rounds, Target, Verdict};
use crate::two_threads;

const CONNECTIONS: usize = 8;
/// How long a request keeps its connection.
const SERVICE: Duration = Duration::from_millis(10);
/// How long a caller should wait at most.
const TARGET: Duration = Duration::from_millis(50);
/// For how long capacity is measured.
const WARMING: Duration = Duration::from_secs(2);
/// For how long requests arrive.
const OVERLOAD: Duration = Duration::from_secs(8);
/// One round takes as long as both, for each pool.
const ROUNDS: usize = 3;

const FIFO: &str = "Fifo";
const SHED: &str = "Shed";

struct Units;

impl Backend for Units {
    type Connection = ();
    type Error = Infallible;

    async fn connect(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Serves one request; how long it waited for its connection.
async fn serve(pool: &Pool<Units>) -> Result<Duration, GetError<Infallible>> {
    let asked = Instant::now();
    let connection = pool.get().await?;
    let waited = asked.elapsed();
    sleep(SERVICE).await;
    drop(connection);
    Ok(waited)
}

/// Requests a second that the pool serves to callers who always want the next.
async fn capacity(pool: &Pool<Units>) -> Result<f64> {
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..2 * CONNECTIONS {
        let pool = pool.clone();
        callers.spawn(async move {
            let mut served = 0_u32;
            while begun.elapsed() < WARMING {
                served += u32::from(serve(&pool).await.is_ok());
            }
            served
        });
    }
    let mut served = 0;
    while let Some(caller) = callers.join_next().await {
        served += caller?;
    }
    Ok(f64::from(served) / begun.elapsed().as_secs_f64())
}

/// What became of the requests of one overload.
struct Served {
    in_time: f64,
    /// In milliseconds, of all that were served.
    p99: f64,
}

/// Lets requests arrive at so many a second.
async fn overload(pool: &Pool<Units>, rate: f64) -> Result<Served> {
    let (done, mut waits) = mpsc::unbounded_channel();
    let begun = Instant::now();
    let mut requests = JoinSet::new();
    let mut next = begun;
    while next < begun + OVERLOAD {
        sleep_until(next.into()).await;
        let (pool, done) = (pool.clone(), done.clone());
        requests.spawn(async move {
            if let Ok(waited) = serve(&pool).await {
                // Nobody listens any more once the overload is over.
                let _ = done.send(waited);
            }
        });
        next += Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() / rate);
    }
    let spent = begun.elapsed().as_secs_f64();
    requests.shutdown().await;
    drop(done);
    let (mut in_time, mut all) = (0_u32, Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?);
    while let Some(waited) = waits.recv().await {
        in_time += u32::from(waited <= 5 * TARGET);
        all.record(u64::try_from(waited.as_micros())?.max(1))?;
    }
    let p99 = Duration::from_micros(all.value_at_quantile(0.99));
    Ok(Served {
        in_time: f64::from(in_time) / spent,
        p99: p99.as_secs_f64() * 1e3,
    })
}

/// Runs the comparison.
///
/// # Errors
/// Where a pool could not be made.
pub fn compare(rounds: usize) -> Result<Report> {
    let builder = || {
        Pool::builder(Units)
            .pool_size(CONNECTIONS)
            .max_overflow(0)
            .pool_timeout(WAIT)
    };
    let shed = QueueDiscipline::Shed(Shed::new(TARGET));
    let (mut good, mut waits) = (Rounds::default(), Rounds::default());
    two_threads()?.block_on(async {
        for _ in 0..rounds.min(ROUNDS) {
            for (name, builder) in [(FIFO, builder()), (SHED, builder().queue(shed))] {
                let pool = builder.build()?;
                let capacity = capacity(&pool).await?;
                let served = overload(&pool, 2.0 * capacity).await?;
                good.note(name, 100.0 * served.in_time / capacity);
                waits.note(name, served.p99);
            }
        }
        anyhow::Ok(())
    })?;
    Ok(Report {
        workload: "requests at twice the capacity",
        verdicts: vec![
            Verdict::new(
                "Shed: served in time, % of capacity",
                good.median(SHED),
                Target::AtLeast(95.0),
            ),
            Verdict::new(
                "Shed: 99th percentile / target",
                waits.median(SHED) / (TARGET.as_secs_f64() * 1e3),
                Target::AtMost(5.0),
            ),
        ],
        measures: vec![
            good.measure("served in time, % of capacity"),
            waits.measure("wait of those served, 99th percentile, ms"),
        ],
    })
}
