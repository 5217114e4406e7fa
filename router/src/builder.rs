//! The nodes of a database, its settings, and how it starts.
//!
//! Starting looks at every node once and checks that they are what they were given as. What cannot be right
//! (a primary that is a replica, the same server twice, another cluster) is an error however degraded a
//! start may be; a replica that is merely away is not, unless it is required.

mod single;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pool_core::Budget;
use pool_postgres::{Engine, EngineBuilder};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::choose::Choosing;
use crate::course::Course;
use crate::database::Database;
use crate::error::StartError;
use crate::evidence::Evidence;
use crate::link::Link;
use crate::load::Load;
use crate::monitor::{Monitor, chain};
use crate::node::NodeParts;
use crate::node_config::{self, Configure, NodeConfig};
use crate::request::Consistency;
use crate::sample::{Role, Sample};
use crate::shared::Shared;

/// What the node is called that was given as the primary.
const PRIMARY: &str = "primary";
/// What the server shows the monitors' connections as.
const MONITOR: &str = "pool-router monitor";

/// Names the nodes of a [`Database`] and its settings; made by [`Database::builder`].
#[must_use = "a builder does nothing until `connect` is called"]
#[derive(Clone, Default)]
pub struct Builder {
    primary: Option<NodeConfig>,
    replicas: Vec<NodeConfig>,
    nodes: Vec<NodeConfig>,
    configure: Vec<Configure>,
    budget: Option<Budget>,
    consistency: Consistency,
    required: Required,
    start_timeout: StartTimeout,
    choosing: Choosing,
}

#[derive(Clone, Copy, Default)]
enum Required {
    #[default]
    None,
    AtLeast(usize),
    All,
}

#[derive(Clone, Copy)]
struct StartTimeout(Duration);

impl Default for StartTimeout {
    fn default() -> Self {
        Self(Duration::from_secs(5))
    }
}

impl Builder {
    /// The node that takes writes: its URL, or a [`NodeConfig`]. There must be one, unless it is among
    /// [`nodes`](Self::nodes).
    pub fn primary(mut self, node: impl Into<NodeConfig>) -> Self {
        self.primary = Some(node.into());
        self
    }

    /// One more replica: its URL, or a [`NodeConfig`]. With none, reads go to the primary and nothing is monitored.
    pub fn replica(mut self, node: impl Into<NodeConfig>) -> Self {
        self.replicas.push(node.into());
        self
    }

    /// More replicas.
    pub fn replicas(mut self, nodes: impl IntoIterator<Item = impl Into<NodeConfig>>) -> Self {
        self.replicas.extend(nodes.into_iter().map(Into::into));
        self
    }

