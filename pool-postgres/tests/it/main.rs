//! Integration tests, on real servers.

mod begin;
mod cancel;
mod commit;
mod engine;
mod place;
mod session;
mod stream;
mod support;
