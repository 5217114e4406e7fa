//! What clients do: [`source`](crate::source)'s ways of a read and of a write in virtual time, by the same decisions.

use std::time::Duration;

use pool_postgres::{CommitToken, Strength};

use crate::plan::{Candidate, Proof, Refusal, plan, plan_write};
use crate::proof::{Testimony, Unproved};
use crate::request::{Consistency, ReadOptions, Request, WaitPolicy};
use crate::view::{Answers, View};
use crate::wait;

use super::acts::What;
use super::looks::micros;
use super::run::{Ask, Event, Message, Reply, Run};
use super::world::{Micros, Seen, THEIRS};

/// How long an operation waits for a node's answer.
const PATIENCE: Micros = 1_000_000;
/// How often a session asks its source anew, as pool-postgres has it.
const ATTEMPTS: u32 = 8;

/// What an operation is to see.
#[derive(Clone, Copy, Debug)]
pub(super) enum Promise {
    Write {
        weak: bool,
    },
    /// This write, by its index.
    After(usize),
    /// Nothing older than this write's token.
    Monotonic(usize),
    Within(Duration),
    Eventual,
    Strong,
    /// The token of another cluster.
    Foreign,
}

/// How an operation ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Read {
        node: usize,
        seen: Seen,
        was_primary: bool,
    },
    Committed(usize),
    Refused(Refusal),
    /// The server says that it takes no writes.
    ReadOnly,
    /// No answer: nobody knows.
    Unknown,
    /// No node was left to ask.
    NoNode,
    /// Every attempt was refused.
    Unproved(Unproved),
}

/// One operation.
pub(super) struct Op {
    pub(super) process: usize,
    pub(super) promise: Promise,
    pub(super) options: ReadOptions,
    pub(super) begun: Micros,
    /// The highest timeline that the process knew a primary of when it began.
    pub(super) highest: Option<u32>,
    /// Everything was mended long ago: it must succeed.
    pub(super) last: bool,
    /// Raised with each question: answers to an earlier one are void.
    number: u32,
    attempt: u32,
    pub(super) refused: Option<(usize, Unproved)>,
    pub(super) candidates: Vec<Candidate>,
    next: usize,
    /// The primary of the view by which it was planned.
    pub(super) primary: Option<usize>,
    asked: Option<Candidate>,
    waiting: Option<Wait>,
    pub(super) done: bool,
}

struct Wait {
    first: View,
    limit: Duration,
}

