//! The nodes of a database, its settings, and how it starts.
//!
//! Starting looks at every node once and checks that they are what they were given as. What cannot be right
//! (a primary that is a replica, the same server twice, another cluster) is an error however degraded a
//! start may be; a replica that is merely away is not, unless it is required.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pool_postgres::{Engine, EngineBuilder};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::database::Database;
use crate::error::StartError;
use crate::evidence::Evidence;
use crate::link::Link;
use crate::monitor::{Monitor, chain};
use crate::node::NodeParts;
use crate::request::Consistency;
use crate::sample::{Role, Sample};
use crate::shared::Shared;

/// What the server shows the monitors' connections as.
const MONITOR: &str = "pool-router monitor";

type Configure = Arc<dyn Fn(EngineBuilder) -> EngineBuilder + Send + Sync>;

/// Names the nodes of a [`Database`] and its settings; made by [`Database::builder`].
#[must_use = "a builder does nothing until `connect` is called"]
#[derive(Clone, Default)]
pub struct Builder {
    primary: Option<String>,
    replicas: Vec<String>,
    configure: Vec<Configure>,
    consistency: Consistency,
    required: Required,
    start_timeout: StartTimeout,
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
    /// The URL of the node that takes writes. There must be one.
    pub fn primary(mut self, url: impl Into<String>) -> Self {
        self.primary = Some(url.into());
        self
    }

    /// The URL of one more replica. With none, reads go to the primary and nothing is monitored.
    pub fn replica(mut self, url: impl Into<String>) -> Self {
        self.replicas.push(url.into());
        self
    }

    /// The URLs of more replicas.
    pub fn replicas(mut self, urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.replicas.extend(urls.into_iter().map(Into::into));
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

    /// What [`Database::read`] promises. Default: data of at most ten seconds of age.
    pub fn default_consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// How many replicas have to answer for [`connect`](Self::connect) to succeed. Default 0.
    pub fn require_replicas(mut self, replicas: usize) -> Self {
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
        let nodes = self.nodes()?;
        let given = nodes.len() - 1;
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
        let looks = join_all(nodes.iter().map(|node| first_look(node, limit))).await;
        let (mut firsts, mut missing) = (Vec::new(), Vec::new());
        for look in looks {
            match look {
                Ok(first) => firsts.push(Some(first)),
                // Whatever may pass by itself is forgiven, but not in the primary.
                Err(error) if !firsts.is_empty() && error.may_pass() => {
                    firsts.push(None);
                    missing.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        let samples: Vec<Option<&Sample>> = firsts
            .iter()
            .map(|first| first.as_ref().map(|(_, sample)| sample))
            .collect();
        let system_identifier = check_together(&nodes, &samples)?;
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
        Ok(start(nodes, firsts, self.consistency, system_identifier).await)
    }

    /// The nodes' engines, the primary's first.
    fn nodes(&self) -> Result<Vec<NodeParts>, StartError> {
        let primary = self.primary.as_ref().ok_or(StartError::NoPrimary)?;
        let one = |role: String, url: &String| {
            let settings = |cause| StartError::Settings {
                node: role.clone(),
                cause: Box::new(cause),
            };
            let configured = || {
                let plain = Engine::builder(url);
                self.configure
                    .iter()
                    .fold(plain, |engine, configure| configure(engine))
            };
            let engine = configured().build().map_err(settings)?;
            let watching = configured()
                .application_name(MONITOR)
                .build()
                .map_err(settings)?;
            Ok(NodeParts::new(role.clone().into(), engine, watching))
        };
        let replicas = self.replicas.iter().enumerate();
        let replicas = replicas.map(|(index, url)| one(format!("replica {}", index + 1), url));
        std::iter::once(one("primary".to_owned(), primary))
            .chain(replicas)
            .collect()
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
fn check_together(nodes: &[NodeParts], samples: &[Option<&Sample>]) -> Result<u64, StartError> {
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
        match (index, sample.role) {
            (0, Role::Replica) => return Err(StartError::PrimaryIsReplica { node: name(0) }),
            (1.., Role::Primary) => return Err(StartError::ReplicaIsPrimary { node: name(index) }),
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
    consistency: Consistency,
    system_identifier: u64,
) -> Database {
    let loads = nodes
        .iter()
        .map(|node| (Arc::clone(&node.name), Arc::clone(&node.load)));
    let mut evidence = Evidence::new(system_identifier, loads);
    for (index, first) in firsts.iter().enumerate() {
        match first {
            Some((_, sample)) => drop(evidence.answered(index, sample.clone())),
            None => drop(evidence.silent(index)),
        }
    }
    let shared = Arc::new(Shared::new(nodes, evidence, consistency, system_identifier));
    let (stop, stopped) = watch::channel(false);
    let mut tasks = Vec::new();
    for (index, first) in firsts.into_iter().enumerate() {
        if shared.is_watched() {
            let monitor = Monitor::new(Arc::clone(&shared), index, first, stopped.clone());
            tasks.push(tokio::spawn(monitor.run()));
        } else if let Some((link, _)) = first {
            link.close().await;
        }
    }
    Database::new(shared, stop, tasks)
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URLs may hold passwords.
        f.debug_struct("Builder")
            .field("replicas", &self.replicas.len())
            .field("consistency", &self.consistency)
            .finish_non_exhaustive()
    }
}
