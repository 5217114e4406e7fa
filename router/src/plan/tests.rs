//! The routing decision, case by case.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pool_postgres::CommitToken;

use super::{Plan, Proof, Refusal, plan, plan_write};
use crate::evidence::Evidence;
use crate::floor::TokenRefusal;
use crate::load::Load;
use crate::lsn::Lsn;
use crate::orders::{Order, Reads};
use crate::request::{Consistency, ReadOptions, Request};
use crate::sample::{Replay, Role, Sample};
use crate::view::{Reason, View};

const SYSTEM: u64 = 0xa;
const SECOND: Duration = Duration::from_secs(1);

/// A primary and replicas, looked at together once a second.
struct Nodes {
    evidence: Evidence,
    now: Instant,
}

impl Nodes {
    fn with_replicas(count: usize) -> Self {
        let loads =
            (0..=count).map(|index| (format!("node {index}").into(), Arc::<Load>::default()));
        Self {
            evidence: Evidence::new(SYSTEM, loads),
            now: Instant::now(),
        }
    }

    /// A second later, everybody is looked at: the primary at the first position, the replicas at the others.
    fn look(mut self, positions: &[u64]) -> Self {
        self.now += SECOND;
        for (index, position) in positions.iter().enumerate() {
            let sample = self.sample(index, *position);
            self.evidence.answered(index, sample);
        }
        self
    }

    fn sample(&self, index: usize, position: u64) -> Sample {
        let role = if index == 0 {
            Role::Primary
        } else {
            Role::Replica
        };
        Sample {
            system_identifier: Some(SYSTEM),
            timeline: Some(1),
            position: Some(Lsn(position)),
            replay: (role == Role::Replica).then_some(Replay::Running),
            ..Sample::bare(role, self.now)
        }
    }

    fn plan(&self, consistency: Consistency) -> Plan {
        self.try_plan(consistency).expect("a plan")
    }

    fn try_plan(&self, consistency: Consistency) -> Result<Plan, Refusal> {
        plan(
            &self.view(),
            &Request::new(consistency),
            self.now + SECOND / 10,
            0,
        )
    }

    fn view(&self) -> View {
        self.evidence.view()
    }
}

fn order(plan: &Plan) -> Vec<usize> {
    plan.candidates
        .iter()
        .map(|candidate| candidate.node)
        .collect()
}

fn after(text: &str) -> Consistency {
    Consistency::ReadYourWrites(text.parse::<CommitToken>().expect("a well-formed token"))
}

fn within(seconds: u32) -> Consistency {
    Consistency::BoundedStaleness(seconds * SECOND)
}

#[test]
fn a_fresh_replica_comes_before_the_primary_and_has_the_age_to_prove() {
    let plan = Nodes::with_replicas(1).look(&[100, 100]).plan(within(10));
    assert_eq!(order(&plan), [1, 0]);
    assert_eq!(plan.candidates[0].proof, Proof::Age(10 * SECOND));
    assert_eq!(plan.candidates[1].proof, Proof::Primary);
}

#[test]
fn a_replica_beyond_the_bound_is_passed_over_with_the_reason() {
    let nodes = Nodes::with_replicas(1)
        .look(&[100, 100])
        .look(&[200, 100])
        .look(&[300, 100]);
    assert_eq!(order(&nodes.plan(within(3))), [1, 0]);
    let tight = nodes.plan(within(2));
    assert_eq!(
        (order(&tight), tight.passed_over),
        (vec![0], vec![(1, Reason::TooStale)])
    );
}

#[test]
fn an_unknown_lag_serves_no_promise_at_all() {
    let mut nodes = Nodes::with_replicas(1).look(&[100, 100]);
    nodes.evidence.answered(
        1,
        Sample {
            position: None,
            ..nodes.sample(1, 0)
        },
    );
    for consistency in [Consistency::Eventual, within(3600), after("1.a.1.1.s")] {
        let plan = nodes.plan(consistency);
        assert_eq!(
            (order(&plan), plan.passed_over),
            (vec![0], vec![(1, Reason::LagUnknown)])
        );
    }
}

#[test]
fn an_eventual_read_takes_any_replica_whose_lag_is_known() {
    let mut nodes = Nodes::with_replicas(1);
    for second in 0..60 {
        nodes = nodes.look(&[100 + second, 100]);
    }
    assert_eq!(order(&nodes.plan(Consistency::Eventual)), [1, 0]);
}

