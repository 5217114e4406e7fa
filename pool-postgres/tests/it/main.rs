//! Integration tests, on real servers.

mod address;
mod begin;
mod cancel;
mod commit;
mod connect;
mod engine;
mod place;
mod round_trips;
mod session;
mod stream;
mod support;
mod tls;
