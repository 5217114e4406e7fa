//! What is held against the truth: every routing as it is made, and every operation as it ends.
//!
//! The checker knows the servers' logs and what each process was told, and asks nothing of the code under test but
//! which timeline it takes for the current one.

use crate::floor::TokenRefusal;
use crate::plan::{Candidate, Proof, Refusal};

use super::looks::micros;
use super::ops::{Op, Outcome, Promise};
use super::run::{Fault, Run};
use super::world::{Micros, NEVER, OURS, Seen};

/// A fault of a kind, with where and how as for `format!`.
macro_rules! fault {
    ($kind:expr, $($what:tt)*) => {
        Some(Fault { kind: $kind, what: format!($($what)*) })
    };
}

impl Run<'_> {
    /// It was decided where a read may go.
    pub(super) fn check_plan(&mut self, op: usize) {
        let Op {
            process,
            promise,
            options,
            primary,
            ..
        } = self.ops[op];
        let known = &self.processes[process].known;
        let avoided = self.ops[op].refused.as_ref().map(|(node, _)| *node);
        let age_matters = matches!(promise, Promise::Eventual);
        let broken = self.ops[op].candidates.iter().find_map(|candidate| {
            let Candidate { node, proof } = *candidate;
            let kind = if primary == Some(node) {
                options
                    .forbid_primary
                    .then_some("a read went to the primary and may not")
            } else if let Some(why) = known.is_no_replica(node) {
                Some(why)
            } else if avoided == Some(node) {
                Some("a read went to the node that had just refused it")
            } else if age_matters && !known.has_an_age(node) {
                Some("a read went to a node of whose data no age is known")
            } else if !age_matters && proof == Proof::Nothing {
                Some("a read went to a node that has nothing to prove")
            } else {
                None
            };
            Some((kind?, node))
        });
        if let Some((kind, node)) = broken {
            self.broken(kind, || {
                format!("operation {op} ({promise:?}), node {node}")
            });
        }
    }

    /// A read is sent to a node.
    pub(super) fn check_sent(&mut self, op: usize, node: usize, is_primary: bool) {
        let process = self.ops[op].process;
        self.tell(|| format!("    operation {op} goes to node {node}"));
        if !is_primary && !self.processes[process].known.answers[node] {
            self.broken("a read went to a node that does not answer", || {
                format!("operation {op}, node {node}")
            });
        }
    }

    /// A write is sent to a node.
    pub(super) fn check_write(&mut self, process: usize, node: usize) {
        let known = &self.processes[process].known;
        if !known.leads(node) {
            let (told, highest) = (known.told[node], known.highest);
            self.broken(
                "a write went elsewhere than to the highest timeline",
                || format!("node {node} said {told:?}, and a primary was seen on {highest:?}"),
            );
        }
    }

    /// A read begins to wait for a replica.
    pub(super) fn check_wait(&mut self, op: usize) {
        let Op {
            process,
            promise,
            options,
            ..
        } = self.ops[op];
        self.tell(|| format!("    operation {op} waits for a replica"));
        let token = match promise {
            Promise::After(write) | Promise::Monotonic(write) => self.world.writes[write].token,
            _ => 0,
        };
        let known = &self.processes[process].known;
        let may_come = (0..self.story.nodes).any(|node| {
            let moves = known.told[node].is_some_and(|told| {
                !told.primary
                    && (told.position < token || told.line.is_none())
                    && (!told.paused || options.forbid_primary)
            });
            moves && known.is_no_replica(node).is_none()
        });
        if !may_come {
            self.broken("a read waits for what will not come", || {
                format!("operation {op} ({promise:?})")
            });
        }
    }

    /// A replica was taken out of rotation.
    pub(super) fn check_ejected(&mut self, process: usize) {
        let state = &self.processes[process];
        let clock = state.clock(self.now);
        let out = (0..self.story.nodes).filter(|node| {
            state.known.is_no_replica(*node).is_none() && state.view.ejected(*node, clock).is_some()
        });
        if 2 * out.count() > self.story.nodes - 1 {
            self.broken("more than half of the replicas are ejected", || {
                format!("in process {process}")
            });
        }
    }

    /// An operation has ended.
    pub(super) fn finish(&mut self, op: usize, outcome: &Outcome) {
        let state = &mut self.ops[op];
        state.done = true;
        let (promise, last, highest) = (state.promise, state.last, state.highest);
        self.tell(|| format!("    operation {op} ({promise:?}): {outcome:?}"));
        let broken = match outcome {
            Outcome::Read { seen, .. } => self.fault_of_read(op, seen),
            Outcome::Refused(Refusal::Token(refusal)) => self.fault_of_refusal(op, refusal),
            Outcome::Committed(write) => {
                let line = self.world.writes[*write].line;
                (Some(line) < highest)
                    .then(|| {
                        fault!(
                            "a write was made on a timeline that was known to be over",
                            "on {line}, with {highest:?} known",
                        )
                    })
                    .flatten()
            }
            _ => None,
        };
        let broken = broken.or_else(|| last.then(|| self.fault_at_rest(op, outcome)).flatten());
        if let Some(Fault { kind, what }) = broken {
            self.broken(kind, || format!("operation {op} ({promise:?}): {what}"));
        }
    }

    fn fault_of_read(&self, op: usize, seen: &Seen) -> Option<Fault> {
        let Op {
            process,
            promise,
            highest,
            ..
        } = self.ops[op];
        if seen.system != OURS {
            return fault!("another cluster served a read", "here");
        }
        match promise {
            Promise::After(index) | Promise::Monotonic(index) => {
                let write = &self.world.writes[index];
                if !self
                    .world
                    .holds((seen.line, seen.position), (write.line, write.token))
                {
                    return fault!("a read shows less than its token", "{seen:?}, {write:?}",);
                }
                // A log that was cut on its own timeline and has grown past the token's place cannot be told from the
                // one that it was: all that is left is the place.
                let place_is_all = matches!(promise, Promise::Monotonic(_)) || write.cut;
                if place_is_all || self.world.shows(seen, write) {
                    return None;
                }
                fault!(
                    "a read does not show the write that it follows",
                    "{seen:?}, {write:?}",
                )
            }
            Promise::Within(bound) => self.fault_of_age(process, seen, micros(bound)),
            Promise::Strong if !seen.primary || Some(seen.line) < highest => fault!(
                "a strong read was not of the primary",
                "{seen:?}, {highest:?} was known",
            ),
            Promise::Foreign => fault!("the token of another cluster was served", "here"),
            Promise::Strong | Promise::Eventual | Promise::Write { .. } => None,
        }
    }

    /// Whatever was on the primary's disk by then must be shown; the primary of the timeline that the process knows.
    fn fault_of_age(&self, process: usize, seen: &Seen, bound: Micros) -> Option<Fault> {
        let line = self.processes[process].view.timeline?;
        if seen.primary && seen.line >= line {
            return None;
        }
        // Two clocks that drift apart by 400 parts in a million, and what is lost in rounding.
        let tolerance = bound / 2_000 + 20;
        let missing = self.world.writes.iter().find(|write| {
            write.flushed != NEVER
                && write.flushed + bound + tolerance < seen.at
                && self.world.survives_on(line, write)
                && !self.world.shows(seen, write)
        });
        let write = missing?;
        fault!("a read shows older data than it may", "{seen:?}, {write:?}",)
    }

    fn fault_of_refusal(&self, op: usize, refusal: &TokenRefusal) -> Option<Fault> {
        let Op {
            process, promise, ..
        } = self.ops[op];
        let other = matches!(refusal, TokenRefusal::OfAnotherCluster { .. });
        let (Promise::After(write) | Promise::Monotonic(write)) = promise else {
            if other {
                return None;
            }
            return fault!("the token of another cluster is taken for ours", "here",);
        };
        let line = self.processes[process].view.timeline?;
        let write = &self.world.writes[write];
        match refusal {
            TokenRefusal::OfAnotherCluster { .. } => {
                fault!("our token is taken for another cluster's", "here")
            }
            TokenRefusal::WriteLost { .. } | TokenRefusal::LostInFailover { .. }
                if self.world.survives_on(line, write) =>
            {
                fault!("a write is said to be lost that is there", "{write:?}",)
            }
            TokenRefusal::CannotTell { ours, .. } if *ours == Some(write.line) => fault!(
                "a write of the current timeline is said not to be told",
                "{write:?}",
            ),
            _ => None,
        }
    }

    /// Once everything is mended everything is served, reads by replicas.
    fn fault_at_rest(&self, op: usize, outcome: &Outcome) -> Option<Fault> {
        let Op {
            process, promise, ..
        } = self.ops[op];
        let state = &self.processes[process];
        let refused = "nothing is broken any more, and something is not served";
        match outcome {
            Outcome::Committed(_) => None,
            Outcome::Read {
                node, was_primary, ..
            } => {
                let wants = matches!(promise, Promise::Within(_) | Promise::Eventual);
                let clock = state.clock(self.now);
                let has_one = (0..self.story.nodes).any(|node| {
                    state.view.primary != Some(node) && state.view.ejected(node, clock).is_none()
                });
                if wants && has_one && *was_primary {
                    return fault!(
                        "a read went to the primary though the replicas are well",
                        "node {node}",
                    );
                }
                None
            }
            Outcome::Unproved(why) => fault!(refused, "{why}"),
            other => fault!(refused, "{other:?}"),
        }
    }
}
