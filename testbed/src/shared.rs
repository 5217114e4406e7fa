//! One running cluster per process, shared by its tests through databases of their own.
//!
//! It lives as long as the process: it ends with its folder's watchdog. Databases are dropped in the
//! background, so that a test which ends need not wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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

/// A database of a test's own on [`shared`], in which the statements of `template` have been run.
///
/// They are run once in a process for each template, as the user `app`, and every further database is a copy,
/// which is quicker: rows, indexes and all. `RESET ROLE` among them makes the rest the superuser's.
///
/// ```no_run
/// # async fn example() {
/// const SCHEMA: &str = "CREATE TABLE users (id bigserial PRIMARY KEY, name text NOT NULL)";
/// let database = testbed::database(SCHEMA).await;
/// // An engine on `database.url()` finds an empty table.
/// # let _ = database; }
/// ```
///
/// # Panics
/// If the server refuses the statements.
pub async fn database(template: &str) -> TestDatabase {
    shared().await.database_like(template).await
}

async fn start(replicas: usize) -> SharedCluster {
    let starting = runtime().spawn(cluster().replicas(replicas).max_connections(300).start());
    match starting.await {
        Ok(Ok(cluster)) => SharedCluster {
            cluster: Arc::new(cluster),
            made: Arc::default(),
            templates: Mutex::default(),
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
    /// How many databases were made: they are never named alike.
    made: Arc<AtomicU64>,
    /// The database to copy for each text that was asked for.
    templates: Mutex<HashMap<String, Template>>,
}

/// The name of a template's database, once it has been made.
type Template = Arc<OnceCell<String>>;

impl SharedCluster {
    /// A new, empty database.
    ///
    /// # Panics
    /// If the server refuses it.
    pub async fn database(&self) -> TestDatabase {
        let name = next_name(&self.made);
        if let Err(error) = self.cluster.primary().create_database(&name).await {
            panic!("no database for this test: {}", with_causes(&error));
        }
        self.made_for_a_test(name).await
    }

    /// A new database like all others of this template; see [`database`].
    ///
    /// # Panics
    /// If the server refuses the statements.
    pub async fn database_like(&self, template: &str) -> TestDatabase {
        let known = {
            let mut templates = self
                .templates
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            Arc::clone(templates.entry(template.to_owned()).or_default())
        };
        let original = known.get_or_init(|| self.make_template(template)).await;
        let name = next_name(&self.made);
        if let Err(error) = self.cluster.primary().copy_database(&name, original).await {
            panic!("no database for this test: {}", with_causes(&error));
        }
        self.made_for_a_test(name).await
    }

    /// Makes the database that others are copied from. On the background runtime, so that it is whole even if the
    /// test that asked for it has left.
    async fn make_template(&self, statements: &str) -> String {
        let (cluster, made) = (Arc::clone(&self.cluster), Arc::clone(&self.made));
        let statements = statements.to_owned();
        let making = runtime().spawn(async move {
            let (name, primary) = (next_name(&made), cluster.primary());
            primary.create_database(&name).await?;
            primary.set_up_database(&name, &statements).await?;
            Ok::<_, Error>(name)
        });
        match making.await {
            Ok(Ok(name)) => name,
            Ok(Err(error)) => panic!("no template for databases: {}", with_causes(&error)),
            Err(error) => panic!("the making of a template panicked: {error}"),
        }
    }

    async fn made_for_a_test(&self, name: String) -> TestDatabase {
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

fn next_name(made: &AtomicU64) -> String {
    // Ordering: Relaxed; only the number itself must be unique.
    format!("test_{}", made.fetch_add(1, Ordering::Relaxed) + 1)
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
