//! A pool's settings: their defaults, their ranges, and the checks that [`Builder::build`] makes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Backend;
use crate::error::BuildError;
use crate::pool::Pool;

/// How many connections one pool can have at most; `max_overflow(None)` goes up to here.
pub const MAX_CONNECTIONS: usize = 62 * 1024;

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

/// A pool's settings, checked. Made by [`Builder::build`].
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) pool_size: usize,
    pub(crate) max_overflow: Option<usize>,
    pub(crate) pool_timeout: Option<Duration>,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_connecting: usize,
    pub(crate) ping_timeout: Duration,
    pub(crate) reset_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) close_deadline: Duration,
    pub(crate) recycle: Option<Duration>,
    pub(crate) pre_ping: PrePing,
    pub(crate) down_after: u32,
    pub(crate) backoff: (Duration, Duration),
    pub(crate) time_source: TimeSource,
}

impl Config {
    /// How many connections may exist.
    pub(crate) fn capacity(&self) -> usize {
        match self.max_overflow {
            Some(overflow) => self.pool_size + overflow,
            None => MAX_CONNECTIONS,
        }
    }
}

/// Builds a [`Pool`]; made by [`Pool::builder`].
///
/// `Clone`, so that a pool like an earlier one can be built from the same settings.
#[must_use = "a builder does nothing until `build` is called"]
pub struct Builder<B> {
    backend: Arc<B>,
    config: Config,
}

impl<B> Clone for Builder<B> {
    fn clone(&self) -> Self {
        Self {
            backend: Arc::clone(&self.backend),
            config: self.config.clone(),
        }
    }
}

impl<B> fmt::Debug for Builder<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl<B: Backend> Builder<B> {
    pub(crate) fn new(backend: B) -> Self {
        Self {
            backend: Arc::new(backend),
            config: Config {
                pool_size: 5,
                max_overflow: Some(10),
                pool_timeout: Some(Duration::from_secs(30)),
                connect_timeout: Duration::from_secs(5),
                max_connecting: 4,
                ping_timeout: Duration::from_secs(2),
                reset_timeout: Duration::from_secs(5),
                close_timeout: Duration::from_secs(5),
                close_deadline: Duration::from_secs(30),
                recycle: None,
                pre_ping: PrePing::IdleFor(Duration::from_secs(30)),
                down_after: 3,
                backoff: (Duration::from_millis(50), Duration::from_secs(2)),
                time_source: TimeSource::Coarse,
            },
        }
    }

    /// How many connections the pool keeps; SQLAlchemy's `pool_size`.
    ///
    /// Default 5. At a return a connection is kept while fewer than this many are idle, and closed
    /// otherwise. Zero closes each on return and needs a `max_overflow`.
    pub fn pool_size(mut self, connections: usize) -> Self {
        self.config.pool_size = connections;
        self
    }

    /// How many connections may exist beyond `pool_size`; SQLAlchemy's `max_overflow`.
    ///
    /// Default 10. `None` is no limit of its own, up to [`MAX_CONNECTIONS`] in all (SQLAlchemy's −1).
    pub fn max_overflow(mut self, connections: impl Into<Option<usize>>) -> Self {
        self.config.max_overflow = connections.into();
        self
    }

