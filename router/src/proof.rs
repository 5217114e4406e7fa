//! What a node says on the very connection that a read will use, and whether that keeps the promise.
//!
//! The statement travels in front of `BEGIN`, so what it reports was true before the snapshot was taken. The
//! verdict is a pure function of the answer, the newest view and the time.

use std::fmt;
use std::time::{Duration, Instant};

use pool_postgres::CommitToken;

use crate::floor::{TokenRefusal, floor_of};
use crate::lsn::Lsn;
use crate::plan::Proof;
use crate::sample::Role;
use crate::view::View;

/// Asks for role, position and timeline. The role decides which function is asked for the position: on a
/// promoted server the replay position still answers, frozen where the timelines part.
pub(crate) const STATEMENT: &str = "SELECT r, \
     CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END, \
     CASE WHEN r THEN (SELECT received_tli::text FROM pg_stat_wal_receiver) \
          ELSE left(pg_walfile_name(pg_current_wal_flush_lsn()), 8) END \
     FROM (SELECT pg_is_in_recovery() AS r OFFSET 0) AS node";

/// What a node said on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Testimony {
    /// Primary or replica.
    pub role: Role,
    /// Flushed on a primary, replayed on a replica.
    pub position: Option<Lsn>,
    /// A primary's own; on a replica the one that it receives, where it does and may say so.
    pub timeline: Option<u32>,
}

/// Why a node's testimony does not keep a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unproved {
    /// It did not answer as expected.
    Unreadable,
    /// It is no longer what it was taken for.
    OtherRole(Role),
    /// It is on another timeline, or nobody knows on which.
    OtherTimeline(Option<u32>),
    /// It stands before the place that the token asks for.
    Behind {
        /// Where it has to be.
        needed: Lsn,
        /// Where it is.
        reached: Lsn,
    },
    /// Its data may be older than the read allows. `None` where no age can be told.
    TooOld(Option<Duration>),
    /// The token itself cannot be honoured.
    Token(TokenRefusal),
}

impl fmt::Display for Unproved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => f.write_str("it did not say where it stands"),
            Self::OtherRole(Role::Primary) => f.write_str("it is a primary now"),
            Self::OtherRole(Role::Replica) => f.write_str("it is a replica now"),
            Self::OtherTimeline(Some(timeline)) => write!(f, "it is on timeline {timeline}"),
            Self::OtherTimeline(None) => f.write_str("its timeline is not known"),
            Self::Behind { needed, reached } => {
                write!(
                    f,
                    "it has replayed up to {reached}, and the token stands at {needed}"
                )
            }
            Self::TooOld(Some(age)) => write!(f, "its data may be {age:.1?} old"),
            Self::TooOld(None) => f.write_str("the age of its data is not known"),
            Self::Token(refusal) => refusal.fmt(f),
        }
    }
}

impl Testimony {
    /// Reads the answer to the proof's statement.
    pub(crate) fn read(rows: &[Vec<Option<String>>]) -> Option<Self> {
        let [row] = rows else { return None };
        let [Some(recovery), position, timeline] = row.as_slice() else {
            return None;
        };
        let role = if recovery == "t" {
            Role::Replica
        } else {
            Role::Primary
        };
        let radix = if role == Role::Replica { 10 } else { 16 };
        Some(Self {
            role,
            position: position.as_ref().and_then(|text| text.parse().ok()),
            timeline: timeline
                .as_ref()
                .and_then(|text| u32::from_str_radix(text, radix).ok())
                .filter(|timeline| *timeline > 0),
        })
    }

    /// Holds the testimony against what the node has to prove.
    ///
    /// # Errors
    /// What it fails in.
    pub(crate) fn proves(
        &self,
        proof: Proof,
        view: &View,
        node: usize,
        now: Instant,
    ) -> Result<(), Unproved> {
        let expected = if view.primary == Some(node) {
            Role::Primary
        } else {
            Role::Replica
        };
        if self.role != expected {
            return Err(Unproved::OtherRole(self.role));
        }
        match (self.role, proof) {
            (_, Proof::Nothing) => Ok(()),
            (Role::Primary, Proof::Age(_) | Proof::Primary) => self.leads(view),
            (Role::Primary, Proof::Token(token)) => self.holds_on_primary(&token, view, node),
            (Role::Replica, Proof::Primary) => Err(Unproved::OtherRole(Role::Replica)),
            (Role::Replica, Proof::Age(bound)) => {
                self.follows(view, node)?;
                let position = self.credible(view, node).ok_or(Unproved::TooOld(None))?;
                let age = view
                    .history
                    .as_of(position)
                    .map(|as_of| now.saturating_duration_since(as_of));
                if age.is_some_and(|age| age <= bound) {
                    Ok(())
                } else {
                    Err(Unproved::TooOld(age))
                }
            }
            (Role::Replica, Proof::Token(token)) => {
                self.follows(view, node)?;
                let floor =
                    floor_of(&token, view.timeline, &view.forks).map_err(Unproved::Token)?;
                self.reaches(floor, view, node)
            }
        }
    }

