//! Engines, sessions and session factories for PostgreSQL, on tokio-postgres.
//!
//! An [`Engine`] is a database and its pool of connections. A [`SessionFactory`] makes [`Session`]s, one for
//! each unit of work: they borrow a connection with their first statement, send `BEGIN` along with it, and
//! give the connection back when the transaction ends.
//!
//! ```no_run
//! use std::time::Duration;
//! use pool_postgres::{Committed, Engine, Error, SessionFactory};
//!
//! # async fn example() -> Result<(), Error> {
//! let engine = Engine::builder("postgresql://user:pass@localhost/db")
//!     .pool_size(5)
//!     .max_overflow(10)
//!     .pool_timeout(Duration::from_secs(30))
//!     .build()?;
//! let n = engine.execute("VACUUM users", &[]).await?; // One statement, autocommit, one round trip.
//!
//! let sessions = SessionFactory::new(engine.clone());
//! let mut session = sessions.session(); // Borrows nothing until the first statement.
//! let id = 7_i64;
//! let rows = session.query("SELECT name FROM users WHERE id = $1", &[&id]).await?;
//! let done: Committed = session.commit().await?;
//!
//! let id = sessions
//!     .begin::<Error, _>(async |s| {
//!         let row = s.query_one("INSERT INTO users (name) VALUES ($1) RETURNING id", &[&"Ada"]).await?;
//!         Ok(row.get::<_, i64>(0))
//!     })
//!     .await?; // Commits on Ok, rolls back on Err, panic or drop.
//! # let _ = (n, rows, done, id); Ok(()) }
//! ```
//!
//! # What to rely on
//! - A future may be dropped at any await. Whatever it had sent, the connection's next borrower finds it
//!   clean.
//! - `commit` succeeds only if the transaction is known to have committed; see [`ErrorKind`] for the rest.
//! - Nothing is sent twice that may have happened.
//!
//! # Features
//! Values of the standard library's types are parameters and columns as they are. Those of other libraries need a
//! feature: `uuid`, `chrono`, `time`, `jiff` (0.2), `json` (serde_json), `decimal` (rust_decimal). All are off by
//! default.
//!
//! # Not covered
//! Large objects; a `lo_*` function can be called by a statement.

mod address;
mod backend;
mod committed;
mod conduct;
mod connection;
mod copy;
mod demotion;
mod dial;
mod engine;
mod error;
mod factory;
mod fnv;
#[cfg(fuzzing)]
mod fuzzing;
mod listen;
mod lock;
mod open;
mod params;
mod password;
mod reset;
mod retry;
mod room;
mod row;
mod seeing;
mod session;
mod shared;
mod source;
mod sql_text;
mod sqlstate;
mod statements;
mod stream;
mod tally;
mod test_transaction;
mod throttle;
mod tls;
mod token;
mod unnamed;
#[cfg(feature = "tower")]
pub mod web;
mod wire;

pub use committed::{Committed, Durability};
pub use copy::{CopyIn, CopyOut};
pub use engine::{Connection, Engine, EngineBuilder};
pub use factory::SessionFactory;
pub use listen::{ListenEvent, Listener, Missed, Notification};
pub use lock::{AdvisoryLock, LockKey, LockMode};
pub use params::{Params, Placeholder};
pub use pool_core;
pub use pool_core::{CloseReport, Holder, PrePing, Status, TimeSource};
pub use retry::Retry;
pub use row::FromRow;
pub use session::{
    Answer, IsolationLevel, Pipeline, Savepoint, Scope, Session, SessionOptions,
    UnknownIsolationLevel,
};
pub use shared::{SharedConnections, SharedOptions, SharedStatus};
pub use source::{
    Checkout, CheckoutFuture, ConnectionSource, Guard, GuardRows, Lease, LeaseObserver,
};
pub use sql_text::{quote_identifier, quote_literal};
pub use stream::RowStream;
pub use tally::Counts;
pub use token::{CommitToken, Strength, TokenError};
pub use tokio_postgres::{Row, types};

pub use address::{EngineConfig, SslMode, TargetSessionAttrs};
pub use backend::PgBackend;
pub use connection::PgConnection;
pub use error::{Error, ErrorKind, Outcome};
pub use reset::ResetPolicy;

/// For the macros of this crate.
#[doc(hidden)]
pub mod __private {
    pub use crate::row::column;
}

/// What a fuzzer drives that nobody else sees.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod __fuzz {
    pub use crate::fuzzing::converse;
}