    /// How long a caller waits while neither a connection nor room for one is assigned to it;
    /// SQLAlchemy's `pool_timeout`.
    ///
    /// Default 30 seconds. Zero never waits: what is idle is taken, where there is room a connection is
    /// opened, else it fails at once. `None` waits for ever. Opening is not part of it: that has
    /// [`connect_timeout`](Self::connect_timeout). Exact to a few milliseconds.
    pub fn pool_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.config.pool_timeout = limit.into();
        self
    }

    /// How long opening one connection may take.
    ///
    /// Default 5 seconds; zero is refused.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.config.connect_timeout = limit;
        self
    }

    /// How many connections may be opening at the same time.
    ///
    /// Default 4; at least 1. More callers than that wait for whichever comes first.
    pub fn max_connecting(mut self, connections: usize) -> Self {
        self.config.max_connecting = connections;
        self
    }

    /// When a connection is pinged before it is handed out; SQLAlchemy's `pool_pre_ping`.
    ///
    /// Default [`PrePing::IdleFor`] 30 seconds.
    pub fn pre_ping(mut self, policy: PrePing) -> Self {
        self.config.pre_ping = policy;
        self
    }

    /// How long a ping may take before the connection counts as dead.
    ///
    /// Default 2 seconds; zero is refused.
    pub fn ping_timeout(mut self, limit: Duration) -> Self {
        self.config.ping_timeout = limit;
        self
    }

    /// How long a reset after a return may take before the connection is closed instead.
    ///
    /// Default 5 seconds; zero is refused.
    pub fn reset_timeout(mut self, limit: Duration) -> Self {
        self.config.reset_timeout = limit;
        self
    }

    /// How long a connection is given to be closed politely, before its slot is vacated regardless and it
    /// counts as [`abandoned`](crate::Status::abandoned).
    ///
    /// Default 5 seconds; zero is refused.
    pub fn close_timeout(mut self, limit: Duration) -> Self {
        self.config.close_timeout = limit;
        self
    }

    /// How long [`Pool::close`] waits for connections that are in use.
    ///
    /// Default 30 seconds. Zero waits for none.
    pub fn close_deadline(mut self, limit: Duration) -> Self {
        self.config.close_deadline = limit;
        self
    }

    /// The age after which a connection is replaced; SQLAlchemy's `pool_recycle`.
    ///
    /// Default `None`: any age. Zero is refused. Looked at on checkout and on return.
    pub fn recycle(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.config.recycle = age.into();
        self
    }

    /// After how many failed attempts to connect in a row the pool counts as down.
    ///
    /// Default 3; zero never does. While it is down, callers for whom nothing is idle get the cause at once,
    /// and one attempt after another is made in the background until one succeeds.
    pub fn down_after(mut self, failures: u32) -> Self {
        self.config.down_after = failures;
        self
    }

    /// The shortest and the longest pause between failed attempts to connect.
    ///
    /// Default 50 ms and 2 seconds. The pause doubles with each failure in a row, and a random part of it
    /// is waited (full jitter, after Brooker, "Exponential Backoff And Jitter", 2015).
    pub fn backoff(mut self, shortest: Duration, longest: Duration) -> Self {
        self.config.backoff = (shortest, longest.max(shortest));
        self
    }

    /// Where the pool reads the time at checkout and return. Default [`TimeSource::Coarse`].
    pub fn time_source(mut self, source: TimeSource) -> Self {
        self.config.time_source = source;
        self
    }

    /// Checks the settings and makes the pool; opens nothing.
    ///
    /// # Errors
    /// [`BuildError`] names the setting and the remedy.
    pub fn build(self) -> Result<Pool<B>, BuildError> {
        let Self { backend, config } = self;
        if let Some(max_overflow) = config.max_overflow {
            if config.pool_size == 0 && max_overflow == 0 {
                return Err(BuildError::NoCapacity);
            }
            if config
                .pool_size
                .checked_add(max_overflow)
                .is_none_or(|sum| sum > MAX_CONNECTIONS)
            {
                return Err(BuildError::TooMany {
                    pool_size: config.pool_size,
                    max_overflow,
                });
            }
        } else if config.pool_size > MAX_CONNECTIONS {
            return Err(BuildError::TooMany {
                pool_size: config.pool_size,
                max_overflow: 0,
            });
        }
        if config.max_connecting == 0 {
            return Err(BuildError::NoConnecting);
        }
        for (name, limit) in [
            ("connect_timeout", Some(config.connect_timeout)),
            ("ping_timeout", Some(config.ping_timeout)),
            ("reset_timeout", Some(config.reset_timeout)),
            ("close_timeout", Some(config.close_timeout)),
            ("recycle", config.recycle),
        ] {
            if limit == Some(Duration::ZERO) {
                return Err(BuildError::ZeroDuration(name));
            }
        }
        Ok(Pool::new(backend, config))
    }
}
