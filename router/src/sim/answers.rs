//! What a simulated server answers to the statements that ship: the same cells, as text.
//!
//! It looks into the statement for the functions that tell a position, so that a statement which asks for another one
//! is answered otherwise.

use crate::{look, proof};

use super::world::{Micros, Server};

/// Since when virtual time counts, by the servers' clocks: microseconds of the Unix epoch.
const EPOCH: i64 = 1_764_000_000_000_000;

pub(super) type Row = Vec<Option<String>>;

/// What a server said about itself, as the checker keeps it: from the truth, not from the cells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) primary: bool,
    pub(super) system: u64,
    /// A replica without a receiver doesn't say.
    pub(super) line: Option<u32>,
    pub(super) position: u64,
    pub(super) paused: bool,
}

impl Told {
    pub(super) fn of(server: &Server) -> Self {
        Self {
            primary: server.primary,
            system: server.system,
            line: (server.primary || server.streaming).then_some(server.line),
            position: if server.primary {
                server.flushed
            } else {
                server.replayed
            },
            paused: server.paused,
        }
    }
}

/// The answer to a monitor's statement.
pub(super) fn looked(server: &Server, node: usize, now: Micros) -> Row {
    let standby = !server.primary;
    let clock = EPOCH + i64::try_from(now).unwrap_or_default() + server.clock;
    vec![
        Some(if standby { "t" } else { "f" }.to_owned()),
        Some(server.system.to_string()),
        Some(lsn(position(look::STATEMENT, server))),
        server.primary.then(|| format!("{:08X}", server.line)),
        server.streaming.then(|| server.line.to_string()),
        Some(server.checkpoint.to_string()),
        standby.then(|| {
            if server.paused {
                "paused"
            } else {
                "not paused"
            }
            .to_owned()
        }),
        standby.then(|| if server.streaming { "t" } else { "f" }.to_owned()),
        Some("t".to_owned()),
        Some((EPOCH + server.started).to_string()),
        Some(clock.to_string()),
        Some((5432 + node).to_string()),
        Some("8192".to_owned()),
        Some("16777216".to_owned()),
    ]
}

/// The answer to the proof's statement.
pub(super) fn testified(server: &Server) -> Row {
    vec![
        Some(if server.primary { "f" } else { "t" }.to_owned()),
        Some(lsn(position(proof::STATEMENT, server))),
        if server.primary {
            Some(format!("{:08X}", server.line))
        } else {
            server.streaming.then(|| server.line.to_string())
        },
    ]
}

/// A timeline's history file.
pub(super) fn history(ends: &[(u32, u64)]) -> String {
    let lines = ends
        .iter()
        .map(|(line, at)| format!("{line}\t{}\tno recovery target specified\n", lsn(*at)));
    lines.collect()
}

fn position(statement: &str, server: &Server) -> u64 {
    let asks = |function: &str| statement.contains(function);
    if server.primary {
        if asks("ELSE pg_current_wal_flush_lsn()") {
            return server.flushed;
        }
        assert!(
            asks("ELSE pg_current_wal_insert_lsn()"),
            "an unknown position of a primary"
        );
        return server.written;
    }
    if asks("THEN pg_last_wal_replay_lsn()") {
        return server.replayed;
    }
    assert!(
        asks("THEN pg_last_wal_receive_lsn()"),
        "an unknown position of a replica"
    );
    server.written
}

fn lsn(position: u64) -> String {
    crate::lsn::Lsn(position).to_string()
}
