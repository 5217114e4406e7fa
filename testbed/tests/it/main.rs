//! Tests of the testbed on real servers.

mod cluster;
mod install;
mod leftovers;
mod proxy;
mod roles;
mod shared;
mod tls;