#[test]
fn a_token_goes_to_a_replica_that_has_reached_it() {
    let nodes = Nodes::with_replicas(2)
        .look(&[0x64, 0x64, 0x64])
        .look(&[0xc8, 0xc8, 0x64]);
    let plan = nodes.plan(after("1.a.1.c8.s"));
    assert_eq!(
        (order(&plan), plan.passed_over),
        (vec![1, 0], vec![(2, Reason::BehindToken)])
    );
}

#[test]
fn a_replica_that_may_have_caught_up_since_is_tried_once_before_the_primary() {
    let nodes = Nodes::with_replicas(2).look(&[0x64, 0x64, 0x63]);
    let plan = nodes.plan(after("1.a.1.c8.s"));
    assert_eq!(
        (order(&plan), plan.passed_over),
        (vec![1, 0], vec![(2, Reason::BehindToken)])
    );
    assert!(matches!(plan.candidates[0].proof, Proof::Token(_)));
}

#[test]
fn a_paused_replica_is_not_expected_to_catch_up() {
    let mut nodes = Nodes::with_replicas(1).look(&[0x64, 0x64]);
    nodes.evidence.answered(
        1,
        Sample {
            replay: Some(Replay::Paused),
            ..nodes.sample(1, 0x64)
        },
    );
    assert_eq!(order(&nodes.plan(after("1.a.1.c8.s"))), [0]);
    assert_eq!(
        order(&nodes.plan(after("1.a.1.64.s"))),
        [1, 0],
        "what it has, it has"
    );
}

#[test]
fn a_token_of_another_cluster_is_refused() {
    let refusal = Nodes::with_replicas(1)
        .look(&[100, 100])
        .try_plan(after("1.b.1.1.s"));
    let expected = TokenRefusal::OfAnotherCluster {
        token: 0xb,
        ours: SYSTEM,
    };
    assert_eq!(refusal, Err(Refusal::Token(expected)));
}

#[test]
fn a_token_of_an_older_timeline_is_refused_where_nobody_can_tell() {
    let mut nodes = Nodes::with_replicas(1).look(&[0x64, 0x60]);
    nodes.evidence.answered(
        1,
        Sample {
            timeline: Some(2),
            role: Role::Primary,
            ..nodes.sample(1, 0x62)
        },
    );
    assert_eq!(
        order(&nodes.plan(after("1.a.1.60.s"))),
        [1],
        "seen replayed before the promotion"
    );
    let refusal = nodes.try_plan(after("1.a.1.61.s"));
    let expected = TokenRefusal::CannotTell {
        token: 1,
        ours: Some(2),
    };
    assert_eq!(refusal, Err(Refusal::Token(expected)));
}

#[test]
fn a_token_of_a_timeline_not_seen_yet_is_left_to_the_primary_to_judge() {
    let plan = Nodes::with_replicas(1)
        .look(&[100, 100])
        .plan(after("1.a.2.1.s"));
    assert_eq!(order(&plan), [0]);
    assert!(matches!(plan.candidates[0].proof, Proof::Token(_)));
}

#[test]
fn a_bounded_read_on_the_primary_has_to_meet_a_primary_unless_nobody_else_is_there() {
    let alone = Nodes::with_replicas(0).look(&[100]).plan(within(10));
    assert_eq!(alone.candidates[0].proof, Proof::Nothing);
    let stale = Nodes::with_replicas(1).look(&[100, 50]).plan(within(10));
    assert_eq!(order(&stale), [0]);
    assert_eq!(stale.candidates[0].proof, Proof::Primary);
}

#[test]
fn a_weak_token_goes_to_the_primary() {
    let plan = Nodes::with_replicas(1)
        .look(&[100, 100])
        .plan(after("1.a.1.1.w"));
    assert_eq!(
        (order(&plan), plan.passed_over),
        (vec![0], vec![(1, Reason::WeakToken)])
    );
}

#[test]
fn a_strong_read_goes_to_a_primary_that_proves_to_be_one() {
    let plan = Nodes::with_replicas(1)
        .look(&[100, 100])
        .plan(Consistency::Strong);
    assert_eq!(
        (order(&plan), plan.candidates[0].proof),
        (vec![0], Proof::Primary)
    );
}

#[test]
fn a_silent_node_is_out_and_comes_back_with_its_next_answer() {
    let mut nodes = Nodes::with_replicas(1).look(&[100, 100]);
    nodes.evidence.silent(1);
    let out = nodes.plan(within(10));
    assert_eq!(
        (order(&out), out.passed_over),
        (vec![0], vec![(1, Reason::NotAnswering)])
    );
    assert_eq!(order(&nodes.look(&[100, 100]).plan(within(10))), [1, 0]);
}