    /// More nodes, of which [`connect`](Self::connect) asks which is the primary.
    ///
    /// They are named `node 1` and so on in the order in which they were given; in the status the primary comes first.
    /// If [`primary`](Self::primary) names one, these must be its replicas or old primaries.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), pool_router::StartError> {
    /// let db = pool_router::Database::builder()
    ///     .nodes(["postgresql://app@db1/shop", "postgresql://app@db2/shop", "postgresql://app@db3/shop"])
    ///     .connect()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn nodes(mut self, nodes: impl IntoIterator<Item = impl Into<NodeConfig>>) -> Self {
        self.nodes.extend(nodes.into_iter().map(Into::into));
        self
    }

    /// How many connections each node's pool keeps. Default 5.
    pub fn pool_size(self, connections: usize) -> Self {
        self.each_engine(move |engine| engine.pool_size(connections))
    }

    /// How many connections each node's pool may open beyond `pool_size`. Default 10; `None` is no limit.
    pub fn max_overflow(self, connections: impl Into<Option<usize>>) -> Self {
        let connections = connections.into();
        self.each_engine(move |engine| engine.max_overflow(connections))
    }

    /// How long a session waits for a connection of its node's pool. Default 30 seconds; `None` waits for
    /// ever.
    pub fn pool_timeout(self, limit: impl Into<Option<Duration>>) -> Self {
        let limit = limit.into();
        self.each_engine(move |engine| engine.pool_timeout(limit))
    }

    /// Any other setting of an engine, for every node's.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use pool_router::Database;
    ///
    /// let builder = Database::builder()
    ///     .primary("postgresql://db1/shop")
    ///     .each_engine(|engine| engine.connect_timeout(Duration::from_secs(2)));
    /// # let _ = builder;
    /// ```
    pub fn each_engine(
        mut self,
        configure: impl Fn(EngineBuilder) -> EngineBuilder + Send + Sync + 'static,
    ) -> Self {
        self.configure.push(Arc::new(configure));
        self
    }

    /// One number of connections for all nodes' pools together, and for whatever else shares it. Default: none, each
    /// pool is bounded by itself. The monitors' connections, one a node, are beside it.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = Some(budget.clone());
        self
    }

    /// What [`Database::read`] promises. Default: data of at most ten seconds of age.
    pub fn default_consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// The zone that this service runs in. Default: none, and all replicas are alike.
    ///
    /// Reads go to replicas of the same zone ([`NodeConfig::zone`]) first. They spill over to the others while the best
    /// of the near ones is more than twice as loaded as the best of the far ones, by latency times transactions under
    /// way, and where no near one is fit; the primary stays the last. An empty name is none.
    ///
    /// ```no_run
    /// use pool_router::{Database, NodeConfig};
    ///
    /// let builder = Database::builder()
    ///     .primary("postgresql://app@db1/shop")
    ///     .replica(NodeConfig::new("postgresql://app@db2/shop").zone("north"))
    ///     .replica(NodeConfig::new("postgresql://app@db3/shop").zone("south"))
    ///     .zone("south");
    /// # let _ = builder;
    /// ```
    pub fn zone(mut self, name: impl AsRef<str>) -> Self {
        self.choosing.zone = node_config::zone(name.as_ref());
        self
    }

    /// How long a replica that was away and answers again takes to come to its full share of the reads: it begins with
    /// a tenth of it. Default 10 seconds; zero gives it all at once. Where it is the only fit one it gets all of them.
    pub fn slow_start(mut self, time: Duration) -> Self {
        self.choosing.slow_start = time;
        self
    }

    /// How many replicas have to answer for [`connect`](Self::connect) to succeed. Default 0.
    pub fn min_replicas(mut self, replicas: usize) -> Self {
        self.required = Required::AtLeast(replicas);
        self
    }

    /// Whether to start without replicas that don't answer. Default true: they are left out until they do,
    /// and a warning says so. With false every replica has to answer.
    pub fn degraded_start(mut self, allowed: bool) -> Self {
        self.required = if allowed {
            Required::None
        } else {
            Required::All
        };
        self
    }

    /// How long a node may take to answer at the start. Default 5 seconds.
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.start_timeout = StartTimeout(limit);
        self
    }

    /// Looks at every node, checks that they belong together, and begins to watch them.
    ///
    /// The pools open nothing yet. With replicas each node has one monitor connection from here on; it shows
    /// in `pg_stat_activity` by its `application_name`, which ends in `monitor`.
    ///
    /// # Errors
    /// [`StartError`] names the node and the remedy. A primary that does not answer is always an error.
    ///
    /// # Cancel safety
    /// Dropped half-way, what was opened is closed.
    pub async fn connect(self) -> Result<Database, StartError> {
        let seats = self.seats()?;
        let given = seats.len() - 1;
        let required = match self.required {
            Required::None => 0,
            Required::AtLeast(count) if count > given => {
                return Err(StartError::RequiresMore {
                    required: count,
                    given,
                });
            }
            Required::AtLeast(count) => count,
            Required::All => given,
        };
        let StartTimeout(limit) = self.start_timeout;
        let looks = join_all(seats.iter().map(|seat| first_look(&seat.node, limit))).await;
        let (mut looked, mut missing) = (Vec::new(), Vec::new());
        for (seat, look) in seats.into_iter().zip(looks) {
            match look {
                Ok(first) => looked.push((seat, Some(first))),
                // Whatever may pass by itself is forgiven, but not in the primary.
                Err(error) if seat.given != Given::Primary && error.may_pass() => {
                    looked.push((seat, None));
                    missing.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        if self.primary.is_none() {
            let claims: Vec<_> = looked
                .iter()
                .map(|(seat, first)| (&*seat.node.name, first.as_ref().map(|(_, sample)| sample)))
                .collect();
            let primary = match sole_primary(&claims) {
                Ok(primary) => primary,
                Err(NotOne::Two(first, second)) => {
                    return Err(StartError::TwoPrimaries { first, second });
                }
                Err(NotOne::None) => return Err(StartError::NoPrimaryAmong { missing }),
            };
            looked[..=primary].rotate_right(1);
        }
        let (seats, firsts): (Vec<_>, Vec<_>) = looked.into_iter().unzip();
        let (givens, nodes): (Vec<_>, Vec<_>) = seats
            .into_iter()
            .map(|seat| (seat.given, seat.node))
            .unzip();
        let samples: Vec<Option<&Sample>> = firsts
            .iter()
            .map(|first| first.as_ref().map(|(_, sample)| sample))
            .collect();
        let system_identifier = check_together(&nodes, &givens, &samples)?;
        let answered = given - missing.len();
        if answered < required {
            return Err(StartError::TooFewReplicas {
                required,
                answered,
                missing,
            });
        }
        for error in missing {
            tracing::warn!(
                why = chain(&error),
                "starting without a replica; it joins once it answers"
            );
        }
        let evidence = self.evidence(Some(system_identifier), &nodes);
        Ok(start(nodes, firsts, evidence, self.consistency, limit).await)
    }

    /// Begins to watch the nodes and asks nobody before: for a program that has to start before its database.
    ///
    /// The first reads and writes wait for the primary's first answer, up to [`start_timeout`](Self::start_timeout);
    /// later ones fail at once while nothing is known of it. What [`connect`](Self::connect) checks shows in
    /// [`Database::health`] instead: a node of another cluster, or of another role than it was given as, is not used.
    /// The cluster is that of the first answer of the primary as a primary. `min_replicas` is not asked for.
    ///
    /// # Errors
    /// [`StartError`], for a URL or a setting that is wrong, and without a [`primary`](Self::primary): which of
    /// [`nodes`](Self::nodes) it is can't be told without asking.
    ///
    /// # Panics
    /// Outside a Tokio runtime, for the monitors are its tasks.
    pub fn connect_lazy(self) -> Result<Database, StartError> {
        if self.primary.is_none() {
            return Err(StartError::NoPrimary);
        }
        let nodes: Vec<_> = self.seats()?.into_iter().map(|seat| seat.node).collect();
        let evidence = self.evidence(None, &nodes);
        let StartTimeout(limit) = self.start_timeout;
        let shared = Arc::new(Shared::new(nodes, evidence, self.consistency, limit));
        let (stop, stopped) = watch::channel(false);
        let watch = |node| {
            shared.look_at(node);
            let course = Course::new(None);
            let monitor = Monitor::new(Arc::clone(&shared), node, None, course, stopped.clone());
            tokio::spawn(monitor.run())
        };
        let tasks = (0..shared.nodes.len()).map(watch).collect();
        Ok(Database::new(shared, stop, tasks))
    }

    /// The nodes' engines, the primary's first where it was named.
    fn seats(&self) -> Result<Vec<Seat>, StartError> {
        if self.primary.is_none() && self.nodes.is_empty() {
            return Err(StartError::NoPrimary);
        }
        let numbered = |what: &'static str, given, nodes: &[NodeConfig]| {
            let numbered = nodes.iter().cloned().enumerate();
            let named =
                numbered.map(|(index, node)| (format!("{what} {}", index + 1), given, node));
            named.collect::<Vec<_>>()
        };
        let primary = self.primary.clone().into_iter();
        primary
            .map(|node| (PRIMARY.to_owned(), Given::Primary, node))
            .chain(numbered("replica", Given::Replica, &self.replicas))
            .chain(numbered("node", Given::Any, &self.nodes))
            .map(|(name, given, config)| {
                let node = self.parts(&name, &config)?;
                Ok(Seat { given, node })
            })
            .collect()
    }

    /// The engine whose connections run one node's transactions.
    fn engine(&self, name: &str, config: &NodeConfig) -> Result<Engine, StartError> {
        if config.its_weight() == 0 {
            return Err(StartError::ZeroWeight {
                node: name.to_owned(),
            });
        }
        let engine = config.engine_builder(name, &self.configure);
        let engine = engine.and_then(|engine| match self.budget.clone() {
            Some(budget) => engine.pool_with(move |pool| pool.budget(&budget)).build(),
            None => engine.build(),
        });
        engine.map_err(|cause| StartError::of_settings(name, cause))
    }

    /// One node's engines.
    fn parts(&self, name: &str, config: &NodeConfig) -> Result<NodeParts, StartError> {
        let settings = |cause| StartError::of_settings(name, cause);
        let engine = self.engine(name, config)?;
        let watching = config.engine_builder(name, &self.configure);
        let watching = watching.and_then(|engine| engine.application_name(MONITOR).build());
        let watching = watching.map_err(settings)?;
        let load = Arc::new(Load::weighted(config.its_weight()));
        let address = config.address().map_err(settings)?;
        let zone = config.its_zone();
        Ok(NodeParts::new(
            address,
            name.into(),
            engine,
            watching,
            load,
            zone,
        ))
    }

    /// What is known of the nodes before any was looked at.
    fn evidence(&self, system_identifier: Option<u64>, nodes: &[NodeParts]) -> Evidence {
        let loads = nodes
            .iter()
            .map(|node| (Arc::clone(&node.name), Arc::clone(&node.load)));
        let zones = nodes.iter().map(|node| node.zone.clone());
        Evidence::new(system_identifier, loads).choosing(self.choosing.clone(), zones)
    }
}

/// A node, and what it was given as.
struct Seat {
    given: Given,
    node: NodeParts,
}

/// What a node was given as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Given {
    Primary,
    Replica,
    /// It is to be asked.
    Any,
}

