//! A pool as one would explain it: lists of who waits, who holds, what is idle and what is being opened.
//!
//! It knows neither the pool's code nor time nor tasks; what happens is told to it, and it says how the pool must
//! stand once nothing moves any more, and how each call ended. Where the pool may choose (which idle connection a
//! packed pool hands out or closes) it looks at what was seen ([`Seen`]) and holds that to be one of those allowed.

use std::collections::{BTreeSet, VecDeque};

/// A connection, by the order in which its opening began; counted from one.
pub(crate) type Conn = u32;
/// A caller, by the order in which they came.
pub(crate) type Caller = u32;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Served(Conn),
    Failed,
    Full,
    TimedOut,
    Suspended,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Packed,
    Lifo,
    Fifo,
}

/// A pool's settings.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) size: usize,
    pub(crate) overflow: usize,
    pub(crate) connecting: usize,
    pub(crate) waiting: Option<usize>,
    pub(crate) order: Order,
}

/// How long a caller waits, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It opens where there is room, but does not wait for others.
    None,
    For(u64),
    Forever,
}

/// How a connection comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Return {
    Good,
    AfterReset,
    ResetFails,
    Broken,
    Invalidated,
    Detached,
}

/// How an attempt to open a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    Yes,
    Failed,
    Panicked,
    /// For a reason that another attempt would share.
    Never,
}

/// What the pool was seen to do.
#[derive(Default)]
pub(crate) struct Seen {
    /// Calls that ended, in that order.
    pub(crate) ended: Vec<(Caller, End)>,
    /// Connections that were closed.
    pub(crate) closed: BTreeSet<Conn>,
}

impl Seen {
    fn served(&self, caller: Caller, conn: Conn) -> bool {
        self.ended.contains(&(caller, End::Served(conn)))
    }
}

struct Held {
    conn: Conn,
    /// `None`: closed when it comes back, whatever happens.
    generation: Option<u32>,
}

struct Attempt {
    conn: Conn,
    generation: u32,
}

struct Waiter {
    caller: Caller,
    until: Option<u64>,
}

/// The numbers that the pool shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) size: usize,
    pub(crate) capacity: usize,
    pub(crate) idle: usize,
    pub(crate) in_use: usize,
    pub(crate) connecting: usize,
    pub(crate) waiting: usize,
    pub(crate) detached: u64,
    pub(crate) suspended: bool,
    pub(crate) closed: bool,
}

/// See the module.
pub(crate) struct Reference {
    settings: Settings,
    now: u64,
    generation: u32,
    begun: Conn,
    /// Those that came back first stand first.
    idle: Vec<Conn>,
    held: Vec<Held>,
    opening: Vec<Attempt>,
    waiting: VecDeque<Waiter>,
    detached: u64,
    suspended: bool,
    closed: bool,
    ended: Vec<(Caller, End)>,
}

