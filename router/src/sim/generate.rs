//! Stories by a seed: how large a cluster, what befalls it, what its clients do meanwhile.
//!
//! Faults come alone, each with its repair some time later, and as the sequences that failovers are made of, for those
//! are where promises break.

use super::acts::{Act, What};
use super::world::Micros;

/// A cluster, and what happens to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Story {
    pub(super) seed: u64,
    pub(super) nodes: usize,
    pub(super) processes: usize,
    /// Nothing was demanded at the start.
    pub(super) lazily: bool,
    /// The timelines' history may be read.
    pub(super) history: bool,
    pub(super) acts: Vec<Act>,
}

const SECOND: Micros = 1_000_000;

impl Story {
    /// The story of a seed.
    pub(super) fn of(seed: u64) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed);
        let nodes = [1, 2, 2, 3, 3, 3, 3, 4][dice.usize(..8)];
        let processes = [1, 1, 1, 2][dice.usize(..4)];
        let mut plot = Plot {
            nodes,
            processes,
            length: dice.u64(2 * SECOND..7 * SECOND),
            led: vec![false; nodes],
            leader: 0,
            acts: Vec::new(),
            dice,
        };
        plot.led[0] = true;
        plot.clients();
        plot.faults();
        let mut acts = plot.acts;
        acts.sort_by_key(|act| act.at);
        Self {
            seed,
            nodes,
            processes,
            lazily: plot.dice.u8(..5) == 0,
            history: plot.dice.bool(),
            acts,
        }
    }
}

struct Plot {
    dice: fastrand::Rng,
    nodes: usize,
    processes: usize,
    length: Micros,
    /// The nodes that are, or were, primaries.
    led: Vec<bool>,
    leader: usize,
    acts: Vec<Act>,
}

impl Plot {
    fn add(&mut self, at: Micros, what: What) {
        self.acts.push(Act { at, what });
    }

    fn node(&mut self) -> u64 {
        self.dice.u64(..self.nodes as u64)
    }

    fn process(&mut self) -> u64 {
        self.dice.u64(..self.processes as u64)
    }

    fn clients(&mut self) {
        let pace = self.dice.u64(20_000..150_000);
        let bound = [100, 200, 200, 500, 1_000, 3_000][self.dice.usize(..6)];
        let mut at = 0;
        while at < self.length {
            at += self.dice.u64(pace / 4..pace);
            let (process, pick) = (self.process(), self.dice.u64(..1_000_000));
            let wait = if self.dice.u8(..4) == 0 {
                self.dice.u64(20..400)
            } else {
                0
            };
            let forbid = u64::from(self.dice.u8(..10) == 0);
            let weak = u64::from(self.dice.u8(..5) == 0);
            let what = match self.dice.u8(..100) {
                0..30 => What::Write { process, weak },
                30..55 => What::After {
                    process,
                    pick,
                    wait,
                    forbid,
                },
                55..65 => What::Monotonic {
                    process,
                    pick,
                    wait,
                    forbid,
                },
                65..85 => What::Within {
                    process,
                    millis: bound,
                },
                85..91 => What::Eventual { process },
                91..99 => What::Strong { process },
                _ => What::Foreign { process },
            };
            self.add(at, what);
        }
    }

    fn faults(&mut self) {
        let mut at = self.dice.u64(100_000..SECOND);
        while at < self.length {
            match self.dice.u8(..10) {
                0..4 => at = self.failover(at),
                _ => self.fault(at),
            }
            at += self.dice.u64(50_000..1_200_000);
        }
    }

