//! The servers, the proxies before them, and a failover manager that does what a sound one does.
//!
//! What always holds: one change of role at a time; a replica is promoted only while it follows the current primary,
//! and of all of them the one that has received most, so that with synchronous replication it has every acknowledged
//! write; and the others follow it before an old primary may go on.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pool_router::Database;
use testbed::{Cluster, ClusterBuilder, Node, Proxy};
use tokio::time::sleep;

use super::story::Story;
use crate::tour::lock;
use crate::waits::{happened_by, takes_writes};

/// How many replicas there are.
pub(crate) const REPLICAS: usize = 3;
/// Whom a commit waits for with synchronous replication: any one of the others.
const STANDBYS: &str = "ANY 1 (primary, replica1, replica2, replica3)";
/// How long servers may take to do what they are told.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at where the replicas stand, and how long one stands still that has not replayed all it has.
const LOOK_AGAIN: Duration = Duration::from_millis(40);
const SETTLED_AFTER: Duration = Duration::from_secs(1);

const SCHEMA: &str = "
    CREATE TABLE appended (writer int NOT NULL, number int NOT NULL);
    CREATE INDEX ON appended (writer, number);
    GRANT EXECUTE ON FUNCTION pg_read_file(text, bigint, bigint, boolean) TO app;";

/// The servers, and who is the primary.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    /// One before each node, in the same order.
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) story: Story,
    pub(crate) synchronous: bool,
    primary: Mutex<usize>,
    promotions: Mutex<Vec<Promotion>>,
}

/// A change of role.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Promotion {
    pub(crate) kind: &'static str,
    /// When the new primary was first seen to accept writes.
    pub(crate) accepted: Instant,
    pub(crate) timeline: u32,
}

impl World {
    pub(crate) async fn begin(
        builder: ClusterBuilder,
        synchronous: bool,
        story: Story,
    ) -> Result<Self> {
        let mut builder = builder.replicas(REPLICAS);
        if synchronous {
            builder = builder.setting("synchronous_standby_names", STANDBYS);
        }
        let cluster = builder.start().await.context("the servers did not start")?;
        cluster.primary().sql(SCHEMA).await?;
        let mut proxies = Vec::new();
        for index in 0..=REPLICAS {
            proxies.push(cluster.node(index).proxy().await?);
        }
        Ok(Self {
            cluster,
            proxies,
            story,
            synchronous,
            primary: Mutex::new(0),
            promotions: Mutex::default(),
        })
    }

    /// The index of the node that is the primary.
    pub(crate) fn primary_index(&self) -> usize {
        *lock(&self.primary)
    }

    pub(crate) fn primary(&self) -> &Node {
        self.cluster.node(self.primary_index())
    }

    /// The indexes of the others.
    pub(crate) fn replicas(&self) -> Vec<usize> {
        let primary = self.primary_index();
        (0..=REPLICAS).filter(|index| *index != primary).collect()
    }

    pub(crate) fn node(&self, index: usize) -> &Node {
        self.cluster.node(index)
    }

    pub(crate) fn promotions(&self) -> Vec<Promotion> {
        lock(&self.promotions).clone()
    }

    /// Makes the replica that has received most the primary, and has the others follow it. The old primary no longer
    /// takes part.
    pub(crate) async fn promote_the_furthest(&self, kind: &'static str) -> Result<()> {
        let replicas = self.replicas();
        for index in &replicas {
            unhindered(self.node(*index)).await?;
        }
        let at = self.positions_at_rest(&replicas).await?;
        let (chosen, _) = *at
            .iter()
            .max_by_key(|(_, position)| *position)
            .context("no replica to promote")?;
        let node = self.node(chosen);
        self.story
            .tell(format!("{} is promoted; positions {at:?}", node.name()));
        let client = node.client().await?;
        let others = async {
            let accepted = takes_writes(&client).await?;
            for index in replicas.iter().filter(|index| **index != chosen) {
                self.node(*index).follow(node).await?;
            }
            anyhow::Ok(accepted)
        };
        let promotes = async { Ok(node.promote().await?) };
        let ((), accepted) = tokio::try_join!(promotes, others)?;
        *lock(&self.primary) = chosen;
        let timeline = timeline_of(node).await?;
        lock(&self.promotions).push(Promotion {
            kind,
            accepted,
            timeline,
        });
        self.story.told(
            accepted,
            format!("{} takes writes, on timeline {timeline}", node.name()),
        );
        Ok(())
    }