#[test]
fn with_the_primary_silent_replicas_serve_until_the_bound_is_reached() {
    let mut nodes = Nodes::with_replicas(1).look(&[100, 100]);
    nodes.evidence.silent(0);
    assert_eq!(order(&nodes.plan(within(10))), [1, 0]);
    nodes.now += 11 * SECOND;
    let sample = nodes.sample(1, 100);
    nodes.evidence.answered(1, sample);
    assert_eq!(order(&nodes.plan(within(10))), [0]);
}

#[test]
fn of_two_replicas_the_less_loaded_comes_first_but_for_one_throw_in_sixteen() {
    let nodes = Nodes::with_replicas(2).look(&[100, 100, 100]);
    let view = nodes.view();
    view.nodes[1].load.began();
    for chance in [1 << 60, u64::MAX, 1 << 60 | 0xFFFF_FFFF, 1 << 63] {
        let plan = plan(&view, &Request::new(within(10)), nodes.now, chance).expect("a plan");
        assert_eq!(order(&plan), [2, 1, 0]);
    }
    let mut dice = fastrand::Rng::with_seed(7);
    let mut others = 0;
    for _ in 0..3200 {
        let plan = plan(&view, &Request::new(within(10)), nodes.now, dice.u64(..)).expect("a plan");
        others += u32::from(order(&plan) == [1, 2, 0]);
    }
    // Half of those throws draw the less loaded one first anyway.
    assert!(
        (60..140).contains(&others),
        "the other is asked now and then: {others}"
    );
}

#[test]
fn the_dice_spread_equal_replicas_evenly() {
    let nodes = Nodes::with_replicas(3).look(&[100, 100, 100, 100]);
    let (view, mut dice) = (nodes.view(), fastrand::Rng::with_seed(7));
    let mut firsts = [0_u32; 4];
    for _ in 0..3000 {
        let plan = plan(&view, &Request::new(within(10)), nodes.now, dice.u64(..)).expect("a plan");
        firsts[plan.candidates[0].node] += 1;
        let mut all = order(&plan);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3], "everybody once");
    }
    assert!(
        firsts[1..].iter().all(|count| (900..1100).contains(count)),
        "{firsts:?}"
    );
}

#[test]
fn a_node_that_refused_is_avoided_and_after_more_only_the_primary_is_asked() {
    let nodes = Nodes::with_replicas(2).look(&[100, 100, 100]);
    let avoiding = Request {
        avoid: Some(1),
        ..Request::new(within(10))
    };
    assert_eq!(
        order(&plan(&nodes.view(), &avoiding, nodes.now, 0).expect("a plan")),
        [2, 0]
    );
    let last = Request {
        primary_only: true,
        ..Request::new(within(10))
    };
    assert_eq!(
        order(&plan(&nodes.view(), &last, nodes.now, 0).expect("a plan")),
        [0]
    );
}

#[test]
fn without_a_primary_reads_go_to_replicas_and_writes_are_told_why_not() {
    let mut nodes = Nodes::with_replicas(1).look(&[100, 100]);
    nodes.evidence.answered(
        0,
        Sample {
            role: Role::Replica,
            ..nodes.sample(0, 100)
        },
    );
    assert_eq!(order(&nodes.plan(within(10))).len(), 2);
    let refusal = plan_write(&nodes.view())
        .expect_err("nobody takes writes")
        .to_string();
    assert!(
        refusal.contains("node 0 is a replica, node 1 is a replica"),
        "{refusal}"
    );
    let strong = nodes.try_plan(Consistency::Strong);
    assert!(matches!(strong, Err(Refusal::NoPrimary(_))), "{strong:?}");
}

#[test]
fn what_is_ordered_keeps_reads_away_and_is_counted_as_such() {
    let mut nodes = Nodes::with_replicas(2).look(&[100, 100, 100]);
    nodes.evidence.ordered(Order::Drain(1));
    let request = Request::new(Consistency::Eventual);
    let drained = plan(&nodes.evidence.view(), &request, nodes.now, 0).expect("a plan");
    assert_eq!(order(&drained), [2, 0]);
    assert_eq!(drained.passed_over, [(1, Reason::Drained)]);
    nodes.evidence.ordered(Order::Reads(Reads::PrimaryOnly));
    let only = plan(&nodes.evidence.view(), &request, nodes.now, 0).expect("a plan");
    let reasons = [(1, Reason::PrimaryOnly), (2, Reason::PrimaryOnly)];
    assert_eq!(
        (order(&only), only.passed_over),
        (vec![0], reasons.to_vec())
    );
}

