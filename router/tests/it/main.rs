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
mod start;
mod support;
mod surface;
mod tokens;
