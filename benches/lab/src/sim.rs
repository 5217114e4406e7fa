//! The shipped pool under a load, in virtual time.
//!
//! Every request is a task that checks a connection out, holds it, and returns it. Waits are measured from the
//! intended arrival, so nobody's delay hides another's. The same [`Setup`] gives the same [`Outcome`], bit for
//! bit.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use pool_core::lab::{self, World};
use pool_core::{Backend, Builder, GetError, Pool, Stats};

use crate::draw::{Arrivals, Holds, Load};

/// Opens connections that are numbers, in a time that is always the same: where that is nothing, outside any world too.
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbers {
    /// How long opening takes.
    pub connect: Duration,
}

impl Backend for Numbers {
    type Connection = u64;
    type Error = Infallible;

    async fn connect(&self) -> Result<u64, Infallible> {
        if !self.connect.is_zero() {
            lab::sleep(self.connect).await;
        }
        Ok(7)
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How requests arrive.
    pub arrivals: Arrivals,
    /// How long they hold.
    pub holds: Holds,
    /// How much a hold grows with the other connections in use: by `x + x²`, where `x` is this many times their
    /// number, after Gunther's universal scalability law. Zero for a database that has room to spare.
    pub slower_by: f64,
    /// How many requests, after those that warm up.
    pub requests: usize,
    /// How many come before anything is counted.
    pub warm_up: usize,
    /// Where everything random comes from.
    pub seed: u64,
    /// How long opening takes.
    pub connect: Duration,
    /// Among how many pools requests are dealt out, each to the next.
    pub pools: usize,
}

impl Setup {
    /// Requests of a kind, on a database that is always as fast and opens at once.
    pub fn new(arrivals: Arrivals, holds: Holds, requests: usize, seed: u64) -> Self {
        Self {
            arrivals,
            holds,
            slower_by: 0.0,
            requests,
            warm_up: requests / 10,
            seed,
            connect: Duration::ZERO,
            pools: 1,
        }
    }
}

/// What became of the requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The wait of each that was served, in the order of service, in nanoseconds.
    pub waits: Vec<u64>,
    /// The time from arrival to the end of its hold of each that was served, in nanoseconds.
    pub latencies: Vec<u64>,
    /// How many waited longer than nothing.
    pub delayed: usize,
    /// How many had no connection in time, or were sent away.
    pub refused: usize,
    /// How long it took, from the first counted arrival to the last end, in virtual time.
    pub span: Duration,
    /// What the pools counted in all, warm-up included.
    pub stats: Stats,
    /// Connections opened by all pools.
    pub opened: u64,
    /// Connections open when the last request ended.
    pub open_at_end: f64,
}

impl Outcome {
    /// The wait that so great a part is not above, those refused counting as infinite; `None` for infinite.
    pub fn wait_quantile(&self, part: f64) -> Option<Duration> {
        quantile(&self.waits, self.refused, part)
    }

    /// As [`wait_quantile`](Self::wait_quantile), of those served alone; `None` where nobody was.
    pub fn served_wait_quantile(&self, part: f64) -> Option<Duration> {
        quantile(&self.waits, 0, part)
    }

    /// As [`wait_quantile`](Self::wait_quantile), from arrival to end.
    pub fn latency_quantile(&self, part: f64) -> Option<Duration> {
        quantile(&self.latencies, self.refused, part)
    }

    /// What part of the requests waited.
    #[allow(clippy::cast_precision_loss, reason = "fewer than 2^53 requests")]
    pub fn waiting_probability(&self) -> f64 {
        let all = self.waits.len() + self.refused;
        (self.delayed + self.refused) as f64 / all.max(1) as f64
    }

    /// The mean wait of those served, in seconds.
    #[allow(clippy::cast_precision_loss, reason = "fewer than 2^53 nanoseconds")]
    pub fn mean_wait(&self) -> f64 {
        let sum: f64 = self.waits.iter().map(|wait| *wait as f64).sum();
        sum / 1e9 / self.waits.len().max(1) as f64
    }

    /// How many were served in a second, of those within a limit from arrival to service.
    #[allow(clippy::cast_precision_loss, reason = "fewer than 2^53 requests")]
    pub fn goodput(&self, limit: Duration) -> f64 {
        let good = self
            .waits
            .iter()
            .filter(|wait| u128::from(**wait) <= limit.as_nanos());
        good.count() as f64 / self.span.as_secs_f64().max(1e-9)
    }
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank among fewer than 2^53 values"
)]
fn quantile(values: &[u64], infinite: usize, part: f64) -> Option<Duration> {
    let mut values = values.to_vec();
    let all = values.len() + infinite;
    let rank = ((part * all as f64).ceil() as usize).clamp(1, all.max(1));
    if rank > values.len() {
        return None;
    }
    let (_, value, _) = values.select_nth_unstable(rank - 1);
    Some(Duration::from_nanos(*value))
}

