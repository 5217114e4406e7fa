//! Where the primary stood over time, by our own looks at it.
//!
//! This turns a replica's position into an age without any server's clock: a replica that has replayed all
//! that the primary had when we asked it at `t` shows the data of `t` or later.
//!
//! What always holds: entries ascend in time and in position; all are of one cluster and one timeline. An
//! entry may be dropped at any time: ages then come out greater, never smaller.

use std::time::Instant;

use crate::lsn::Lsn;

/// How many entries are kept. When there are more, every other one of the older half is dropped, so what is
/// kept reaches back for hours, the more coarsely the longer ago.
const KEPT: usize = 512;

/// The primary's positions over time.
#[derive(Clone, Debug, Default)]
pub struct History {
    of: Option<(u64, u32)>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The position was at most this when ...
    position: Lsn,
    /// ... this question was sent.
    asked_at: Instant,
}

impl History {
    /// Notes where the primary of this cluster and timeline stood, as answered to a question sent at
    /// `asked_at`.
    ///
    /// Another cluster or timeline than before begins a new history. A position below the last, on the same
    /// timeline, does too: that log was cut (a crash without its last commits, a restored backup), and what
    /// we knew of it is void.
    pub fn note(&mut self, cluster: u64, timeline: u32, position: Lsn, asked_at: Instant) {
        let cut = self
            .entries
            .last()
            .is_some_and(|last| position < last.position);
        if self.of != Some((cluster, timeline)) || cut {
            self.of = Some((cluster, timeline));
            self.entries.clear();
        }
        match self.entries.last_mut() {
            Some(last) if last.position == position => last.asked_at = last.asked_at.max(asked_at),
            Some(last) if asked_at < last.asked_at => {}
            _ => self.entries.push(Entry { position, asked_at }),
        }
        if self.entries.len() > KEPT {
            let mut index = 0;
            self.entries.retain(|_| {
                index += 1;
                index > KEPT / 2 || index % 2 == 1
            });
        }
    }

    /// The moment whose data a replica that stands here shows, at least: that of our newest look at which
    /// the primary was not beyond it. `None` if it was beyond it at all of them.
    pub fn as_of(&self, replayed: Lsn) -> Option<Instant> {
        let later = self
            .entries
            .partition_point(|entry| entry.position <= replayed);
        later
            .checked_sub(1)
            .map(|newest| self.entries[newest].asked_at)
    }

    /// The primary's last known position.
    pub fn newest(&self) -> Option<Lsn> {
        self.entries.last().map(|entry| entry.position)
    }

    /// Cluster and timeline of the entries.
    pub fn of(&self) -> Option<(u64, u32)> {
        self.of
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn history(start: Instant, entries: &[(u64, u64)]) -> History {
        let mut history = History::default();
        for (position, seconds) in entries {
            history.note(1, 1, Lsn(*position), at(start, *seconds));
        }
        history
    }

    #[test]
    fn a_position_shows_the_data_of_the_newest_look_that_it_covers() {
        let start = Instant::now();
        let history = history(start, &[(100, 0), (200, 1), (300, 2)]);
        assert_eq!(history.as_of(Lsn(300)), Some(at(start, 2)));
        assert_eq!(
            history.as_of(Lsn(299)),
            Some(at(start, 1)),
            "one byte short of the third look"
        );
        assert_eq!(history.as_of(Lsn(100)), Some(at(start, 0)));
        assert_eq!(history.as_of(Lsn(99)), None, "older than anything seen");
    }

    #[test]
    fn an_idle_primary_does_not_age_its_replicas() {
        let start = Instant::now();
        let history = history(start, &[(100, 0), (100, 60), (100, 3600)]);
        assert_eq!(history.as_of(Lsn(100)), Some(at(start, 3600)));
        assert_eq!(history.entries.len(), 1, "an idle primary takes no room");
    }

    #[test]
    fn another_timeline_or_a_cut_log_begins_anew() {
        let start = Instant::now();
        let mut promoted = history(start, &[(100, 0), (200, 1)]);
        promoted.note(1, 2, Lsn(150), at(start, 2));
        assert_eq!(promoted.as_of(Lsn(149)), None);
        let mut cut = history(start, &[(100, 0), (200, 1)]);
        cut.note(1, 1, Lsn(150), at(start, 2));
        assert_eq!(cut.as_of(Lsn(149)), None);
    }

    #[test]
    fn a_long_history_grows_coarse_and_errs_towards_older() {
        let start = Instant::now();
        let all: Vec<(u64, u64)> = (0..5000).map(|second| (second * 10, second)).collect();
        let history = history(start, &all);
        assert!(history.entries.len() <= KEPT);
        for second in [0, 1, 1000, 4000, 4999] {
            let as_of = history
                .as_of(Lsn(second * 10 + 5))
                .expect("within the history");
            assert!(as_of <= at(start, second), "never newer than the truth");
        }
        assert_eq!(
            history.as_of(Lsn(49_990)),
            Some(at(start, 4999)),
            "the newest is exact"
        );
        assert_eq!(history.as_of(Lsn(5)), Some(start), "the oldest is kept");
    }

    #[test]
    fn answers_that_overtake_each_other_do_not_turn_time_back() {
        let start = Instant::now();
        let mut history = history(start, &[(100, 5)]);
        history.note(1, 1, Lsn(200), at(start, 4));
        assert_eq!(history.as_of(Lsn(200)), Some(at(start, 5)));
    }
}
