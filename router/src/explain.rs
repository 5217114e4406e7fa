//! Why a read would go where: the plan, with what is known of each node beside its verdict.
//!
//! Made from the decision itself, so it says what a read at the same moment would have met.

use std::fmt;
use std::time::Instant;

use crate::lag::Lag;
use crate::orders::{Orders, Reads};
use crate::plan::{Candidate, Proof, Refusal, plan};
use crate::request::{Consistency, Request};
use crate::sample::Role;
use crate::view::{Answers, Reason, View};

/// What would become of a read at one moment. `Display` gives a line a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// What the read promises.
    pub consistency: Consistency,
    /// The orders in force.
    pub orders: Orders,
    /// The nodes in the order of the database's.
    pub nodes: Vec<NodeExplanation>,
    /// Why no node could serve, if none could.
    pub refusal: Option<Refusal>,
}

/// One node's part.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeExplanation {
    /// Its name.
    pub name: String,
    /// Whether it answered when it was asked last.
    pub answers: Answers,
    /// What it said it is.
    pub role: Option<Role>,
    /// The timeline that it is known to have come to.
    pub timeline: Option<u32>,
    /// The age of its data.
    pub lag: Lag,
    /// Its load: less is better.
    pub load: u64,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What becomes of a node when a read is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It is tried in this place, from 1, and has this to prove.
    Taken {
        /// Its place.
        place: usize,
        /// What it has to prove on the connection.
        proof: Proof,
    },
    /// It is passed over.
    PassedOver(Reason),
    /// It was not looked at: the promise needs the primary, or the read is refused as a whole.
    NotAsked,
}

/// Decides as [`plan`] does, and says why of each node.
pub fn explain(view: &View, request: &Request, now: Instant, chance: u64) -> Explanation {
    let (candidates, passed_over, refusal) = match plan(view, request, now, chance) {
        Ok(plan) => (plan.candidates, plan.passed_over, None),
        Err(refusal) => (Vec::new(), Vec::new(), Some(refusal)),
    };
    let verdict = |index: usize| {
        let place = candidates.iter().position(|one| one.node == index);
        let passed = passed_over.iter().find(|(node, _)| *node == index);
        match (place, passed) {
            (Some(at), _) => {
                let Candidate { proof, .. } = candidates[at];
                Verdict::Taken {
                    place: at + 1,
                    proof,
                }
            }
            (None, Some((_, reason))) => Verdict::PassedOver(*reason),
            (None, None) => Verdict::NotAsked,
        }
    };
    let nodes = view.nodes.iter().enumerate().map(|(index, node)| {
        let sample = node.sample.as_ref();
        NodeExplanation {
            name: node.name.to_string(),
            answers: node.answers,
            role: sample.map(|sample| sample.role),
            timeline: sample.and_then(|sample| sample.timeline),
            lag: view.lag(index, now),
            load: node.load.score(),
            verdict: verdict(index),
        }
    });
    Explanation {
        consistency: request.consistency,
        orders: view.orders.clone(),
        nodes: nodes.collect(),
        refusal,
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a read of {}", self.consistency)?;
        if self.orders.reads == Reads::PrimaryOnly {
            write!(f, ", while reads go {}", self.orders.reads)?;
        }
        for node in &self.nodes {
            write!(f, "\n  {node}")?;
        }
        if let Some(refusal) = &self.refusal {
            write!(f, "\n  refused: {refusal}")?;
        }
        Ok(())
    }
}

impl fmt::Display for NodeExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.answers)?;
        match self.role {
            Some(role) => write!(f, ", {role}")?,
            None => f.write_str(", role unknown")?,
        }
        match self.timeline {
            Some(timeline) => write!(f, " on timeline {timeline}")?,
            None => f.write_str(" on an unknown timeline")?,
        }
        if self.role == Some(Role::Replica) {
            write!(f, ", lag {}", self.lag)?;
        }
        write!(f, ", load {}: {}", self.load, self.verdict)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { place, proof } => {
                write!(f, "choice {place}")?;
                match proof {
                    Proof::Nothing => Ok(()),
                    Proof::Age(bound) => write!(f, ", if its data proves at most {bound:?} old"),
                    Proof::Token(_) => f.write_str(", if it proves to have reached the token"),
                    Proof::Primary => f.write_str(", if it proves to be the primary"),
                }
            }
            Self::PassedOver(reason) => write!(f, "passed over: {reason}"),
            Self::NotAsked => f.write_str("not asked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::evidence::Evidence;
    use crate::lsn::Lsn;
    use crate::orders::Order;
    use crate::sample::Sample;

    #[test]
    fn each_node_has_a_line_with_its_state_and_what_becomes_of_it() {
        let now = Instant::now();
        let names = ["primary", "replica 1", "replica 2", "replica 3"];
        let mut evidence = Evidence::new(10, names.map(|name| (name.into(), Arc::default())));
        for (node, position) in [(0, 100), (1, 100), (2, 100)] {
            let role = if node == 0 {
                Role::Primary
            } else {
                Role::Replica
            };
            let sample = Sample {
                system_identifier: Some(10),
                timeline: Some(2),
                position: Some(Lsn(position)),
                ..Sample::bare(role, now)
            };
            evidence.answered(node, sample);
        }
        evidence.ordered(Order::Drain(2));
        let bound = Duration::from_secs(3);
        let request = Request::new(Consistency::BoundedStaleness(bound));
        let explained = explain(&evidence.view(), &request, now, 0);
        let verdicts: Vec<_> = explained.nodes.iter().map(|node| node.verdict).collect();
        let taken = |place| Verdict::Taken {
            place,
            proof: Proof::Age(bound),
        };
        let passed = Verdict::PassedOver;
        assert_eq!(
            verdicts,
            [
                Verdict::Taken {
                    place: 2,
                    proof: Proof::Primary
                },
                taken(1),
                passed(Reason::Drained),
                passed(Reason::NotSeen),
            ]
        );
        let text = explained.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "a read of data at most 3s old");
        let line = |index: usize, start: &str, end: &str| {
            let line = lines[index].trim_start();
            assert!(line.starts_with(start) && line.ends_with(end), "{line}");
        };
        let leads = ": choice 2, if it proves to be the primary";
        line(1, "primary: up, primary on timeline 2, load", leads);
        let proof = ": choice 1, if its data proves at most 3s old";
        line(2, "replica 1: up, replica on timeline 2, lag fresh,", proof);
        line(3, "replica 2: up, replica", ": passed over: is drained");
        let unseen = ": passed over: has not answered yet";
        line(4, "replica 3: not seen, role unknown on an unknown", unseen);
    }

    #[test]
    fn a_refusal_is_said_with_what_each_node_is() {
        let evidence = Evidence::new(10, [("primary".into(), Arc::default())]);
        let request = Request::new(Consistency::Strong);
        let explained = explain(&evidence.view(), &request, Instant::now(), 0);
        assert!(explained.refusal.is_some(), "{explained:?}");
        let text = explained.to_string();
        let last = "  refused: no node takes writes: primary has not answered yet";
        assert_eq!(text.lines().last(), Some(last));
    }
}
