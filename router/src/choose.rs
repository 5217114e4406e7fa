//! The order among the replicas that are fit for a read: by load, nearness and how long each is back.
//!
//! What always holds: every candidate stays one, so no choice made here can break a promise or turn a read away.
//! Pure: the dice and the time are passed in. No lock, no I/O, no clock, no allocation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::plan::Candidate;
use crate::view::View;

/// The share of a node that does not warm up.
const FULL: u64 = 1 << 20;
/// The share of a node that came back this moment.
const FIRST: u64 = FULL / 10;
/// The nodes of other zones come first once the best of ours is so many times as loaded as the best of theirs.
const SPILL: u64 = 2;

/// What the choice among fit replicas goes by, beside their loads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Choosing {
    /// How long a node that came back takes to come to its full share; zero: none.
    pub slow_start: Duration,
    /// The zone of this service: nodes of the same one come first.
    pub zone: Option<Arc<str>>,
}

impl Default for Choosing {
    fn default() -> Self {
        Self {
            slow_start: Duration::from_secs(10),
            zone: None,
        }
    }
}

/// Puts candidates into the order in which they are to be tried.
///
/// Those of our own zone come first, unless the best of them scores more than twice the best of the others. Of each
/// group two are drawn and the less loaded one goes first. A node that came back within
/// [`slow_start`](Choosing::slow_start) then lets the next one go first, as the dice have it, so that it takes a tenth
/// of its share at once and more as time passes. A node with nobody behind it takes everything.
pub(crate) fn order(view: &View, candidates: &mut [Candidate], now: Instant, chance: u64) {
    if candidates.len() < 2 {
        return;
    }
    let first = near_first(view, candidates);
    let (group, rest) = candidates.split_at_mut(first);
    prefer_the_less_loaded(view, group, chance);
    prefer_the_less_loaded(view, rest, mixed(chance));
    let share = |candidate: &Candidate| {
        let since = view.nodes[candidate.node].since;
        share_of(view.choosing.slow_start, since, now)
    };
    let (ours, theirs) = (share(&candidates[0]), share(&candidates[1]));
    if ours < theirs && scaled(mixed(chance) >> 32, theirs) >= ours {
        candidates.swap(0, 1);
    }
}

/// Brings the group that is to be tried first to the front; says how many it has.
fn near_first(view: &View, candidates: &mut [Candidate]) -> usize {
    let count = candidates.len();
    let Some(zone) = &view.choosing.zone else {
        return count;
    };
    let mut near = 0;
    let (mut best_near, mut best_far) = (u64::MAX, u64::MAX);
    for index in 0..count {
        let node = &view.nodes[candidates[index].node];
        if node.zone.as_ref() == Some(zone) {
            best_near = best_near.min(node.load.score());
            candidates.swap(index, near);
            near += 1;
        } else {
            best_far = best_far.min(node.load.score());
        }
    }
    // A group without anybody counts as loaded beyond measure.
    if best_near > best_far.saturating_mul(SPILL) {
        candidates.rotate_left(near);
        return count - near;
    }
    near
}

/// Puts the less loaded of two drawn candidates first and the other second.
fn prefer_the_less_loaded(view: &View, candidates: &mut [Candidate], chance: u64) {
    let count = candidates.len();
    if count < 2 {
        return;
    }
    let draw =
        |half: u64, range: usize| usize::try_from(scaled(half, range as u64)).unwrap_or_default();
    candidates.swap(0, draw(chance & 0xFFFF_FFFF, count));
    candidates.swap(1, 1 + draw(chance >> 32, count - 1));
    // Now and then the first drawn is taken as it is: a node that was slow once, or was never asked, would
    // otherwise keep its bad name for ever, for only answers make it better.
    if (chance >> 60) == 0 {
        return;
    }
    let score = |candidate: &Candidate| view.nodes[candidate.node].load.score();
    if score(&candidates[1]) < score(&candidates[0]) {
        candidates.swap(0, 1);
    }
}

/// How much of its share a node takes that answers again since then, of [`FULL`].
fn share_of(slow_start: Duration, since: Option<Instant>, now: Instant) -> u64 {
    let Some(since) = since else { return FULL };
    let back = now.saturating_duration_since(since);
    if back >= slow_start {
        return FULL;
    }
    let part = u128::from(FULL - FIRST) * back.as_nanos() / slow_start.as_nanos();
    FIRST + u64::try_from(part).unwrap_or(FULL - FIRST)
}

/// Half a throw of the dice brought to a range: uniform to within one part in 2^32 for each value.
fn scaled(half: u64, range: u64) -> u64 {
    (half * range) >> 32
}

/// Another throw from the same one, for what must not go along with the first.
fn mixed(chance: u64) -> u64 {
    let mixed = (chance ^ (chance >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 29)
}

#[cfg(test)]
mod tests;
