//! Figures for people and for `--json`: how many, how fast, where.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use super::checks::lock;
use super::traffic::{Ask, Traffic};

/// What was measured, by name.
#[derive(Default)]
pub(crate) struct Figures(Mutex<BTreeMap<String, f64>>);

impl Figures {
    /// Adds to a count.
    pub(crate) fn count(&self, name: &str, count: usize) {
        *lock(&self.0).entry(name.to_owned()).or_default() += float(count);
    }

    /// Notes a time; of several the longest stays.
    pub(crate) fn millis(&self, name: &str, time: Duration) {
        let mut all = lock(&self.0);
        let longest = all.entry(format!("{name}, ms")).or_default();
        *longest = longest.max(round(time.as_secs_f64() * 1000.0));
    }

    /// Notes rates, times and places of a phase's requests; the ports are the nodes' in order.
    pub(crate) fn rates(&self, phase: &str, traffic: &Traffic, ports: &[(String, u16)]) {
        let served = traffic.all_served();
        let began = served.iter().map(|one| one.began).min();
        let ended = served.iter().map(|one| one.began + one.took).max();
        let (Some(began), Some(ended)) = (began, ended) else {
            return;
        };
        let rate = float(served.len()) / (ended - began).as_secs_f64().max(0.001);
        lock(&self.0).insert(format!("{phase}: requests per second"), round(rate));
        for (name, port) in ports {
            let count = served.iter().filter(|one| one.port == Some(*port)).count();
            self.count(&format!("reads on {name}"), count);
        }
        for ask in [Ask::Write, Ask::ReadAfter, Ask::Read, Ask::ReadWithin] {
            let mut times: Vec<Duration> = served
                .iter()
                .filter(|one| one.ask == ask)
                .map(|one| one.took)
                .collect();
            times.sort_unstable();
            for (percent, name) in [(50, "p50"), (99, "p99")] {
                if let Some(time) =
                    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)))
                {
                    self.millis(&format!("{phase}: {ask:?} {name}"), *time);
                }
            }
        }
    }

    /// All figures.
    pub(crate) fn all(&self) -> BTreeMap<String, f64> {
        lock(&self.0).clone()
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn float(count: usize) -> f64 {
    count as f64
}
