//! One process that uses the router: the shipped evidence, view, demand and monitors' courses, over simulated wires;
//! and beside it what the checker knows that it was told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::course::Course;
use crate::demand::Demand;
use crate::evidence::Evidence;
use crate::load::Load;
use crate::sample::Sample;
use crate::view::View;

use super::answers::Told;
use super::run::Event;
use super::world::{Micros, OURS};

/// What passes between a process and a node.
pub(super) struct Wire {
    pub(super) parted: bool,
    /// How long it takes each way, at least; up to a quarter is added.
    pub(super) delay: Micros,
    /// What waits until the two are joined again.
    pub(super) held: Vec<Event>,
}

/// Where a monitor is in its round.
pub(super) enum Stage {
    Pausing,
    Connecting,
    Looking {
        asked: Micros,
    },
    /// A primary's history is read before its answer is passed on.
    Reading {
        sample: Box<Sample>,
        told: Told,
    },
}

/// One node's monitor.
pub(super) struct Watch {
    pub(super) course: Course,
    pub(super) stage: Stage,
    /// Which run of the server it is connected to.
    pub(super) link: Option<u64>,
    /// Raised with each stage: what belongs to an earlier one is void.
    pub(super) turn: u32,
    /// Somebody has rung meanwhile.
    pub(super) rung: bool,
}

/// What a process was told, by the truth: the checker's own bookkeeping.
pub(super) struct Known {
    pub(super) told: Vec<Option<Told>>,
    pub(super) answers: Vec<bool>,
    pub(super) system: Option<u64>,
    /// The highest timeline on which a primary said it was.
    pub(super) highest: Option<u32>,
    /// The primary's lowest and last positions among the looks at it on this timeline.
    looks: Option<(u32, u64, u64)>,
    pub(super) drained: Vec<bool>,
    pub(super) primary_only: bool,
}

/// One process.
pub(super) struct Process {
    pub(super) evidence: Evidence,
    pub(super) view: View,
    pub(super) demand: Demand,
    pub(super) watches: Vec<Watch>,
    pub(super) wires: Vec<Wire>,
    pub(super) known: Known,
    base: Instant,
    /// How many parts in a million its clock is too fast.
    drift: i64,
}

impl Process {
    pub(super) fn new(
        nodes: usize,
        lazily: bool,
        drift: i64,
        delay: impl FnMut() -> Micros,
    ) -> Self {
        let base = Instant::now() + Duration::from_hours(1);
        let name = |index: usize| Arc::<str>::from(format!("node {index}"));
        let named = (0..nodes).map(|index| (name(index), Arc::new(Load::default())));
        let evidence = Evidence::new((!lazily).then_some(OURS), named);
        let watch = |_| Watch {
            course: Course::new(None),
            stage: Stage::Pausing,
            link: None,
            turn: 0,
            rung: true,
        };
        let wire = |delay| Wire {
            parted: false,
            delay,
            held: Vec::new(),
        };
        Self {
            view: evidence.view(),
            evidence,
            demand: Demand::new(base),
            watches: (0..nodes).map(watch).collect(),
            wires: std::iter::repeat_with(delay)
                .take(nodes)
                .map(wire)
                .collect(),
            known: Known {
                told: vec![None; nodes],
                answers: vec![false; nodes],
                system: (!lazily).then_some(OURS),
                highest: None,
                looks: None,
                drained: vec![false; nodes],
                primary_only: false,
            },
            base,
            drift,
        }
    }

    /// What the process's own clock says.
    pub(super) fn clock(&self, now: Micros) -> Instant {
        let signed = i64::try_from(now).unwrap_or(i64::MAX);
        let drifted = signed + signed / 1_000_000 * self.drift;
        self.base + Duration::from_micros(u64::try_from(drifted).unwrap_or_default())
    }

    /// Changes the evidence, and publishes the view.
    pub(super) fn change<T>(&mut self, change: impl FnOnce(&mut Evidence) -> T) -> T {
        let changed = change(&mut self.evidence);
        self.view = self.evidence.view();
        changed
    }
}

impl Known {
    /// A node's answer was passed on.
    pub(super) fn answered(&mut self, node: usize, told: Told) {
        self.answers[node] = true;
        self.told[node] = Some(told);
        if node == 0 && told.primary && self.system.is_none() {
            self.system = Some(told.system);
        }
        let ours = self.told.iter().flatten();
        let ours = ours.filter(|told| told.primary && Some(told.system) == self.system);
        self.highest = ours.filter_map(|told| told.line).max().max(self.highest);
        if let Some(line) = told.line.filter(|_| self.leads(node)) {
            let looks = self
                .looks
                .filter(|(of, _, last)| *of == line && *last <= told.position);
            let lowest = looks.map_or(told.position, |(_, lowest, _)| lowest);
            self.looks = Some((line, lowest, told.position));
        }
    }

    /// Whether a node said last that it is the primary on the highest timeline that any primary was ever seen on.
    pub(super) fn leads(&self, node: usize) -> bool {
        self.told[node].is_some_and(|told| {
            told.primary && Some(told.system) == self.system && told.line == self.highest
        })
    }

    /// Why a node may not be used as a replica, if it may not.
    pub(super) fn is_no_replica(&self, node: usize) -> Option<&'static str> {
        let Some(told) = self.told[node] else {
            return Some("a replica never answered");
        };
        if !self.answers[node] {
            Some("a replica did not answer when it was looked at last")
        } else if Some(told.system) != self.system {
            Some("a replica is of another cluster")
        } else if told.primary {
            Some("a replica said that it is a primary")
        } else if told.line.is_some_and(|line| Some(line) != self.highest) {
            Some("a replica is on another timeline than the primary")
        } else if self.drained[node] {
            Some("a replica is drained")
        } else if self.primary_only {
            Some("reads are to go to the primary")
        } else {
            None
        }
    }

    /// Whether the age of a replica's data is known at all, by its last answer.
    pub(super) fn has_an_age(&self, node: usize) -> bool {
        let position = self.told[node].map(|told| told.position);
        match (self.looks, position) {
            (Some((line, lowest, _)), Some(position)) => {
                Some(line) == self.highest && lowest <= position
            }
            _ => false,
        }
    }
}
