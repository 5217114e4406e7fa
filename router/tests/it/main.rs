//! The router on real PostgreSQL: every test starts or shares servers by `testbed`.

#[cfg(feature = "console")]
mod console;
mod control;
mod failover;
mod lag;
#[cfg(feature = "metrics")]
mod metrics;
mod nodes;
mod options;
mod rotation;
mod route;
mod shop;
mod start;
mod support;
mod surface;
mod tenancy_attack;
mod tenancy_check;
mod tenancy_install;
mod tenants;
mod tokens;
