//! The adviser put to the test: advised sizes against the smallest that do, in virtual time.

use std::time::Duration;

use pool_core::{Advice, Demand};
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::Serialize;

use crate::draw::{Arrivals, Holds};
use crate::sim::{Numbers, Setup, run, sized};

/// Requests of one replay.
const REQUESTS: usize = 20_000;

/// A workload and the wait that 99 of 100 are not to exceed.
#[derive(Clone, Debug)]
pub struct Workload {
    /// What arrives, and how long it holds.
    pub setup: Setup,
    /// The target.
    pub target: Duration,
}

/// How the adviser did on one workload.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// Requests a second.
    pub rate: f64,
    /// The mean hold in milliseconds.
    pub hold_ms: f64,
    /// The target in milliseconds.
    pub target_ms: f64,
    /// What was advised.
    pub advised: usize,
    /// The smallest size that meets the target.
    pub smallest: usize,
    /// The 99th percentile of the wait at the advised size, in milliseconds.
    pub wait_ms: f64,
    /// Whether the target is met at the advised size.
    pub met: bool,
    /// Whether the figures came from a live pool rather than from quantiles.
    pub live: bool,
}

impl Trial {
    /// Whether the target is met with at most 1.5 times the smallest size.
    pub fn is_right(&self) -> bool {
        self.met && 2 * self.advised <= 3 * self.smallest
    }
}

/// The workload of a seed: a rate, a lognormal hold and a target, each over two orders of magnitude.
pub fn workload(seed: u64) -> Workload {
    let mut dice = Xoshiro256PlusPlus::seed_from_u64(seed.wrapping_mul(0x9E37_79B9));
    let mut between = |low: f64, high: f64| low * (high / low).powf(dice.random::<f64>());
    let p50 = between(0.001, 0.05);
    let p99 = p50 * between(1.5, 15.0);
    let holds = Holds::Lognormal {
        p50: Duration::from_secs_f64(p50),
        p99: Duration::from_secs_f64(p99),
    };
    let rate = between(2.0, 60.0) / holds.mean();
    let target = Duration::from_secs_f64(holds.mean() * between(0.1, 3.0));
    let arrivals = Arrivals::Poisson { rate };
    Workload {
        setup: Setup::new(arrivals, holds, REQUESTS, seed),
        target,
    }
}

/// What 99 of 100 wait at most with so many connections.
pub fn wait_p99(setup: &Setup, size: usize) -> Duration {
    let seen = run(setup, sized(size));
    seen.wait_quantile(0.99).unwrap_or(Duration::MAX)
}

/// The smallest size that meets a target, at most `most`.
pub fn smallest(workload: &Workload, most: usize) -> usize {
    let offered = workload.setup.arrivals.rate() * workload.setup.holds.mean();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few hundred connections"
    )]
    let (mut low, mut high) = ((offered as usize).max(1), most);
    // Waits fall with the size.
    while low < high {
        let middle = usize::midpoint(low, high);
        if wait_p99(&workload.setup, middle) <= workload.target {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// What a live pool advises after it has served the workload for a while with more connections than it needs.
fn live(workload: &Workload) -> Option<Advice> {
    use pool_core::Pool;
    use pool_core::lab::{self, World};
    use std::rc::Rc;

    let setup = &workload.setup;
    World::new(setup.seed).run(async {
        let builder = Pool::builder(Numbers::default())
            .pool_size(300)
            .leak_threshold(None);
        let pool = Rc::new(builder.max_overflow(0).build().ok()?);
        let load = crate::draw::Load::new(setup.arrivals.clone(), setup.holds, !setup.seed);
        for (at, hold) in load.take(REQUESTS) {
            lab::sleep(at.saturating_sub(lab::now())).await;
            let pool = Rc::clone(&pool);
            lab::spawn(async move {
                if let Ok(connection) = pool.get().await {
                    lab::sleep(hold).await;
                    drop(connection);
                }
            });
        }
        pool.advice_for(workload.target)
    })
}

/// Asks the adviser about a workload, from its quantiles or as a live pool, and replays it.
pub fn trial(seed: u64, from_live: bool) -> Option<Trial> {
    let workload = workload(seed);
    let setup = &workload.setup;
    let Holds::Lognormal { p50, p99 } = setup.holds else {
        return None;
    };
    let advice = if from_live {
        live(&workload)?
    } else {
        Demand::from_quantiles(setup.arrivals.rate(), p50, p99)?.advise(workload.target)
    };
    let wait = wait_p99(setup, advice.pool_size);
    let met = wait <= workload.target;
    Some(Trial {
        rate: setup.arrivals.rate(),
        hold_ms: setup.holds.mean() * 1e3,
        target_ms: workload.target.as_secs_f64() * 1e3,
        advised: advice.pool_size,
        smallest: smallest(&workload, 2 * advice.pool_size + 10),
        wait_ms: wait.as_secs_f64() * 1e3,
        met,
        live: from_live,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_twenty_seeded_workloads_the_advised_size_is_right_for_eighteen_or_more() {
        let trials: Vec<_> = (1..=20)
            .filter_map(|seed| trial(seed, seed % 2 == 0))
            .collect();
        assert_eq!(trials.len(), 20);
        let right = trials.iter().filter(|trial| trial.is_right()).count();
        assert!(right >= 18, "{right} of 20: {trials:#?}");
        // Sizes of all kinds are among them, or the test proves little.
        assert!(trials.iter().any(|trial| trial.smallest < 8));
        assert!(trials.iter().any(|trial| trial.smallest > 40));
    }

    #[test]
    fn where_holds_grow_with_the_use_the_database_is_blamed() {
        let mut slow = workload(3);
        slow.setup.arrivals = Arrivals::Poisson { rate: 400.0 };
        slow.setup.holds = Holds::Exponential(Duration::from_millis(20));
        slow.setup.slower_by = 0.04;
        let seen = run(&slow.setup, sized(40));
        let demand = Demand::of(&seen.stats).expect("it has measured");
        assert!(demand.growth > 1.5, "{demand:?}");
        slow.setup.slower_by = 0.0;
        let seen = run(&slow.setup, sized(40));
        let demand = Demand::of(&seen.stats).expect("it has measured");
        assert!(demand.growth < 1.5, "{demand:?}");
    }
}