    /// One thing breaks, and is mended some time later.
    fn fault(&mut self, at: Micros) {
        let (node, process) = (self.node(), self.process());
        let end = at + self.dice.u64(50_000..2 * SECOND);
        let (begins, ends) = match self.dice.u8(..17) {
            0 | 1 => (What::Freeze { node }, What::Thaw { node }),
            2 | 3 => (What::Pause { node }, What::Resume { node }),
            4 => (What::Slow { node }, What::Fast { node }),
            5 | 6 => (What::Cut { node }, What::Mend { node }),
            7 | 8 => (What::Part { process, node }, What::Join { process, node }),
            9 | 10 => {
                let micros = self.dice.u64(20_000..400_000);
                let calm = self.dice.u64(100..2_000);
                (
                    What::Delay {
                        process,
                        node,
                        micros,
                    },
                    What::Delay {
                        process,
                        node,
                        micros: calm,
                    },
                )
            }
            11 => (
                What::Drain { process, node },
                What::Undrain { process, node },
            ),
            12 if self.dice.bool() => (What::PrimaryOnly { process }, What::Routed { process }),
            13 => (
                What::Lose {
                    node: self.leader as u64,
                },
                What::Start {
                    node: self.leader as u64,
                },
            ),
            14 => {
                let seconds = self.dice.u64(1..100_000);
                (
                    What::Clock { node, seconds },
                    What::Clock { node, seconds: 0 },
                )
            }
            15 if self.nodes > 2 && !self.led[index(node)] => {
                // Another server has got its address; never that of one that clients write to.
                self.add(at, What::Crash { node });
                let end = at + 3 * SECOND;
                self.led[index(node)] = true;
                return self.add(end, What::Swap { node });
            }
            _ => (What::Crash { node }, What::Start { node }),
        };
        self.add(at, begins);
        self.add(end, ends);
    }

    /// A replica is promoted while the primary crashes, hangs, is cut off or goes on; the others follow, or do not; the
    /// old primary comes back in one way or another. Returns the end.
    fn failover(&mut self, at: Micros) -> Micros {
        let (old, new) = (self.leader as u64, self.node());
        if old == new {
            return at;
        }
        let dice = &mut self.dice;
        let mut gap = |most: u64| dice.u64(0..most);
        let (cut, promoted) = (at + gap(100_000), at + 50_000 + gap(600_000));
        let (followed, back) = (promoted + gap(400_000), promoted + 200_000 + gap(1_500_000));
        // What is written from here on is lost.
        if self.dice.bool() {
            for node in (0..self.nodes as u64).filter(|node| *node != old) {
                if self.dice.u8(..3) > 0 {
                    self.add(cut, What::Cut { node });
                    self.add(followed, What::Mend { node });
                }
            }
        }
        let way = self.dice.u8(..6);
        match way {
            0 | 1 => self.add(at, What::Crash { node: old }),
            2 => self.add(at, What::Freeze { node: old }),
            3 => {
                for process in 0..self.processes as u64 {
                    let node = if self.dice.bool() { old } else { new };
                    self.add(at, What::Part { process, node });
                    self.add(back, What::Join { process, node });
                }
            }
            _ => {}
        }
        self.add(promoted, What::Promote { node: new });
        for node in (0..self.nodes as u64).filter(|node| *node != old && *node != new) {
            if self.dice.u8(..4) > 0 {
                self.add(
                    followed,
                    What::Follow {
                        node,
                        upstream: new,
                    },
                );
            }
        }
        if way == 2 {
            self.add(back, What::Thaw { node: old });
        }
        match self.dice.u8(..4) {
            // It goes on as a primary of the old timeline, or comes back as one.
            0 => self.add(back, What::Start { node: old }),
            1 => {
                self.add(back - 100_000, What::Crash { node: old });
                self.add(
                    back,
                    What::Demote {
                        node: old,
                        upstream: new,
                    },
                );
            }
            _ => {
                // It takes a while to be rewound.
                self.add(back - 100_000, What::Crash { node: old });
                self.add(
                    back + 2 * SECOND,
                    What::Rewind {
                        node: old,
                        upstream: new,
                    },
                );
            }
        }
        self.led[index(new)] = true;
        self.leader = index(new);
        followed
    }
}

fn index(node: u64) -> usize {
    usize::try_from(node).unwrap_or_default()
}
