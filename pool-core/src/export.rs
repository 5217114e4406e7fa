//! Numbers for the `metrics` crate's recorder: the feature of that name.
//!
//! Names follow OpenTelemetry's conventions for database clients, with dots as they write them; each carries
//! the label `db.client.connection.pool.name`, empty for a pool without a name.
//!
//! | metric | kind | when |
//! |---|---|---|
//! | `db.client.connection.count` with `db.client.connection.state` `idle` or `used` | gauge | each round of maintenance, and [`Pool::record_metrics`](crate::Pool::record_metrics) |
//! | `db.client.connection.idle.max`, `db.client.connection.idle.min`, `db.client.connection.max` | gauge | the same |
//! | `db.client.connection.pending_requests` | gauge | the same |
//! | `db.client.connection.timeouts` | counter | when a caller's time is over |
//! | `db.client.connection.create_time` | histogram, seconds | each connection opened |
//! | `db.client.connection.wait_time` | histogram, seconds | each caller that had to wait, whatever came of it |
//! | `db.client.connection.use_time` | histogram, seconds | one checkout in 64 |

use std::time::Duration;

use metrics::{counter, gauge, histogram};

use crate::rules::Rules;
use crate::status::Status;
use crate::tally::Timed;

const POOL: &str = "db.client.connection.pool.name";

fn name(config: &Rules) -> String {
    config.name.as_deref().unwrap_or_default().to_owned()
}

/// Records how long something took.
pub(crate) fn timed(config: &Rules, what: Timed, micros: u64) {
    let metric = match what {
        Timed::Wait => "db.client.connection.wait_time",
        Timed::Hold => "db.client.connection.use_time",
        Timed::Connect => "db.client.connection.create_time",
        Timed::Age => return,
    };
    let seconds = Duration::from_micros(micros).as_secs_f64();
    histogram!(metric, POOL => name(config)).record(seconds);
}

/// Counts a caller whose time was over.
pub(crate) fn timeout(config: &Rules) {
    counter!("db.client.connection.timeouts", POOL => name(config)).increment(1);
}

/// Records the pool's numbers.
pub(crate) fn status(config: &Rules, seen: &Status) {
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let set = |metric: &'static str, value: usize| {
        gauge!(metric, POOL => name(config)).set(value as f64);
    };
    set("db.client.connection.max", seen.capacity);
    set("db.client.connection.idle.max", seen.size);
    set("db.client.connection.idle.min", config.min_idle);
    set("db.client.connection.pending_requests", seen.waiting);
    for (state, value) in [("idle", seen.idle), ("used", seen.in_use)] {
        let labels = [
            (POOL, name(config)),
            ("db.client.connection.state", state.to_owned()),
        ];
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        gauge!("db.client.connection.count", &labels).set(value as f64);
    }
}
