//! Choices that a pool's builder takes: when to ping, in which order to serve and to reuse, whom to send away.

use std::time::Duration;

/// When a connection is pinged before it is handed out.
///
/// A ping costs the caller a round trip. A connection that was just opened is never pinged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrePing {
    /// Never: the first statement on a connection that died meanwhile fails.
    Never,
    /// At every checkout.
    Always,
    /// If it was idle for at least this long. The default, with 30 seconds.
    IdleFor(Duration),
}

/// Where a pool reads the time at checkout and at return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeSource {
    /// A clock of the process that a thread of its own moves on about every 50 ms. The default: reading it
    /// costs about a nanosecond, and ages and idle times are that exact.
    Coarse,
    /// Tokio's clock, read each time (about 40 ns). Exact, and follows a paused clock in tests.
    Exact,
}

/// Which idle connection is handed out next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reuse {
    /// The one in the lowest slot. The default and the fast one: no lock is taken. Load gathers on few
    /// connections, so that the rest age and can be closed, which is what people want LIFO for.
    Packed,
    /// The one that came back last. Exact, at the price of a lock at every checkout and return.
    Lifo,
    /// The one that came back first, so that all are used in turn (SQLAlchemy's default). Exact, at the price of
    /// a lock at every checkout and return.
    Fifo,
}

/// What becomes of the wait queue when it does not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueDiscipline {
    /// Everybody waits until served or until their own time is over. The default.
    Fifo,
    /// Whoever has waited too long in a queue that has stood for too long is sent away.
    Shed(Shed),
}

/// When waiters are sent away with [`GetError::Shed`](crate::GetError::Shed): a pool that is asked for more than
/// it can serve then goes on serving at its capacity, and the others learn at once.
///
/// Once the queue has not been empty for an `interval`, whoever has waited longer than the `target` is sent away,
/// oldest first; never so many that fewer than `floor` are left waiting, and paced: at most half of those that
/// are due go at a time, every eighth of the target.
///
/// ```
/// use std::time::Duration;
/// use pool_core::{QueueDiscipline, Shed};
///
/// // First see what it would do (`Stats::shed` counts), then switch it on.
/// let trial = QueueDiscipline::Shed(Shed::new(Duration::from_millis(50)).shadow());
/// # let _ = trial;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shed {
    /// How long a caller may wait in a queue that does not empty.
    pub target: Duration,
    /// How long the queue must not have been empty before anybody is sent away. Ten times the target unless
    /// set.
    pub interval: Duration,
    /// How many are always left waiting. Zero unless set.
    pub floor: usize,
    /// Whether anybody is really sent away.
    pub mode: ShedMode,
}

/// Whether shedding acts or only counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShedMode {
    /// Counts those who would have been sent away.
    Shadow,
    /// Sends them away. The default.
    On,
}

impl Shed {
    /// Sends away who has waited longer than `target`, once the queue has stood for ten times as long.
    pub fn new(target: Duration) -> Self {
        Self {
            target,
            interval: target.saturating_mul(10),
            floor: 0,
            mode: ShedMode::On,
        }
    }

    /// How long the queue must not have been empty before anybody is sent away.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How many are always left waiting.
    pub fn floor(mut self, callers: usize) -> Self {
        self.floor = callers;
        self
    }

    /// Only counts.
    pub fn shadow(mut self) -> Self {
        self.mode = ShedMode::Shadow;
        self
    }
}