    /// A primary's timeline must not be lower than the highest seen.
    fn leads(&self, view: &View) -> Result<(), Unproved> {
        let leads = self.timeline.is_some() && self.timeline >= view.timeline;
        if leads {
            Ok(())
        } else {
            Err(Unproved::OtherTimeline(self.timeline))
        }
    }

    /// A replica must be on the primary's timeline. Where it does not say on this connection (its receiver
    /// is away, or the user may not see it), its monitor's knowledge has to do: a server's timeline only
    /// rises, and the monitor's was no higher than the primary's.
    fn follows(&self, view: &View, node: usize) -> Result<(), Unproved> {
        let known = || {
            view.nodes[node]
                .sample
                .as_ref()
                .and_then(|sample| sample.timeline)
        };
        let timeline = self.timeline.or_else(known);
        let follows = timeline.is_some() && timeline == view.timeline;
        if follows {
            Ok(())
        } else {
            Err(Unproved::OtherTimeline(timeline))
        }
    }

    /// The position, as far as it is sure to be of the timeline. Where a replica's receiver has gone away, it may have
    /// followed a promotion before, and what lies beyond the monitor's last look may be of the new timeline.
    fn credible(&self, view: &View, node: usize) -> Option<Lsn> {
        let position = self.position?;
        let seen = view.nodes[node].sample.as_ref();
        let told = seen.filter(|sample| sample.told_timeline && self.role == Role::Replica);
        Some(match (self.timeline, told) {
            (None, Some(seen)) => position.min(seen.position?),
            _ => position,
        })
    }

    fn holds_on_primary(
        &self,
        token: &CommitToken,
        view: &View,
        node: usize,
    ) -> Result<(), Unproved> {
        self.leads(view)?;
        let floor = floor_of(token, self.timeline, &view.forks).map_err(Unproved::Token)?;
        self.reaches(floor, view, node)
            .map_err(|unproved| match unproved {
                Unproved::Behind { needed, reached } => Unproved::Token(TokenRefusal::WriteLost {
                    token: needed,
                    primary: reached,
                }),
                other => other,
            })
    }

