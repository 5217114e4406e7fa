//! How large a pool should be: from what it has measured, or from figures that a caller brings.
//!
//! # The formula
//! A pool of `c` connections is a queue of `c` servers. With `a` erlangs of load (requests a second times mean hold)
//! an arrival waits with Erlang's probability `C(c, a)` (Erlang, 1917), and waits longer than `t` with about
//!
//! ```text
//! P(W > t) = C(c, a) · exp(−t · (c/hold − rate) / V),   V = max(1, (1 + cv²) / 2)
//! ```
//! where `cv²` is the squared coefficient of variation of the holds: exact for exponential holds, else the correction
//! of Allen and Cunneen ("Probability, Statistics, and Queueing Theory", 1978). Of all `c` the smallest is advised with
//! which 99 of 100 wait no longer than the target. Holds are taken to be lognormal where only quantiles are known.
//!
//! Where a live pool waited longer than this says, its arrivals are burstier than random, and `V` is what makes the
//! formula say what was seen.
//!
//! # When the database is slow
//! A hold that grows with the number of connections in use says that the database is at its limit: more connections
//! would wait there instead of here. Seen by comparing the mean hold by how many were in use.

use std::fmt;
use std::time::Duration;

use crate::stats::{Held, Stats};

/// The standard normal distribution's 99th percentile.
const Z99: f64 = 2.326_347_874;
/// What part of the requests may wait longer than the target.
const LATE: f64 = 0.01;
/// What part may find even the overflow in use.
const BEYOND: f64 = 1e-4;
/// The largest pool that is advised.
const MOST: usize = 10_000;
/// By how much a hold must have grown, between classes of use that lie so many classes apart, to blame the database.
const GROWTH: f64 = 1.5;
const APART: usize = 2;
/// How many timed holds a class of use needs to count.
const SAMPLES: u64 = 20;

/// What a pool is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Demand {
    /// Requests a second.
    pub rate: f64,
    /// The mean hold.
    pub hold: Duration,
    /// 99 of 100 holds are no longer.
    pub hold_p99: Duration,
    /// The squared coefficient of variation of the holds: 0 for constant, 1 for exponential ones.
    pub variation: f64,
    /// How much longer waits are than at random arrivals and exponential holds; 1 for those.
    pub burstiness: f64,
    /// How many holds were timed; `None` for figures that were not measured here.
    pub samples: Option<u64>,
    /// By what factor the hold grows from few connections in use to many; 1 where it does not, or nothing is known.
    pub growth: f64,
}

impl Demand {
    /// From a rate and two quantiles of the holds, taken to be lognormal.
    ///
    /// `None` unless the rate is above zero and finite and `0 < hold_p50 <= hold_p99`.
    pub fn from_quantiles(rate: f64, hold_p50: Duration, hold_p99: Duration) -> Option<Self> {
        let good = rate.is_finite() && rate > 0.0 && !hold_p50.is_zero() && hold_p50 <= hold_p99;
        if !good {
            return None;
        }
        let sigma = (hold_p99.as_secs_f64() / hold_p50.as_secs_f64()).ln() / Z99;
        let variation = (sigma * sigma).exp() - 1.0;
        Some(Self {
            rate,
            hold: hold_p50.mul_f64((sigma * sigma / 2.0).exp()),
            hold_p99,
            variation,
            burstiness: f64::midpoint(1.0, variation).max(1.0),
            samples: None,
            growth: 1.0,
        })
    }

    /// From what a pool has counted; `None` where it has served or timed nothing yet.
    #[allow(clippy::cast_precision_loss, reason = "fewer than 2^53 checkouts")]
    pub fn of(stats: &Stats) -> Option<Self> {
        let turned_away = stats.timeouts + stats.queue_full + stats.shed + stats.gave_up;
        let asked = stats.checkouts + turned_away;
        if stats.watched.is_zero() || stats.hold.count == 0 {
            return None;
        }
        let rate = asked as f64 / stats.watched.as_secs_f64();
        let (p50, p99) = (stats.hold.p50, stats.hold.p99);
        let shortest = Duration::from_micros(1);
        let fitted = Self::from_quantiles(rate, p50.max(shortest), p99.max(p50).max(shortest))?;
        Some(Self {
            hold: stats.hold.mean.max(shortest),
            samples: Some(stats.hold.count),
            growth: growth(&stats.hold_by_use),
            ..fitted
        })
    }

