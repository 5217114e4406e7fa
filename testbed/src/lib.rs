//! Real PostgreSQL.
mod background;
mod cluster;
mod config;
mod error;
mod folder;
pub mod install;
mod node;
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
pub use proxy::{Proxy, Side};
pub use shared::{SharedCluster, TestDatabase, shared, shared_with_replicas};
pub use tls::{Certificates, ServerCert, TlsFront};
