//! What the looks at the nodes add up to: samples in, a [`View`] out.
//!
//! Held by whoever runs the monitors, behind their lock; decisions read only the views that come out. Pure
//! otherwise: no I/O, no clock.
//!
//! What always holds: the highest timeline on which a primary was ever seen only rises, and a primary on a
//! lower one is never the primary again. A node that stops answering keeps its last sample, so that losing
//! sight of the primary makes nobody else one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::choose::Choosing;
use crate::floor::{Extent, Fork, learn};
use crate::load::Load;
use crate::lsn::Lsn;
use crate::orders::{Order, Orders};
use crate::outliers::Outlier;
use crate::sample::{Role, Sample};
use crate::view::{Answers, Node, View};

/// The state that samples are folded into.
#[derive(Clone, Debug)]
pub struct Evidence {
    view: View,
    outliers: Vec<Outlier>,
}

/// What a look at a node changed that is worth telling people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The node answers again, or for the first time.
    CameBack,
    /// The node no longer answers.
    WentAway,
    /// This node is the primary now, where another one was, or none since.
    Promoted,
    /// The node of this index was the primary and is no longer.
    Demoted(usize),
}

impl Evidence {
    /// Nodes of which nothing is known yet; the first is the configured primary. Where the cluster isn't known
    /// either, it is the first node's, once that answers as a primary.
    pub fn new(
        system_identifier: impl Into<Option<u64>>,
        nodes: impl IntoIterator<Item = (Arc<str>, Arc<Load>)>,
    ) -> Self {
        let node = |(name, load)| Node {
            name,
            answers: Answers::NotAsked,
            sample: None,
            as_of: None,
            since: None,
            ejected_until: None,
            zone: None,
            load,
        };
        let nodes: Vec<_> = nodes.into_iter().map(node).collect();
        Self {
            outliers: vec![Outlier::default(); nodes.len()],
            view: View {
                nodes,
                primary: None,
                system_identifier: system_identifier.into(),
                timeline: None,
                epoch: 0,
                forks: Vec::new(),
                history: Arc::default(),
                orders: Orders::default(),
                choosing: Choosing::default(),
            },
        }
    }

    /// With what the choice among fit replicas goes by, and the zone of each node in turn.
    #[must_use]
    pub fn choosing(
        mut self,
        choosing: Choosing,
        zones: impl IntoIterator<Item = Option<Arc<str>>>,
    ) -> Self {
        self.view.choosing = choosing;
        for (node, zone) in self.view.nodes.iter_mut().zip(zones) {
            node.zone = zone;
        }
        self
    }

    /// The state of affairs.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// A node answered.
    pub fn answered(&mut self, node: usize, sample: Sample) -> Vec<Change> {
        let mut changes = Vec::new();
        let before = std::mem::replace(&mut self.view.nodes[node].answers, Answers::Yes);
        if before == Answers::No {
            self.view.nodes[node].since = Some(sample.answered_at());
        }
        if before != Answers::Yes {
            changes.push(Change::CameBack);
        }
        self.view.nodes[node].load.answered(sample.round_trip);
        if node == 0 && sample.role == Role::Primary && self.view.system_identifier.is_none() {
            self.view.system_identifier = sample.system_identifier;
        }
        let before = self.view.nodes[node].sample.replace(sample);
        self.note_fork(node, before.as_ref());
        let led = self.view.primary;
        if self.choose_primary() {
            changes.push(Change::Promoted);
        }
        changes.extend(
            led.filter(|led| self.view.primary != Some(*led))
                .map(Change::Demoted),
        );
        if self.view.primary == Some(node) {
            self.note_position(node);
        }
        self.settle_ages();
        changes
    }

    /// A node did not answer, or a connection to it was lost.
    pub fn silent(&mut self, node: usize) -> Option<Change> {
        let before = std::mem::replace(&mut self.view.nodes[node].answers, Answers::No);
        // What it comes back as is another matter; then it starts slowly.
        self.outliers[node].went_away();
        self.view.nodes[node].ejected_until = None;
        (before == Answers::Yes).then_some(Change::WentAway)
    }

    /// A connection to a node was lost, or none could be had; says how long the node is out of rotation, if it now is.
    ///
    /// Out go only replicas that answer, at most half of those at once: so never the last.
    pub fn failed(&mut self, node: usize, now: Instant) -> Option<Duration> {
        let view = &self.view;
        if view.replica(node).is_err() || view.ejected(node, now).is_some() {
            return None;
        }
        if !self.outliers[node].failed(now) {
            return None;
        }
        let replicas = (0..view.nodes.len()).filter(|index| view.replica(*index).is_ok());
        let (all, out) = replicas.fold((0, 0), |(all, out), index| {
            (
                all + 1,
                out + usize::from(view.ejected(index, now).is_some()),
            )
        });
        if out + 1 > all / 2 {
            return None;
        }
        let time = self.outliers[node].eject(now);
        let end = now + time;
        self.view.nodes[node].ejected_until = Some(end);
        self.view.nodes[node].since = Some(end);
        Some(time)
    }

