//! Policies beside each other, in virtual time; each with a sentence that its figures write.

use std::time::Duration;

use pool_core::{Builder, QueueDiscipline, Shed};
use serde::Serialize;

use crate::draw::{Arrivals, Holds};
use crate::order::{AdaptiveLifo, CoDel};
use crate::sim::{Numbers, Outcome, Setup, run};

const MS: Duration = Duration::from_millis(1);

/// A line of a chart: its name, and its points.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// A chart, the question it answers, and the answer.
#[derive(Clone, Debug, Serialize)]
pub struct Study {
    /// A short name, for files.
    pub key: &'static str,
    /// The question.
    pub question: &'static str,
    /// What is simulated.
    pub setting: String,
    /// The horizontal axis.
    pub across: &'static str,
    /// The vertical axis.
    pub up: &'static str,
    /// Whether the vertical axis is logarithmic.
    pub log: bool,
    /// The lines.
    pub series: Vec<Series>,
    /// One sentence, from the figures.
    pub conclusion: String,
}

/// All studies.
pub fn all(requests: usize) -> Vec<Study> {
    let overloaded = overloads(requests);
    vec![
        disciplines(&overloaded),
        disciplines_tail(&overloaded),
        sizes(requests),
        linger(requests),
        overflow(requests),
        sharing(requests),
    ]
}

const POOL: usize = 10;
const PATIENCE: Duration = Duration::from_millis(250);
/// What a caller still has a use for.
const USEFUL: Duration = Duration::from_millis(100);

type Settings = fn(Builder<Numbers>) -> Builder<Numbers>;

fn bounded(builder: Builder<Numbers>) -> Builder<Numbers> {
    builder
        .pool_size(POOL)
        .max_overflow(0)
        .pool_timeout(PATIENCE)
}

const DISCIPLINES: [(&str, Settings); 4] = [
    ("first come, first served", bounded),
    ("last first when 20 wait", |builder| {
        bounded(builder).swap_wait_queue(|| AdaptiveLifo::new(20))
    }),
    ("CoDel, 5 ms in 100 ms", |builder| {
        bounded(builder).swap_wait_queue(|| CoDel::new(5 * MS, 100 * MS))
    }),
    ("the pool's own shedding, 50 ms", |builder| {
        bounded(builder).queue(QueueDiscipline::Shed(Shed::new(50 * MS)))
    }),
];

/// A load in percent of the capacity, and what became of it.
type Loaded = (f64, Outcome);

/// Every discipline under loads below the capacity and above it.
fn overloads(requests: usize) -> Vec<(&'static str, Vec<Loaded>)> {
    let hold = 10 * MS;
    let loads = [0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0];
    let under = |settings: Settings, load: f64| {
        let rate = load * capacity(hold);
        let arrivals = Arrivals::Poisson { rate };
        let setup = Setup::new(arrivals, Holds::Exponential(hold), requests, 21);
        (load * 100.0, run(&setup, settings))
    };
    DISCIPLINES
        .into_iter()
        .map(|(name, settings)| (name, loads.map(|load| under(settings, load)).into()))
        .collect()
}

/// A line for each discipline, of one of its figures.
fn lines(overloaded: &[(&str, Vec<Loaded>)], figure: impl Fn(&Outcome) -> f64) -> Vec<Series> {
    let line = |(name, seen): &(&str, Vec<Loaded>)| Series {
        name: (*name).to_owned(),
        points: seen
            .iter()
            .map(|(load, seen)| (*load, figure(seen)))
            .collect(),
    };
    overloaded.iter().map(line).collect()
}

#[allow(clippy::cast_precision_loss, reason = "a few connections")]
fn capacity(hold: Duration) -> f64 {
    POOL as f64 / hold.as_secs_f64()
}

fn last(series: &Series) -> f64 {
    series.points.last().map_or(f64::NAN, |point| point.1)
}

/// A line's height at its first point that lies so far right.
fn height(series: &Series, across: f64) -> f64 {
    let mut points = series.points.iter();
    let point = points.find(|point| point.0 >= across);
    point.map_or(f64::NAN, |point| point.1)
}

/// Strict FIFO, LIFO under overload, and CoDel: what is served in time.
fn disciplines(overloaded: &[(&str, Vec<Loaded>)]) -> Study {
    let most = capacity(10 * MS);
    let series = lines(overloaded, |seen| seen.goodput(USEFUL) / most * 100.0);
    let conclusion = format!(
        "At twice the capacity {:.0}% of it is served within 100 ms by the pool's own shedding, {:.0}% by turning the \
         queue round, {:.0}% by CoDel and {:.0}% first come, first served.",
        last(&series[3]),
        last(&series[1]),
        last(&series[2]),
        last(&series[0])
    );
    Study {
        key: "disciplines",
        question: "Who should be served when more ask than can be served?",
        setting: format!(
            "{POOL} connections, exponential holds of 10 ms, random arrivals, callers that wait 250 ms; served in \
             time is within 100 ms"
        ),
        across: "load, % of capacity",
        up: "served in time, % of capacity",
        log: false,
        series,
        conclusion,
    }
}