impl Run<'_> {
    fn begin_op(
        &mut self,
        process: usize,
        promise: Promise,
        options: ReadOptions,
        last: bool,
    ) -> usize {
        self.ops.push(Op {
            process,
            promise,
            options,
            begun: self.now,
            highest: self.processes[process].known.highest,
            last,
            number: 0,
            attempt: 0,
            refused: None,
            candidates: Vec::new(),
            next: 0,
            primary: None,
            asked: None,
            waiting: None,
            done: false,
        });
        self.ops.len() - 1
    }

    /// A client reads, as an act says.
    pub(super) fn read(&mut self, process: usize, what: What, last: bool) {
        let promise = match what {
            What::After { pick, .. } => self.acknowledged(pick).map(Promise::After),
            What::Monotonic { pick, .. } => self.acknowledged(pick).map(Promise::Monotonic),
            What::Within { millis, .. } => Some(Promise::Within(Duration::from_millis(millis))),
            What::Eventual { .. } => Some(Promise::Eventual),
            What::Strong { .. } => Some(Promise::Strong),
            What::Foreign { .. } => Some(Promise::Foreign),
            _ => None,
        };
        let (wait, forbid) = match what {
            What::After { wait, forbid, .. } | What::Monotonic { wait, forbid, .. } => {
                (wait, forbid != 0)
            }
            _ => (0, false),
        };
        // Where nobody has written yet there is nothing to read after.
        if let Some(promise) = promise {
            self.read_for(process, promise, wait, forbid, last);
        }
    }

    /// An acknowledged write: mostly one of the last.
    fn acknowledged(&self, pick: u64) -> Option<usize> {
        let writes = self.world.writes.iter().enumerate().rev();
        let acknowledged = writes.filter(|(_, write)| write.acknowledged);
        let among = if pick.is_multiple_of(5) { 60 } else { 8 };
        let indices: Vec<usize> = acknowledged.take(among).map(|(index, _)| index).collect();
        let count = indices.len() as u64;
        (count > 0).then(|| indices[usize::try_from(pick / 5 % count).unwrap_or_default()])
    }

    pub(super) fn read_for(
        &mut self,
        process: usize,
        promise: Promise,
        wait: u64,
        forbid: bool,
        last: bool,
    ) {
        let consistency = match promise {
            Promise::Write { .. } => return,
            Promise::After(write) => Consistency::ReadYourWrites(self.token(write)),
            Promise::Monotonic(write) => Consistency::Monotonic(self.token(write)),
            Promise::Within(bound) => Consistency::BoundedStaleness(bound),
            Promise::Eventual => Consistency::Eventual,
            Promise::Strong => Consistency::Strong,
            Promise::Foreign => Consistency::ReadYourWrites(CommitToken {
                system_identifier: THEIRS,
                timeline: 1,
                position: 1,
                strength: Strength::Strong,
            }),
        };
        let mut options = ReadOptions::new(consistency);
        if wait > 0 {
            options = options.wait(WaitPolicy::UpTo(Duration::from_millis(wait)));
        }
        if forbid {
            options = options.forbid_primary();
        }
        let op = self.begin_op(process, promise, options, last);
        self.attempt(op);
    }

    fn token(&self, write: usize) -> CommitToken {
        let write = &self.world.writes[write];
        CommitToken {
            system_identifier: super::world::OURS,
            timeline: write.line,
            position: write.token,
            strength: if write.weak {
                Strength::Weak
            } else {
                Strength::Strong
            },
        }
    }

    fn wanted(&self, op: usize) -> Result<Request, Refusal> {
        let op = &self.ops[op];
        let refused = op.refused.as_ref().map(|(node, why)| (*node, why));
        Request::attempt(op.options, op.attempt, refused).map_err(Refusal::Token)
    }

    /// A session asks its source for a node.
    fn attempt(&mut self, op: usize) {
        let Op {
            process,
            options,
            attempt,
            ..
        } = self.ops[op];
        if let Consistency::BoundedStaleness(bound) = options.consistency {
            self.demand(process, bound);
        }
        let wanted = match self.wanted(op) {
            Ok(wanted) => wanted,
            Err(refusal) => return self.finish(op, &Outcome::Refused(refusal)),
        };
        if let WaitPolicy::UpTo(limit) = options.wait
            && attempt == 0
            && self.story.nodes > 1
        {
            let state = &self.processes[process];
            let (view, clock) = (&state.view, state.clock(self.now));
            if wait::is_worth_waiting(view, view, &wanted, clock, limit) {
                let first = view.clone();
                self.check_wait(op);
                self.ops[op].waiting = Some(Wait { first, limit });
                self.at(self.now + micros(limit), Event::WaitOver { op });
                self.demand(process, wait::PACE);
                return self.ring_all(process);
            }
        }
        self.choose(op);
    }

    fn demand(&mut self, process: usize, bound: Duration) {
        if self.story.nodes > 1 && self.processes[process].demand.asked(bound) {
            self.ring_all(process);
        }
    }

    /// A monitor has looked: those who wait for a replica decide anew whether to.
    pub(super) fn looked(&mut self, process: usize) {
        // A read waits for less than a second, and there are few others meanwhile.
        for op in self.ops.len().saturating_sub(60)..self.ops.len() {
            let Op {
                process: of,
                waiting: Some(wait),
                begun,
                ..
            } = &self.ops[op]
            else {
                continue;
            };
            if *of != process {
                continue;
            }
            let left = wait
                .limit
                .saturating_sub(Duration::from_micros(self.now - begun));
            let state = &self.processes[process];
            let goes_on = self.wanted(op).is_ok_and(|wanted| {
                let clock = state.clock(self.now);
                wait::is_worth_waiting(&state.view, &wait.first, &wanted, clock, left)
            });
            if goes_on {
                self.demand(process, wait::PACE);
            } else {
                self.wait_over(op);
            }
        }
    }

    pub(super) fn wait_over(&mut self, op: usize) {
        if self.ops[op].waiting.take().is_some() {
            self.choose(op);
        }
    }

    fn choose(&mut self, op: usize) {
        let wanted = match self.wanted(op) {
            Ok(wanted) => wanted,
            Err(refusal) => return self.finish(op, &Outcome::Refused(refusal)),
        };
        let chance = self.dice.u64(..);
        let state = &self.processes[self.ops[op].process];
        match plan(&state.view, &wanted, state.clock(self.now), chance) {
            Ok(plan) => {
                let primary = state.view.primary;
                let op_state = &mut self.ops[op];
                (op_state.candidates, op_state.next) = (plan.candidates, 0);
                op_state.primary = primary;
                self.check_plan(op);
                self.try_next(op);
            }
            Err(refusal) => self.finish(op, &Outcome::Refused(refusal)),
        }
    }

    fn try_next(&mut self, op: usize) {
        loop {
            let state = &mut self.ops[op];
            let Some(candidate) = state.candidates.get(state.next).copied() else {
                return self.finish(op, &Outcome::NoNode);
            };
            state.next += 1;
            let process = state.process;
            let is_primary = state.primary == Some(candidate.node);
            let answers = self.processes[process].view.nodes[candidate.node].answers;
            if !is_primary && answers != Answers::Yes {
                continue;
            }
            self.check_sent(op, candidate.node, is_primary);
            self.ops[op].asked = Some(candidate);
            return self.put(op, process, candidate.node, |op, number| Ask::Read {
                op,
                number,
            });
        }
    }

    fn put(&mut self, op: usize, process: usize, node: usize, ask: impl Fn(usize, u32) -> Ask) {
        self.ops[op].number += 1;
        let number = self.ops[op].number;
        self.send(Message {
            process,
            node,
            run: None,
            ask: ask(op, number),
        });
        self.at(self.now + PATIENCE, Event::GiveUp { op, number });
    }

    /// A node has answered an operation, or its connection is lost.
    pub(super) fn answered(&mut self, op: usize, number: u32, node: usize, reply: Reply) {
        if self.ops[op].done || self.ops[op].number != number {
            return;
        }
        match reply {
            Reply::Read { row, seen } => self.judge(op, node, row, seen),
            Reply::Committed(write) => {
                self.world.writes[write].acknowledged = true;
                self.finish(op, &Outcome::Committed(write));
            }
            Reply::ReadOnly => {
                self.ring_all(self.ops[op].process);
                self.finish(op, &Outcome::ReadOnly);
            }
            _ => self.lost(op, node),
        }
    }

    fn judge(&mut self, op: usize, node: usize, row: super::answers::Row, seen: Seen) {
        let Op {
            process,
            asked: Some(Candidate { proof, .. }),
            primary,
            ..
        } = self.ops[op]
        else {
            return;
        };
        let state = &self.processes[process];
        let proved = match proof {
            Proof::Nothing => Ok(()),
            proof => Testimony::read(&[row])
                .ok_or(Unproved::Unreadable)
                .and_then(|said| said.proves(proof, &state.view, node, state.clock(self.now))),
        };
        let Err(why) = proved else {
            let was_primary = primary == Some(node);
            return self.finish(
                op,
                &Outcome::Read {
                    node,
                    seen,
                    was_primary,
                },
            );
        };
        if !matches!(why, Unproved::Behind { .. }) {
            self.ring(process, node);
        }
        self.tell(|| format!("    node {node} could not prove it: {why}"));
        let state = &mut self.ops[op];
        state.attempt += 1;
        if state.attempt >= ATTEMPTS {
            return self.finish(op, &Outcome::Unproved(why));
        }
        state.refused = Some((node, why));
        self.attempt(op);
    }

    /// A connection was lost, or none could be had.
    fn lost(&mut self, op: usize, node: usize) {
        let Op {
            process, promise, ..
        } = self.ops[op];
        self.ring(process, node);
        let state = &mut self.processes[process];
        let clock = state.clock(self.now);
        if state
            .change(|evidence| evidence.failed(node, clock))
            .is_some()
        {
            self.check_ejected(process);
        }
        if matches!(promise, Promise::Write { .. }) {
            self.finish(op, &Outcome::Unknown);
        } else {
            self.try_next(op);
        }
    }

    pub(super) fn give_up(&mut self, op: usize, number: u32) {
        let state = &self.ops[op];
        if state.done || state.number != number {
            return;
        }
        let node = state.asked.map(|candidate| candidate.node);
        match node {
            Some(node) => self.lost(op, node),
            None => self.finish(op, &Outcome::Unknown),
        }
    }

    /// A client writes.
    pub(super) fn write(&mut self, process: usize, weak: bool, last: bool) {
        let op = self.begin_op(
            process,
            Promise::Write { weak },
            ReadOptions::default(),
            last,
        );
        match plan_write(&self.processes[process].view) {
            Ok(node) => {
                self.check_write(process, node);
                let proof = Proof::Nothing;
                self.ops[op].asked = Some(Candidate { node, proof });
                self.put(op, process, node, |op, number| Ask::Write { op, number });
            }
            Err(refusal) => self.finish(op, &Outcome::Refused(refusal)),
        }
    }

    /// A write is at a server.
    pub(super) fn write_arrives(&mut self, node: usize, op: usize) -> Reply {
        if !self.world.servers[node].primary {
            return Reply::ReadOnly;
        }
        let weak = matches!(self.ops[op].promise, Promise::Write { weak: true });
        let bytes = self.dice.u64(40..600);
        Reply::Committed(self.world.commit(node, bytes, weak, self.now))
    }

    /// The operations that must succeed once everything is mended, one after another; says whether there is another.
    pub(super) fn last(&mut self, step: u32) -> bool {
        const EACH: u32 = 6;
        let process = (step / EACH) as usize;
        if process >= self.processes.len() {
            if let Some(op) = self.ops.iter().position(|op| op.last && !op.done) {
                self.broken("something is not answered though nothing is broken", || {
                    format!("operation {op}")
                });
            }
            return false;
        }
        let ends = process + 1 == self.processes.len() && step % EACH == EACH - 1;
        let next = if ends { 3 * PATIENCE } else { PATIENCE / 10 };
        self.at(self.now + next, Event::Last(step + 1));
        let promise = match step % EACH {
            0 => {
                self.write(process, false, true);
                None
            }
            1 => self.world.writes.len().checked_sub(1).map(Promise::After),
            2 => Some(Promise::Strong),
            3 => Some(Promise::Within(Duration::from_secs(5))),
            4 => Some(Promise::Eventual),
            _ => self.old_and_alive().map(Promise::After),
        };
        if let Some(promise) = promise {
            self.read_for(process, promise, 0, false, true);
        }
        true
    }

    /// A write of an earlier timeline that has survived to the present one, where that can be read in a file.
    fn old_and_alive(&self) -> Option<usize> {
        let line = self.world.servers[self.world.leader()?].line;
        self.world.writes.iter().position(|write| {
            let told = self.story.history && write.acknowledged && !write.weak;
            told && write.line < line && self.world.survives_on(line, write)
        })
    }
}