    /// Somebody gave an order; says whether it changed anything.
    pub fn ordered(&mut self, order: Order) -> bool {
        self.view.orders.take(order)
    }

    /// Something is known of where a timeline was left.
    pub fn fork(&mut self, fork: Fork) {
        learn(&mut self.view.forks, fork);
    }

    /// What a replica had replayed when we last saw it as one is in its log after its promotion too.
    fn note_fork(&mut self, node: usize, before: Option<&Sample>) {
        let Some(now) = &self.view.nodes[node].sample else {
            return;
        };
        let Some(before) = before else { return };
        // One that was started anew may have been rewound meanwhile.
        let same_run = before.started_at == now.started_at;
        let promoted = before.role == Role::Replica && now.role == Role::Primary && same_run;
        let ours = self.view.is_of_ours(now) && before.system_identifier == now.system_identifier;
        if let (true, Some(timeline), Some(next), Some(position)) = (
            promoted && ours,
            before.timeline,
            now.timeline,
            before.position,
        ) && timeline < next
        {
            self.fork(Fork {
                timeline,
                into: next,
                shared_up_to: position,
                extent: Extent::AtLeast,
            });
        }
    }

    /// Chooses the node that takes writes; says whether it is another one.
    fn choose_primary(&mut self) -> bool {
        let view = &mut self.view;
        let claims = view.nodes.iter().enumerate().filter_map(|(index, node)| {
            let sample = node.sample.as_ref()?;
            let ours = view.is_of_ours(sample);
            (sample.role == Role::Primary && ours).then_some((index, sample.timeline?))
        });
        let seen = claims.clone().map(|(_, timeline)| timeline).max();
        let highest = seen.max(view.timeline);
        let mut able = claims
            .filter(|(_, timeline)| Some(*timeline) == highest)
            .map(|(index, _)| index);
        let first = able.clone().next();
        let chosen = view
            .primary
            .filter(|primary| able.any(|index| index == *primary))
            .or(first);
        let was_led = view.timeline.is_some();
        let changed = was_led && chosen.is_some() && chosen != view.primary;
        let before = (view.primary, view.timeline);
        view.timeline = highest;
        view.primary = chosen;
        if before != (chosen, highest) {
            view.epoch += 1;
        }
        changed
    }

    fn note_position(&mut self, node: usize) {
        let view = &mut self.view;
        let Some(sample) = &view.nodes[node].sample else {
            return;
        };
        if let (Some(system), Some(timeline), Some(position)) =
            (view.system_identifier, sample.timeline, sample.position)
        {
            let history = Arc::make_mut(&mut view.history);
            history.note(system, timeline, position, sample.asked_at);
        }
    }

    /// Says of each replica which moment's data it shows.
    fn settle_ages(&mut self) {
        let view = &mut self.view;
        let ages: Vec<Option<Instant>> = (0..view.nodes.len())
            .map(|index| age_of(view, index))
            .collect();
        for (node, as_of) in view.nodes.iter_mut().zip(ages) {
            node.as_of = as_of;
        }
    }
}

