//! What the servers themselves count: connections by `application_name`, sampled all through the tour.
//!
//! One connection of the superuser per node asks `pg_stat_activity`. Where the server is down or frozen
//! there is nothing to count, and the sampler tries again.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use testbed::Node;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, NoTls};

use super::checks::{Check, Checks};

/// What the pools' connections are called.
pub(crate) const POOL: &str = "shop";
/// What the monitors' connections are called; the router names them.
pub(crate) const MONITOR: &str = "pool-router monitor";
/// What the connections of the pool with a queue are called.
pub(crate) const QUEUE: &str = "shop queue";
/// What the connections that are torn are called.
pub(crate) const TORN: &str = "shop torn";

const EVERY: Duration = Duration::from_millis(40);
const LIMIT: Duration = Duration::from_secs(1);

/// The tasks that sample; they end when it is dropped.
pub(crate) struct Sampler {
    _tasks: JoinSet<()>,
    most: Vec<Arc<AtomicI64>>,
}

/// What is sampled for on one node.
struct Post {
    url: String,
    node: String,
    pool_limit: i64,
    queue_limit: i64,
    pool: Arc<Check>,
    monitor: Arc<Check>,
    queue: Arc<Check>,
    most: Arc<AtomicI64>,
}

impl Sampler {
    /// Begins to sample these nodes. A node's pool may have so many connections, and its queue's pool so many.
    pub(crate) fn start(
        nodes: &[&Node],
        checks: &Checks,
        pool_limit: i64,
        queue_limit: i64,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let mut most = Vec::new();
        for node in nodes {
            let name = node.name();
            let peak = Arc::new(AtomicI64::new(0));
            most.push(Arc::clone(&peak));
            let post = Post {
                url: node.superuser_url(),
                node: name.to_owned(),
                pool_limit,
                queue_limit,
                pool: checks.named(format!(
                    "{name}: never more than {pool_limit} pooled connections"
                )),
                monitor: checks.named(format!("{name}: never more than one monitor")),
                queue: checks.named(format!(
                    "never more than {queue_limit} connections beside the queue"
                )),
                most: peak,
            };
            tasks.spawn(post.watch());
        }
        Self {
            _tasks: tasks,
            most,
        }
    }

    /// The most pooled connections that each node ever had.
    pub(crate) fn most(&self) -> Vec<i64> {
        self.most.iter().map(|most| most.load(Relaxed)).collect()
    }
}

impl Post {
    async fn watch(self) {
        loop {
            if let Ok(Ok(client)) = timeout(LIMIT, connect(&self.url)).await {
                while let Ok(Some(counts)) = timeout(LIMIT, count(&client)).await {
                    self.compare(counts);
                    sleep(EVERY).await;
                }
            }
            sleep(EVERY).await;
        }
    }

    fn compare(
        &self,
        Counts {
            pool,
            monitor,
            queue,
            ..
        }: Counts,
    ) {
        let node = &self.node;
        self.most.fetch_max(pool, Relaxed);
        self.pool.that(pool <= self.pool_limit, || {
            format!("{node} had {pool} connections called {POOL}")
        });
        self.monitor.that(monitor <= 1, || {
            format!("{node} had {monitor} connections called {MONITOR}")
        });
        self.queue.that(queue <= self.queue_limit, || {
            format!("{node} had {queue} connections called {QUEUE}")
        });
    }
}

/// A node's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) pool: i64,
    pub(crate) monitor: i64,
    pub(crate) queue: i64,
    pub(crate) torn: i64,
}

/// Connects as the superuser.
pub(crate) async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // Ends with the client.
    tokio::spawn(connection);
    Ok(client)
}

/// Counts a node's connections; `None` if it did not answer.
pub(crate) async fn count(client: &Client) -> Option<Counts> {
    let question = "SELECT count(*) FILTER (WHERE application_name = $1), \
                    count(*) FILTER (WHERE application_name = $2), \
                    count(*) FILTER (WHERE application_name = $3), \
                    count(*) FILTER (WHERE application_name = $4) FROM pg_stat_activity";
    let row = client
        .query_one(question, &[&POOL, &MONITOR, &QUEUE, &TORN])
        .await
        .ok()?;
    Some(Counts {
        pool: row.get(0),
        monitor: row.get(1),
        queue: row.get(2),
        torn: row.get(3),
    })
}
