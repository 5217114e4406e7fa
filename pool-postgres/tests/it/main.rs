//! Integration tests, on real servers.

mod address;
mod bad_input;
mod begin;
mod cancel;
mod chaos;
mod commit;
mod connect;
mod copy;
mod engine;
mod errors;
mod liar;
mod listen;
mod local;
mod lock;
mod log;
mod logging;
mod lying;
mod pending;
mod pipeline;
mod place;
mod pooler;
mod reset;
mod retry;
mod round_trips;
mod scope;
mod semantics;
#[cfg(all(feature = "axum", feature = "metrics"))]
mod service;
mod session;
mod shared;
mod statements;
mod stream;
mod support;
mod test_transaction;
mod timeouts;
mod tls;
mod typed;
mod types;
#[cfg(feature = "axum")]
mod web;