    /// How far each replica has received, once nothing more comes. What the primary sent of a record that it did not
    /// finish is never replayed, so a replica rests, too, where it has stood for a while.
    async fn positions_at_rest(&self, replicas: &[usize]) -> Result<Vec<(usize, i64)>> {
        let deadline = Instant::now() + PATIENCE;
        let (mut before, mut since) = (Vec::new(), Instant::now());
        loop {
            let mut now = Vec::new();
            for index in replicas {
                let (received, replayed) = position_of(self.node(*index)).await?;
                now.push((*index, received, replayed));
            }
            let all = now
                .iter()
                .all(|(_, received, replayed)| received == replayed);
            if now != before {
                (before, since) = (now, Instant::now());
            } else if all || since.elapsed() > SETTLED_AFTER {
                let received = now.iter().map(|(index, received, _)| (*index, *received));
                return Ok(received.collect());
            }
            if Instant::now() > deadline {
                bail!("the replicas did not come to rest: {before:?}");
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Everything runs, nothing is held up, and everybody follows the primary.
    pub(crate) async fn mend(&self) -> Result<()> {
        for proxy in &self.proxies {
            proxy.refuse(false);
            proxy.black_hole(false);
            proxy.set_delay(Duration::ZERO);
        }
        let primary = self.primary();
        primary.start().await?;
        for index in self.replicas() {
            let node = self.node(index);
            unhindered(node).await?;
            node.rejoin(primary).await?;
        }
        Ok(())
    }

    /// Waits until every service takes the current primary for the primary.
    pub(crate) async fn known_to(&self, services: &[Database]) -> Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let timeline = timeline_of(self.primary()).await?;
        let known = async || {
            let mut services = services.iter();
            services.all(|db| db.status().timeline == Some(timeline))
        };
        if !happened_by(deadline, known).await {
            bail!("not every service knows of timeline {timeline}");
        }
        Ok(())
    }
}

/// Has a server run, and replay what it has if it is a replica.
async fn unhindered(node: &Node) -> Result<()> {
    node.start().await?;
    node.set_apply_delay(Duration::ZERO).await?;
    node.resume_replay().await?;
    Ok(())
}

async fn timeline_of(primary: &Node) -> Result<u32> {
    let file = text_of(
        primary,
        "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)",
    )
    .await?;
    Ok(u32::from_str_radix(&file, 16)?)
}

/// What a replica has, replayed or not, and what it has replayed.
async fn position_of(replica: &Node) -> Result<(i64, i64)> {
    let rows = replica
        .sql(
            "SELECT (greatest(r, p) - '0/0'::pg_lsn)::bigint, (p - '0/0'::pg_lsn)::bigint
             FROM (SELECT pg_last_wal_receive_lsn() AS r, pg_last_wal_replay_lsn() AS p) AS at",
        )
        .await?;
    let [Some(received), Some(replayed)] = rows.first().map_or(&[][..], Vec::as_slice) else {
        bail!("{} does not say where it stands: {rows:?}", replica.name());
    };
    Ok((received.parse()?, replayed.parse()?))
}

/// The only cell that a statement gives.
async fn text_of(node: &Node, sql: &str) -> Result<String> {
    let rows = node.sql(sql).await?;
    let cell = rows.into_iter().flatten().flatten().next();
    cell.with_context(|| format!("{} gave nothing for {sql}", node.name()))
}