/// The same: the tail of those that are served.
fn disciplines_tail(overloaded: &[(&str, Vec<Loaded>)]) -> Study {
    let series = lines(overloaded, |seen| {
        let wait = seen.served_wait_quantile(0.99);
        wait.map_or(f64::NAN, |wait| wait.as_secs_f64() * 1e3)
    });
    let conclusion = format!(
        "At twice the capacity 99 of 100 that are served waited at most {:.0} ms with shedding, {:.0} ms with the queue \
         turned round and {:.0} ms first come, first served.",
        last(&series[3]),
        last(&series[1]),
        last(&series[0])
    );
    Study {
        key: "disciplines-tail",
        question: "And how long do those wait that are served?",
        setting: "as above".to_owned(),
        across: "load, % of capacity",
        up: "p99 wait of those served, ms",
        log: false,
        series,
        conclusion,
    }
}

/// The size against latency, where the database slows down with every connection in use.
fn sizes(requests: usize) -> Study {
    let sizes = [3_u32, 4, 5, 6, 8, 10, 12, 16, 20, 26, 32, 40, 50, 64];
    let rate = 400.0;
    let lines: [(&str, f64, f64); 3] = [
        ("p50, hold grows", 0.04, 0.5),
        ("p99, hold grows", 0.04, 0.99),
        ("p99, hold does not grow", 0.0, 0.99),
    ];
    let line = |(name, slower_by, part): (&str, f64, f64)| Series {
        name: name.to_owned(),
        points: sizes
            .iter()
            .filter_map(|size| {
                // Bursts fill whatever size there is.
                let arrivals = Arrivals::Bursts {
                    calm: rate * 0.8,
                    burst: rate * 4.0,
                    calm_for: 950 * MS,
                    burst_for: 50 * MS,
                };
                let hold = Holds::Lognormal {
                    p50: 8 * MS,
                    p99: 30 * MS,
                };
                let mut setup = Setup::new(arrivals, hold, requests, 33);
                setup.slower_by = slower_by;
                let seen = run(&setup, |builder| {
                    builder
                        .pool_size(*size as usize)
                        .max_overflow(0)
                        .pool_timeout(Duration::from_secs(20))
                });
                let latency = seen.latency_quantile(part)?;
                Some((f64::from(*size), latency.as_secs_f64() * 1e3))
            })
            .collect(),
    };
    let series: Vec<_> = lines.into_iter().map(line).collect();
    let low = |series: &Series| {
        let least = series
            .points
            .iter()
            .min_by(|one, other| one.1.total_cmp(&other.1));
        least.copied().unwrap_or((f64::NAN, f64::NAN))
    };
    let (at, least) = low(&series[1]);
    let most = last(&series[1]);
    let conclusion = format!(
        "Where the hold grows, p99 latency is least at {at:.0} connections ({least:.0} ms) and {most:.0} ms at 64; where \
         it does not, {:.0} ms at {at:.0} and {:.0} ms at 64.",
        height(&series[2], at),
        last(&series[2])
    );
    Study {
        key: "sizes",
        question: "Can a pool be too large?",
        setting: format!(
            "{rate:.0} requests a second with bursts, lognormal holds (p50 8 ms, p99 30 ms) that grow with every other \
             connection in use"
        ),
        across: "pool_size",
        up: "latency, ms",
        log: true,
        series,
        conclusion,
    }
}

fn hovering(requests: usize) -> Setup {
    let arrivals = Arrivals::Bursts {
        calm: 350.0,
        burst: 1_200.0,
        calm_for: 400 * MS,
        burst_for: 100 * MS,
    };
    let mut setup = Setup::new(arrivals, Holds::Exponential(10 * MS), requests, 55);
    setup.connect = 15 * MS;
    setup
}

#[allow(clippy::cast_precision_loss, reason = "fewer than 2^53 connections")]
fn connects(seen: &Outcome) -> f64 {
    seen.opened as f64 / seen.span.as_secs_f64()
}

