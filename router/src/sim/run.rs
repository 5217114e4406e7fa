//! One story from its beginning to its end: virtual time, messages on their ways, acts, and the mending at the end.
//!
//! What always holds: the same story under the same seed takes the same course. Nothing here reads a clock.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fmt::{self, Write as _};

use crate::orders::{Order, Reads};

use super::acts::{Act, What};
use super::answers::{self, Row, Told};
use super::generate::Story;
use super::ops::Op;
use super::process::{Process, Wire};
use super::world::{Micros, Seen, World};

/// How often the servers replicate, replay and flush.
const TICK: Micros = 10_000;
/// Between the last act and the mending of all that is broken.
const BEFORE_MENDING: Micros = 200_000;
/// By so long after the mending everything must be served: a look that hangs is given up, a connection is tried, a
/// pause is over.
const MENDED: Micros = 9_000_000;

/// A question on its way to a server.
pub(super) struct Message {
    pub(super) process: usize,
    pub(super) node: usize,
    /// The run of the server to which its connection leads; none if it is connected for this.
    pub(super) run: Option<u64>,
    pub(super) ask: Ask,
}

/// What is asked.
pub(super) enum Ask {
    /// For a monitor's connection, in this turn of it.
    Connect {
        turn: u32,
    },
    Look {
        turn: u32,
    },
    History {
        turn: u32,
        line: u32,
    },
    /// For this try of this operation.
    Read {
        op: usize,
        number: u32,
    },
    Write {
        op: usize,
        number: u32,
    },
}

/// What came back.
pub(super) enum Reply {
    Connected { run: u64 },
    Looked { row: Row, told: Told },
    History(Option<String>),
    Read { row: Row, seen: Seen },
    Committed(usize),
    ReadOnly,
    Lost,
}

/// What happens next.
pub(super) enum Event {
    Act(usize),
    Tick,
    Mend,
    /// The operations that must succeed, one after another.
    Last(u32),
    /// A monitor's pause is over.
    Turn {
        process: usize,
        node: usize,
        turn: u32,
    },
    /// A monitor has waited long enough.
    Limit {
        process: usize,
        node: usize,
        turn: u32,
    },
    /// An operation has waited long enough for an answer.
    GiveUp {
        op: usize,
        number: u32,
    },
    /// It has waited long enough for a replica.
    WaitOver {
        op: usize,
    },
    Arrives(Message),
    Returns(Message, Reply),
}

struct Timed(Micros, u64, Event);

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// A story under way.
pub(super) struct Run<'a> {
    pub(super) story: &'a Story,
    pub(super) world: World,
    pub(super) processes: Vec<Process>,
    pub(super) ops: Vec<Op>,
    pub(super) dice: fastrand::Rng,
    pub(super) now: Micros,
    /// Since when nothing is broken any more.
    pub(super) mended: Option<Micros>,
    /// What frozen servers have not heard yet.
    unheard: Vec<Vec<Message>>,
    queue: BinaryHeap<Reverse<Timed>>,
    count: u64,
    fault: Option<Fault>,
    told: Option<String>,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// In which way: a story that is made shorter must go on breaking the same one.
    pub(super) kind: &'static str,
    /// Where and how.
    pub(super) what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.what)
    }
}

/// How a story ended.
pub(super) struct End {
    /// The promise that was broken.
    pub(super) fault: Option<Fault>,
    /// What happened, line by line, if that was to be told.
    pub(super) told: String,
}

/// Lets a story happen.
pub(super) fn run(story: &Story, tell: bool) -> End {
    let mut dice = fastrand::Rng::with_seed(story.seed ^ 0x5EED);
    let nodes = story.nodes;
    let processes = (0..story.processes).map(|_| {
        let drift = dice.i64(-200..=200);
        Process::new(nodes, story.lazily, drift, || dice.u64(100..2_000))
    });
    let processes = processes.collect();
    let mut run = Run {
        story,
        world: World::new(nodes),
        processes,
        ops: Vec::new(),
        dice,
        now: 0,
        mended: None,
        unheard: (0..nodes).map(|_| Vec::new()).collect(),
        queue: BinaryHeap::new(),
        count: 0,
        fault: None,
        told: tell.then(String::new),
    };
    run.begin();
    run.go();
    End {
        fault: run.fault,
        told: run.told.unwrap_or_default(),
    }
}

