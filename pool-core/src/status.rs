//! What a pool looks like at one moment: numbers, and who holds its connections.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

/// A pool's numbers at one moment, read under its lock.
///
/// `open = idle + in_use + resetting + closing` when nobody is between two states; idle connections are
/// claimed without the lock, so `idle` and `in_use` may each be off by those claimed meanwhile, never
/// below zero. `Display` gives one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Status {
    /// How many connections the pool keeps (`pool_size`).
    pub size: usize,
    /// How many may exist (`pool_size + max_overflow`).
    pub capacity: usize,
    /// Connections that exist, being reset or closed ones included.
    pub open: usize,
    /// Ready to be handed out.
    pub idle: usize,
    /// Checked out.
    pub in_use: usize,
    /// Being opened.
    pub connecting: usize,
    /// Returned, and being reset or checked before the next caller gets them.
    pub resetting: usize,
    /// Being closed.
    pub closing: usize,
    /// Connections that exist or are being opened, beyond `size`.
    pub overflow: usize,
    /// Callers in the wait queue.
    pub waiting: usize,
    /// Taken out of the pool with `detach` since it was built; not part of `open`.
    pub detached: u64,
    /// Given up on while closing, because the other side had not let go within `close_timeout`. Each may
    /// still exist on the server, outside `open`.
    pub abandoned: u64,
    /// Whether the pool hands out nothing for now.
    pub suspended: bool,
    /// Whether the pool is closed.
    pub closed: bool,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "size {} + {} overflow in use of {}, {} idle, {} in use, {} connecting, {} resetting, \
             {} closing, {} waiting{}",
            self.size,
            self.overflow,
            self.capacity.saturating_sub(self.size),
            self.idle,
            self.in_use,
            self.connecting,
            self.resetting,
            self.closing,
            self.waiting,
            if self.closed {
                ", closed"
            } else if self.suspended {
                ", suspended"
            } else {
                ""
            }
        )
    }
}

/// Who holds a connection: where it was checked out, and how long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The line that called `get`, `get_owned` or `try_get`.
    pub place: &'static Location<'static>,
    /// How long ago, by the coarse clock (exact to about 100 ms).
    pub held: Duration,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1?}, taken at {}:{}",
            self.held,
            self.place.file(),
            self.place.line()
        )
    }
}

/// How [`Pool::close`](crate::Pool::close) ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// Connections still checked out when the limit was reached; each is closed when it comes back.
    pub still_held: Vec<Holder>,
    /// Given up on, because the other side had not let go within `close_timeout`.
    pub abandoned: u64,
}

impl CloseReport {
    /// Whether everything came back and was closed.
    pub fn is_clean(&self) -> bool {
        self.still_held.is_empty() && self.abandoned == 0
    }
}
