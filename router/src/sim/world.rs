//! The simulated servers and the log that they share: what is true, whatever a router believes.
//!
//! A timeline is a branch of the log that leaves its parent at a place. Every promotion takes a timeline of its own,
//! as with an archive, or a failover manager, that hands out the numbers. Positions are bytes; a write is a place on a
//! timeline, and whether a server shows it follows from the server's own timeline and position.

/// Microseconds of virtual time since the story's beginning.
pub(super) type Micros = u64;

/// Not yet.
pub(super) const NEVER: Micros = Micros::MAX;
/// The cluster of which all nodes are at first, and another one.
pub(super) const OURS: u64 = 7_413_218_822_217_034_291;
pub(super) const THEIRS: u64 = 6_000_000_000_000_000_001;
/// Where the log begins.
const START: u64 = 0x0300_2000;

/// A commit never ends within the header of a page.
fn beyond_headers(position: u64) -> u64 {
    const PAGE: u64 = 8192;
    const HEADER: u64 = 40;
    if position % PAGE <= HEADER {
        position - position % PAGE + HEADER + 8
    } else {
        position
    }
}

/// A branch of the log.
struct Line {
    parent: Option<u32>,
    /// Up to here it is its parent's.
    fork: u64,
}

/// A write that was committed somewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    pub(super) line: u32,
    /// The end of its commit.
    pub(super) end: u64,
    /// The position that was read right after it: its token's.
    pub(super) token: u64,
    pub(super) weak: bool,
    /// Since when it was safe on the primary's disk.
    pub(super) flushed: Micros,
    /// Its place in the log was lost without a change of timeline, by a crash.
    pub(super) cut: bool,
    /// The client has its token.
    pub(super) acknowledged: bool,
}

/// One server.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a state of its own, and any two may meet"
)]
pub(super) struct Server {
    pub(super) up: bool,
    pub(super) frozen: bool,
    pub(super) primary: bool,
    pub(super) system: u64,
    pub(super) line: u32,
    /// On a primary: written, and flushed. On a replica both are what was received.
    pub(super) written: u64,
    pub(super) flushed: u64,
    pub(super) replayed: u64,
    /// Counts the starts.
    pub(super) run: u64,
    /// By its own clock.
    pub(super) started: i64,
    /// How far its clock is off, in microseconds.
    pub(super) clock: i64,
    pub(super) paused: bool,
    pub(super) slow: bool,
    pub(super) upstream: usize,
    pub(super) streaming: bool,
    pub(super) cut_off: bool,
    /// The timeline in its control file, which trails.
    pub(super) checkpoint: u32,
}

/// What a client's snapshot showed: where the server stood.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) at: Micros,
    pub(super) primary: bool,
    pub(super) system: u64,
    pub(super) line: u32,
    pub(super) position: u64,
}

/// The servers and the log.
pub(super) struct World {
    pub(super) servers: Vec<Server>,
    lines: Vec<Line>,
    pub(super) writes: Vec<Write>,
}

impl World {
    /// A primary, the first, and its replicas.
    pub(super) fn new(nodes: usize) -> Self {
        let server = |index| Server {
            up: true,
            frozen: false,
            primary: index == 0,
            system: OURS,
            line: 1,
            written: START,
            flushed: START,
            replayed: START,
            run: 1,
            started: -1_000_000,
            clock: 0,
            paused: false,
            slow: false,
            upstream: 0,
            streaming: index != 0,
            cut_off: false,
            checkpoint: 1,
        };
        let root = Line {
            parent: None,
            fork: 0,
        };
        Self {
            servers: (0..nodes).map(server).collect(),
            lines: vec![root],
            writes: Vec::new(),
        }
    }

    /// Whether a place in the log is part of what lies before another.
    pub(super) fn holds(&self, (line, position): (u32, u64), (of, end): (u32, u64)) -> bool {
        let (mut at, mut limit) = (line, position);
        loop {
            if at == of {
                return end <= limit;
            }
            let Some(branch) = self.lines.get(at as usize - 1) else {
                return false;
            };
            let Some(parent) = branch.parent else {
                return false;
            };
            limit = limit.min(branch.fork);
            at = parent;
        }
    }

    /// Whether a snapshot shows a write.
    pub(super) fn shows(&self, seen: &Seen, write: &Write) -> bool {
        seen.system == OURS
            && !write.cut
            && self.holds((seen.line, seen.position), (write.line, write.end))
    }

    /// Whether a write is on a timeline's branch, as far as that goes.
    pub(super) fn survives_on(&self, line: u32, write: &Write) -> bool {
        !write.cut && self.holds((line, u64::MAX), (write.line, write.end))
    }

    /// Where each timeline before this one ended.
    pub(super) fn history(&self, line: u32) -> Vec<(u32, u64)> {
        let mut ends = Vec::new();
        let mut at = line;
        while let Some(Line {
            parent: Some(parent),
            fork,
        }) = self.lines.get(at as usize - 1)
        {
            ends.push((*parent, *fork));
            at = *parent;
        }
        ends.reverse();
        ends
    }

    /// What a snapshot taken now on a server shows.
    pub(super) fn seen(&self, node: usize, at: Micros) -> Seen {
        let server = &self.servers[node];
        Seen {
            at,
            primary: server.primary,
            system: server.system,
            line: server.line,
            position: if server.primary {
                server.written
            } else {
                server.replayed
            },
        }
    }

    /// A transaction commits on a primary.
    pub(super) fn commit(&mut self, node: usize, bytes: u64, weak: bool, now: Micros) -> usize {
        let server = &mut self.servers[node];
        server.written = beyond_headers(server.written + bytes);
        let (line, end) = (server.line, server.written);
        if !weak {
            self.flush(node, now);
        }
        let token = self.servers[node].flushed;
        self.writes.push(Write {
            line,
            end,
            token,
            weak,
            flushed: if weak { NEVER } else { now },
            cut: false,
            acknowledged: false,
        });
        self.writes.len() - 1
    }