/// The moment whose data a node shows, where timeline and position allow to say.
fn age_of(view: &View, index: usize) -> Option<Instant> {
    let sample = view.nodes[index].sample.as_ref()?;
    let (system, timeline) = (sample.system_identifier?, sample.timeline?);
    (view.history.of() == Some((system, timeline)) && sample.role == Role::Replica)
        .then(|| {
            sample
                .position
                .and_then(|position: Lsn| view.history.as_of(position))
        })
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEM: u64 = 10;

    fn evidence(nodes: usize) -> Evidence {
        Evidence::new(
            SYSTEM,
            (0..nodes).map(|index| (format!("node {index}").into(), Arc::default())),
        )
    }

    fn sample(role: Role, timeline: u32, position: u64) -> Sample {
        Sample {
            system_identifier: Some(SYSTEM),
            timeline: Some(timeline),
            position: Some(Lsn(position)),
            ..Sample::bare(role, Instant::now())
        }
    }

    #[test]
    fn an_unknown_cluster_is_the_first_nodes_and_nobody_elses() {
        let nodes = (0..2).map(|index| (format!("node {index}").into(), Arc::default()));
        let mut evidence = Evidence::new(None, nodes);
        let stranger = Sample {
            system_identifier: Some(11),
            ..sample(Role::Primary, 7, 100)
        };
        evidence.answered(1, stranger);
        assert_eq!(evidence.view().primary, None);
        evidence.answered(0, sample(Role::Replica, 1, 100));
        assert_eq!(evidence.view().primary, None, "it has to be a primary");
        evidence.answered(0, sample(Role::Primary, 1, 100));
        let view = evidence.view();
        assert_eq!(
            (view.primary, view.system_identifier),
            (Some(0), Some(SYSTEM))
        );
        assert_eq!(
            view.replica(1).err(),
            Some(crate::view::Reason::OtherCluster)
        );
    }

    #[test]
    fn a_promoted_replica_takes_over_and_the_old_primary_gets_nothing() {
        let mut evidence = evidence(2);
        evidence.answered(0, sample(Role::Primary, 1, 100));
        evidence.answered(1, sample(Role::Replica, 1, 90));
        assert_eq!(evidence.view().primary, Some(0));
        let changes = evidence.answered(1, sample(Role::Primary, 2, 95));
        assert_eq!(changes, [Change::Promoted, Change::Demoted(0)]);
        let view = evidence.view();
        assert_eq!((view.primary, view.timeline), (Some(1), Some(2)));
        assert_eq!(
            view.replica(0).map(|_| ()),
            Err(crate::view::Reason::OtherTimeline)
        );
        assert_eq!(
            view.forks,
            [Fork {
                timeline: 1,
                into: 2,
                shared_up_to: Lsn(90),
                extent: Extent::AtLeast
            }]
        );
        // The new primary stops answering: the old one still calls itself a primary and still is none.
        evidence.silent(1);
        evidence.answered(0, sample(Role::Primary, 1, 200));
        assert_eq!(evidence.view().primary, Some(1));
    }

    #[test]
    fn a_primary_that_stops_answering_stays_the_primary() {
        let mut evidence = evidence(2);
        evidence.answered(0, sample(Role::Primary, 1, 100));
        assert_eq!(evidence.silent(0), Some(Change::WentAway));
        evidence.answered(1, sample(Role::Replica, 1, 100));
        assert_eq!(evidence.view().primary, Some(0));
    }

    #[test]
    fn a_primary_that_turns_up_as_a_replica_leaves_nobody_to_write_to() {
        let mut evidence = evidence(2);
        evidence.answered(0, sample(Role::Primary, 1, 100));
        let changes = evidence.answered(0, sample(Role::Replica, 1, 100));
        assert_eq!(evidence.view().primary, None);
        assert_eq!(changes, [Change::Demoted(0)]);
        // The promotion of another one is news all the same.
        let changes = evidence.answered(1, sample(Role::Primary, 2, 100));
        assert_eq!(changes, [Change::CameBack, Change::Promoted]);
    }

    #[test]
    fn a_replica_beyond_the_fork_does_not_look_fresh() {
        // It stands further than the new primary, on the timeline that was left behind.
        let mut evidence = evidence(3);
        evidence.answered(0, sample(Role::Primary, 1, 300));
        evidence.answered(1, sample(Role::Replica, 1, 100));
        evidence.answered(2, sample(Role::Replica, 1, 300));
        evidence.answered(1, sample(Role::Primary, 2, 120));
        let view = evidence.view();
        assert_eq!(view.nodes[2].as_of, None);
        assert_eq!(
            view.replica(2).map(|_| ()),
            Err(crate::view::Reason::OtherTimeline)
        );
    }

    #[test]
    fn a_node_of_another_cluster_is_never_the_primary() {
        let mut evidence = evidence(2);
        let other = Sample {
            system_identifier: Some(11),
            ..sample(Role::Primary, 9, 1)
        };
        evidence.answered(1, other);
        assert_eq!(
            (evidence.view().primary, evidence.view().timeline),
            (None, None)
        );
    }

    #[test]
    fn what_a_replica_does_not_tell_stays_unknown() {
        let mut evidence = evidence(2);
        evidence.answered(0, sample(Role::Primary, 1, 100));
        for missing in [
            Sample {
                position: None,
                ..sample(Role::Replica, 1, 100)
            },
            Sample {
                timeline: None,
                ..sample(Role::Replica, 1, 100)
            },
            Sample {
                system_identifier: None,
                ..sample(Role::Replica, 1, 100)
            },
        ] {
            evidence.answered(1, missing);
            assert_eq!(evidence.view().nodes[1].as_of, None);
        }
    }
}
