//! Numbers for the `metrics` crate's recorder: the feature of that name.
//!
//! Recorded with each look of a monitor for its node, and for all by
//! [`Database::record_metrics`](crate::Database::record_metrics). Prometheus shows the dots as underscores.
//! `docs/alerts.yml` and `docs/dashboard.json` are made of these names and of the pools' own
//! (`db.client.connection.*`, whose label `db.client.connection.pool.name` is the node's name).
//!
//! | metric | kind | what |
//! |---|---|---|
//! | `pool_router.node.up` | gauge | 1 while the node answers its monitor |
//! | `pool_router.node.primary` | gauge | 1 while it takes writes |
//! | `pool_router.node.lag_known` | gauge | 1 while the age of its data can be said |
//! | `pool_router.node.lag` | gauge, seconds | the age of its data at most: 0 while it is fresh, not a number while it is unknown |
//! | `pool_router.node.lag_bytes` | gauge, bytes | log that it lacks; not a number while that is unknown |
//! | `pool_router.node.drained`, `pool_router.node.ejected` | gauge | 1 while reads are kept away from it by order, or because its connections keep failing |
//! | `pool_router.node.outstanding` | gauge | transactions under way on it |
//! | `pool_router.node.latency` | gauge, seconds | the mean time to an answer |
//! | `pool_router.node.reads`, `pool_router.node.writes` | counter | transactions that ran on it |
//! | `pool_router.node.refused` | counter | reads that it could not prove its promise to |
//! | `pool_router.node.passed_over` | counter | reads that ran on the primary although this replica is there, by `reason` |
//! | `pool_router.writable` | gauge | 1 while a node takes writes and answers |
//! | `pool_router.epoch` | gauge | rises with each change of primary or timeline |
//! | `pool_router.timeline` | gauge | the timeline of the primary |
//! | `pool_router.writes_suspended` | gauge, seconds | how long writes still wait at most; 0 while they are not suspended |
//! | `pool_router.reads_by_order` | gauge | 1 while all reads go to the primary by order |
//! | `pool_router.events` | counter | [events](crate::EventKind), by `kind` |
//!
//! Those that begin with `pool_router.node` carry the label `node`.

use std::time::Instant;

use ::metrics::{counter, gauge};

use crate::events::EventKind;
use crate::lag::Lag;
use crate::orders::Reads;
use crate::status::NodeStatus;
use crate::view::View;

/// Records what is not one node's.
pub(crate) fn whole(view: &View, now: Instant) {
    gauge!("pool_router.writable").set(flag(view.is_led()));
    gauge!("pool_router.epoch").set(number(view.epoch));
    let timeline = view.timeline.map_or(f64::NAN, f64::from);
    gauge!("pool_router.timeline").set(timeline);
    let suspended = view.orders.writes_wait(now).unwrap_or_default();
    gauge!("pool_router.writes_suspended").set(suspended.as_secs_f64());
    gauge!("pool_router.reads_by_order").set(flag(view.orders.reads == Reads::PrimaryOnly));
}

/// Records one node's numbers.
pub(crate) fn node(node: &NodeStatus, takes_writes: bool) {
    let set = |metric: &'static str, value: f64| {
        gauge!(metric, "node" => node.name.clone()).set(value);
    };
    set("pool_router.node.up", flag(node.is_up()));
    set("pool_router.node.primary", flag(takes_writes));
    let lag = match node.lag {
        Lag::Fresh => Some(0.0),
        Lag::Stale(age) => Some(age.as_secs_f64()),
        Lag::Unknown => None,
    };
    set("pool_router.node.lag_known", flag(lag.is_some()));
    set("pool_router.node.lag", lag.unwrap_or(f64::NAN));
    set(
        "pool_router.node.lag_bytes",
        node.lag_bytes.map_or(f64::NAN, number),
    );
    set("pool_router.node.drained", flag(node.drained));
    set("pool_router.node.ejected", flag(node.ejected.is_some()));
    set("pool_router.node.outstanding", f64::from(node.outstanding));
    set("pool_router.node.latency", node.latency.as_secs_f64());
    let count = |metric: &'static str, value: u64| {
        counter!(metric, "node" => node.name.clone()).absolute(value);
    };
    count("pool_router.node.reads", node.counts.reads);
    count("pool_router.node.writes", node.counts.writes);
    count("pool_router.node.refused", node.counts.refused);
    for (reason, value) in &node.counts.passed_over {
        let labels = [
            ("node", node.name.clone()),
            ("reason", format!("{reason:?}")),
        ];
        counter!("pool_router.node.passed_over", &labels).absolute(*value);
    }
}

/// Counts an event.
pub(crate) fn event(kind: &EventKind) {
    counter!("pool_router.events", "kind" => kind.name()).increment(1);
}

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

#[allow(clippy::cast_precision_loss, reason = "for people; exact below 2^53")]
fn number(value: u64) -> f64 {
    value as f64
}