    /// A primary's log goes to its disk.
    pub(super) fn flush(&mut self, node: usize, now: Micros) {
        let server = &mut self.servers[node];
        if server.flushed == server.written {
            return;
        }
        server.flushed = server.written;
        let (line, flushed) = (server.line, server.flushed);
        for write in &mut self.writes {
            if write.line == line && write.flushed == NEVER && write.end <= flushed && !write.cut {
                write.flushed = now;
            }
        }
    }

    /// A primary's log ends here from now on.
    fn cut(&mut self, node: usize, end: u64) {
        let server = &mut self.servers[node];
        (server.written, server.flushed) = (end, end);
        let line = server.line;
        for write in &mut self.writes {
            write.cut |= write.line == line && write.end > end;
        }
    }

    /// A server's process ends; `losing` what nobody else has of its log.
    pub(super) fn crash(&mut self, node: usize, losing: bool) {
        let server = &mut self.servers[node];
        (server.up, server.frozen, server.streaming) = (false, false, false);
        if !server.primary || server.system != OURS {
            return;
        }
        let (line, flushed) = (server.line, server.flushed);
        let end = if losing {
            let branch = self.lines[line as usize - 1].fork;
            // Whoever is on this timeline has received no more than this of it, nor has whoever left it later.
            let received = self.servers.iter().enumerate();
            let received = received.filter(|(other, server)| *other != node && server.line == line);
            let received = received.map(|(_, server)| server.written);
            let left = self.lines.iter().filter(|left| left.parent == Some(line));
            let kept = received.chain(left.map(|left| left.fork)).max();
            kept.unwrap_or(0).max(branch).min(flushed)
        } else {
            flushed
        };
        self.cut(node, end);
    }

    /// A server that is down starts; a standby that replayed so far before shows less at first by so many bytes.
    pub(super) fn start(&mut self, node: usize, primary: bool, back: u64, now: Micros) {
        let server = &mut self.servers[node];
        if server.primary && !primary {
            (server.replayed, server.paused) = (server.flushed, false);
        } else if !primary {
            server.replayed = server.replayed.saturating_sub(back).max(START);
        }
        server.primary = primary;
        server.up = true;
        server.run += 1;
        server.checkpoint = server.line;
        server.started = i64::try_from(now).unwrap_or_default() + server.clock;
        server.streaming = false;
    }

    /// A server that is down gets another one's log, and is to follow it.
    pub(super) fn rewind(&mut self, node: usize, upstream: usize) {
        let (line, flushed, system) = {
            let up = &self.servers[upstream];
            (up.line, up.flushed, up.system)
        };
        let server = &mut self.servers[node];
        (server.line, server.system) = (line, system);
        (server.written, server.flushed, server.replayed) = (flushed, flushed, flushed);
        server.primary = false;
        server.upstream = upstream;
        (server.paused, server.slow) = (false, false);
    }

    /// A replica becomes a primary.
    pub(super) fn promote(&mut self, node: usize) {
        let next = u32::try_from(self.lines.len()).unwrap_or(u32::MAX) + 1;
        let server = &mut self.servers[node];
        let fork = server.written;
        self.lines.push(Line {
            parent: Some(server.line),
            fork,
        });
        // The record of the promotion itself.
        let position = beyond_headers(fork + 96);
        (server.written, server.flushed, server.replayed) = (position, position, position);
        (server.primary, server.paused, server.slow) = (true, false, false);
        (server.line, server.streaming) = (next, false);
    }

    /// Ten milliseconds pass on all servers.
    pub(super) fn tick(&mut self, dice: &mut fastrand::Rng, now: Micros) {
        for node in 0..self.servers.len() {
            let server = &self.servers[node];
            if !server.up || server.frozen || server.system != OURS {
                continue;
            }
            if server.primary {
                if dice.u8(..) < 16 {
                    self.flush(node, now);
                }
                continue;
            }
            self.receive(node, dice);
            let server = &mut self.servers[node];
            let left = server.written - server.replayed;
            if left > 0 && !server.paused {
                server.replayed += match dice.u8(..) {
                    _ if server.slow => left.min(60),
                    0..160 => left,
                    160..224 => dice.u64(0..=left),
                    _ => 0,
                };
            }
            if dice.u16(..) < 100 {
                server.checkpoint = server.line;
            }
        }
    }

    fn receive(&mut self, node: usize, dice: &mut fastrand::Rng) {
        let server = &self.servers[node];
        let up = &self.servers[server.upstream];
        let alive = up.up && !up.frozen && up.system == OURS && server.upstream != node;
        let ours = (server.line, server.written);
        let fits = alive && !server.cut_off && self.holds((up.line, up.flushed), ours);
        let (line, flushed) = (up.line, up.flushed);
        let server = &mut self.servers[node];
        if !fits {
            server.streaming = false;
        } else if server.streaming || dice.u8(..) < 24 {
            server.streaming = true;
            server.line = line;
            if dice.u8(..) < 220 {
                (server.written, server.flushed) = (flushed, flushed);
            }
        }
    }

    /// Whether a server is on the timeline of the last promotion.
    pub(super) fn is_on_the_newest(&self, node: usize) -> bool {
        self.servers[node].line as usize == self.lines.len()
    }

    /// The primary on the highest timeline, up or down.
    pub(super) fn leader(&self) -> Option<usize> {
        let ours = self.servers.iter().enumerate();
        ours.filter(|(_, server)| server.primary && server.system == OURS)
            .max_by_key(|(_, server)| server.line)
            .map(|(node, _)| node)
    }
}
