//! What holds for every plan, whatever is known and asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pool_postgres::{CommitToken, Strength};
use proptest::prelude::*;

use super::{Proof, plan};
use crate::choose::Choosing;
use crate::evidence::Evidence;
use crate::load::Load;
use crate::lsn::Lsn;
use crate::orders::{Order, Reads};
use crate::request::{Consistency, Request};
use crate::sample::{Replay, Role, Sample};
use crate::view::View;

const SYSTEM: u64 = 0xa;
const SECOND: Duration = Duration::from_secs(1);
/// How often the nodes were looked at, a second apart; with each the primary stands a hundred bytes further.
const LOOKS: u32 = 8;
/// How many reads each of some equal replicas should get.
const EACH: u32 = 400;

/// Whether a replica stayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    Always,
    /// It went away before the last look.
    CameBack,
    /// Its connections keep failing.
    Fails,
    /// It went away after the last look.
    Silent,
}

/// What is true of a replica, as the test knows it.
#[derive(Clone, Debug)]
struct Truth {
    system: u64,
    timeline: Option<u32>,
    position: Option<u64>,
    paused: bool,
    stay: Stay,
    drained: bool,
    near: bool,
    outstanding: u32,
}

impl Truth {
    /// Whether it takes reads at all.
    fn serves(&self) -> bool {
        self.system == SYSTEM
            && self.timeline == Some(1)
            && self.stay != Stay::Silent
            && !self.drained
    }

    /// How old its data is a moment after the last look.
    fn age(&self) -> Option<Duration> {
        let look = u32::try_from(self.position? / 100).ok()?;
        (look > 0).then(|| SECOND * LOOKS.saturating_sub(look))
    }
}

fn truth() -> impl Strategy<Value = Truth> {
    let seldom = || prop::bool::weighted(0.15);
    let facts = (
        prop_oneof![9 => Just(SYSTEM), 1 => Just(0xb)],
        prop_oneof![8 => Just(Some(1)), 1 => Just(Some(2)), 1 => Just(None)],
        prop_oneof![9 => (1..=u64::from(LOOKS) * 100).prop_map(Some), 1 => Just(None)],
        seldom(),
    );
    let stay = prop_oneof![
        7 => Just(Stay::Always),
        2 => Just(Stay::CameBack),
        2 => Just(Stay::Fails),
        1 => Just(Stay::Silent),
    ];
    let rest = (stay, seldom(), any::<bool>(), 0..4_u32);
    (facts, rest).prop_map(|(facts, rest)| {
        let (system, timeline, position, paused) = facts;
        let (stay, drained, near, outstanding) = rest;
        Truth {
            system,
            timeline,
            position,
            paused,
            stay,
            drained,
            near,
            outstanding,
        }
    })
}

fn asked() -> impl Strategy<Value = Consistency> {
    let token =
        (1..=u64::from(LOOKS) * 110, prop::bool::weighted(0.1)).prop_map(|(position, weak)| {
            CommitToken {
                system_identifier: SYSTEM,
                timeline: 1,
                position,
                strength: if weak {
                    Strength::Weak
                } else {
                    Strength::Strong
                },
            }
        });
    prop_oneof![
        Just(Consistency::Eventual),
        Just(Consistency::Strong),
        (0..10_u32).prop_map(|seconds| Consistency::BoundedStaleness(seconds * SECOND)),
        token.clone().prop_map(Consistency::ReadYourWrites),
        token.prop_map(Consistency::Monotonic),
    ]
}

/// The primary and these replicas after the last look, and that moment.
fn seen(replicas: &[Truth], zone: bool, primary_only: bool) -> (View, Instant) {
    let names =
        (0..=replicas.len()).map(|index| (format!("node {index}").into(), Arc::<Load>::default()));
    let choosing = Choosing {
        zone: zone.then(|| "a".into()),
        ..Choosing::default()
    };
    let zones = replicas.iter().map(|truth| truth.near.then(|| "a".into()));
    let mut evidence =
        Evidence::new(SYSTEM, names).choosing(choosing, std::iter::once(None).chain(zones));
    let mut now = Instant::now();
    for look in 1..=LOOKS {
        now += SECOND;
        let primary = Sample {
            system_identifier: Some(SYSTEM),
            timeline: Some(1),
            position: Some(Lsn(u64::from(look) * 100)),
            ..Sample::bare(Role::Primary, now)
        };
        evidence.answered(0, primary);
    }
    for (node, truth) in (1..).zip(replicas) {
        let sample = Sample {
            system_identifier: Some(truth.system),
            timeline: truth.timeline,
            position: truth.position.map(Lsn),
            replay: Some(if truth.paused {
                Replay::Paused
            } else {
                Replay::Running
            }),
            ..Sample::bare(Role::Replica, now)
        };
        if truth.stay == Stay::CameBack {
            evidence.silent(node);
        }
        evidence.answered(node, sample);
        if truth.stay == Stay::Fails {
            let _ = (0..9).find_map(|_| evidence.failed(node, now));
        }
        if truth.stay == Stay::Silent {
            evidence.silent(node);
        }
        if truth.drained {
            evidence.ordered(Order::Drain(node));
        }
    }
    if primary_only {
        evidence.ordered(Order::Reads(Reads::PrimaryOnly));
    }
    let view = evidence.view();
    for (node, truth) in (1..).zip(replicas) {
        (0..truth.outstanding).for_each(|_| view.nodes[node].load.began());
    }
    (view, now)
}

