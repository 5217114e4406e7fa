//! Integration tests, on real servers.

mod address;
mod begin;
mod cancel;
mod commit;
mod connect;
mod copy;
mod engine;
mod errors;
mod listen;
mod lock;
mod pipeline;
mod place;
mod reset;
mod round_trips;
mod session;
mod shared;
mod stream;
mod support;
mod tls;
mod typed;