impl Reference {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            now: 0,
            generation: 0,
            begun: 0,
            idle: Vec::new(),
            held: Vec::new(),
            opening: Vec::new(),
            waiting: VecDeque::new(),
            detached: 0,
            suspended: false,
            closed: false,
            ended: Vec::new(),
        }
    }

    pub(crate) fn numbers(&self) -> Numbers {
        Numbers {
            size: self.settings.size,
            capacity: self.capacity(),
            idle: self.idle.len(),
            in_use: self.held.len(),
            connecting: self.opening.len(),
            waiting: self.waiting.len(),
            detached: self.detached,
            suspended: self.suspended,
            closed: self.closed,
        }
    }

    /// The calls that ended since the last look, in that order.
    pub(crate) fn ended(&mut self) -> Vec<(Caller, End)> {
        std::mem::take(&mut self.ended)
    }

    /// The `nth` of the connections in use, counting round.
    pub(crate) fn held(&self, nth: usize) -> Option<Conn> {
        let len = self.held.len();
        (len > 0).then(|| self.held[nth % len].conn)
    }

    /// Whether it would be good to go on with, were it to come back now.
    pub(crate) fn is_current(&self, conn: Conn) -> bool {
        let generation = Some(self.generation);
        let mut all = self.held.iter();
        all.any(|held| held.conn == conn && held.generation == generation)
    }

    /// The `nth` of the connections being opened, counting round.
    pub(crate) fn opening(&self, nth: usize) -> Option<Conn> {
        let len = self.opening.len();
        (len > 0).then(|| self.opening[nth % len].conn)
    }

    /// The `nth` of those who wait, counting round.
    pub(crate) fn waiter(&self, nth: usize) -> Option<Caller> {
        let len = self.waiting.len();
        (len > 0).then(|| self.waiting[nth % len].caller)
    }

    pub(crate) fn hands_out(&self) -> bool {
        !self.idle.is_empty() && !self.suspended
    }

    pub(crate) fn get(&mut self, caller: Caller, patience: Patience, seen: &Seen) {
        if !self.suspended
            && let Some(conn) = self.pick(|conn| seen.served(caller, conn))
        {
            return self.hand(caller, conn);
        }
        if self.closed {
            return self.ended.push((caller, End::Closed));
        }
        let room = if self.suspended { 0 } else { self.room() };
        let served = self.opening.len() + room;
        let bound = self
            .settings
            .waiting
            .map_or(usize::MAX, |more| served + more);
        if patience == Patience::None && self.waiting.len() >= served {
            return self.ended.push((caller, self.too_late()));
        }
        if self.waiting.len() >= bound {
            return self.ended.push((caller, End::Full));
        }
        let until = match patience {
            Patience::For(span) => Some(self.now + span),
            Patience::None | Patience::Forever => None,
        };
        self.waiting.push_back(Waiter { caller, until });
        self.open_wanted();
    }

    pub(crate) fn try_get(&mut self, seen: &Seen, caller: Caller) {
        if !self.suspended
            && let Some(conn) = self.pick(|conn| seen.served(caller, conn))
        {
            self.hand(caller, conn);
        }
    }

    /// The next idle connection is found broken by whoever asks for one next.
    pub(crate) fn lose_idle(&mut self, seen: &Seen) {
        self.pick(|conn| seen.closed.contains(&conn));
        self.open_wanted();
    }

    pub(crate) fn leave(&mut self, caller: Caller) {
        self.waiting.retain(|waiter| waiter.caller != caller);
    }

    pub(crate) fn give_back(&mut self, conn: Conn, how: Return) {
        let in_excess = self.in_excess();
        let at = self.held.iter().position(|held| held.conn == conn);
        let held = self.held.remove(at.expect("it is in use"));
        self.detached += u64::from(how == Return::Detached);
        let good = matches!(how, Return::Good | Return::AfterReset);
        let current = held.generation == Some(self.generation);
        if good && current && !self.closed && !in_excess {
            self.offer(conn);
        }
        self.open_wanted();
    }

    /// Its holder tells that all of its age are suspect. Those idle answer their ping.
    pub(crate) fn suspect(&mut self, conn: Conn) {
        let generation = self.generation;
        let held = self.held.iter_mut().find(|held| held.conn == conn);
        let held = held.expect("it is in use");
        if held.generation == Some(generation) {
            self.generation += 1;
        }
        held.generation = None;
    }

    pub(crate) fn opened(&mut self, conn: Conn, how: Opened) {
        let in_excess = self.in_excess();
        let at = self
            .opening
            .iter()
            .position(|attempt| attempt.conn == conn)
            .expect("it is being opened");
        let attempt = self.opening.remove(at);
        match how {
            Opened::Yes if attempt.generation != self.generation => self.try_again(),
            Opened::Yes if in_excess => {}
            Opened::Yes => self.offer(conn),
            Opened::Failed | Opened::Panicked => {
                if let Some(first) = self.waiting.pop_front() {
                    self.ended.push((first.caller, End::Failed));
                }
                self.try_again();
            }
            Opened::Never => self.refuse_all(End::Failed),
        }
        self.open_wanted();
    }

    pub(crate) fn resize(&mut self, size: usize, overflow: usize, seen: &Seen) {
        if size + overflow == 0 {
            return; // Refused.
        }
        (self.settings.size, self.settings.overflow) = (size, overflow);
        while self.in_excess() || self.idle.len() > size {
            if self.pick(|conn| seen.closed.contains(&conn)).is_none() {
                break;
            }
        }
        self.open_wanted();
    }

    pub(crate) fn suspend(&mut self) {
        self.suspended |= !self.closed;
    }

    pub(crate) fn resume(&mut self, seen: &Seen) {
        if self.closed || !self.suspended {
            return;
        }
        self.suspended = false;
        // In the order in which they came back, in every pool.
        while let Some(caller) = self.waiter(0)
            && !self.idle.is_empty()
        {
            let mut all = self.idle.iter();
            let at = match self.settings.order {
                Order::Packed => all.position(|conn| seen.served(caller, *conn)),
                Order::Lifo | Order::Fifo => None,
            };
            let conn = self.idle.remove(at.unwrap_or(0));
            self.waiting.pop_front();
            self.hand(caller, conn);
        }
        while self.idle.len() > self.settings.size {
            let mut all = self.idle.iter();
            let at = match self.settings.order {
                Order::Packed => all.position(|conn| seen.closed.contains(conn)),
                Order::Lifo | Order::Fifo => None,
            };
            self.idle.remove(at.unwrap_or(self.idle.len() - 1));
        }
        self.open_wanted();
    }

    pub(crate) fn invalidate_all(&mut self) {
        self.generation += 1;
        self.idle.clear();
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.idle.clear();
        self.opening.clear();
        self.refuse_all(End::Closed);
    }

    pub(crate) fn pass(&mut self, millis: u64) {
        self.now += millis;
        let mut still = VecDeque::new();
        for waiter in std::mem::take(&mut self.waiting) {
            // For the first of them connections are being opened, which has a limit of its own.
            let is_over = waiter.until.is_some_and(|until| until <= self.now);
            if is_over && still.len() >= self.opening.len() {
                self.ended.push((waiter.caller, self.too_late()));
            } else {
                still.push_back(waiter);
            }
        }
        self.waiting = still;
    }

    /// Whether more exist than may.
    pub(crate) fn in_excess(&self) -> bool {
        self.taken() > self.capacity()
    }

    fn capacity(&self) -> usize {
        self.settings.size + self.settings.overflow
    }

    fn taken(&self) -> usize {
        self.idle.len() + self.held.len() + self.opening.len()
    }

    fn room(&self) -> usize {
        self.capacity().saturating_sub(self.taken())
    }

    fn too_late(&self) -> End {
        if self.suspended {
            End::Suspended
        } else {
            End::TimedOut
        }
    }

    /// Takes the idle connection whose turn it is; in a packed pool whichever it was.
    fn pick(&mut self, is_it: impl Fn(Conn) -> bool) -> Option<Conn> {
        let last = self.idle.len().checked_sub(1)?;
        let at = match self.settings.order {
            Order::Fifo => 0,
            Order::Lifo => last,
            Order::Packed => self.idle.iter().position(|conn| is_it(*conn)).unwrap_or(0),
        };
        Some(self.idle.remove(at))
    }

    fn hand(&mut self, caller: Caller, conn: Conn) {
        let generation = Some(self.generation);
        self.held.push(Held { conn, generation });
        self.ended.push((caller, End::Served(conn)));
    }

    /// A good connection goes to the first who waits, else among the idle, else it is one too many.
    fn offer(&mut self, conn: Conn) {
        if self.suspended {
            self.idle.push(conn);
        } else if let Some(first) = self.waiting.pop_front() {
            self.hand(first.caller, conn);
        } else if self.idle.len() < self.settings.size {
            self.idle.push(conn);
        }
    }

    /// The same opener begins once more, if somebody waits for it.
    fn try_again(&mut self) {
        let wanted = self.waiting.len() > self.opening.len();
        if wanted && !self.suspended && !self.closed {
            self.begin();
        }
    }

    /// As many are being opened as wait, as far as there is room.
    fn open_wanted(&mut self) {
        while !self.suspended
            && !self.closed
            && self.waiting.len() > self.opening.len()
            && self.opening.len() < self.settings.connecting
            && self.room() > 0
        {
            self.begin();
        }
    }

    fn begin(&mut self) {
        self.begun += 1;
        self.opening.push(Attempt {
            conn: self.begun,
            generation: self.generation,
        });
    }

    fn refuse_all(&mut self, end: End) {
        let all = std::mem::take(&mut self.waiting);
        let all = all.into_iter().map(|waiter| (waiter.caller, end));
        self.ended.extend(all);
    }
}