/// Linger against connects.
fn linger(requests: usize) -> Study {
    let spans = [0_u32, 10, 20, 50, 100, 200, 500, 1_000, 2_000];
    let line = |size: usize| Series {
        name: format!("pool_size {size}, max_overflow 20"),
        points: spans
            .iter()
            .map(|span| {
                let seen = run(&hovering(requests), |builder| {
                    builder
                        .pool_size(size)
                        .max_overflow(20)
                        .overflow_linger(*span * MS)
                });
                (f64::from(*span), connects(&seen))
            })
            .collect(),
    };
    let series: Vec<_> = [4, 6, 8].into_iter().map(line).collect();
    let conclusion = format!(
        "A pool of 4 under a load that hovers above it opens {:.1} connections a second without linger, {:.1} with \
         100 ms of it and {:.2} with a second.",
        height(&series[0], 0.0),
        height(&series[0], 100.0),
        height(&series[0], 1_000.0)
    );
    Study {
        key: "linger",
        question: "What does overflow_linger spare?",
        setting: "bursts from 350 to 1,200 requests a second, exponential holds of 10 ms, 15 ms to connect".to_owned(),
        across: "overflow_linger, ms",
        up: "connects a second",
        log: false,
        series,
        conclusion,
    }
}

/// Overflow against connects.
fn overflow(requests: usize) -> Study {
    let overflows = [0_u32, 1, 2, 4, 6, 8, 12, 16, 24];
    let line = |(name, span): (&str, Duration)| Series {
        name: name.to_owned(),
        points: overflows
            .iter()
            .map(|more| {
                let seen = run(&hovering(requests), |builder| {
                    let builder = builder.pool_size(6).max_overflow(*more as usize);
                    builder.overflow_linger(span)
                });
                (f64::from(*more), connects(&seen))
            })
            .collect(),
    };
    let lines = [("no linger", Duration::ZERO), ("linger 200 ms", 200 * MS)];
    let series: Vec<_> = lines.into_iter().map(line).collect();
    let conclusion = format!(
        "With 24 in overflow a pool of 6 opens {:.1} connections a second without linger and {:.1} with 200 ms.",
        last(&series[0]),
        last(&series[1])
    );
    Study {
        key: "overflow",
        question: "What does overflow cost in connects?",
        setting: "the same load on a pool_size of 6".to_owned(),
        across: "max_overflow",
        up: "connects a second",
        log: false,
        series,
        conclusion,
    }
}

/// One pool for all against one for each thread.
fn sharing(requests: usize) -> Study {
    let loads = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95];
    let total = 16_u32;
    let line = |pools: u32| Series {
        name: match pools {
            1 => "one pool of 16".to_owned(),
            pools => format!("{pools} pools of {}", total / pools),
        },
        points: loads
            .iter()
            .filter_map(|load| {
                let rate = load * f64::from(total) / 0.01;
                let arrivals = Arrivals::Poisson { rate };
                let mut setup = Setup::new(arrivals, Holds::Exponential(10 * MS), requests, 77);
                setup.pools = pools as usize;
                let seen = run(&setup, |builder| {
                    builder
                        .pool_size((total / pools) as usize)
                        .max_overflow(0)
                        .pool_timeout(None)
                });
                let wait = seen.wait_quantile(0.99)?;
                Some((load * 100.0, wait.as_secs_f64() * 1e3))
            })
            .collect(),
    };
    let series: Vec<_> = [1, 4, 16].into_iter().map(line).collect();
    let conclusion = format!(
        "At 80% load 99 of 100 wait at most {:.1} ms at one pool of 16, {:.1} ms at four of 4 and {:.1} ms at sixteen \
         of 1: who shares waits less.",
        height(&series[0], 79.0),
        height(&series[1], 79.0),
        height(&series[2], 79.0)
    );
    Study {
        key: "sharing",
        question: "One pool for all, or one for each thread?",
        setting: "16 connections in all, exponential holds of 10 ms, requests dealt out in turn"
            .to_owned(),
        across: "load, %",
        up: "p99 wait, ms",
        log: false,
        series,
        conclusion,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_study_has_points_and_says_what_they_mean() {
        for study in all(1_500) {
            assert!(
                study.series.iter().all(|line| line.points.len() >= 8),
                "{study:?}"
            );
            assert!(!study.conclusion.contains("NaN"), "{study:?}");
        }
    }

    #[test]
    fn in_overload_strict_fifo_and_codel_serve_nobody_in_time_and_the_others_most() {
        let study = disciplines(&overloads(6_000));
        let [fifo, lifo, codel, ours] = [0, 1, 2, 3].map(|line| last(&study.series[line]));
        assert!(lifo > 80.0 && ours > 80.0, "{study:?}");
        // Callers that do not slow down outrun CoDel's control law.
        assert!(fifo < 20.0 && codel < 20.0, "{study:?}");
    }
}
