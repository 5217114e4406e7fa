//! One look at a node: the statement that asks everything at once, and how its answer is read.
//!
//! The role decides which functions are asked, within the same statement, so a sample is of one moment and
//! one role. A cell that is NULL or that does not read as expected is a fact that is missing.

use std::time::{Duration, Instant, SystemTime};

use crate::floor::{Extent, Fork};
use crate::lsn::{Lsn, WalGeometry};
use crate::sample::{Replay, Role, Sample};

/// Asks a node everything that a [`Sample`] holds.
///
/// Without `pg_monitor` the receiver's row shows NULLs; the control file's timeline then stands in. It trails
/// after a promotion, so it is a timeline that the node has come to for certain.
pub(crate) const STATEMENT: &str = "SELECT r, \
     (SELECT system_identifier FROM pg_control_system()), \
     CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END, \
     CASE WHEN r THEN NULL ELSE left(pg_walfile_name(pg_current_wal_flush_lsn()), 8) END, \
     CASE WHEN r THEN (SELECT received_tli FROM pg_stat_wal_receiver) END, \
     (SELECT timeline_id FROM pg_control_checkpoint()), \
     CASE WHEN r THEN pg_get_wal_replay_pause_state() END, \
     CASE WHEN r AND may THEN EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') END, \
     may, \
     (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint, \
     (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, \
     current_setting('port'), \
     current_setting('wal_block_size'), \
     pg_size_bytes(current_setting('wal_segment_size')) \
     FROM (SELECT pg_is_in_recovery() AS r, pg_has_role('pg_monitor', 'USAGE') AS may OFFSET 0) AS node";

/// Reads the answer to [`STATEMENT`]; `None` if not even the role can be read.
pub(crate) fn read(
    row: &[Option<String>],
    asked_at: Instant,
    round_trip: Duration,
    before: Option<&Sample>,
) -> Option<Sample> {
    let cell = |index: usize| row.get(index).and_then(Option::as_deref);
    let number = |index: usize| cell(index).and_then(|text| text.parse::<u64>().ok());
    let small = |index: usize| number(index).and_then(|number| u32::try_from(number).ok());
    let flag = |index: usize| cell(index).map(|text| text == "t");
    let time = |index: usize| {
        number(index)
            .and_then(|micros| SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(micros)))
    };
    let role = if flag(0)? {
        Role::Replica
    } else {
        Role::Primary
    };
    let started_at = time(9);
    // What this running server said before still holds when its receiver is away: a timeline only rises.
    let same_run = before.filter(|before| started_at.is_some() && before.started_at == started_at);
    let timeline = match role {
        Role::Primary => cell(3).and_then(|digits| u32::from_str_radix(digits, 16).ok()),
        Role::Replica => {
            let remembered = same_run.and_then(|before| before.timeline);
            small(4).or(remembered.max(small(5)))
        }
    };
    let told = role == Role::Replica && small(4).is_some();
    let told_before = same_run.filter(|before| before.told_timeline && role == before.role);
    let geometry = match (number(12), number(13)) {
        (Some(page), Some(segment)) => Some(WalGeometry { page, segment }),
        _ => None,
    };
    Some(Sample {
        system_identifier: number(1),
        timeline: timeline.filter(|timeline| *timeline > 0),
        told_timeline: told || told_before.is_some(),
        position: cell(2)
            .and_then(|text| text.parse::<Lsn>().ok())
            .map(|at| at.settled(geometry))
            // The receiver may have followed a promotion and gone away since: what lies beyond may be of that timeline.
            .map(|at| match told_before {
                Some(before) if !told => before.position.map_or(at, |before| at.min(before)),
                _ => at,
            }),
        geometry,
        started_at,
        server_port: number(11).and_then(|port| u16::try_from(port).ok()),
        replay: cell(6).map(|state| match state {
            "not paused" => Replay::Running,
            _ => Replay::Paused,
        }),
        receiving: flag(7),
        server_time: time(10),
        may_monitor: flag(8),
        round_trip,
        ..Sample::bare(role, asked_at)
    })
}

/// Asks a primary for its timeline's history file, if the user may read files; NULL otherwise.
pub(crate) fn history_statement(timeline: u32) -> String {
    format!(
        "SELECT CASE WHEN has_function_privilege('pg_read_file(text,bigint,bigint,boolean)', 'execute') \
         THEN pg_read_file('pg_wal/{timeline:08X}.history', 0, 65536, true) END"
    )
}