    /// Corrects the burstiness by the mean wait that a pool of so many connections was seen to have.
    #[must_use]
    pub fn seen_with(mut self, connections: usize, mean_wait: Duration) -> Self {
        let (waits, spare) = self.at(connections);
        if spare > 0.0 && waits > 1e-3 {
            let seen = mean_wait.as_secs_f64() * spare / waits;
            self.burstiness = self.burstiness.max(seen.min(50.0));
        }
        self
    }

    /// Connections that are in use at the same time, in the mean.
    pub fn erlangs(&self) -> f64 {
        self.rate * self.hold.as_secs_f64()
    }

    /// The probability of waiting with so many connections, and how many requests a second they could serve beyond
    /// those that come.
    #[allow(clippy::cast_precision_loss, reason = "fewer than 2^53 connections")]
    fn at(&self, connections: usize) -> (f64, f64) {
        let (c, offered) = (connections as f64, self.erlangs());
        if offered >= c {
            return (1.0, 0.0);
        }
        let mut blocked = 1.0;
        for n in 1..=connections {
            blocked = offered * blocked / (n as f64 + offered * blocked);
        }
        let waits = blocked / (1.0 - (offered / c) * (1.0 - blocked));
        (waits, c / self.hold.as_secs_f64() - self.rate)
    }

    /// The wait that 99 of 100 requests are expected not to exceed; `None` where the pool would never keep up.
    pub fn wait_p99(&self, connections: usize) -> Option<Duration> {
        let (waits, spare) = self.at(connections);
        if spare <= 0.0 {
            return None;
        }
        let wait = (waits / LATE).ln().max(0.0) * self.burstiness / spare;
        Duration::try_from_secs_f64(wait).ok()
    }

    /// How large a pool should be so that 99 of 100 requests wait no longer than `target`.
    pub fn advise(&self, target: Duration) -> Advice {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "bounded"
        )]
        let least = (self.erlangs().min(MOST as f64) as usize).max(1);
        let meets = |size: &usize| self.wait_p99(*size).is_some_and(|wait| wait <= target);
        let pool_size = (least..MOST).find(meets).unwrap_or(MOST);
        let rarely = |size: &usize| self.at(*size).0 <= BEYOND;
        let most = (pool_size..MOST).find(rarely).unwrap_or(pool_size);
        let wait = self.wait_p99(pool_size).unwrap_or(Duration::MAX);
        let patience = (wait.saturating_mul(10)).max(self.hold_p99.saturating_mul(2));
        let pool_timeout = patience.clamp(Duration::from_secs(1), Duration::from_secs(30));
        let bottleneck = if self.growth >= GROWTH {
            Bottleneck::Database
        } else {
            Bottleneck::Pool
        };
        let confidence = match self.samples {
            _ if bottleneck == Bottleneck::Database => Confidence::Low,
            None => Confidence::Medium,
            Some(samples) if samples < 100 => Confidence::Low,
            Some(samples) if samples < 1_000 || self.burstiness > 10.0 => Confidence::Medium,
            Some(_) => Confidence::High,
        };
        let mut advice = Advice {
            pool_size,
            max_overflow: most - pool_size,
            pool_timeout,
            wait_p99: wait,
            confidence,
            bottleneck,
            reasoning: String::new(),
        };
        advice.reasoning = self.reason(&advice, target);
        advice
    }

    fn reason(&self, advice: &Advice, target: Duration) -> String {
        let offered = self.erlangs();
        let (waits, _) = self.at(advice.pool_size);
        let mut text = format!(
            "{:.1} requests a second that hold a connection for {:.1?} in the mean keep {offered:.1} connections in \
             use. With {} connections {:.2}% of them wait, and 99 of 100 no longer than {:.1?} (wanted: {target:.1?}). \
             {} more in overflow are all in use in less than {}% of the time.",
            self.rate,
            self.hold,
            advice.pool_size,
            waits * 100.0,
            advice.wait_p99,
            advice.max_overflow,
            BEYOND * 100.0,
        );
        let source = match self.samples {
            Some(samples) => format!(" From {samples} timed checkouts."),
            None => {
                " From figures that were given: holds are taken to be lognormal, arrivals random."
                    .to_owned()
            }
        };
        text.push_str(&source);
        if advice.bottleneck == Bottleneck::Database {
            let blame = format!(
                " But a connection is held {:.1} times as long when many are in use as when few are: the database \
                 is at its limit, and more connections would wait there instead of here.",
                self.growth
            );
            text.push_str(&blame);
        }
        text
    }
}