/// Why no one of the nodes is the primary.
#[derive(Debug, PartialEq, Eq)]
enum NotOne {
    None,
    Two(String, String),
}

/// The index of the one primary on the highest timeline that any primary is on.
fn sole_primary(nodes: &[(&str, Option<&Sample>)]) -> Result<usize, NotOne> {
    let primaries = nodes.iter().enumerate().filter_map(|(index, (_, sample))| {
        let sample = sample.filter(|sample| sample.role == Role::Primary)?;
        Some((index, sample.timeline))
    });
    let highest = primaries
        .clone()
        .map(|(_, timeline)| timeline)
        .max()
        .ok_or(NotOne::None)?;
    let mut able = primaries.filter(|(_, timeline)| *timeline == highest);
    let (first, _) = able.next().ok_or(NotOne::None)?;
    match able.next() {
        Some((second, _)) => {
            let name = |index: usize| nodes[index].0.to_owned();
            Err(NotOne::Two(name(first), name(second)))
        }
        None => Ok(first),
    }
}

/// Opens a monitor's connection and looks once.
async fn first_look(node: &NodeParts, limit: Duration) -> Result<(Link, Sample), StartError> {
    let unreachable = |cause| StartError::Unreachable {
        node: node.name.to_string(),
        cause: Box::new(cause),
    };
    let look = async {
        let link = Link::open(&node.watching).await?;
        let sample = link.look(None).await?;
        Ok((link, sample))
    };
    match timeout(limit, look).await {
        Ok(looked) => looked.map_err(unreachable),
        Err(_) => Err(StartError::NoAnswer {
            node: node.name.to_string(),
            waited: limit,
        }),
    }
}

