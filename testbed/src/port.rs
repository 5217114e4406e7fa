//! Free TCP ports for servers.
//!
//! Taken from below the range that systems use for outgoing connections: a port in that range can be lost
//! to somebody's client while its server is stopped, and the server could not come back to it.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::Error;

const RANGE: std::ops::Range<u16> = 16_000..32_000;

/// A port that nobody listens on now and that this process has not handed out before.
///
/// Another process may still take it first: starting a server on it is tried again with another.
pub(crate) fn free() -> Result<u16, Error> {
    static HANDED_OUT: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);
    let mut handed_out = HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..1000 {
        let port = fastrand::u16(RANGE);
        if !handed_out.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            handed_out.insert(port);
            return Ok(port);
        }
    }
    let range = format!("{} to {}", RANGE.start, RANGE.end);
    Err(Error::Refused(format!(
        "no free TCP port on 127.0.0.1 from {range}"
    )))
}
