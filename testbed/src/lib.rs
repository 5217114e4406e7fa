//! Real PostgreSQL for tests and experiments: a primary, streaming replicas, and levers that do to them what
//! production does.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! let cluster = testbed::cluster().replicas(1).start().await?;
//! let (primary, replica) = (cluster.primary(), cluster.replica(0));
//! primary.sql("CREATE TABLE t (n int)").await?;
//! replica.wait_until_caught_up(primary).await?;
//!
//! replica.pause_replay().await?; // From here on its data grows old...
//! primary.sql("INSERT INTO t VALUES (1)").await?;
//! assert!(replica.sql("SELECT n FROM t").await?.is_empty());
//! replica.resume_replay().await?; // ...until here.
//!
//! let proxy = primary.proxy().await?; // Connect to `proxy.url()` and see what a slow network does.
//! proxy.set_delay(Duration::from_millis(20));
//!
//! replica.kill().await?;
//! replica.start().await?;
//! cluster.stop().await?; // Or drop it: all servers stop and the folder goes.
//! # Ok(()) }
//! ```
//!
//! A test that only needs a database takes one from the process's shared cluster, which is quicker:
//! `testbed::shared().await.database().await`, or `testbed::database("CREATE TABLE …").await` with a schema that is
//! made once and copied.
//!
//! # What always holds
//! - Nothing is left behind: a cluster's servers and folder go when it is dropped, when its process ends in
//!   any way, or at the latest when the next cluster starts (or by [`sweep`]).
//! - A lever returns once what it asks for is so, does nothing if it already is, and fails with the node's
//!   name. Nothing here waits for a fixed time.
//! - Under root the servers run as an unprivileged user, elsewhere as the caller.
//! - Users: `app` (owner of every database handed out, member of `pg_monitor`) and the superuser `postgres`,
//!   both with the password `secret`.
//!
//! Where PostgreSQL comes from is in [`install`].

mod background;
mod cluster;
mod config;
mod error;
mod folder;
pub mod install;
mod node;
mod pgbouncer;
mod port;
mod postmaster;
mod proxy;
mod run_as;
mod shared;
mod tls;

pub use cluster::{Cluster, ClusterBuilder, cluster};
pub use error::Error;
pub use folder::sweep;
pub use node::Node;
pub use pgbouncer::{PgBouncer, PoolMode};
pub use proxy::{Proxy, Side};
pub use shared::{SharedCluster, TestDatabase, database, shared, shared_with_replicas};
pub use tls::{Certificates, ServerCert, TlsFront};