/// By what factor the hold grows from the lowest class of use to the highest.
fn growth(classes: &[Held]) -> f64 {
    let counted = |class: &(usize, &Held)| class.1.count >= SAMPLES;
    let low = classes.iter().enumerate().find(counted);
    let high = classes.iter().enumerate().rfind(counted);
    match (low, high) {
        (Some((from, low)), Some((to, high))) if to >= from + APART && !low.mean.is_zero() => {
            high.mean.as_secs_f64() / low.mean.as_secs_f64()
        }
        _ => 1.0,
    }
}

/// How much the figures bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Confidence {
    /// Few samples, or a hold that will change with the size: try it and look again.
    Low,
    /// Some samples, very bursty ones, or figures from elsewhere.
    Medium,
    /// Thousands of timed checkouts.
    High,
}

/// What limits the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Bottleneck {
    /// The number of connections: the database has room to spare.
    Pool,
    /// The database: connections are held longer the more of them are in use.
    Database,
}

/// How large a pool should be, and why. `Display` gives it in words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Advice {
    /// For [`Builder::pool_size`](crate::Builder::pool_size).
    pub pool_size: usize,
    /// For [`Builder::max_overflow`](crate::Builder::max_overflow).
    pub max_overflow: usize,
    /// For [`Builder::pool_timeout`](crate::Builder::pool_timeout).
    pub pool_timeout: Duration,
    /// The wait that 99 of 100 are expected not to exceed with `pool_size` alone.
    pub wait_p99: Duration,
    /// How much the figures bear.
    pub confidence: Confidence,
    /// What limits the service.
    pub bottleneck: Bottleneck,
    /// The reasons, in words.
    pub reasoning: String,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "pool_size {}, max_overflow {}, pool_timeout {:.1?} (confidence {:?}): {}",
            self.pool_size, self.max_overflow, self.pool_timeout, self.confidence, self.reasoning
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_smallest_size_that_meets_the_target_is_advised() {
        let demand = Demand::from_quantiles(500.0, 8 * MS, 40 * MS).expect("good figures");
        let advice = demand.advise(5 * MS);
        assert!(demand.wait_p99(advice.pool_size) <= Some(5 * MS));
        assert!(
            demand
                .wait_p99(advice.pool_size - 1)
                .is_none_or(|wait| wait > 5 * MS)
        );
        assert!(advice.max_overflow > 0 && advice.bottleneck == Bottleneck::Pool);
    }

    #[test]
    fn figures_that_make_no_sense_get_no_demand() {
        assert!(Demand::from_quantiles(0.0, MS, MS).is_none());
        assert!(Demand::from_quantiles(f64::NAN, MS, MS).is_none());
        assert!(Demand::from_quantiles(1.0, Duration::ZERO, MS).is_none());
        assert!(Demand::from_quantiles(1.0, 2 * MS, MS).is_none());
        assert!(Demand::of(&Stats::default()).is_none());
    }

    #[test]
    fn a_hold_that_grows_with_the_use_blames_the_database() {
        let mut classes = [Held::default(); 8];
        let held = |count, mean| Held { count, mean };
        classes[1] = held(100, 10 * MS);
        classes[4] = held(100, 25 * MS);
        classes[5] = held(3, 90 * MS);
        assert!(
            (growth(&classes) - 2.5).abs() < 1e-9,
            "few samples do not count"
        );
        let mut demand = Demand::from_quantiles(500.0, 8 * MS, 40 * MS).expect("good figures");
        demand.growth = growth(&classes);
        let advice = demand.advise(5 * MS);
        assert_eq!(advice.bottleneck, Bottleneck::Database);
        assert_eq!(advice.confidence, Confidence::Low);
        assert!(
            advice.to_string().contains("the database is at its limit"),
            "{advice}"
        );
    }

    #[test]
    fn a_load_beyond_any_size_is_answered_all_the_same() {
        let demand = Demand::from_quantiles(1e9, Duration::from_secs(1), Duration::from_secs(9));
        let advice = demand.expect("good figures").advise(MS);
        assert_eq!(
            (advice.pool_size, advice.pool_timeout),
            (MOST, Duration::from_secs(30))
        );
    }
}
