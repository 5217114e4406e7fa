//! A generic connection pool: lock-light, fair, cancel-safe and model-checked.
mod backend;
mod config;
mod error;
mod pool;
mod status;

pub use backend::{Backend, Failure, Health, When};
pub use config::{Builder, MAX_CONNECTIONS, PrePing, TimeSource};
pub use error::{BuildError, ConnectError, GetError, TimedOut};
pub use pool::{OwnedPooledConnection, Pool, PooledConnection};
pub use status::{CloseReport, Holder, Status};