    fn reaches(&self, floor: Lsn, view: &View, node: usize) -> Result<(), Unproved> {
        let geometry = view.nodes[node]
            .sample
            .as_ref()
            .and_then(|sample| sample.geometry);
        let reached = self.credible(view, node).ok_or(Unproved::Unreadable)?;
        if reached.settled(geometry) >= floor.settled(geometry) {
            Ok(())
        } else {
            Err(Unproved::Behind {
                needed: floor,
                reached,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::evidence::Evidence;
    use crate::sample::Sample;

    const SECOND: Duration = Duration::from_secs(1);

    fn view(now: Instant) -> View {
        let mut evidence = Evidence::new(
            10,
            [("p".into(), Arc::default()), ("r".into(), Arc::default())],
        );
        for (node, role) in [(0, Role::Primary), (1, Role::Replica)] {
            evidence.answered(
                node,
                Sample {
                    system_identifier: Some(10),
                    timeline: Some(2),
                    position: Some(Lsn(0x64)),
                    ..Sample::bare(role, now)
                },
            );
        }
        evidence.view()
    }

    fn replica(position: u64) -> Testimony {
        Testimony {
            role: Role::Replica,
            position: Some(Lsn(position)),
            timeline: Some(2),
        }
    }

    fn primary(position: u64, timeline: u32) -> Testimony {
        Testimony {
            role: Role::Primary,
            position: Some(Lsn(position)),
            timeline: Some(timeline),
        }
    }

    fn token(text: &str) -> Proof {
        Proof::Token(text.parse().expect("a well-formed token"))
    }

    fn row(cells: [Option<&str>; 3]) -> Vec<Vec<Option<String>>> {
        vec![cells.map(|cell| cell.map(str::to_owned)).to_vec()]
    }

    #[test]
    fn an_answer_is_read_by_role_and_what_is_missing_stays_missing() {
        let read = |cells| Testimony::read(&row(cells));
        assert_eq!(
            read([Some("t"), Some("0/64"), Some("12")]).map(|said| said.timeline),
            Some(Some(12))
        );
        assert_eq!(
            read([Some("f"), Some("0/64"), Some("0000000C")]),
            Some(primary(0x64, 12))
        );
        let silent = Testimony {
            role: Role::Replica,
            position: None,
            timeline: None,
        };
        assert_eq!(read([Some("t"), None, None]), Some(silent));
        assert_eq!(Testimony::read(&[]), None);
    }

    #[test]
    fn a_replica_reaches_a_token_or_does_not() {
        let (now, view) = (Instant::now(), view(Instant::now()));
        let token = token("1.a.2.64.s");
        assert_eq!(replica(0x64).proves(token, &view, 1, now), Ok(()));
        let behind = Unproved::Behind {
            needed: Lsn(0x64),
            reached: Lsn(0x63),
        };
        assert_eq!(replica(0x63).proves(token, &view, 1, now), Err(behind));
        let silent = Testimony {
            position: None,
            ..replica(0)
        };
        assert_eq!(
            silent.proves(token, &view, 1, now),
            Err(Unproved::Unreadable)
        );
    }

    #[test]
    fn an_age_is_proved_at_the_time_of_the_answer() {
        let start = Instant::now();
        let view = view(start);
        let bound = Proof::Age(SECOND);
        assert_eq!(
            replica(0x64).proves(bound, &view, 1, start + SECOND),
            Ok(())
        );
        let old = Err(Unproved::TooOld(Some(2 * SECOND)));
        assert_eq!(
            replica(0x64).proves(bound, &view, 1, start + 2 * SECOND),
            old
        );
        assert_eq!(
            replica(0x63).proves(bound, &view, 1, start),
            Err(Unproved::TooOld(None))
        );
    }

    #[test]
    fn without_a_receiver_a_replica_proves_no_more_than_its_monitor_saw() {
        let (now, mut view) = (Instant::now(), view(Instant::now()));
        let silent = Testimony {
            timeline: None,
            ..replica(0x70)
        };
        let beyond = token("1.a.2.66.s");
        assert_eq!(
            silent.proves(beyond, &view, 1, now),
            Ok(()),
            "as without pg_monitor"
        );
        let sample = view.nodes[1].sample.as_mut().expect("a sample");
        sample.told_timeline = true;
        let seen = Unproved::Behind {
            needed: Lsn(0x66),
            reached: Lsn(0x64),
        };
        assert_eq!(silent.proves(beyond, &view, 1, now), Err(seen));
        assert_eq!(silent.proves(token("1.a.2.64.s"), &view, 1, now), Ok(()));
        assert_eq!(replica(0x70).proves(beyond, &view, 1, now), Ok(()));
    }

    #[test]
    fn a_changed_role_proves_nothing() {
        let (now, view) = (Instant::now(), view(Instant::now()));
        let promoted = primary(0x100, 3).proves(Proof::Age(SECOND), &view, 1, now);
        assert_eq!(promoted, Err(Unproved::OtherRole(Role::Primary)));
        let demoted = replica(0x100).proves(Proof::Primary, &view, 0, now);
        assert_eq!(demoted, Err(Unproved::OtherRole(Role::Replica)));
    }

    #[test]
    fn a_lower_timeline_proves_nothing() {
        let (now, view) = (Instant::now(), view(Instant::now()));
        let left_behind = Testimony {
            timeline: Some(1),
            ..replica(0x100)
        };
        let refused = left_behind.proves(Proof::Age(SECOND), &view, 1, now);
        assert_eq!(refused, Err(Unproved::OtherTimeline(Some(1))));
        assert_eq!(
            primary(0x100, 1).proves(Proof::Primary, &view, 0, now),
            Err(Unproved::OtherTimeline(Some(1)))
        );
        assert_eq!(
            primary(0x100, 2).proves(Proof::Primary, &view, 0, now),
            Ok(())
        );
    }

    #[test]
    fn a_primary_before_the_token_has_lost_the_write() {
        let (now, view) = (Instant::now(), view(Instant::now()));
        let lost = TokenRefusal::WriteLost {
            token: Lsn(0x64),
            primary: Lsn(0x60),
        };
        let verdict = primary(0x60, 2).proves(token("1.a.2.64.s"), &view, 0, now);
        assert_eq!(verdict, Err(Unproved::Token(lost)));
    }

    #[test]
    fn a_primary_beyond_an_unknown_fork_cannot_tell() {
        let (now, view) = (Instant::now(), view(Instant::now()));
        let unknown = TokenRefusal::CannotTell {
            token: 2,
            ours: Some(3),
        };
        let verdict = primary(0x100, 3).proves(token("1.a.2.64.s"), &view, 0, now);
        assert_eq!(verdict, Err(Unproved::Token(unknown)));
    }
}
