//! What clients did and were told: every attempt to append, every read.
//!
//! A writer appends the numbers 0, 1, 2, … each in a transaction of its own; [`LIST`] of them make a list. A read
//! looks at one list, and what it saw of it is one word, a bit for each number.
//!
//! What always holds: an attempt is noted before anything is sent, and what is noted of its end is no more than what
//! the library said.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pool_router::CommitToken;

use crate::tour::lock;

/// How many numbers a list has.
pub(crate) const LIST: u32 = 48;
/// How many of the last acknowledged writes readers choose from.
const REMEMBERED: usize = 64;

/// One number of one writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) writer: usize,
    pub(crate) number: u32,
}

impl Place {
    /// Which of the writer's lists it is in.
    pub(crate) fn list(self) -> u32 {
        self.number / LIST
    }

    /// Its bit in what a read saw of that list.
    pub(crate) fn bit(self) -> u64 {
        1 << (self.number % LIST)
    }
}

/// What a writer was told of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing yet.
    Pending,
    /// It is committed.
    Acknowledged {
        at: Instant,
        token: Option<CommitToken>,
        /// As safe as was asked for: no standby was given up.
        durable: bool,
    },
    /// It is not committed, for certain.
    Refused,
    /// Nobody can tell.
    Unknown,
}

/// An attempt to append a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    /// Before its commit was sent.
    pub(crate) sent: Instant,
    pub(crate) told: Told,
}

/// What a read promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    Nothing,
    Age(Duration),
    /// Everything up to that write's token.
    After(Place),
    /// Nothing older than that write's token.
    NotBefore(Place),
    Strong,
}

/// How a read ended that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saw {
    /// These numbers, on the server with this port; and whether one was there twice or was never appended.
    Numbers { bits: u64, odd: bool, port: i32 },
    /// It was told that the write it follows is lost.
    Lost,
}

/// A read of one list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub(crate) began: Instant,
    pub(crate) writer: usize,
    pub(crate) list: u32,
    pub(crate) promise: Promise,
    pub(crate) saw: Saw,
}

/// All of it.
pub(crate) struct History {
    /// Each writer's attempts, by number.
    attempts: Vec<Mutex<Vec<Attempt>>>,
    reads: Mutex<Vec<Read>>,
    recent: Mutex<VecDeque<(Place, CommitToken)>>,
}

impl History {
    pub(crate) fn new(writers: usize) -> Self {
        Self {
            attempts: (0..writers).map(|_| Mutex::default()).collect(),
            reads: Mutex::default(),
            recent: Mutex::default(),
        }
    }

    /// The next number of a writer, which is about to be appended.
    pub(crate) fn open(&self, writer: usize) -> Place {
        let mut attempts = lock(&self.attempts[writer]);
        attempts.push(Attempt {
            sent: Instant::now(),
            told: Told::Pending,
        });
        let number = u32::try_from(attempts.len() - 1).unwrap_or(u32::MAX);
        Place { writer, number }
    }

    /// Its commit is about to be sent.
    pub(crate) fn committing(&self, place: Place) {
        self.change(place, |attempt| attempt.sent = Instant::now());
    }

    /// What became of it.
    pub(crate) fn told(&self, place: Place, told: Told) {
        self.change(place, |attempt| attempt.told = told);
        if let Told::Acknowledged {
            token: Some(token), ..
        } = told
        {
            let mut recent = lock(&self.recent);
            recent.push_back((place, token));
            if recent.len() > REMEMBERED {
                recent.pop_front();
            }
        }
    }

    fn change(&self, place: Place, change: impl FnOnce(&mut Attempt)) {
        let mut attempts = lock(&self.attempts[place.writer]);
        if let Some(attempt) = attempts.get_mut(place.number as usize) {
            change(attempt);
        }
    }

    pub(crate) fn read(&self, read: Read) {
        lock(&self.reads).push(read);
    }

    /// One of the writes acknowledged last.
    pub(crate) fn recent(&self, throw: usize) -> Option<(Place, CommitToken)> {
        let recent = lock(&self.recent);
        (!recent.is_empty()).then(|| recent[throw % recent.len()])
    }

    /// How many writers there are.
    pub(crate) fn writers(&self) -> usize {
        self.attempts.len()
    }

    /// A writer's attempts.
    pub(crate) fn attempts(&self, writer: usize) -> Vec<Attempt> {
        lock(&self.attempts[writer]).clone()
    }

    /// The list that a writer appends to now.
    pub(crate) fn current_list(&self, writer: usize) -> u32 {
        let attempts = lock(&self.attempts[writer]).len();
        u32::try_from(attempts).unwrap_or(0).saturating_sub(1) / LIST
    }

    /// All reads that were answered.
    pub(crate) fn reads(&self) -> Vec<Read> {
        lock(&self.reads).clone()
    }

    /// When the first write on a timeline was acknowledged.
    pub(crate) fn first_on(&self, timeline: u32) -> Option<Instant> {
        self.first(|token, _| token.timeline == timeline)
    }

    /// When the first write on a timeline was acknowledged that was committed after that moment.
    pub(crate) fn first_since(&self, timeline: u32, moment: Instant) -> Option<Instant> {
        self.first(|token, sent| token.timeline == timeline && sent >= moment)
    }

    fn first(&self, like: impl Fn(CommitToken, Instant) -> bool) -> Option<Instant> {
        let firsts = self.attempts.iter().filter_map(|attempts| {
            let attempts = lock(attempts);
            let told = attempts.iter().filter_map(|attempt| match attempt.told {
                Told::Acknowledged {
                    at,
                    token: Some(token),
                    ..
                } if like(token, attempt.sent) => Some(at),
                _ => None,
            });
            told.min()
        });
        firsts.min()
    }
}