impl Nodes {
    /// Connections to a node fail, more than enough of them; says how long it is out.
    fn fail(&mut self, node: usize) -> Option<Duration> {
        (0..9).find_map(|_| self.evidence.failed(node, self.now))
    }
}

#[test]
fn a_replica_whose_connections_keep_failing_is_out_for_a_while() {
    let mut nodes = Nodes::with_replicas(2).look(&[100, 100, 100]);
    let time = nodes.fail(1).expect("it is out");
    let out = nodes.plan(within(60));
    assert_eq!(
        (order(&out), out.passed_over),
        (vec![2, 0], vec![(1, Reason::Ejected)])
    );
    nodes.now += time;
    assert_eq!(order(&nodes.plan(within(60))).len(), 3, "back by itself");
    nodes.fail(1).expect("out again");
    nodes.evidence.silent(1);
    let nodes = nodes.look(&[100, 100, 100]);
    assert_eq!(
        order(&nodes.plan(within(60))).len(),
        3,
        "a node that went away and came back is looked at anew"
    );
}

#[test]
fn at_most_half_of_the_replicas_that_answer_are_out_and_never_the_primary() {
    let mut nodes = Nodes::with_replicas(5).look(&[100; 6]);
    assert_eq!(nodes.fail(0), None, "the primary stays");
    let out = [1, 2, 3].map(|node| nodes.fail(node).is_some());
    assert_eq!(out, [true, true, false], "two of five");
    assert_eq!(order(&nodes.plan(within(10))).len(), 4);
    let mut one = Nodes::with_replicas(1).look(&[100, 100]);
    assert_eq!(one.fail(1), None, "the only one stays");
    let mut two = Nodes::with_replicas(2).look(&[100; 3]);
    two.evidence.silent(2);
    assert_eq!(two.fail(1), None, "the only one that answers stays");
}

#[test]
fn a_replica_that_is_out_is_asked_before_the_primary_where_nobody_else_is_fit() {
    let mut nodes = Nodes::with_replicas(2).look(&[100, 100, 100]);
    nodes.fail(1).expect("it is out");
    nodes.evidence.silent(2);
    let plan = nodes.plan(within(10));
    assert_eq!(
        (order(&plan), plan.passed_over),
        (vec![1, 0], vec![(2, Reason::NotAnswering)])
    );
}

fn monotonic(text: &str) -> Consistency {
    Consistency::Monotonic(text.parse::<CommitToken>().expect("a well-formed token"))
}

#[test]
fn a_monotonic_read_goes_to_a_replica_that_stands_at_its_token_be_it_weak() {
    let nodes = Nodes::with_replicas(2)
        .look(&[0x64, 0x64, 0x64])
        .look(&[0xc8, 0xc8, 0x64]);
    for strength in ["s", "w"] {
        let plan = nodes.plan(monotonic(&format!("1.a.1.c8.{strength}")));
        assert_eq!(order(&plan), [1, 0]);
        assert!(matches!(plan.candidates[0].proof, Proof::Token(_)));
        assert_eq!(plan.passed_over, [(2, Reason::BehindToken)]);
    }
}

#[test]
fn a_read_that_may_not_go_to_the_primary_is_refused_where_no_replica_serves() {
    let nodes = Nodes::with_replicas(2)
        .look(&[0x64, 0x64, 0x64])
        .look(&[0xc8, 0x64, 0x64])
        .look(&[0xc8, 0x64, 0x64])
        .look(&[0xc8, 0x64, 0x64]);
    let decide = |consistency| {
        let options = ReadOptions::new(consistency).forbid_primary();
        plan(&nodes.view(), &options.into(), nodes.now, 0)
    };
    assert_eq!(order(&decide(within(60)).expect("a plan")).len(), 2);
    let refusal = decide(after("1.a.1.c8.s")).expect_err("refused");
    assert_eq!(
        refusal.to_string(),
        "the read of everything up to 1.a.1.c8.s may not go to the primary, and no replica can serve it: node 1 has \
         not replayed up to the token (stands at 0/64, has to be at 0/C8); node 2 has not replayed up to the token \
         (stands at 0/64, has to be at 0/C8); allow the primary, or let the read wait (WaitPolicy::UpTo)"
    );
    let refusal = decide(Consistency::Strong).expect_err("refused");
    assert_eq!(
        refusal.to_string(),
        "the read of what the primary has now may not go to the primary, and no replica can serve it; allow the \
         primary, or ask for less"
    );
}
