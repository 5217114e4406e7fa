//! What a database's handles, sessions and monitors share.
//!
//! Decisions read the view through `arc-swap` and nothing else. Only what changes the evidence takes its
//! lock, and publishes the new view before letting go, so views appear in the order of what they are made of.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pool_postgres::{Error, ErrorKind};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::demand::Demand;
use crate::events::{EventKind, Teller};
use crate::evidence::{Change, Evidence};
use crate::floor::Fork;
use crate::node::NodeParts;
use crate::orders::Order;
use crate::request::Consistency;
use crate::sample::Sample;
#[cfg(feature = "metrics")]
use crate::status::NodeStatus;
use crate::view::{Answers, View};

/// The state behind a [`Database`](crate::Database).
pub(crate) struct Shared {
    pub(crate) nodes: Vec<NodeParts>,
    view: ArcSwap<View>,
    evidence: Mutex<Evidence>,
    pub(crate) demand: Demand,
    /// What a plain read promises.
    pub(crate) consistency: Consistency,
    /// How long a request waits for the primary's first look.
    start_timeout: Duration,
    pub(crate) teller: Teller,
    /// How many write transactions are under way.
    writing: watch::Sender<usize>,
    /// Rung when a suspension of writes ends.
    pub(crate) resumed: Notify,
}

/// A write transaction that is under way, or about to be.
pub(crate) struct Writing(Arc<Shared>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.writing.send_modify(|writing| *writing -= 1);
    }
}

impl Shared {
    pub(crate) fn new(
        nodes: Vec<NodeParts>,
        evidence: Evidence,
        consistency: Consistency,
        start_timeout: Duration,
    ) -> Self {
        Self {
            nodes,
            view: ArcSwap::from_pointee(evidence.view()),
            evidence: Mutex::new(evidence),
            demand: Demand::new(Instant::now()),
            consistency,
            start_timeout,
            teller: Teller::new(),
            writing: watch::Sender::new(0),
            resumed: Notify::new(),
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

    /// Waits for the end of the primary's first look, where nobody has looked at it yet: after a lazy start.
    pub(crate) async fn first_look(&self) {
        if self.view.load().nodes[0].answers == Answers::NotAsked {
            let mut looks = self.nodes[0].looks.subscribe();
            // Where it takes too long, what is known by then decides.
            let _ = timeout(self.start_timeout, looks.wait_for(|looks| *looks > 0)).await;
        }
    }

    /// Has the monitors keep pace with what a read promises.
    pub(crate) fn ask_for(&self, consistency: Consistency) {
        if let Consistency::BoundedStaleness(bound) = consistency
            && self.is_watched()
            && self.demand.asked(bound)
        {
            self.look_at_all();
        }
    }

    /// A node answered its monitor.
    pub(crate) fn answered(&self, node: usize, sample: Sample) {
        let changes = self.change(|evidence| evidence.answered(node, sample));
        let name = &*self.nodes[node].name;
        for change in changes {
            match change {
                Change::CameBack => {
                    tracing::info!(node = name, "the node answers and is in rotation");
                    let node = Arc::clone(&self.nodes[node].name);
                    self.teller.tell(EventKind::CameBack { node });
                }
                Change::WentAway => {}
                Change::Promoted => {
                    let primary = self.view.load().primary;
                    if let Some(node) = primary.map(|primary| &self.nodes[primary].name) {
                        tracing::warn!(primary = &**node, "another node is the primary now");
                        let node = Arc::clone(node);
                        self.teller.tell(EventKind::Promoted { node });
                    }
                }
                Change::Demoted(led) => {
                    // What was opened to a primary is not used again: idle connections close now, those in use
                    // when they come back.
                    let parts = &self.nodes[led];
                    parts.engine.dispose();
                    let node = Arc::clone(&parts.name);
                    self.teller.tell(EventKind::Demoted { node });
                }
            }
        }
        self.looked(node);
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
            self.teller.tell(EventKind::WentAway {
                node: Arc::clone(&parts.name),
                why: why.to_owned(),
            });
        }
        parts.left.notify_waiters();
        self.looked(node);
    }

    /// A look has ended, well or not.
    fn looked(&self, node: usize) {
        #[cfg(feature = "metrics")]
        self.record(node..node + 1);
        self.nodes[node].looked();
    }

    /// Gives the numbers of these nodes, and those that are no node's, to the recorder of the `metrics` crate.
    #[cfg(feature = "metrics")]
    pub(crate) fn record(&self, nodes: std::ops::Range<usize>) {
        let (view, now) = (self.view(), Instant::now());
        crate::metrics::whole(&view, now);
        for node in nodes {
            let status = NodeStatus::of(self, &view, node, now);
            crate::metrics::node(&status, view.primary == Some(node));
        }
    }

    /// A connection to a node was lost, or none could be had, with this error.
    pub(crate) fn lost_by(&self, node: usize, error: &Error) {
        let failed = matches!(
            error.kind(),
            ErrorKind::Connect | ErrorKind::ConnectionLost | ErrorKind::PoolDown
        );
        let without_a_word = failed && error.sqlstate().is_none();
        self.lost(node, error.to_string(), without_a_word);
    }

    /// A connection to a node was lost, or none could be had. Without a word from the server that says something about
    /// the node.
    pub(crate) fn lost(&self, node: usize, why: String, without_a_word: bool) {
        self.nodes[node].tally.failed(why);
        self.look_at(node);
        if without_a_word {
            self.count_against(node);
        }
    }

    fn count_against(&self, node: usize) {
        if let Some(time) = self.change(|evidence| evidence.failed(node, Instant::now())) {
            let node = Arc::clone(&self.nodes[node].name);
            tracing::warn!(
                node = &*node,
                ?time,
                "connections to the node keep failing: it is out of rotation for a while"
            );
            self.teller.tell(EventKind::Ejected { node, time });
        }
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

    /// Publishes an order; says whether it changed anything.
    pub(crate) fn take(&self, order: Order) -> bool {
        self.change(|evidence| evidence.ordered(order))
    }

    /// Waits until writes are not suspended; from then on until what is returned is dropped, a write counts as under
    /// way.
    pub(crate) async fn may_write(self: &Arc<Self>) -> Writing {
        loop {
            let mut resumed = pin!(self.resumed.notified());
            resumed.as_mut().enable();
            // Counted first and looked after, as `no_writes` looks after the order was published: one of the two
            // sees the other, by the lock in which the count is.
            self.writing.send_modify(|writing| *writing += 1);
            let writing = Writing(Arc::clone(self));
            let Some(left) = self.view().orders.writes_wait(Instant::now()) else {
                return writing;
            };
            drop(writing);
            if timeout(left, resumed).await.is_err() {
                self.order(Order::Expire(Instant::now()));
            }
        }
    }

    /// Waits until no write is under way.
    pub(crate) async fn no_writes(&self) {
        // Only the sender's end could end the wait otherwise, and that is ours.
        let _ = self
            .writing
            .subscribe()
            .wait_for(|writing| *writing == 0)
            .await;
    }

    fn change<T>(&self, change: impl FnOnce(&mut Evidence) -> T) -> T {
        let mut evidence = self.evidence.lock();
        let changes = change(&mut evidence);
        self.view.store(Arc::new(evidence.view()));
        changes
    }
}