/// Checks that the nodes are what they were given as; says which cluster they are.
fn check_together(
    nodes: &[NodeParts],
    givens: &[Given],
    samples: &[Option<&Sample>],
) -> Result<u64, StartError> {
    let name = |index: usize| nodes[index].name.to_string();
    let known = || {
        samples
            .iter()
            .enumerate()
            .filter_map(|(index, sample)| Some((index, (*sample)?)))
    };
    for (first, sample) in known() {
        if let Some((second, _)) =
            known().find(|(index, other)| *index > first && other.same_server(sample))
        {
            return Err(StartError::SameServer {
                first: name(first),
                second: name(second),
            });
        }
    }
    let mut ours = None;
    for (index, sample) in known() {
        match (givens[index], sample.role) {
            (Given::Primary, Role::Replica) => {
                return Err(StartError::PrimaryIsReplica { node: name(index) });
            }
            (Given::Replica, Role::Primary) => {
                return Err(StartError::ReplicaIsPrimary { node: name(index) });
            }
            (Given::Any, Role::Primary) if index > 0 => tracing::warn!(
                node = &*nodes[index].name,
                "a primary beside the one that takes writes: it gets neither writes nor reads"
            ),
            _ => {}
        }
        let theirs = sample
            .system_identifier
            .ok_or_else(|| StartError::MissingFacts {
                node: name(index),
                what: "system identifier (grant EXECUTE on pg_control_system)",
            })?;
        if *ours.get_or_insert(theirs) != theirs {
            let ours = ours.unwrap_or(theirs);
            return Err(StartError::OtherCluster {
                node: name(index),
                theirs,
                ours,
            });
        }
        if index > 0 && sample.may_monitor == Some(false) {
            tracing::warn!(
                node = &*nodes[index].name,
                "the user is not a member of pg_monitor: after a promotion this replica is used again only \
                 after its next restartpoint, and whether it receives is not seen; GRANT pg_monitor TO it"
            );
        }
    }
    ours.ok_or(StartError::NoPrimary)
}

