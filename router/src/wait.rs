//! Waiting until a replica has reached a token, as long as that is worth it.
//!
//! What always holds: whoever waits is woken by the monitors' looks and by nothing else but its limit and the
//! database's shutdown. Waiting promises nothing: what follows is decided anew, and proved on the connection in use.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::{select, select_all};
use tokio::time::timeout;

use crate::database::Watchers;
use crate::lsn::Lsn;
use crate::orders::Reads;
use crate::plan::{Asks, Fit};
use crate::request::{Consistency, Request};
use crate::sample::{Replay, Sample};
use crate::shared::Shared;
use crate::view::{Reason, View};

/// While somebody waits the monitors keep the pace of reads with this bound: a look every 50 ms.
pub(crate) const PACE: Duration = Duration::from_millis(200);

/// Waits until a replica has reached what the read asks for, none will in time, the database is shut down, or the
/// limit has passed.
///
/// Cancel safe: holds nothing but its places on the monitors' bells.
pub(crate) async fn for_a_replica(
    shared: &Shared,
    watchers: &Watchers,
    request: &Request,
    limit: Duration,
) {
    let begun = Instant::now();
    let first = shared.view();
    if !is_worth_waiting(&first, &first, request, begun, limit) {
        return;
    }
    let looked = async {
        // Listened to before the view is read again: a look in between is heard.
        let mut bells: Vec<_> = shared
            .nodes
            .iter()
            .map(|node| node.looks.subscribe())
            .collect();
        shared.look_at_all();
        loop {
            shared.ask_for(Consistency::BoundedStaleness(PACE));
            let _ = select_all(bells.iter_mut().map(|bell| Box::pin(bell.changed()))).await;
            let (view, now) = (shared.view(), Instant::now());
            let left = limit.saturating_sub(now - begun);
            if !is_worth_waiting(&view, &first, request, now, left) {
                return;
            }
        }
    };
    let (looked, stopped) = (pin!(looked), pin!(watchers.stopped()));
    let _ = timeout(limit, select(looked, stopped)).await;
}

/// Whether a replica that has not reached the read's token may do so in the time that is left, and none has yet.
pub(crate) fn is_worth_waiting(
    view: &View,
    first: &View,
    request: &Request,
    now: Instant,
    left: Duration,
) -> bool {
    let Ok(asks) = Asks::of(view, request.consistency) else {
        return false;
    };
    let Some(floor) = asks.floor else {
        return false;
    };
    if !asks.replicas || view.orders.reads == Reads::PrimaryOnly {
        return false;
    }
    let mut may_come = false;
    for index in (0..view.nodes.len()).filter(|index| view.primary != Some(*index)) {
        match asks.fit(view, index, now) {
            Ok(Fit::Good) => return false,
            Ok(Fit::Perhaps) | Err(Reason::BehindToken) => {
                may_come |=
                    request.forbid_primary || comes_in_time(view, first, index, floor, left);
            }
            Err(_) => {}
        }
    }
    may_come
}

fn comes_in_time(view: &View, first: &View, index: usize, floor: Lsn, left: Duration) -> bool {
    let node = &view.nodes[index];
    let (Some(before), Some(last)) = (&first.nodes[index].sample, &node.sample) else {
        return true;
    };
    let expected = time_to_reach(floor, before, last, node.as_of);
    last.replay != Some(Replay::Paused) && expected.is_none_or(|expected| expected <= left)
}

/// How long a replica will take to `floor` at the rate of its replay between two looks. `as_of` is the moment whose
/// data it showed at the second one.
///
/// `None` where the two looks tell no rate: nothing was replayed, or the replica had all there was for part of the
/// time, and so replayed no more because there was no more.
fn time_to_reach(
    floor: Lsn,
    before: &Sample,
    last: &Sample,
    as_of: Option<Instant>,
) -> Option<Duration> {
    let (from, to) = (before.position?, last.position?);
    let left = floor.settled(last.geometry).bytes_since(to);
    if left == 0 {
        return Some(Duration::ZERO);
    }
    let between = last.asked_at.checked_duration_since(before.asked_at)?;
    let was_busy = as_of.is_none_or(|as_of| as_of < before.asked_at);
    let replayed = to.bytes_since(from);
    if !was_busy || before.timeline != last.timeline || replayed == 0 {
        return None;
    }
    let nanos = between.as_nanos().saturating_mul(u128::from(left)) / u128::from(replayed);
    Some(Duration::from_nanos(
        u64::try_from(nanos).unwrap_or(u64::MAX),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Role;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(position: u64, when: Instant) -> Sample {
        Sample {
            position: Some(Lsn(position)),
            timeline: Some(1),
            ..Sample::bare(Role::Replica, when)
        }
    }

    #[test]
    fn the_time_to_a_position_follows_from_the_rate_of_replay() {
        let start = Instant::now();
        let (before, last) = (at(1000, start), at(1500, start + SECOND));
        let time = |floor| time_to_reach(Lsn(floor), &before, &last, None);
        assert_eq!(time(2500), Some(2 * SECOND));
        assert_eq!(time(1750), Some(SECOND / 2));
        assert_eq!(time(1500), Some(Duration::ZERO));
        assert!(time(u64::MAX) > Some(1_000_000 * SECOND), "no overflow");
    }

    #[test]
    fn a_replica_that_had_nothing_to_replay_tells_no_rate() {
        let start = Instant::now();
        let (before, last) = (at(1000, start), at(1500, start + SECOND));
        let time = |as_of| time_to_reach(Lsn(2500), &before, &last, Some(as_of));
        assert_eq!(time(start), None, "it had everything at the first look");
        let earlier = start.checked_sub(SECOND).expect("up for a second");
        assert_eq!(time(earlier), Some(2 * SECOND));
        let still = at(1000, start + SECOND);
        assert_eq!(time_to_reach(Lsn(2500), &before, &still, None), None);
        let promoted = Sample {
            timeline: Some(2),
            ..last.clone()
        };
        assert_eq!(time_to_reach(Lsn(2500), &before, &promoted, None), None);
        let silent = Sample {
            position: None,
            ..last
        };
        assert_eq!(time_to_reach(Lsn(2500), &before, &silent, None), None);
    }
}
