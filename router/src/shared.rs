//! What a database's handles, sessions and monitors share.
//!
//! Decisions read the view through `arc-swap` and nothing else. Only what changes the evidence takes its
//! lock, and publishes the new view before letting go, so views appear in the order of what they are made of.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::demand::Demand;
use crate::evidence::{Change, Evidence};
use crate::floor::Fork;
use crate::node::NodeParts;
use crate::request::Consistency;
use crate::sample::Sample;
use crate::view::{Answers, View};

/// The state behind a [`Database`](crate::Database).
pub(crate) struct Shared {
    pub(crate) nodes: Vec<NodeParts>,
    view: ArcSwap<View>,
    evidence: Mutex<Evidence>,
    pub(crate) demand: Demand,
    /// What a plain read promises.
    pub(crate) consistency: Consistency,
    pub(crate) system_identifier: u64,
}

impl Shared {
    pub(crate) fn new(
        nodes: Vec<NodeParts>,
        evidence: Evidence,
        consistency: Consistency,
        system_identifier: u64,
    ) -> Self {
        Self {
            nodes,
            view: ArcSwap::from_pointee(evidence.view()),
            evidence: Mutex::new(evidence),
            demand: Demand::new(Instant::now()),
            consistency,
            system_identifier,
        }
    }

    /// The newest view.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Whether a node answered when it was asked last.
    pub(crate) fn answers(&self, node: usize) -> bool {
        self.view.load().nodes[node].answers == Answers::Yes
    }

    /// Whether monitors run: without replicas there is nothing to choose and nobody watches.
    pub(crate) fn is_watched(&self) -> bool {
        self.nodes.len() > 1
    }

    /// A node answered its monitor.
    pub(crate) fn answered(&self, node: usize, sample: Sample) {
        let changes = self.change(|evidence| evidence.answered(node, sample));
        let name = &*self.nodes[node].name;
        for change in changes {
            match change {
                Change::CameBack => {
                    tracing::info!(node = name, "the node answers and is in rotation");
                }
                Change::WentAway => {}
                Change::Promoted => {
                    let primary = self
                        .view
                        .load()
                        .primary
                        .map(|primary| &*self.nodes[primary].name);
                    tracing::warn!(primary, "another node is the primary now");
                }
            }
        }
        self.nodes[node].looked();
    }

    /// A node did not answer its monitor.
    pub(crate) fn silent(&self, node: usize, why: &str) {
        let change = self.change(|evidence| evidence.silent(node));
        let parts = &self.nodes[node];
        parts.tally.failed(why.to_owned());
        if change.is_some() {
            tracing::warn!(
                node = &*parts.name,
                why,
                "the node does not answer and is out of rotation"
            );
        }
        parts.left.notify_waiters();
        parts.looked();
    }

    /// Where earlier timelines ended.
    pub(crate) fn forks(&self, forks: &[Fork]) {
        self.change(|evidence| forks.iter().for_each(|fork| evidence.fork(*fork)));
    }

    /// Has a node looked at now, because of something that was seen on a connection to it.
    pub(crate) fn look_at(&self, node: usize) {
        self.nodes[node].look.notify_one();
    }

    /// Has all nodes looked at now.
    pub(crate) fn look_at_all(&self) {
        self.nodes.iter().for_each(|node| node.look.notify_one());
    }

    fn change<T>(&self, change: impl FnOnce(&mut Evidence) -> T) -> T {
        let mut evidence = self.evidence.lock();
        let changes = change(&mut evidence);
        self.view.store(Arc::new(evidence.view()));
        changes
    }
}
