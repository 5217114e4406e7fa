//! Integration tests, on real servers.

mod address;
mod bad_input;
mod begin;
mod cancel;
mod commit;
mod connect;
mod copy;
mod engine;
mod errors;
mod listen;
mod local;
mod lock;
mod pending;
mod pipeline;
mod place;
mod reset;
mod retry;
mod round_trips;
mod session;
mod shared;
mod stream;
mod support;
mod test_transaction;
mod timeouts;
mod tls;
mod typed;