proptest! {
    #[test]
    fn no_plan_breaks_a_promise_or_turns_a_fit_replica_away(
        replicas in prop::collection::vec(truth(), 0..6),
        consistency in asked(),
        (zone, primary_only, avoid) in (any::<bool>(), prop::bool::weighted(0.1), prop::option::of(0..8_usize)),
        chance in any::<u64>(),
    ) {
        let (view, now) = seen(&replicas, zone, primary_only);
        let request = Request { avoid, ..Request::new(consistency) };
        let plan = plan(&view, &request, now, chance).expect("the primary is known");

        // Everybody has one place: the primary the last, each replica among the candidates or those passed over.
        let order: Vec<_> = plan.candidates.iter().map(|candidate| candidate.node).collect();
        prop_assert_eq!(order.last(), Some(&0));
        let mut all: Vec<_> = order.iter().copied()
            .chain(plan.passed_over.iter().map(|(node, _)| *node))
            .collect();
        all.sort_unstable();
        let strong = consistency == Consistency::Strong;
        let asked = if strong { 1 } else { view.nodes.len() };
        prop_assert!(all.into_iter().eq(0..asked), "{:?}", plan);

        let mut guesses = 0;
        let out = |node: usize| view.ejected(node, now).is_some();
        let others = order.iter().any(|node| *node > 0 && !out(*node));
        for (node, truth) in (1..).zip(&replicas) {
            let place = plan.candidates.iter().position(|candidate| candidate.node == node);
            let serves = truth.serves() && !primary_only && avoid != Some(node);
            let fit = serves && match consistency {
                Consistency::Eventual => truth.age().is_some(),
                Consistency::BoundedStaleness(bound) => truth.age().is_some_and(|age| age <= bound),
                Consistency::ReadYourWrites(token) => {
                    token.strength == Strength::Strong
                        && truth.position.is_some_and(|position| position >= token.position)
                }
                Consistency::Monotonic(token) => {
                    truth.position.is_some_and(|position| position >= token.position)
                }
                Consistency::Strong => false,
            };
            // One that is out has to be there only where nobody else is.
            if fit && !(out(node) && others) {
                prop_assert!(place.is_some(), "node {} is fit: {:?}", node, plan);
            }
            let Some(place) = place else { continue };
            prop_assert!(!(out(node) && others), "node {} is out: {:?}", node, plan);
            let proof = plan.candidates[place].proof;
            match consistency {
                Consistency::Eventual => prop_assert_eq!(proof, Proof::Nothing),
                Consistency::BoundedStaleness(bound) => prop_assert_eq!(proof, Proof::Age(bound)),
                Consistency::ReadYourWrites(token) => prop_assert_eq!(proof, Proof::Token(token)),
                Consistency::Monotonic(token) => {
                    let strength = Strength::Strong;
                    prop_assert_eq!(proof, Proof::Token(CommitToken { strength, ..token }));
                }
                Consistency::Strong => prop_assert!(false, "a strong read on a replica: {:?}", plan),
            }
            if !fit {
                // Not sure to have reached the token: tried alone, with the proof, and only if it may have.
                let guess = match consistency {
                    Consistency::ReadYourWrites(token) => token.strength == Strength::Strong,
                    Consistency::Monotonic(_) => true,
                    _ => false,
                };
                prop_assert!(serves && guess && !truth.paused, "node {} is unfit: {:?}", node, plan);
                prop_assert_eq!(place, 0);
                guesses += 1;
            }
        }
        prop_assert!(guesses == 0 || order.len() == 2, "{:?}", plan);
    }

    #[test]
    fn equal_replicas_share_the_reads_alike(count in 1..8_u32, seed in any::<u64>()) {
        let equal = Truth {
            system: SYSTEM,
            timeline: Some(1),
            position: Some(u64::from(LOOKS) * 100),
            paused: false,
            stay: Stay::Always,
            drained: false,
            near: true,
            outstanding: 1,
        };
        let (view, now) = seen(&vec![equal; count as usize], true, false);
        let request = Request::new(Consistency::Eventual);
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut firsts = vec![0_u32; count as usize + 1];
        for _ in 0..count * EACH {
            let plan = plan(&view, &request, now, dice.u64(..)).expect("a plan");
            firsts[plan.candidates[0].node] += 1;
        }
        // Six standard deviations of a fair draw.
        prop_assert!(firsts[1..].iter().all(|first| first.abs_diff(EACH) <= 120), "{:?}", firsts);
        prop_assert_eq!(firsts[0], 0);
    }
}
