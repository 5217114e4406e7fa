//! Integration tests, on real servers.

mod address;
mod begin;
mod cancel;
mod commit;
mod connect;
mod engine;
mod listen;
mod lock;
mod place;
mod round_trips;
mod session;
mod shared;
mod stream;
mod support;
mod tls;
