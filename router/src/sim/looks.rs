//! The monitors of a simulated process: [`monitor`](crate::monitor)'s round in virtual time, by the same courses,
//! limits and readers of answers.

use std::time::Duration;

use crate::course::{CONNECT_LIMIT, Course, LATE, LIMIT};
use crate::look;
use crate::sample::Sample;

use super::answers::{self, Told};
use super::process::Stage;
use super::run::{Ask, Event, Message, Reply, Run};
use super::world::Micros;

pub(super) fn micros(time: Duration) -> Micros {
    Micros::try_from(time.as_micros()).unwrap_or(Micros::MAX)
}

impl Run<'_> {
    /// What a start that demands its nodes knows of one of them.
    pub(super) fn first_look(&mut self, process: usize, node: usize) {
        let server = &self.world.servers[node];
        let (row, told) = (answers::looked(server, node, self.now), Told::of(server));
        let run = server.run;
        let asked_at = self.processes[process].clock(self.now);
        let sample = look::read(&row, asked_at, Duration::from_millis(1), None);
        let Some(sample) = sample else {
            return self.broken("an answer was not understood", || {
                format!("node {node}'s first")
            });
        };
        let process = &mut self.processes[process];
        process.known.answered(node, told);
        process.watches[node].course = Course::new(Some(sample.clone()));
        process.watches[node].link = Some(run);
        process.watches[node].rung = false;
        process.change(|evidence| evidence.answered(node, sample));
    }

    /// A monitor waits for its next turn, or until somebody rings.
    pub(super) fn pause(&mut self, process: usize, node: usize) {
        let chance = self.dice.f64();
        let clock = self.processes[process].clock(self.now);
        let turn = self.stage(process, node, Stage::Pausing);
        let state = &mut self.processes[process];
        let watch = &mut state.watches[node];
        let pause = if std::mem::take(&mut watch.rung) {
            Duration::ZERO
        } else {
            watch.course.pause(&state.demand, clock, chance)
        };
        let event = Event::Turn {
            process,
            node,
            turn,
        };
        self.at(self.now + micros(pause), event);
    }

    /// Has a node looked at now.
    pub(super) fn ring(&mut self, process: usize, node: usize) {
        let watch = &mut self.processes[process].watches[node];
        watch.rung = true;
        if matches!(watch.stage, Stage::Pausing) {
            self.pause(process, node);
        }
    }

    pub(super) fn ring_all(&mut self, process: usize) {
        (0..self.story.nodes).for_each(|node| self.ring(process, node));
    }

    fn stage(&mut self, process: usize, node: usize, stage: Stage) -> u32 {
        let watch = &mut self.processes[process].watches[node];
        watch.stage = stage;
        watch.turn += 1;
        watch.turn
    }

    pub(super) fn turn(&mut self, process: usize, node: usize, turn: u32) {
        let watch = &self.processes[process].watches[node];
        if watch.turn != turn || !matches!(watch.stage, Stage::Pausing) {
            return;
        }
        if watch.link.is_some() {
            return self.look(process, node);
        }
        let turn = self.stage(process, node, Stage::Connecting);
        self.ask(process, node, None, Ask::Connect { turn });
        self.limit_after(process, node, CONNECT_LIMIT);
    }

    fn look(&mut self, process: usize, node: usize) {
        let link = self.processes[process].watches[node].link;
        let turn = self.stage(process, node, Stage::Looking { asked: self.now });
        self.ask(process, node, link, Ask::Look { turn });
        self.limit_after(process, node, LIMIT);
    }

    fn ask(&mut self, process: usize, node: usize, run: Option<u64>, ask: Ask) {
        self.send(Message {
            process,
            node,
            run,
            ask,
        });
    }

    fn limit_after(&mut self, process: usize, node: usize, limit: Duration) {
        let turn = self.processes[process].watches[node].turn;
        let event = Event::Limit {
            process,
            node,
            turn,
        };
        self.at(self.now + micros(limit), event);
    }

    pub(super) fn limit(&mut self, process: usize, node: usize, turn: u32) {
        let watch = &mut self.processes[process].watches[node];
        if watch.turn != turn {
            return;
        }
        match std::mem::replace(&mut watch.stage, Stage::Pausing) {
            Stage::Pausing => {}
            Stage::Looking { asked } if self.now < asked + micros(LIMIT + LATE) => {
                // The answer may still come.
                watch.stage = Stage::Looking { asked };
                self.silent(process, node);
                self.limit_after(process, node, LATE);
            }
            Stage::Connecting | Stage::Looking { .. } => self.failed(process, node),
            Stage::Reading { sample, told } => self.passed_on(process, node, *sample, told),
        }
    }

    /// Something came back to a monitor, in the turn in which it was asked for.
    pub(super) fn heard(&mut self, process: usize, node: usize, reply: Reply) {
        let state = &mut self.processes[process];
        let watch = &mut state.watches[node];
        match (std::mem::replace(&mut watch.stage, Stage::Pausing), reply) {
            (Stage::Connecting, Reply::Connected { run }) => {
                watch.link = Some(run);
                self.look(process, node);
            }
            (Stage::Looking { asked }, Reply::Looked { row, told }) => {
                let last = watch.course.last().cloned();
                let asked_at = state.clock(asked);
                let round_trip = state.clock(self.now) - asked_at;
                match look::read(&row, asked_at, round_trip, last.as_ref()) {
                    Some(sample) => self.understood(process, node, sample, told),
                    None => self.failed(process, node),
                }
            }
            (Stage::Reading { sample, told }, reply) => {
                if let (Reply::History(file), Some(timeline)) = (reply, sample.timeline) {
                    watch.course.read_history(timeline);
                    let forks =
                        file.map_or_else(Vec::new, |file| look::read_history(timeline, &file));
                    state.change(|evidence| {
                        for fork in forks {
                            evidence.fork(fork);
                        }
                    });
                }
                self.passed_on(process, node, *sample, told);
            }
            _ => self.failed(process, node),
        }
    }

    fn understood(&mut self, process: usize, node: usize, sample: Sample, told: Told) {
        let watch = &self.processes[process].watches[node];
        let run = watch.link;
        let Some(line) = watch.course.unread_history(&sample) else {
            return self.passed_on(process, node, sample, told);
        };
        let sample = Box::new(sample);
        let turn = self.stage(process, node, Stage::Reading { sample, told });
        self.ask(process, node, run, Ask::History { turn, line });
        self.limit_after(process, node, LIMIT);
    }

    fn passed_on(&mut self, process: usize, node: usize, sample: Sample, told: Told) {
        let before = {
            let state = &mut self.processes[process];
            state.watches[node].course.answered(sample.clone());
            state.known.answered(node, told);
            let before = (state.view.primary, state.view.timeline);
            state.change(|evidence| evidence.answered(node, sample));
            before
        };
        let view = &self.processes[process].view;
        let after = (view.primary, view.timeline);
        if before != after {
            self.tell(|| {
                format!(
                    "process {process} takes node {:?} on timeline {:?} for the primary",
                    after.0, after.1
                )
            });
        }
        self.looked(process);
        self.pause(process, node);
    }

    fn failed(&mut self, process: usize, node: usize) {
        let watch = &mut self.processes[process].watches[node];
        watch.course.failed();
        watch.link = None;
        self.silent(process, node);
        self.pause(process, node);
    }

    fn silent(&mut self, process: usize, node: usize) {
        let state = &mut self.processes[process];
        state.known.answers[node] = false;
        if state.change(|evidence| evidence.silent(node)).is_some() {
            self.tell(|| format!("process {process} has no answer from node {node}"));
        }
        self.looked(process);
    }
}
