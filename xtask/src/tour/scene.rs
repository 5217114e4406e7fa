//! What all phases work with: the servers, the database on them, the ledger, and the audit that compares the two.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use pool_router::{CommitToken, Consistency, Database};
use testbed::{Cluster, Node, Proxy};

use super::Args;
use super::checks::Checks;
use super::figures::Figures;
use super::ledger::{Fate, Ledger};
use super::load::DEFAULT_AGE;
use super::sampler::{self, Counts, POOL, TORN};
use super::shop::{self, LINES};
use super::view::View;

/// Each node's pool.
const POOL_SIZE: usize = 4;
const MAX_OVERFLOW: usize = 2;
/// The pool of the phase with the queue.
pub(crate) const QUEUE_SIZE: usize = 2;
pub(crate) const QUEUE_OVERFLOW: usize = 1;
/// What starting, recovering and stopping take in all, in seconds; the rest is the load's.
const FIXED: u64 = 16;
const SHORTEST: u64 = 5;

/// The servers and everything that is known about them.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) db: Database,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) checks: Checks,
    pub(crate) figures: Figures,
    pub(crate) view: View,
    pub(crate) torn: Torn,
    length: Duration,
}

/// A way to the primary on which connections can be torn.
pub(crate) struct Torn {
    pub(crate) db: Database,
    pub(crate) proxy: Proxy,
}

impl Torn {
    /// Made before the connections are sampled: connecting looks at the primary once, as a monitor does.
    async fn new(primary: &Node) -> Result<Self> {
        let proxy = primary.proxy().await?;
        let builder = Database::builder()
            .primary(proxy.url())
            .pool_size(1)
            .max_overflow(0);
        let builder = builder.each_engine(|engine| engine.application_name(TORN));
        Ok(Self {
            db: builder.connect().await?,
            proxy,
        })
    }
}

impl Scene {
    /// Starts a primary and two replicas, makes the shop, and connects.
    pub(crate) async fn set(args: &Args, view: View) -> Result<Self> {
        let mut cluster = testbed::cluster().replicas(2).keep(args.keep);
        if let Some(dir) = &args.pg_bin {
            cluster = cluster.pg_bin(dir);
        }
        let cluster = cluster.start().await.context("the servers did not start")?;
        view.say(format!(
            "a primary and 2 replicas run: {}",
            cluster.installation()
        ));
        cluster.primary().sql(shop::SCHEMA).await?;
        for replica in cluster.replicas() {
            replica.wait_until_caught_up(cluster.primary()).await?;
        }
        let db = Database::builder()
            .primary(cluster.primary().url())
            .replicas(cluster.replicas().iter().map(Node::url))
            .pool_size(POOL_SIZE)
            .max_overflow(MAX_OVERFLOW)
            .pool_timeout(Duration::from_secs(10))
            .default_consistency(Consistency::BoundedStaleness(DEFAULT_AGE))
            .degraded_start(false)
            .each_engine(|engine| engine.application_name(POOL))
            .connect()
            .await?;
        let torn = Torn::new(cluster.primary()).await?;
        Ok(Self {
            cluster,
            db,
            ledger: Arc::default(),
            checks: Checks::default(),
            figures: Figures::default(),
            view,
            torn,
            length: Duration::from_secs(args.seconds.saturating_sub(FIXED).max(SHORTEST)),
        })
    }

    /// A part of the time that is the load's.
    pub(crate) fn share(&self, part: f64) -> Duration {
        self.length.mul_f64(part)
    }

    /// The most connections that a node's pool may have.
    #[expect(
        clippy::unused_self,
        reason = "all nodes of a scene have pools of one size"
    )]
    pub(crate) fn capacity(&self) -> usize {
        POOL_SIZE + MAX_OVERFLOW
    }

    /// All nodes, the primary first.
    pub(crate) fn nodes(&self) -> Vec<&Node> {
        std::iter::once(self.cluster.primary())
            .chain(self.cluster.replicas())
            .collect()
    }

    /// The nodes' names and ports.
    pub(crate) fn ports(&self) -> Vec<(String, u16)> {
        self.nodes()
            .iter()
            .map(|node| (node.name().to_owned(), node.port()))
            .collect()
    }

    /// Whether a node answers, as the database sees it; 0 is the primary.
    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.db.status().nodes[node].is_up()
    }

    /// Every node's connections, as it counts them itself.
    pub(crate) async fn count_connections(&self) -> Result<Vec<(String, Counts)>> {
        let mut all = Vec::new();
        for node in self.nodes() {
            let client = node.client().await?;
            let counts = sampler::count(&client)
                .await
                .context("a node did not count its connections")?;
            all.push((node.name().to_owned(), counts));
        }
        Ok(all)
    }

    /// Writes an order beside the load.
    pub(crate) async fn place_order(&self) -> Result<(i64, Option<CommitToken>)> {
        let (order, mut session) = (self.ledger.open(), self.db.write());
        let committed = async {
            shop::write_order(&mut session, order).await?;
            session.commit().await
        };
        let committed = committed
            .await
            .inspect_err(|_| self.ledger.settle(order, Fate::Unknown))?;
        self.ledger.settle(order, Fate::Acknowledged);
        Ok((order, committed.token))
    }

    /// Compares the ledger with what the primary has, and that with what the replicas have. Nothing may be
    /// under way.
    pub(crate) async fn audit(&self, phase: &str) -> Result<()> {
        let named = |what: &str| self.checks.named(format!("{phase}: {what}"));
        let rows = self.cluster.primary().sql(shop::ALL_ORDERS).await?;
        let fates = self.ledger.fates();
        let mut times = vec![0_i64; fates.len()];
        let whole = named("orders are whole");
        for row in &rows {
            let [id, count, lines] = numbers(row)?;
            whole.equal(&format!("lines of order {id}"), &lines, &(count * LINES));
            match usize::try_from(id).ok().and_then(|id| times.get_mut(id)) {
                Some(times) => *times = count,
                None => whole.that(false, || format!("order {id} was never tried")),
            }
        }
        let once = named("every acknowledged order is there exactly once");
        let failed = named("nothing is there that failed for certain, was given up or was lost");
        // Not of a phase: how many there are is chance in most.
        let unknown = self
            .checks
            .named("an order of unknown outcome is there once or not at all");
        for (order, (fate, times)) in fates.iter().zip(times).enumerate() {
            match fate {
                Fate::Acknowledged => once.equal(&format!("order {order} is there"), &times, &1),
                Fate::NotWritten | Fate::Lost => {
                    failed.equal(&format!("order {order} is there"), &times, &0);
                }
                Fate::Unknown => unknown.that(times <= 1, || {
                    format!("order {order} is there {times} times")
                }),
                Fate::Pending => once.that(false, || format!("order {order} never came to an end")),
            }
        }
        let same = named("the replicas have what the primary has");
        for replica in self.cluster.replicas() {
            replica.wait_until_caught_up(self.cluster.primary()).await?;
            let theirs = replica.sql(shop::ALL_ORDERS).await?;
            same.that(theirs == rows, || {
                format!("{} has other orders", replica.name())
            });
        }
        Ok(())
    }
}

fn numbers<const N: usize>(row: &[Option<String>]) -> Result<[i64; N]> {
    let mut numbers = [0; N];
    for (number, text) in numbers.iter_mut().zip(row) {
        *number = text.as_deref().context("a null among numbers")?.parse()?;
    }
    Ok(numbers)
}
