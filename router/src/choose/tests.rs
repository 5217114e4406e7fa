//! The order among fit replicas, by many throws of dice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Choosing, order};
use crate::evidence::Evidence;
use crate::plan::{Candidate, Proof};
use crate::sample::{Role, Sample};
use crate::view::View;

const THROWS: u32 = 8_000;
const SECOND: Duration = Duration::from_secs(1);

/// Which fraction of the throws puts each node first.
fn firsts(view: &View, now: Instant) -> Vec<f64> {
    let mut dice = fastrand::Rng::with_seed(7);
    let mut firsts = vec![0_u32; view.nodes.len()];
    for _ in 0..THROWS {
        let candidate = |node| Candidate {
            node,
            proof: Proof::Nothing,
        };
        let mut all: Vec<_> = (0..view.nodes.len()).map(candidate).collect();
        order(view, &mut all, now, dice.u64(..));
        firsts[all[0].node] += 1;
        all.sort_unstable_by_key(|candidate| candidate.node);
        assert!(
            all.iter()
                .map(|candidate| candidate.node)
                .eq(0..view.nodes.len()),
            "everybody once"
        );
    }
    let part = |count| f64::from(count) / f64::from(THROWS);
    firsts.into_iter().map(part).collect()
}

fn about(part: f64, expected: f64) -> bool {
    (part - expected).abs() < 0.03
}

/// An answer that changes no load: as fast as is assumed before the first.
fn answer(at: Instant) -> Sample {
    Sample {
        round_trip: SECOND / 1000,
        ..Sample::bare(Role::Replica, at)
    }
}

fn evidence(nodes: usize) -> Evidence {
    let names = (0..nodes).map(|index| (format!("node {index}").into(), Arc::default()));
    let mut evidence = Evidence::new(10, names);
    for node in 0..nodes {
        evidence.answered(node, answer(Instant::now()));
    }
    evidence
}

#[test]
fn a_node_that_came_back_takes_a_tenth_of_its_share_at_once_and_all_of_it_in_time() {
    let mut evidence = evidence(3);
    assert!(
        about(firsts(&evidence.view(), Instant::now())[1], 0.333),
        "at the start nobody is held back"
    );
    evidence.silent(1);
    let back = Instant::now();
    evidence.answered(1, answer(back));
    let view = evidence.view();
    for (seconds, share) in [(0, 0.1), (5, 0.55), (10, 1.0), (60, 1.0)] {
        let parts = firsts(&view, back + SECOND / 1000 + seconds * SECOND);
        let expected = share / 3.0;
        assert!(about(parts[1], expected), "{seconds} s: {parts:?}");
        let others = (1.0 - expected) / 2.0;
        assert!(
            about(parts[0], others) && about(parts[2], others),
            "{seconds} s: {parts:?}"
        );
    }
}

#[test]
fn of_two_that_came_back_the_later_takes_less_and_one_alone_takes_everything() {
    let mut evidence = evidence(2);
    let back = Instant::now();
    for (node, seconds) in [(0, 5), (1, 0)] {
        evidence.silent(node);
        evidence.answered(node, answer(back + seconds * SECOND));
    }
    let view = evidence.view();
    let now = back + SECOND / 1000 + 5 * SECOND;
    // A tenth beside eleven twentieths, of a half.
    let parts = firsts(&view, now);
    assert!((parts[0] - 0.1 / 0.55 / 2.0).abs() < 0.02, "{parts:?}");
    let mut alone = [Candidate {
        node: 0,
        proof: Proof::Nothing,
    }];
    order(&view, &mut alone, now, 0);
    assert_eq!(alone[0].node, 0);
}

#[test]
fn a_slow_start_of_no_length_holds_nobody_back() {
    let none = Choosing {
        slow_start: Duration::ZERO,
        ..Choosing::default()
    };
    let mut evidence = evidence(2).choosing(none, []);
    let back = Instant::now();
    evidence.silent(0);
    evidence.answered(0, answer(back));
    let parts = firsts(&evidence.view(), back);
    assert!(about(parts[0], 0.5), "{parts:?}");
}

/// Two nodes of the zone `a` and two of `b`, seen from `a`.
fn zoned() -> View {
    let zone = |name: &str| Some(Arc::from(name));
    let choosing = Choosing {
        zone: zone("a"),
        ..Choosing::default()
    };
    evidence(4)
        .choosing(choosing, [zone("b"), zone("a"), zone("b"), zone("a")])
        .view()
}

#[test]
fn nodes_of_the_same_zone_come_first_until_they_are_more_than_twice_as_loaded() {
    let (view, now) = (zoned(), Instant::now());
    let calm = firsts(&view, now);
    assert!(about(calm[1], 0.5) && about(calm[3], 0.5), "{calm:?}");
    // One lease out on each makes them twice as loaded: not more.
    view.nodes[1].load.began();
    view.nodes[3].load.began();
    let busy = firsts(&view, now);
    assert!(about(busy[1] + busy[3], 1.0), "{busy:?}");
    view.nodes[1].load.began();
    let one = firsts(&view, now);
    assert!(about(one[1] + one[3], 1.0), "the best decides: {one:?}");
    view.nodes[3].load.began();
    let over = firsts(&view, now);
    assert!(about(over[0], 0.5) && about(over[2], 0.5), "{over:?}");
}
