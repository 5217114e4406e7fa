//! Reads on replicas that are fresh enough, writes on the primary: a [`Database`] over PostgreSQL's streaming
//! replication.
//!
//! ```no_run
//! use pool_router::Database;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let db = Database::builder()
//!         .primary("postgresql://app:secret@db1/shop")
//!         .replica("postgresql://app:secret@db2/shop")
//!         .replica("postgresql://app:secret@db3/shop")
//!         .pool_size(5)
//!         .connect()
//!         .await?;
//!
//!     // A write goes to the primary. Its token says where in the log the commit stands.
//!     let mut writing = db.write();
//!     writing.execute("INSERT INTO orders (item) VALUES ($1)", &[&"tea"]).await?;
//!     let token = writing.commit().await?.token;
//!
//!     // A replica that has that commit serves this read; where none has, the primary does.
//!     let mut reading = db.read_after(&token);
//!     let orders: i64 = reading.query_one("SELECT count(*) FROM orders", &[]).await?.get(0);
//!     println!("{orders} orders");
//!
//!     println!("{}", db.status()); // Role, lag, pool and counts of each node.
//!     db.shutdown().await;
//!     Ok(())
//! }
//! ```
//!
//! # What a read promises
//!
//! | call | data | where |
//! |---|---|---|
//! | [`Database::read`] | of at most 10 seconds of age, unless [`Builder::default_consistency`] says otherwise | a replica, else the primary |
//! | [`Database::read_within`] | of at most that age | a replica, else the primary |
//! | [`Database::read_after`] | everything up to the token's commit | a replica, else the primary |
//! | [`Database::read_with`] [`Consistency::Monotonic`] | not older than the token's place in the log | a replica, else the primary |
//! | [`Database::read_with`] [`Consistency::Strong`] | all that is committed | the primary |
//! | [`Database::read_with`] [`Consistency::Eventual`] | of any known age | a replica, else the primary |
//!
//! A promise is proved on the connection that the read uses, by a statement that travels in front of `BEGIN`
//! in the same flight: it costs no round trip, and it is answered before the transaction's snapshot is taken.
//! A replica that cannot prove it costs one more flight, to the next candidate.
//!
//! [`ReadOptions`] says besides how long a read may wait for a replica to reach its token ([`WaitPolicy`]; by default
//! not at all), and whether the primary may serve it.
//!
//! # How lag is known
//!
//! Each node has a monitor: one task, one connection, one statement, every 50 to 500 ms. A replica that has
//! replayed what the primary had when we looked at it at `t` serves the data of `t`; so ages come from
//! positions and from our own clock. An idle primary leaves its replicas fresh. What is not known (a node
//! that says nothing, a position before all that we have seen) is [`Lag::Unknown`] and keeps no promise.
//!
//! A node that has not answered for 400 ms is out of rotation and returns with its next answer. Without
//! replicas no monitor runs and all reads go to the primary, as read-only transactions.
//!
//! # Which replica
//!
//! Of the fit ones two are drawn and the less loaded one is taken, by latency times transactions under way, divided by
//! its [weight](NodeConfig::weight). Those of our own [zone](Builder::zone) come first while they are not far more
//! loaded than the others. One that was away [starts slowly](Builder::slow_start). One whose connections keep failing
//! though it answers its monitor is out for a while ([`EventKind::Ejected`]), at most half of them at once.
//!
//! # When the primary changes
//!
//! The node that takes writes is the primary on the highest timeline seen. An old primary that still runs
//! gets neither writes nor reads. A token of the old timeline is honoured up to where the new one left it; beyond that
//! the read fails with [`TokenRefusal::LostInFailover`]. That is told by the new primary's history file, which the user
//! has to be allowed to read (`GRANT EXECUTE ON FUNCTION pg_read_file(text, bigint, bigint, boolean) TO …`). Elsewhere
//! it is honoured up to what the promoted replica was seen to have replayed, and beyond that refused with
//! [`TokenRefusal::CannotTell`].
//!
//! # While it runs
//!
//! [`Database::drain`] keeps reads from a replica, [`Database::reads`] sends all of them to the primary, and
//! [`Database::suspend_writes`] holds writes for a planned switchover: each shows in the status and in
//! [`Database::events`]. [`Database::explain`] says where a read would go and why. A service that runs its statements
//! through another driver takes the decision alone, from [`Database::route`].
//!
//! # Features
//!
//! All off by default. `serde`: [`DatabaseConfig`] from configuration files, and [`HealthReport`] for a route that
//! shows it. `metrics`: numbers for the recorder of the `metrics` crate. `console`: a page that shows a database live, to
//! mount in a service of axum's. `tower`: a layer that finds a request's tenant.
//!
//! # Tenants
//!
//! [`tenancy`] gives sessions that are confined to one tenant, whether it has a database, a schema or rows in tables that
//! others share.
//!
//! # Where to look
//!
//! [`Database`] for use; [`plan::plan`] for the decision, a function of a [`view::View`], a
//! [`request::Request`] and the time.

mod builder;
pub mod choose;
mod config;
#[cfg(feature = "console")]
pub mod console;
mod control;
mod course;
mod database;
mod demand;
mod error;
mod events;
pub mod evidence;
pub mod explain;
mod floor;
mod history;
mod lag;
mod link;
mod load;
mod look;
mod lsn;
#[cfg(feature = "metrics")]
pub mod metrics;
mod monitor;
mod node;
mod node_config;
pub mod orders;
mod outliers;
pub mod plan;
mod proof;
pub mod request;
mod route;
#[cfg(test)]
mod runbook;
mod sample;
mod shared;
#[cfg(test)]
mod sim;
mod source;
mod status;
mod tally;
pub mod tenancy;
pub mod view;
mod wait;
mod which;

pub use builder::Builder;
pub use config::DatabaseConfig;
pub use control::SuspendedWrites;
pub use database::{AsToken, Database, Sessions};
pub use error::{RouteError, StartError};
pub use events::{Event, EventKind, Events};
pub use explain::Explanation;
pub use floor::{Extent, Fork, TokenRefusal};
pub use history::History;
pub use lag::Lag;
pub use load::Load;
pub use lsn::{Lsn, NotAnLsn, WalGeometry};
pub use node_config::NodeConfig;
pub use orders::Reads;
pub use proof::{Testimony, Unproved};
pub use request::{Consistency, ReadOptions, Request, WaitPolicy};
pub use route::Route;
pub use sample::{Replay, Role, Sample};
pub use status::{DatabaseStatus, HealthReport, NodeStatus, ShutdownReport};
pub use tally::Counts;
pub use which::{UnknownNode, Which};

// One dependency is enough for a service.
pub use pool_core::{Budget, CloseReport, PrePing, Status};
pub use pool_postgres::{
    CommitToken, Committed, ConnectionSource, Durability, Engine, EngineBuilder, EngineConfig,
    Error, ErrorKind, IsolationLevel, Outcome, Session, SessionFactory, SessionOptions, Strength,
    TokenError,
};

/// The program in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
