//! What a commit token asks of a node, given what is known of the cluster's timelines.
//!
//! A position means something on its own timeline only. A token of an older timeline holds on the current one
//! up to where the two part. The current timeline's history file says where that is; beyond it the write is lost.
//! Without the file there is only what replicas were seen to have replayed before they were promoted: beyond that
//! the honest answer is that nobody can tell.

use std::fmt;

use pool_postgres::{CommitToken, Strength};

use crate::lsn::Lsn;

/// How much of a timeline is part of a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The timeline that was left.
    pub timeline: u32,
    /// The later one.
    pub into: u32,
    /// Up to here the first is part of the second.
    pub shared_up_to: Lsn,
    /// Whether that is all of it.
    pub extent: Extent,
}

/// How well a [`Fork`] is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// More may be shared: a replica was seen there before its promotion.
    AtLeast,
    /// The later timeline's history file says so, and it names every timeline that is part of the later one.
    Exactly,
}

/// Why a token cannot be honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenRefusal {
    /// It is of another cluster: a position there means nothing here.
    OfAnotherCluster {
        /// The token's system identifier.
        token: u64,
        /// This cluster's.
        ours: u64,
    },
    /// It is of an older timeline, beyond what is known to have survived the promotion, or of one that no
    /// node is known to be on. The write it stands for may be here, or may have been lost.
    CannotTell {
        /// The token's timeline.
        token: u32,
        /// The current one, where it is known.
        ours: Option<u32>,
    },
    /// It is of an older timeline, beyond where the current one left it: the write was not replicated in time, and
    /// the failover lost it.
    LostInFailover {
        /// The token's timeline.
        token: u32,
        /// Its position.
        position: Lsn,
        /// The current timeline.
        ours: u32,
        /// Up to where the current one has the token's; `None` where it has nothing of it.
        shared_up_to: Option<Lsn>,
    },
    /// The primary, on the token's own timeline, stands before the token's position: the write was there and
    /// is no longer (a crash without synchronous commit, a restored backup).
    WriteLost {
        /// The token's position.
        token: Lsn,
        /// The primary's.
        primary: Lsn,
    },
}

impl fmt::Display for TokenRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfAnotherCluster { token, ours } => write!(
                f,
                "the token is of cluster {token}, and this is cluster {ours}: keep the tokens of different \
                 databases apart"
            ),
            Self::CannotTell { token, ours } => {
                write!(
                    f,
                    "the token is of timeline {token}, and the primary is on "
                )?;
                match ours {
                    Some(ours) => write!(f, "timeline {ours}")?,
                    None => f.write_str("a timeline that is not known")?,
                }
                f.write_str(
                    ": whether its write survived the change cannot be told; read without the token and look \
                     for the write itself",
                )
            }
            Self::LostInFailover {
                token,
                position,
                ours,
                shared_up_to,
            } => {
                write!(
                    f,
                    "the token stands for a write at {position} on timeline {token}, and timeline {ours} has "
                )?;
                match shared_up_to {
                    Some(shared) => write!(f, "only what is before {shared} of that")?,
                    None => f.write_str("nothing of that")?,
                }
                f.write_str(": that write was lost in a failover")
            }
            Self::WriteLost { token, primary } => write!(
                f,
                "the token stands for a write at {token}, and the primary's log ends at {primary}: that write \
                 was lost"
            ),
        }
    }
}

impl std::error::Error for TokenRefusal {}

/// The position that a node on timeline `current` must have reached for the token's sake.
///
/// # Errors
/// Where the timelines do not allow an answer.
pub(crate) fn floor_of(
    token: &CommitToken,
    current: Option<u32>,
    forks: &[Fork],
) -> Result<Lsn, TokenRefusal> {
    let cannot_tell = TokenRefusal::CannotTell {
        token: token.timeline,
        ours: current,
    };
    let Some(current) = current else {
        return Err(cannot_tell);
    };
    let position = Lsn(token.position);
    if token.timeline == current {
        return Ok(position);
    }
    if token.timeline > current {
        return Err(cannot_tell);
    }
    let shared_up_to = shared(token.timeline, current, forks);
    if shared_up_to.is_some_and(|shared| position <= shared) {
        // The commit of a weak token may lie beyond its position, and so beyond the fork.
        return match token.strength {
            Strength::Strong => Ok(position),
            Strength::Weak => Err(cannot_tell),
        };
    }
    let all_is_known = forks
        .iter()
        .any(|fork| fork.into == current && fork.extent == Extent::Exactly);
    Err(if all_is_known {
        TokenRefusal::LostInFailover {
            token: token.timeline,
            position,
            ours: current,
            shared_up_to,
        }
    } else {
        cannot_tell
    })
}

/// Up to where a timeline is known to be part of a later one, directly or through others between them.
fn shared(timeline: u32, current: u32, forks: &[Fork]) -> Option<Lsn> {
    let ways = forks
        .iter()
        .filter(|fork| fork.timeline == timeline && timeline < fork.into && fork.into <= current);
    ways.filter_map(|fork| {
        let beyond = if fork.into == current {
            fork.shared_up_to
        } else {
            shared(fork.into, current, forks)?
        };
        Some(fork.shared_up_to.min(beyond))
    })
    .max()
}

