//! Loads drawn from a seed: when requests arrive, and how long each holds a connection.
//!
//! Times are seconds as floating-point numbers here and nowhere else. Arrivals and holds draw from generators of
//! their own, so that two pools under the same seed meet the same requests, whatever they make of them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::SeedableRng;
use rand_distr::{Distribution, Exp1, LogNormal, Pareto};
use rand_xoshiro::Xoshiro256PlusPlus as Generator;
use serde::{Deserialize, Serialize};

/// The standard normal distribution's 99th percentile.
const Z99: f64 = 2.326_347_874;

/// How requests arrive.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrivals {
    /// At random and independently, so many a second.
    Poisson {
        /// Requests a second.
        rate: f64,
    },
    /// A Markov-modulated Poisson process of two phases: calm, then a burst, each of a random length.
    Bursts {
        /// Requests a second while calm.
        calm: f64,
        /// Requests a second in a burst.
        burst: f64,
        /// How long it stays calm, in the mean.
        calm_for: Duration,
        /// How long a burst lasts, in the mean.
        burst_for: Duration,
    },
    /// A Poisson process whose rate goes up and down like a day: a sine around the mean.
    Diurnal {
        /// Requests a second, in the mean.
        rate: f64,
        /// By what part of the mean the peak lies above it; at most 1.
        swing: f64,
        /// The length of a day.
        day: Duration,
    },
    /// As recorded; from its end on nobody comes.
    Trace(Vec<Request>),
}

/// One request of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// When it arrives, in seconds since the trace began.
    pub at: f64,
    /// How long it holds a connection, in seconds.
    pub hold: f64,
}

impl Arrivals {
    /// A trace from a file of comma-separated values with the columns `at` and `hold`, both in seconds; rows in the
    /// order of `at`.
    ///
    /// # Errors
    /// Where the file can't be read, and where a row is not two numbers, negative, or out of order: the row is named.
    pub fn trace(file: &Path) -> Result<Self> {
        let mut reader = csv::Reader::from_path(file)
            .with_context(|| format!("{} can't be read", file.display()))?;
        let mut requests: Vec<Request> = Vec::new();
        for (row, request) in reader.deserialize::<Request>().enumerate() {
            let place = || format!("{}, row {}", file.display(), row + 1);
            let request =
                request.with_context(|| format!("{}: wanted `at,hold` in seconds", place()))?;
            let before = requests.last().map_or(0.0, |last| last.at);
            ensure!(
                request.at >= before && request.hold >= 0.0 && request.hold.is_finite(),
                "{}: arrivals must not go back in time, nor holds be negative",
                place()
            );
            requests.push(request);
        }
        Ok(Self::Trace(requests))
    }

    /// Requests a second in the mean; of a trace, over its length.
    #[allow(clippy::cast_precision_loss, reason = "fewer than 2^53 requests")]
    pub fn rate(&self) -> f64 {
        match self {
            Self::Poisson { rate } | Self::Diurnal { rate, .. } => *rate,
            Self::Bursts {
                calm,
                burst,
                calm_for,
                burst_for,
            } => {
                let (quiet, loud) = (calm_for.as_secs_f64(), burst_for.as_secs_f64());
                (calm * quiet + burst * loud) / (quiet + loud)
            }
            Self::Trace(requests) => {
                let length = requests.last().map_or(0.0, |last| last.at);
                if length > 0.0 {
                    requests.len() as f64 / length
                } else {
                    0.0
                }
            }
        }
    }
}

/// How long a request holds a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Holds {
    /// Always the same.
    Constant(Duration),
    /// Exponential, with this mean.
    Exponential(Duration),
    /// Lognormal, by its median and its 99th percentile: what most databases' times look like.
    Lognormal {
        /// Half are no longer.
        p50: Duration,
        /// 99 of 100 are no longer.
        p99: Duration,
    },
    /// Pareto: a heavy tail. With a shape of 2 or less the variance is infinite.
    Heavy {
        /// The shortest.
        shortest: Duration,
        /// The tail's exponent, above 1.
        shape: f64,
    },
}

impl Holds {
    /// The mean in seconds.
    pub fn mean(&self) -> f64 {
        match self {
            Self::Constant(span) | Self::Exponential(span) => span.as_secs_f64(),
            Self::Lognormal { p50, .. } => {
                let sigma = self.sigma();
                p50.as_secs_f64() * (sigma * sigma / 2.0).exp()
            }
            Self::Heavy { shortest, shape } => shortest.as_secs_f64() * shape / (shape - 1.0),
        }
    }

