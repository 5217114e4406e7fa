//! How busy a node is: what is outstanding on it, and how fast it has answered.
//!
//! The only part of a view that changes after it was made. Every value is a hint for balancing; no promise
//! rests on one.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A node's load.
#[derive(Debug)]
pub struct Load {
    outstanding: AtomicU32,
    latency_nanos: AtomicU64,
    weight: u32,
}

/// What an answer that took much longer than usual counts for at most, in usual answers: a slow statement is
/// evidence about the statement more than about the node.
const MOST: u64 = 8;
/// How much a new answer weighs in the mean: one part in this many.
const WEIGHT: u64 = 16;

impl Default for Load {
    fn default() -> Self {
        Self::weighted(1)
    }
}

impl Load {
    /// Of a node that takes so many times the load of one with weight 1; at least 1.
    pub fn weighted(weight: u32) -> Self {
        Self {
            outstanding: AtomicU32::new(0),
            latency_nanos: AtomicU64::new(1_000_000),
            weight: weight.max(1),
        }
    }

    /// Takes an answer into the moving mean.
    pub fn answered(&self, round_trip: Duration) {
        let nanos = u64::try_from(round_trip.as_nanos()).unwrap_or(u64::MAX);
        // Relaxed, and a load and a store: two answers at once may count as one, and nothing else is carried.
        let mean = self.latency_nanos.load(Relaxed);
        let counted = nanos.min(mean.saturating_mul(MOST));
        let next = mean - mean / WEIGHT + counted / WEIGHT;
        self.latency_nanos.store(next.max(1_000), Relaxed);
    }

    /// One more lease is out. Undone by [`ended`](Self::ended).
    pub fn began(&self) {
        // Relaxed: a count for balancing; nothing is carried with it.
        self.outstanding.fetch_add(1, Relaxed);
    }

    /// A lease is back; says whether it was the last.
    pub fn ended(&self) -> bool {
        // Relaxed: as in `began`, which came before it, so the count never wraps.
        self.outstanding.fetch_sub(1, Relaxed) == 1
    }

    /// How many leases are out.
    pub fn outstanding(&self) -> u32 {
        // Relaxed: a hint.
        self.outstanding.load(Relaxed)
    }

    /// The mean time to an answer.
    pub fn latency(&self) -> Duration {
        // Relaxed: a hint.
        Duration::from_nanos(self.latency_nanos.load(Relaxed))
    }

    /// What one more lease would wait for, roughly, by the node's weight. Less is better.
    pub fn score(&self) -> u64 {
        let waiting = u64::from(self.outstanding()) + 1;
        // Relaxed: a hint.
        self.latency_nanos.load(Relaxed).saturating_mul(waiting) / u64::from(self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busier_and_the_slower_node_score_worse() {
        let (calm, busy, slow) = (Load::default(), Load::default(), Load::default());
        busy.began();
        (0..50).for_each(|_| slow.answered(Duration::from_millis(5)));
        assert!(calm.score() < busy.score());
        assert!(calm.score() < slow.score());
        busy.ended();
        assert_eq!(calm.score(), busy.score());
    }

    #[test]
    fn a_node_of_twice_the_weight_scores_alike_with_twice_the_load() {
        let (light, heavy) = (Load::weighted(1), Load::weighted(2));
        light.began();
        (0..3).for_each(|_| heavy.began());
        assert_eq!(light.score(), heavy.score());
    }

    #[test]
    fn one_slow_statement_does_not_ban_a_node() {
        let (calm, once) = (Load::default(), Load::default());
        once.answered(Duration::from_mins(1));
        assert!(once.score() < 2 * calm.score(), "{:?}", once.latency());
    }

    #[test]
    fn a_mean_follows_the_answers_down_too() {
        let load = Load::default();
        (0..200).for_each(|_| load.answered(Duration::from_micros(100)));
        assert!(
            load.latency() < Duration::from_micros(120),
            "{:?}",
            load.latency()
        );
    }
}
