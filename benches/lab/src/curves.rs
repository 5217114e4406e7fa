//! Measured beside expected: the pool under random arrivals and exponential holds, and Erlang C.

use std::time::Duration;

use serde::Serialize;

use crate::draw::{Arrivals, Holds};
use crate::sim::{Setup, run, sized};
use crate::theory;

/// Runs of one point, each with a seed of its own.
const REPLICATIONS: u32 = 20;
/// Student's t for a 95% confidence interval of that many independent means.
const STUDENT: f64 = 2.093;
/// The mean hold.
const HOLD: Duration = Duration::from_millis(10);

/// A mean, and how far the truth may lie from it with 95% confidence.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Estimate {
    /// The mean over replications.
    pub mean: f64,
    /// Half the width of its confidence interval.
    pub half: f64,
}

impl Estimate {
    /// From independent replications.
    fn of(values: &[f64]) -> Self {
        let count = f64::from(REPLICATIONS);
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (squares / (count - 1.0)).sqrt();
        let half = STUDENT * deviation / count.sqrt();
        Self { mean, half }
    }

    /// Whether a value lies within the interval.
    pub fn covers(&self, value: f64) -> bool {
        (self.mean - value).abs() <= self.half
    }
}

/// One point: a pool of `servers` connections at a load.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Connections.
    pub servers: usize,
    /// What part of their time they are in use.
    pub load: f64,
    /// How many requests in all.
    pub requests: usize,
    /// What part of the requests waits, as measured.
    pub waiting: Estimate,
    /// The same by Erlang C.
    pub waiting_expected: f64,
    /// The mean wait in units of the mean hold, as measured.
    pub wait: Estimate,
    /// The same by Erlang C.
    pub wait_expected: f64,
}

/// Measures one point with so many requests in each replication.
#[allow(clippy::cast_precision_loss, reason = "a few connections")]
pub fn point(servers: usize, load: f64, requests: usize, seed: u64) -> Point {
    let rate = load * servers as f64 / HOLD.as_secs_f64();
    let replicate = |number: u32| {
        let arrivals = Arrivals::Poisson { rate };
        let seed = seed + u64::from(number);
        let setup = Setup::new(arrivals, Holds::Exponential(HOLD), requests, seed);
        let outcome = run(&setup, sized(servers));
        let wait = outcome.mean_wait() / HOLD.as_secs_f64();
        (outcome.waiting_probability(), wait)
    };
    let (waiting, waits): (Vec<f64>, Vec<f64>) = (0..REPLICATIONS).map(replicate).unzip();
    let hold = HOLD.as_secs_f64();
    Point {
        servers,
        load,
        requests: requests * REPLICATIONS as usize,
        waiting: Estimate::of(&waiting),
        waiting_expected: theory::waiting_probability(servers, rate * hold),
        wait: Estimate::of(&waits),
        wait_expected: theory::mean_wait(servers, rate, hold) / hold,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erlang_c_lies_within_the_confidence_intervals_of_what_the_pool_does() {
        for (servers, load, requests) in [
            (1, 0.5, 5_000),
            (2, 0.7, 5_000),
            (5, 0.8, 8_000),
            (20, 0.9, 20_000),
        ] {
            let point = point(servers, load, requests, 40);
            assert!(point.waiting.covers(point.waiting_expected), "{point:?}");
            assert!(point.wait.covers(point.wait_expected), "{point:?}");
            // An interval that covers anything proves nothing.
            assert!(point.waiting.half < 0.06 * point.waiting.mean, "{point:?}");
            assert!(point.wait.half < 0.12 * point.wait.mean, "{point:?}");
        }
    }
}