/// Adds what is newly known.
pub(crate) fn learn(forks: &mut Vec<Fork>, fork: Fork) {
    if fork.extent == Extent::Exactly {
        // Its timeline's history names all that came before: the ways between those are not needed any more.
        forks.retain(|known| known.into >= fork.into);
    }
    let same = |known: &&mut Fork| (known.timeline, known.into) == (fork.timeline, fork.into);
    match forks.iter_mut().find(same) {
        Some(known) if known.extent == fork.extent => {
            known.shared_up_to = known.shared_up_to.max(fork.shared_up_to);
        }
        Some(known) if known.extent < fork.extent => *known = fork,
        Some(_) => {}
        None => forks.push(fork),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> CommitToken {
        text.parse().expect("a well-formed token")
    }

    #[test]
    fn a_token_of_the_current_timeline_asks_for_its_position() {
        assert_eq!(floor_of(&token("1.a.2.64.s"), Some(2), &[]), Ok(Lsn(0x64)));
    }

    fn fork(timeline: u32, into: u32, at: u64, extent: Extent) -> Fork {
        Fork {
            timeline,
            into,
            shared_up_to: Lsn(at),
            extent,
        }
    }

    #[test]
    fn an_older_token_holds_up_to_what_was_seen_replayed_before_the_promotion() {
        let forks = [fork(1, 2, 0x64, Extent::AtLeast)];
        assert_eq!(
            floor_of(&token("1.a.1.64.s"), Some(2), &forks),
            Ok(Lsn(0x64))
        );
        let beyond = floor_of(&token("1.a.1.65.s"), Some(2), &forks);
        assert_eq!(
            beyond,
            Err(TokenRefusal::CannotTell {
                token: 1,
                ours: Some(2)
            })
        );
    }

    #[test]
    fn a_weak_token_of_an_older_timeline_cannot_be_told() {
        // Its commit may lie beyond its position, and so beyond the fork.
        let forks = [fork(1, 2, 0x64, Extent::Exactly)];
        let told = floor_of(&token("1.a.1.10.w"), Some(2), &forks);
        assert!(matches!(told, Err(TokenRefusal::CannotTell { .. })));
        assert_eq!(
            floor_of(&token("1.a.2.10.w"), Some(2), &forks),
            Ok(Lsn(0x10))
        );
        let lost = floor_of(&token("1.a.1.65.w"), Some(2), &forks);
        assert!(matches!(lost, Err(TokenRefusal::LostInFailover { .. })));
    }

    #[test]
    fn by_the_history_file_what_lies_beyond_the_fork_is_lost() {
        let forks = [
            fork(1, 3, 0x64, Extent::Exactly),
            fork(1, 3, 0x10, Extent::AtLeast),
        ];
        let mut known = Vec::new();
        for fork in forks {
            learn(&mut known, fork);
        }
        assert_eq!(known, forks[..1]);
        let told = |text| floor_of(&token(text), Some(3), &known);
        assert_eq!(told("1.a.1.64.s"), Ok(Lsn(0x64)));
        let lost = |token, position, shared_up_to| {
            Err(TokenRefusal::LostInFailover {
                token,
                position: Lsn(position),
                ours: 3,
                shared_up_to,
            })
        };
        assert_eq!(told("1.a.1.65.s"), lost(1, 0x65, Some(Lsn(0x64))));
        // Nobody followed timeline 2, so nothing of it is left.
        assert_eq!(told("1.a.2.1.s"), lost(2, 1, None));
    }

    #[test]
    fn through_several_promotions_a_token_holds_up_to_the_earliest_fork() {
        let mut forks = Vec::new();
        for (timeline, at) in [(1, 0x64), (2, 0x50)] {
            learn(
                &mut forks,
                fork(timeline, timeline + 1, at, Extent::AtLeast),
            );
        }
        let told = |text| floor_of(&token(text), Some(3), &forks);
        assert_eq!(told("1.a.1.50.s"), Ok(Lsn(0x50)));
        assert!(matches!(
            told("1.a.1.51.s"),
            Err(TokenRefusal::CannotTell { .. })
        ));
        // The last of them was seen by nobody: what is known of the first says nothing.
        let unseen = floor_of(&token("1.a.1.10.s"), Some(4), &forks);
        assert!(matches!(unseen, Err(TokenRefusal::CannotTell { .. })));
    }

    #[test]
    fn what_a_history_file_says_replaces_what_led_there() {
        let mut forks = vec![
            fork(1, 2, 0x64, Extent::AtLeast),
            fork(2, 3, 0x70, Extent::AtLeast),
        ];
        learn(&mut forks, fork(1, 3, 0x66, Extent::Exactly));
        learn(&mut forks, fork(2, 3, 0x72, Extent::Exactly));
        assert_eq!(
            forks,
            [
                fork(2, 3, 0x72, Extent::Exactly),
                fork(1, 3, 0x66, Extent::Exactly)
            ]
        );
    }

    #[test]
    fn without_a_known_fork_nobody_can_tell() {
        for (current, name) in [(Some(2), "older"), (None, "unknown"), (Some(1), "newer")] {
            let text = if name == "newer" {
                "1.a.2.1.s"
            } else {
                "1.a.1.1.s"
            };
            assert!(
                matches!(
                    floor_of(&token(text), current, &[]),
                    Err(TokenRefusal::CannotTell { .. })
                ),
                "{name}"
            );
        }
    }
}
