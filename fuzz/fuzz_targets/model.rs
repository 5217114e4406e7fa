//! A pool as one would explain it: numbers, a list of those who hold, a list of those who wait.

use std::time::Duration;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Served,
    Refused,
}

pub struct Model {
    size: usize,
    capacity: usize,
    timeout: Duration,
    now: Duration,
    generation: u32,
    idle: usize,
    /// The generation of each connection in use, in the order in which they were had.
    held: Vec<u32>,
    /// When each of those who wait gives up.
    waiting: Vec<Duration>,
    suspended: bool,
    closed: bool,
    ended: Vec<Asked>,
}

impl Model {
    pub fn new(size: usize, overflow: usize, timeout: Duration) -> Self {
        Self {
            size,
            capacity: size + overflow,
            timeout,
            now: Duration::ZERO,
            generation: 0,
            idle: 0,
            held: Vec::new(),
            waiting: Vec::new(),
            suspended: false,
            closed: false,
            ended: Vec::new(),
        }
    }

    /// Idle, in use, waiting, open.
    pub fn numbers(&self) -> (usize, usize, usize, usize) {
        let held = self.held.len();
        (self.idle, held, self.waiting.len(), self.idle + held)
    }

    /// Whose wait has ended since the last look, first come first.
    pub fn ended(&mut self) -> Vec<Asked> {
        std::mem::take(&mut self.ended)
    }

    pub fn get(&mut self) {
        if self.closed {
            self.ended.push(Asked::Refused);
            return;
        }
        self.waiting.push(self.now + self.timeout);
        self.serve();
    }

    pub fn try_get(&mut self) -> bool {
        let there = self.idle > 0 && !self.suspended;
        if there {
            self.idle -= 1;
            self.held.push(self.generation);
        }
        there
    }

    pub fn give_back(&mut self, which: usize) {
        let excess = self.idle + self.held.len() > self.capacity;
        let generation = self.held.remove(which);
        if !self.closed && !excess && generation == self.generation {
            self.idle += 1;
        }
        self.serve();
        self.trim();
    }

    pub fn close_one(&mut self, which: usize) {
        self.held.remove(which);
        self.serve();
    }

    pub fn leave(&mut self, which: usize) {
        self.waiting.remove(which);
    }

    pub fn resize(&mut self, size: usize, overflow: usize) {
        (self.size, self.capacity) = (size, size + overflow);
        if self.suspended {
            // What is parked beyond `pool_size` goes at once as well.
            self.idle = self.idle.min(self.size);
        }
        self.trim();
        self.serve();
    }

    pub fn suspend(&mut self) {
        self.suspended |= !self.closed;
    }

    pub fn resume(&mut self) {
        self.suspended = false;
        self.serve();
        self.trim();
    }

    pub fn invalidate_all(&mut self) {
        self.generation += 1;
        self.idle = 0;
        self.serve();
    }

    pub fn pass(&mut self, span: Duration) {
        self.now += span;
        let now = self.now;
        let before = self.waiting.len();
        self.waiting.retain(|until| *until > now);
        let over = before - self.waiting.len();
        self.ended.extend(std::iter::repeat_n(Asked::Refused, over));
    }

    pub fn close(&mut self) {
        self.closed = true;
        self.idle = 0;
        let all = self.waiting.drain(..).map(|_| Asked::Refused);
        self.ended.extend(all);
    }

    /// Nobody waits beside an idle connection or free room.
    fn serve(&mut self) {
        while !self.suspended && !self.closed && !self.waiting.is_empty() {
            if self.idle > 0 {
                self.idle -= 1;
            } else if self.held.len() >= self.capacity {
                return;
            }
            self.waiting.remove(0);
            self.held.push(self.generation);
            self.ended.push(Asked::Served);
        }
    }

    /// No more are idle than `pool_size`, and no more exist than may; while suspended, all that comes back is kept.
    fn trim(&mut self) {
        if !self.suspended {
            self.idle = self.idle.min(self.size);
        }
        let may = self.capacity.saturating_sub(self.held.len());
        self.idle = self.idle.min(may);
    }
}
