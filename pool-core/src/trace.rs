//! Spans and events for `tracing`: the feature of that name.
//!
//! Target `pool_core`. Spans: `pool.get` (debug) around a checkout that has to wait, `pool.connect` (debug)
//! around an attempt to open a connection; both with `db.client.connection.pool.name`. Events: one for each
//! [`Event`](crate::Event), with its name as message: a failed attempt, a pool that is down, a timeout, a
//! suspected leak, an overlong hold and a task that waits while it holds a connection at `WARN`; what concerns the whole pool at `INFO`; what concerns one
//! connection at `DEBUG`; checkouts and returns at `TRACE`, and only while somebody observes the pool or it has
//! hooks for them, for the fast way tells nobody.

use std::future::Future;

use tracing::{Instrument, Level};

use crate::events::EventKind;

/// Logs what happened.
pub(crate) fn event(pool: Option<&str>, kind: &EventKind) {
    macro_rules! log {
        ($level:expr, $message:literal $(, $($field:tt)+)?) => {
            tracing::event!(
                target: "pool_core",
                $level,
                { db.client.connection.pool.name = pool $(, $($field)+)? },
                $message
            )
        };
    }
    match kind {
        EventKind::Connecting => log!(Level::DEBUG, "connecting"),
        EventKind::Connected { connection, took } => {
            log!(Level::DEBUG, "connected", connection = connection, took = ?took);
        }
        EventKind::ConnectFailed { failures, cause } => {
            log!(
                Level::WARN,
                "connect failed",
                failures = failures,
                cause = cause.as_str()
            );
        }
        EventKind::Full { open, cause } => {
            log!(Level::WARN, "the other side is full", open, cause);
        }
        EventKind::Down => log!(Level::WARN, "down"),
        EventKind::Recovered => log!(Level::INFO, "recovered"),
        EventKind::CheckedOut { connection } => {
            log!(Level::TRACE, "checked out", connection = connection);
        }
        EventKind::Returned { connection, held } => {
            log!(Level::TRACE, "returned", connection = connection, held = ?held);
        }
        EventKind::Detached { connection } => {
            log!(Level::DEBUG, "detached", connection = connection);
        }
        EventKind::Closed { connection, reason } => {
            log!(
                Level::DEBUG,
                "closed",
                connection = connection,
                reason = reason.as_str()
            );
        }
        EventKind::TimedOut { waited } => log!(Level::WARN, "timed out", waited = ?waited),
        EventKind::WaitsWhileHolding { place, holder } => log!(
            Level::WARN,
            "a task waits for a connection while it holds one",
            place = %place,
            holder = %holder
        ),
        EventKind::GenerationEnded => log!(Level::INFO, "generation ended"),
        EventKind::LeakSuspected { holder } => {
            log!(Level::WARN, "leak suspected", holder = %holder);
        }
        EventKind::HeldTooLong { holder } => {
            log!(Level::WARN, "held too long", holder = %holder);
        }
        EventKind::Resized {
            pool_size,
            capacity,
        } => log!(
            Level::INFO,
            "resized",
            pool_size = pool_size,
            capacity = capacity
        ),
        EventKind::Suspended => log!(Level::INFO, "suspended"),
        EventKind::Resumed => log!(Level::INFO, "resumed"),
        EventKind::Renewing { over } => log!(Level::INFO, "renewing", over = ?over),
        EventKind::PoolClosed => log!(Level::INFO, "pool closed"),
    }
}

/// Runs a checkout that may wait inside its span.
pub(crate) fn waiting<F: Future>(
    pool: Option<&str>,
    checkout: F,
) -> impl Future<Output = F::Output> + use<F> {
    checkout.instrument(tracing::debug_span!(
        target: "pool_core",
        "pool.get",
        db.client.connection.pool.name = pool
    ))
}

/// Runs an attempt to open a connection inside its span.
pub(crate) fn connecting<F: Future>(
    pool: Option<&str>,
    attempt: F,
) -> impl Future<Output = F::Output> {
    attempt.instrument(tracing::debug_span!(
        target: "pool_core",
        "pool.connect",
        db.client.connection.pool.name = pool
    ))
}