/// Begins to watch the nodes; without replicas there is nothing to watch.
async fn start(
    nodes: Vec<NodeParts>,
    firsts: Vec<Option<(Link, Sample)>>,
    mut evidence: Evidence,
    consistency: Consistency,
    limit: Duration,
) -> Database {
    for (index, first) in firsts.iter().enumerate() {
        match first {
            Some((_, sample)) => drop(evidence.answered(index, sample.clone())),
            None => drop(evidence.silent(index)),
        }
    }
    let mut watched = Vec::with_capacity(firsts.len());
    for first in firsts {
        let (link, sample) = first.unzip();
        let mut course = Course::new(sample.clone());
        // Tokens may be older than this process. Without an answer in time the monitor asks again.
        if let (Some(link), Some(sample)) = (&link, &sample)
            && let Some(timeline) = course.unread_history(sample)
            && let Ok(Ok(forks)) = timeout(limit, link.forks(timeline)).await
        {
            for fork in forks {
                evidence.fork(fork);
            }
            course.read_history(timeline);
        }
        watched.push((link, course));
    }
    let shared = Arc::new(Shared::new(nodes, evidence, consistency, limit));
    let (stop, stopped) = watch::channel(false);
    let mut tasks = Vec::new();
    for (index, (link, course)) in watched.into_iter().enumerate() {
        if shared.is_watched() {
            let monitor = Monitor::new(Arc::clone(&shared), index, link, course, stopped.clone());
            tasks.push(tokio::spawn(monitor.run()));
        } else if let Some(link) = link {
            link.close().await;
        }
    }
    Database::new(shared, stop, tasks)
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URLs hide their passwords.
        f.debug_struct("Builder")
            .field("primary", &self.primary)
            .field("replicas", &self.replicas)
            .field("nodes", &self.nodes)
            .field("consistency", &self.consistency)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
