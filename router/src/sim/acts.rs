//! What is done to a simulated cluster, and what its clients do: each act at its time, with a text form.
//!
//! The text is what a failing seed prints and what a kept story consists of, one act a line, so that a kept story
//! outlives changes of the generator. An act that makes no sense where it happens (a crash of what is down) does
//! nothing: so any act can be left out of a story.

use std::fmt;
use std::str::FromStr;

use super::world::Micros;

/// One act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Act {
    pub(super) at: Micros,
    pub(super) what: What,
}

macro_rules! acts {
    ($($(#[$doc:meta])* $variant:ident = $word:literal ($($field:ident),*),)*) => {
        /// What happens. Nodes and processes (routers) are indices; `pick` is a throw of the dice that chooses among
        /// what there is at that time.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum What {
            $($(#[$doc])* $variant { $($field: u64),* },)*
        }

        impl fmt::Display for Act {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} ", self.at)?;
                match self.what {
                    $(What::$variant { $($field),* } => {
                        f.write_str($word)?;
                        $(write!(f, " {}={}", stringify!($field), $field)?;)*
                    })*
                }
                Ok(())
            }
        }

        impl FromStr for Act {
            type Err = String;

            fn from_str(line: &str) -> Result<Self, String> {
                let mut words = line.split_whitespace();
                let at = words.next().and_then(|word| word.parse().ok());
                let at = at.ok_or_else(|| format!("no time in {line:?}"))?;
                let name = words.next().unwrap_or_default();
                let what = match name {
                    $($word => What::$variant { $($field: value(&mut words, stringify!($field), line)?),* },)*
                    _ => return Err(format!("no act is called {name:?}")),
                };
                Ok(Self { at, what })
            }
        }
    };
}

acts! {
    /// A server's process ends at once; what it had flushed stays.
    Crash = "crash" (node),
    /// A primary's process ends at once, and what no replica has received of its log is lost besides.
    Lose = "lose" (node),
    /// A server that is down starts as what it was.
    Start = "start" (node),
    /// A server that is down starts as a standby of another one, without being rewound.
    Demote = "demote" (node, upstream),
    /// A server that is down is rewound to another one's log and starts as its standby.
    Rewind = "rewind" (node, upstream),
    /// A standby that is down comes up as a server of another cluster.
    Swap = "swap" (node),
    /// A server answers nothing for the time being.
    Freeze = "freeze" (node),
    /// It goes on.
    Thaw = "thaw" (node),
    /// A replica stops replaying.
    Pause = "pause" (node),
    /// It goes on replaying.
    Resume = "resume" (node),
    /// A replica replays slowly.
    Slow = "slow" (node),
    /// It replays as it can.
    Fast = "fast" (node),
    /// A replica's receiver is cut off.
    Cut = "cut" (node),
    /// It may connect again.
    Mend = "mend" (node),
    /// A replica replays what it has and becomes a primary, on the next free timeline.
    Promote = "promote" (node),
    /// A replica is told another upstream.
    Follow = "follow" (node, upstream),
    /// A server's clock jumps back or forth.
    Clock = "clock" (node, seconds),
    /// Nothing passes between a process and a node.
    Part = "part" (process, node),
    /// It passes again.
    Join = "join" (process, node),
    /// What passes between a process and a node takes about so long each way.
    Delay = "delay" (process, node, micros),
    /// An operator keeps reads from a node, in one process.
    Drain = "drain" (process, node),
    /// An operator lets them go there again.
    Undrain = "undrain" (process, node),
    /// An operator sends all reads to the primary.
    PrimaryOnly = "primary-only" (process),
    /// An operator lets them be routed again.
    Routed = "routed" (process),
    /// A client writes; weakly where `weak` is not zero (`synchronous_commit = off`).
    Write = "write" (process, weak),
    /// A client reads with the token of an earlier write as `ReadYourWrites`. May wait so many milliseconds for a
    /// replica; may not use the primary where `forbid` is not zero.
    After = "after" (process, pick, wait, forbid),
    /// As `After`, with `Monotonic`.
    Monotonic = "monotonic" (process, pick, wait, forbid),
    /// A client reads data of at most this age.
    Within = "within" (process, millis),
    /// A client reads data of any age.
    Eventual = "eventual" (process),
    /// A client reads what is.
    Strong = "strong" (process),
    /// A client reads with a token of another cluster.
    Foreign = "foreign" (process),
}

fn value<'a>(
    words: &mut impl Iterator<Item = &'a str>,
    field: &str,
    line: &str,
) -> Result<u64, String> {
    let word = words.next();
    let text = word.and_then(|word| word.strip_prefix(field)?.strip_prefix('='));
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("no {field} in {line:?}"))
}

#[test]
fn an_act_parses_back_to_itself() {
    let act = Act {
        at: 1_250_000,
        what: What::After {
            process: 1,
            pick: 77,
            wait: 200,
            forbid: 0,
        },
    };
    assert_eq!(act.to_string().parse(), Ok(act));
    assert_eq!(
        "5 crash node=2".parse(),
        Ok(Act {
            at: 5,
            what: What::Crash { node: 2 }
        })
    );
    assert!("5 crash".parse::<Act>().is_err());
}