/// Reads the history file of a timeline: a line for each that came before, with the position at which the next one
/// left it.
///
/// A server that is promoted before it has reached where the timeline it follows began leaves both at once: the
/// file then names a later position for the earlier one than for the one that followed.
pub(crate) fn read_history(into: u32, file: &str) -> Vec<Fork> {
    let fork = |line: &str| {
        let mut words = line.split_whitespace();
        let timeline = words.next()?.parse().ok()?;
        Some(Fork {
            timeline,
            into,
            shared_up_to: words.next()?.parse().ok()?,
            extent: Extent::Exactly,
        })
    };
    let mut forks: Vec<Fork> = file.lines().filter_map(fork).collect();
    let mut earliest = Lsn(u64::MAX);
    for fork in forks.iter_mut().rev() {
        earliest = earliest.min(fork.shared_up_to);
        fork.shared_up_to = earliest;
    }
    forks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[Option<&str>]) -> Vec<Option<String>> {
        cells.iter().map(|cell| cell.map(str::to_owned)).collect()
    }

    fn replica(received_tli: Option<&str>, started: &str) -> Vec<Option<String>> {
        row(&[
            Some("t"),
            Some("7413218822217034291"),
            Some("0/3000060"),
            None,
            received_tli,
            Some("1"),
            Some("not paused"),
            Some("t"),
            Some("t"),
            Some(started),
            Some("1764000001000000"),
            Some("5432"),
            Some("8192"),
            Some("16777216"),
        ])
    }

    fn read_now(row: &[Option<String>], before: Option<&Sample>) -> Option<Sample> {
        read(row, Instant::now(), Duration::from_millis(1), before)
    }

    #[test]
    fn a_replicas_answer_is_read_whole() {
        let sample = read_now(&replica(Some("2"), "1764000000000000"), None).expect("a sample");
        assert_eq!(sample.role, Role::Replica);
        assert_eq!(sample.system_identifier, Some(7_413_218_822_217_034_291));
        assert_eq!(
            (sample.timeline, sample.position),
            (Some(2), Some(Lsn(0x0300_0060)))
        );
        assert_eq!(
            (sample.replay, sample.receiving),
            (Some(Replay::Running), Some(true))
        );
        assert_eq!(
            (sample.server_port, sample.may_monitor),
            (Some(5432), Some(true))
        );
    }

    #[test]
    fn while_the_receiver_is_away_the_same_run_keeps_its_timeline() {
        let before = read_now(&replica(Some("3"), "1764000000000000"), None).expect("a sample");
        let later = read_now(&replica(None, "1764000000000000"), Some(&before)).expect("a sample");
        assert_eq!(later.timeline, Some(3));
        let restarted =
            read_now(&replica(None, "1764000009000000"), Some(&before)).expect("a sample");
        assert_eq!(
            restarted.timeline,
            Some(1),
            "what the control file says for certain"
        );
    }

    #[test]
    fn while_the_receiver_is_away_only_what_was_seen_before_is_of_the_same_timeline() {
        let before = read_now(&replica(Some("1"), "1764000000000000"), None).expect("a sample");
        let mut away = replica(None, "1764000000000000");
        away[2] = Some("0/4000060".to_owned());
        let later = read_now(&away, Some(&before)).expect("a sample");
        assert_eq!((later.timeline, later.position), (Some(1), before.position));
        let still = read_now(&away, Some(&later)).expect("a sample");
        assert_eq!(still.position, before.position);
        // Where the receiver never tells, as without pg_monitor, the last checkpoint's timeline has to do.
        let never = read_now(&replica(None, "1764000000000000"), None).expect("a sample");
        let later = read_now(&away, Some(&never)).expect("a sample");
        assert_eq!(later.position, Some(Lsn(0x0400_0060)));
    }

    #[test]
    fn what_is_missing_or_unreadable_stays_missing() {
        let nothing = row(&[Some("t"), None, None, None, Some("x"), None, None, None]);
        let sample = read_now(&nothing, None).expect("the role is there");
        let asked_at = sample.asked_at;
        let bare = Sample {
            round_trip: Duration::from_millis(1),
            ..Sample::bare(Role::Replica, asked_at)
        };
        assert_eq!(sample, bare);
        assert_eq!(read_now(&[], None), None);
    }

    #[test]
    fn a_history_file_is_read_line_by_line() {
        let file =
            "1\t0/3000148\tno recovery target specified\n\n# a comment\n2\t0/50000A0\treason\n";
        let forks = [(1, 0x0300_0148), (2, 0x0500_00A0)];
        let forks = forks.map(|(timeline, at)| Fork {
            timeline,
            into: 3,
            shared_up_to: Lsn(at),
            extent: Extent::Exactly,
        });
        assert_eq!(read_history(3, file), forks);
        let back = "1\t0/50000A0\tx\n2\t0/3000148\tx\n";
        let shared: Vec<_> = read_history(3, back)
            .iter()
            .map(|fork| fork.shared_up_to)
            .collect();
        assert_eq!(shared, [Lsn(0x0300_0148); 2]);
    }

    #[test]
    fn a_primary_tells_its_timeline_by_its_log_file() {
        let mut primary = replica(None, "1764000000000000");
        (primary[0], primary[3]) = (Some("f".to_owned()), Some("0000000A".to_owned()));
        assert_eq!(
            read_now(&primary, None).and_then(|sample| sample.timeline),
            Some(10)
        );
    }
}