impl Run<'_> {
    fn begin(&mut self) {
        for process in 0..self.processes.len() {
            for node in 0..self.story.nodes {
                if !self.story.lazily {
                    self.first_look(process, node);
                }
                self.pause(process, node);
            }
        }
        let acts = &self.story.acts;
        let end = acts.iter().map(|act| act.at).max().unwrap_or(0);
        for (index, act) in acts.iter().enumerate() {
            let at = act.at;
            self.at(at, Event::Act(index));
        }
        self.at(0, Event::Tick);
        self.at(end + BEFORE_MENDING, Event::Mend);
    }

    fn go(&mut self) {
        while self.fault.is_none() {
            let Some(Reverse(Timed(at, _, event))) = self.queue.pop() else {
                return;
            };
            self.now = at;
            match event {
                Event::Act(index) => self.act(self.story.acts[index]),
                Event::Tick => {
                    self.world.tick(&mut self.dice, at);
                    self.at(at + TICK, Event::Tick);
                }
                Event::Mend => self.mend(),
                Event::Last(step) => {
                    if !self.last(step) {
                        return;
                    }
                }
                Event::Turn {
                    process,
                    node,
                    turn,
                } => self.turn(process, node, turn),
                Event::Limit {
                    process,
                    node,
                    turn,
                } => self.limit(process, node, turn),
                Event::GiveUp { op, number } => self.give_up(op, number),
                Event::WaitOver { op } => self.wait_over(op),
                Event::Arrives(message) => self.arrives(message),
                Event::Returns(message, reply) => self.returns(&message, reply),
            }
        }
    }

    /// Has something happen at a time.
    pub(super) fn at(&mut self, at: Micros, event: Event) {
        self.count += 1;
        self.queue.push(Reverse(Timed(at, self.count, event)));
    }

    /// A promise was broken.
    pub(super) fn broken(&mut self, kind: &'static str, what: impl FnOnce() -> String) {
        if self.fault.is_none() {
            let what = what();
            let fault = Fault { kind, what };
            self.tell(|| format!("BROKEN: {fault}"));
            self.fault = Some(fault);
        }
    }

    /// Adds a line to the story that is told.
    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(told) = &mut self.told {
            let millis = self.now / 1000;
            let (seconds, millis) = (millis / 1000, millis % 1000);
            let _ = writeln!(told, "{seconds:>4}.{millis:03} s  {}", what());
        }
    }

    /// Sends a message to a server.
    pub(super) fn send(&mut self, message: Message) {
        let (process, node) = (message.process, message.node);
        self.carry(process, node, Event::Arrives(message));
    }

    fn carry(&mut self, process: usize, node: usize, event: Event) {
        let wire = &mut self.processes[process].wires[node];
        if wire.parted {
            wire.held.push(event);
            return;
        }
        let delay = wire.delay + self.dice.u64(0..=wire.delay / 4);
        self.at(self.now + delay, event);
    }

    fn arrives(&mut self, message: Message) {
        let node = message.node;
        let server = &self.world.servers[node];
        if server.frozen {
            self.unheard[node].push(message);
            return;
        }
        let reply = if !server.up || message.run.is_some_and(|run| run != server.run) {
            Reply::Lost
        } else {
            match &message.ask {
                Ask::Connect { .. } => Reply::Connected { run: server.run },
                Ask::Look { .. } => Reply::Looked {
                    row: answers::looked(server, node, self.now),
                    told: Told::of(server),
                },
                Ask::History { line, .. } => {
                    let readable = self.story.history && server.primary;
                    let ends = readable.then(|| self.world.history(*line));
                    Reply::History(ends.map(|ends| answers::history(&ends)))
                }
                Ask::Read { .. } => Reply::Read {
                    row: answers::testified(server),
                    seen: self.world.seen(node, self.now),
                },
                Ask::Write { op, .. } => self.write_arrives(node, *op),
            }
        };
        let (process, node) = (message.process, message.node);
        self.carry(process, node, Event::Returns(message, reply));
    }

    fn returns(&mut self, message: &Message, reply: Reply) {
        let (process, node) = (message.process, message.node);
        match message.ask {
            Ask::Connect { turn } | Ask::Look { turn } | Ask::History { turn, .. } => {
                if self.processes[process].watches[node].turn == turn {
                    self.heard(process, node, reply);
                }
            }
            Ask::Read { op, number } | Ask::Write { op, number } => {
                self.answered(op, number, node, reply);
            }
        }
    }

    fn act(&mut self, act: Act) {
        self.tell(|| act.to_string());
        let (nodes, processes) = (self.story.nodes as u64, self.processes.len() as u64);
        // A story that was written by hand may name what isn't there.
        let index = |index: u64, of: u64| usize::try_from(index % of).unwrap_or_default();
        let (n, p) = (
            |node| index(node, nodes),
            |process| index(process, processes),
        );
        match act.what {
            What::Crash { node } => self.crash(n(node), false),
            What::Lose { node } => self.crash(n(node), true),
            What::Start { node } => {
                let primary = self.world.servers[n(node)].primary;
                self.start(n(node), primary);
            }
            What::Demote { node, upstream } => {
                if !self.world.servers[n(node)].up {
                    self.world.servers[n(node)].upstream = n(upstream);
                    self.start(n(node), false);
                }
            }
            What::Rewind { node, upstream } => {
                let ours = self.world.servers[n(upstream)].system == super::world::OURS;
                if !self.world.servers[n(node)].up && node != upstream && ours {
                    self.world.rewind(n(node), n(upstream));
                    self.start(n(node), false);
                }
            }
            What::Swap { node } => {
                let server = &mut self.world.servers[n(node)];
                if !server.up && !server.primary {
                    (server.system, server.line) = (super::world::THEIRS, 9);
                    self.start(n(node), true);
                }
            }
            What::Freeze { node } => {
                let server = &mut self.world.servers[n(node)];
                server.frozen = server.up;
            }
            What::Thaw { node } => self.thaw(n(node)),
            What::Pause { node } => {
                let server = &mut self.world.servers[n(node)];
                server.paused = !server.primary;
            }
            What::Resume { node } => self.world.servers[n(node)].paused = false,
            What::Slow { node } => self.world.servers[n(node)].slow = true,
            What::Fast { node } => self.world.servers[n(node)].slow = false,
            What::Cut { node } => self.world.servers[n(node)].cut_off = true,
            What::Mend { node } => self.world.servers[n(node)].cut_off = false,
            What::Promote { node } => {
                let server = &self.world.servers[n(node)];
                if server.up
                    && !server.frozen
                    && !server.primary
                    && server.system == super::world::OURS
                {
                    self.world.promote(n(node));
                }
            }
            What::Follow { node, upstream } => {
                let server = &mut self.world.servers[n(node)];
                if !server.primary && node != upstream {
                    (server.upstream, server.streaming) = (n(upstream), false);
                }
            }
            What::Clock { node, seconds } => {
                let jump = i64::try_from(seconds).unwrap_or_default() * 1_000_000;
                let server = &mut self.world.servers[n(node)];
                server.clock = if server.clock > 0 { -jump } else { jump };
            }
            What::Part { process, node } => self.processes[p(process)].wires[n(node)].parted = true,
            What::Join { process, node } => self.join(p(process), n(node)),
            What::Delay {
                process,
                node,
                micros,
            } => {
                self.processes[p(process)].wires[n(node)].delay = micros;
            }
            What::Drain { process, node } => self.drain(p(process), n(node), true),
            What::Undrain { process, node } => self.drain(p(process), n(node), false),
            What::PrimaryOnly { process } => self.primary_only(p(process), true),
            What::Routed { process } => self.primary_only(p(process), false),
            What::Write { process, weak } => self.write(p(process), weak != 0, false),
            What::After { process, .. }
            | What::Monotonic { process, .. }
            | What::Within { process, .. }
            | What::Eventual { process }
            | What::Strong { process }
            | What::Foreign { process } => self.read(p(process), act.what, false),
        }
    }

    fn crash(&mut self, node: usize, losing: bool) {
        if !self.world.servers[node].up {
            return;
        }
        self.world.crash(node, losing);
        for message in std::mem::take(&mut self.unheard[node]) {
            let process = message.process;
            self.carry(process, node, Event::Returns(message, Reply::Lost));
        }
    }

    fn start(&mut self, node: usize, primary: bool) {
        if !self.world.servers[node].up {
            let back = self.dice.u64(0..600);
            self.world.start(node, primary, back, self.now);
        }
    }

    fn thaw(&mut self, node: usize) {
        self.world.servers[node].frozen = false;
        for message in std::mem::take(&mut self.unheard[node]) {
            self.at(self.now, Event::Arrives(message));
        }
    }

    fn join(&mut self, process: usize, node: usize) {
        let Wire { parted, held, .. } = &mut self.processes[process].wires[node];
        *parted = false;
        for event in std::mem::take(held) {
            self.carry(process, node, event);
        }
    }

    fn drain(&mut self, process: usize, node: usize, drained: bool) {
        let process = &mut self.processes[process];
        process.known.drained[node] = drained;
        let order = if drained {
            Order::Drain(node)
        } else {
            Order::Resume(node)
        };
        process.change(|evidence| evidence.ordered(order));
    }

    fn primary_only(&mut self, process: usize, only: bool) {
        let process = &mut self.processes[process];
        process.known.primary_only = only;
        let reads = if only {
            Reads::PrimaryOnly
        } else {
            Reads::Routed
        };
        process.change(|evidence| evidence.ordered(Order::Reads(reads)));
    }

    /// Everything that is broken is mended; there is one primary, and the others follow it.
    fn mend(&mut self) {
        self.tell(|| "everything is mended".to_owned());
        for node in 0..self.story.nodes {
            let server = &mut self.world.servers[node];
            (server.paused, server.slow, server.cut_off) = (false, false, false);
            if server.frozen {
                self.thaw(node);
            }
            for process in 0..self.processes.len() {
                self.processes[process].wires[node].delay = 1_000;
                self.join(process, node);
                self.drain(process, node, false);
                self.primary_only(process, false);
            }
        }
        let leader = self.world.leader();
        let leader = leader.unwrap_or_else(|| self.promote_the_furthest());
        self.start(leader, true);
        if !self.world.is_on_the_newest(leader) {
            // Who was promoted last is a primary no longer: whoever takes its place needs a timeline of its own.
            self.crash(leader, false);
            self.start(leader, false);
            self.world.promote(leader);
        }
        self.world.flush(leader, self.now);
        for node in 0..self.story.nodes {
            if node == leader {
                continue;
            }
            let (server, up) = (&self.world.servers[node], &self.world.servers[leader]);
            let ours = (server.line, server.written);
            let fits = !server.primary && self.world.holds((up.line, up.flushed), ours);
            if fits {
                self.start(node, false);
                self.world.servers[node].upstream = leader;
            } else {
                self.crash(node, false);
                self.world.rewind(node, leader);
                self.start(node, false);
            }
        }
        self.mended = Some(self.now);
        self.at(self.now + MENDED, Event::Last(0));
    }

    /// Where no server is a primary any more, the replica that has the most becomes one.
    fn promote_the_furthest(&mut self) -> usize {
        let ours = self.world.servers.iter().enumerate();
        let ours = ours.filter(|(_, server)| server.system == super::world::OURS);
        let furthest = ours.max_by_key(|(_, server)| (server.line, server.written));
        let node = furthest.map_or(0, |(node, _)| node);
        self.start(node, false);
        self.world.promote(node);
        node
    }
}