/// What the requests of a run share.
struct Run {
    pools: Vec<Pool<Numbers>>,
    slower_by: f64,
    in_use: Cell<usize>,
    outcome: RefCell<Outcome>,
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

impl Run {
    #[allow(clippy::cast_precision_loss, reason = "a few thousand connections")]
    async fn request(self: Rc<Self>, number: usize, hold: Duration, counted: bool) {
        let arrived = lab::now();
        let pool = &self.pools[number % self.pools.len()];
        let got: Result<_, GetError<Infallible>> = pool.get().await;
        let Ok(connection) = got else {
            if counted {
                self.outcome.borrow_mut().refused += 1;
            }
            return;
        };
        let waited = lab::now().saturating_sub(arrived);
        let others = self.in_use.get();
        self.in_use.set(others + 1);
        let growth = self.slower_by * others as f64;
        lab::sleep(hold.mul_f64(1.0 + growth + growth * growth)).await;
        drop(connection);
        self.in_use.set(self.in_use.get() - 1);
        if counted {
            let mut outcome = self.outcome.borrow_mut();
            outcome.waits.push(nanos(waited));
            outcome
                .latencies
                .push(nanos(lab::now().saturating_sub(arrived)));
            outcome.delayed += usize::from(!waited.is_zero());
        }
    }
}

/// The settings of theory's queue: so many connections, and callers that wait as long as it takes.
pub fn sized(size: usize) -> impl Fn(Builder<Numbers>) -> Builder<Numbers> {
    move |builder| {
        let builder = builder.pool_size(size).max_overflow(0);
        builder
            .max_connecting(size)
            .pool_timeout(None)
            .idle_timeout(None)
    }
}

/// Runs a load against pools with these settings, until everybody is served or refused.
///
/// # Panics
/// Where the settings contradict each other.
#[allow(clippy::cast_precision_loss, reason = "a few thousand connections")]
pub fn run(setup: &Setup, settings: impl Fn(Builder<Numbers>) -> Builder<Numbers>) -> Outcome {
    let connect = setup.connect;
    World::new(setup.seed).run(async {
        let build = |_| {
            let builder = Pool::builder(Numbers { connect }).leak_threshold(None);
            settings(builder).build().expect("the settings agree")
        };
        let run = Rc::new(Run {
            pools: (0..setup.pools.max(1)).map(build).collect(),
            slower_by: setup.slower_by,
            in_use: Cell::new(0),
            outcome: RefCell::default(),
        });
        let load = Load::new(setup.arrivals.clone(), setup.holds, setup.seed);
        let mut begun = Duration::ZERO;
        for (number, (at, hold)) in load.take(setup.warm_up + setup.requests).enumerate() {
            lab::sleep(at.saturating_sub(lab::now())).await;
            if number == setup.warm_up {
                begun = lab::now();
            }
            lab::spawn(Rc::clone(&run).request(number, hold, number >= setup.warm_up));
        }
        while Rc::strong_count(&run) > 1 {
            lab::sleep(Duration::from_millis(10)).await;
        }
        let mut outcome = run.outcome.take();
        outcome.span = lab::now().saturating_sub(begun);
        for pool in &run.pools {
            outcome.stats = pool.stats();
            outcome.opened += outcome.stats.opened;
            outcome.open_at_end += pool.status().open as f64;
        }
        outcome
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn setups(seed: u64) -> Vec<Setup> {
        let arrivals = [
            Arrivals::Poisson { rate: 700.0 },
            Arrivals::Bursts {
                calm: 300.0,
                burst: 1_500.0,
                calm_for: 200 * MS,
                burst_for: 50 * MS,
            },
            Arrivals::Diurnal {
                rate: 600.0,
                swing: 0.8,
                day: Duration::from_secs(5),
            },
        ];
        let holds = [
            Holds::Exponential(10 * MS),
            Holds::Lognormal {
                p50: 8 * MS,
                p99: 60 * MS,
            },
            Holds::Heavy {
                shortest: 4 * MS,
                shape: 2.2,
            },
        ];
        let pair = |(arrivals, holds)| Setup {
            slower_by: 0.01,
            connect: 5 * MS,
            ..Setup::new(arrivals, holds, 5_000, seed)
        };
        arrivals.into_iter().zip(holds).map(pair).collect()
    }

    fn run_all(seed: u64) -> Vec<Outcome> {
        let overflowing = |builder: Builder<Numbers>| {
            builder
                .pool_size(4)
                .max_overflow(5)
                .overflow_linger(20 * MS)
                .idle_timeout(40 * MS)
                .recycle(300 * MS)
                .pool_timeout(30 * MS)
        };
        let setups = setups(seed);
        setups.iter().map(|setup| run(setup, overflowing)).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_result_bit_for_bit_on_any_thread() {
        let here = run_all(7);
        let there = std::thread::spawn(|| run_all(7)).join().expect("it ends");
        assert_eq!(here, there);
        assert_ne!(here, run_all(8));
        let all = |outcome: &Outcome| outcome.waits.len() + outcome.refused;
        assert!(here.iter().all(|outcome| all(outcome) == 5_000));
        assert!(here.iter().any(|outcome| outcome.refused > 0));
    }

    #[test]
    fn pools_of_many_words_give_the_same_result_on_any_thread_too() {
        let arrivals = Arrivals::Poisson { rate: 9_000.0 };
        let setup = Setup::new(arrivals, Holds::Exponential(10 * MS), 20_000, 3);
        let large = move || run(&setup, |builder| builder.pool_size(100).max_overflow(40));
        let here = large();
        let there = std::thread::spawn(large).join().expect("it ends");
        assert_eq!(here, there);
    }

    #[test]
    fn a_trace_arrives_as_it_was_recorded() {
        let at = |at, hold| crate::draw::Request { at, hold };
        let trace = Arrivals::Trace(vec![at(0.0, 0.5), at(0.1, 0.5), at(2.0, 0.25)]);
        let mut setup = Setup::new(trace, Holds::Constant(MS), 3, 1);
        setup.warm_up = 0;
        let seen = run(&setup, |builder| builder.pool_size(1).max_overflow(0));
        assert_eq!(seen.waits, [0, 400_000_000, 0]);
        assert_eq!(seen.latencies, [500_000_000, 900_000_000, 250_000_000]);
    }
}
