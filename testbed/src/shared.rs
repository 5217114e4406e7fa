//! One running cluster per process, shared by its tests through databases of their own.
//!
//! It lives as long as the process: it ends with its folder's watchdog. Databases are dropped in the
//! background, so that a test which ends need not wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::OnceCell;

use crate::background::runtime;
use crate::{Cluster, Error, Node, cluster};

/// The process's shared cluster, a primary alone; started at the first call.
///
/// # Panics
/// If it does not start: a test without its server has nothing to say.
pub async fn shared() -> &'static SharedCluster {
    static ALONE: OnceCell<SharedCluster> = OnceCell::const_new();
    ALONE.get_or_init(|| start(0)).await
}

/// The process's shared cluster of a primary and two replicas, beside the one of [`shared`].
///
/// # Panics
/// If it does not start.
pub async fn shared_with_replicas() -> &'static SharedCluster {
    static REPLICATED: OnceCell<SharedCluster> = OnceCell::const_new();
    REPLICATED.get_or_init(|| start(2)).await
}

async fn start(replicas: usize) -> SharedCluster {
    let starting = runtime().spawn(cluster().replicas(replicas).max_connections(300).start());
    match starting.await {
        Ok(Ok(cluster)) => SharedCluster {
            cluster: Arc::new(cluster),
            made: AtomicU64::new(0),
        },
        Ok(Err(error)) => panic!("the shared cluster did not start: {}", with_causes(&error)),
        Err(error) => panic!("the start of the shared cluster panicked: {error}"),
    }
}

fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A cluster that all tests of a process use. Its levers would disturb the others: a test that kills or
/// pauses servers takes a cluster of its own.
#[derive(Debug)]
pub struct SharedCluster {
    cluster: Arc<Cluster>,
    made: AtomicU64,
}

impl SharedCluster {
    /// A new, empty database.
    ///
    /// # Panics
    /// If the server refuses it.
    pub async fn database(&self) -> TestDatabase {
        // Ordering: Relaxed; only the number itself must be unique.
        let name = format!("test_{}", self.made.fetch_add(1, Ordering::Relaxed) + 1);
        if let Err(error) = self.cluster.primary().create_database(&name).await {
            panic!("no database for this test: {}", with_causes(&error));
        }
        for replica in self.cluster.replicas() {
            if let Err(error) = replica.wait_until_caught_up(self.cluster.primary()).await {
                panic!("no database for this test: {}", with_causes(&error));
            }
        }
        TestDatabase {
            name,
            cluster: Arc::clone(&self.cluster),
        }
    }

    /// The cluster itself.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

/// A database of a test's own, dropped with this value.
#[derive(Debug)]
#[must_use = "the database is dropped with this value"]
pub struct TestDatabase {
    name: String,
    cluster: Arc<Cluster>,
}

impl TestDatabase {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is reached on the primary, as the user `app`, who owns it.
    pub fn url(&self) -> String {
        self.node().url_for(&self.name)
    }

    /// Where it is reached on a replica.
    ///
    /// # Panics
    /// If the shared cluster has fewer replicas.
    pub fn replica_url(&self, index: usize) -> String {
        self.cluster.replica(index).url_for(&self.name)
    }

    /// [`TestDatabase::url`] as the superuser.
    pub fn superuser_url(&self) -> String {
        self.node().superuser_url_for(&self.name)
    }

    /// The primary that it is on.
    pub fn node(&self) -> &Node {
        self.cluster.primary()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (cluster, name) = (Arc::clone(&self.cluster), std::mem::take(&mut self.name));
        runtime().spawn(async move {
            // One that stays is gone with the cluster.
            if let Err(error) = cluster.primary().drop_database(&name).await {
                tracing::debug!(%error, name, "a test's database was left behind");
            }
        });
    }
}
