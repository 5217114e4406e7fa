//! What a commit token asks of a node, given what is known of the cluster's timelines.
//!
//! A position means something on its own timeline only. A token of an older timeline holds on the current one
//! up to where the two part; where that is not known, up to a place that is known to have been replayed
//! before the promotion. Beyond it the honest answer is that nobody can tell.

use std::fmt;

use pool_postgres::CommitToken;

use crate::lsn::Lsn;

/// A timeline that has ended, and how far it is part of the one that followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The timeline that ended.
    pub timeline: u32,
    /// Up to here, at least, it is part of the next timeline.
    pub shared_up_to: Lsn,
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
    let known = forks
        .iter()
        .filter(|fork| fork.timeline == token.timeline && fork.timeline < current);
    let shared = known.map(|fork| fork.shared_up_to).max();
    if token.timeline == current || shared.is_some_and(|shared| position <= shared) {
        Ok(position)
    } else {
        Err(cannot_tell)
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

    #[test]
    fn an_older_token_holds_up_to_what_was_seen_replayed_before_the_promotion() {
        let forks = [Fork {
            timeline: 1,
            shared_up_to: Lsn(0x64),
        }];
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