    /// A lognormal's sigma.
    fn sigma(&self) -> f64 {
        match self {
            Self::Lognormal { p50, p99 } => (p99.as_secs_f64() / p50.as_secs_f64()).ln() / Z99,
            _ => 0.0,
        }
    }

    fn draw(&self, from: &mut Generator) -> f64 {
        match self {
            Self::Constant(span) => span.as_secs_f64(),
            Self::Exponential(mean) => {
                let draw: f64 = Exp1.sample(from);
                draw * mean.as_secs_f64()
            }
            Self::Lognormal { p50, .. } => LogNormal::new(p50.as_secs_f64().ln(), self.sigma())
                .map_or(p50.as_secs_f64(), |lognormal| lognormal.sample(from)),
            Self::Heavy { shortest, shape } => Pareto::new(shortest.as_secs_f64(), *shape)
                .map_or(shortest.as_secs_f64(), |pareto| pareto.sample(from)),
        }
    }
}

/// A stream of requests: for how long after the last the next arrives, and how long it holds.
#[derive(Debug)]
pub struct Load {
    arrivals: Arrivals,
    holds: Holds,
    when: Generator,
    how_long: Generator,
    /// How far the stream has come, in seconds.
    at: f64,
    /// Of bursts: whether one is on, and when that ends.
    bursting: bool,
    phase_ends: f64,
    /// Of a trace: the next row.
    row: usize,
}

impl Load {
    /// The load of a seed.
    pub fn new(arrivals: Arrivals, holds: Holds, seed: u64) -> Self {
        Self {
            arrivals,
            holds,
            when: Generator::seed_from_u64(seed),
            how_long: Generator::seed_from_u64(!seed),
            at: 0.0,
            bursting: true, // The first phase ends at once.
            phase_ends: 0.0,
            row: 0,
        }
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        let draw: f64 = Exp1.sample(&mut self.when);
        draw * mean
    }

    /// When the next request arrives, in seconds since the beginning.
    fn next_arrival(&mut self) -> Option<f64> {
        match self.arrivals {
            Arrivals::Poisson { rate } => Some(self.at + self.exponential(1.0 / rate)),
            Arrivals::Bursts {
                calm,
                burst,
                calm_for,
                burst_for,
            } => {
                let mut at = self.at;
                loop {
                    let rate = if self.bursting { burst } else { calm };
                    let next = at + self.exponential(1.0 / rate);
                    if next <= self.phase_ends {
                        return Some(next);
                    }
                    // Poisson processes have no memory: the next phase begins anew at the end of this.
                    at = self.phase_ends;
                    self.bursting = !self.bursting;
                    let span = if self.bursting { burst_for } else { calm_for };
                    self.phase_ends = at + self.exponential(span.as_secs_f64());
                }
            }
            Arrivals::Diurnal { rate, swing, day } => {
                // Thinning (Lewis and Shedler, 1979): from a process at the peak's rate some are left out.
                let peak = rate * (1.0 + swing);
                let mut at = self.at;
                loop {
                    at += self.exponential(1.0 / peak);
                    let turn = (at / day.as_secs_f64() * std::f64::consts::TAU).sin();
                    let share = (1.0 + swing * turn) / (1.0 + swing);
                    let kept: f64 = rand::Rng::random(&mut self.when);
                    if kept < share {
                        return Some(at);
                    }
                }
            }
            Arrivals::Trace(ref requests) => requests.get(self.row).map(|request| request.at),
        }
    }
}

impl Iterator for Load {
    /// When the next arrives, since the beginning, and how long it holds.
    type Item = (Duration, Duration);

    fn next(&mut self) -> Option<(Duration, Duration)> {
        self.at = self.next_arrival()?;
        let hold = match &self.arrivals {
            Arrivals::Trace(requests) => requests[self.row].hold,
            _ => self.holds.draw(&mut self.how_long),
        };
        self.row += 1;
        // A heavy tail's longest is cut at a day.
        let hold = Duration::from_secs_f64(hold.min(86_400.0));
        Some((Duration::from_secs_f64(self.at), hold))
    }
}
