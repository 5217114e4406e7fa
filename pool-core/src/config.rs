//! A pool's settings: their defaults, their ranges, and the checks that [`Builder::build`] makes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Backend;
use crate::budget::Budget;
use crate::error::BuildError;
use crate::hooks::{HookFuture, Hooks, OnCheckout, OnReturn};
use crate::policy::{PrePing, QueueDiscipline, Reuse, TimeSource};
use crate::pool::Pool;
use crate::rt;
use crate::stats::CloseReason;
use crate::tally::Times;

/// How many connections one pool can have at most; `max_overflow(None)` goes up to here.
pub const MAX_CONNECTIONS: usize = 62 * 1024;

/// A pool's settings, checked. Made by [`Builder::build`].
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) name: Option<Arc<str>>,
    /// Where times are recorded together with other pools'.
    pub(crate) times: Option<Arc<Times>>,
    pub(crate) min_idle: usize,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) overflow_linger: Duration,
    pub(crate) recycle_jitter: f64,
    pub(crate) max_waiting: Option<usize>,
    pub(crate) queue: QueueDiscipline,
    pub(crate) reuse: Reuse,
    pub(crate) max_hold: Option<Duration>,
    pub(crate) leak_threshold: Option<Duration>,
    pub(crate) budget: Option<Budget>,
    pub(crate) budget_weight: u32,
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
    #[cfg(all(feature = "lab", not(pool_shuttle)))]
    pub(crate) swap: crate::lab::Swap,
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

/// Whether a pool can have these limits.
pub(crate) fn check_limits(
    pool_size: usize,
    max_overflow: Option<usize>,
) -> Result<(), BuildError> {
    let overflow = max_overflow.unwrap_or(0);
    if pool_size == 0 && max_overflow == Some(0) {
        return Err(BuildError::NoCapacity);
    }
    match pool_size.checked_add(overflow) {
        Some(sum) if sum <= MAX_CONNECTIONS => Ok(()),
        _ => Err(BuildError::TooMany {
            pool_size,
            max_overflow: overflow,
        }),
    }
}

/// Builds a [`Pool`]; made by [`Pool::builder`].
///
/// `Clone`, so that a pool like an earlier one can be built from the same settings.
#[must_use = "a builder does nothing until `build` is called"]
pub struct Builder<B: Backend> {
    backend: Arc<B>,
    config: Config,
    hooks: Hooks<B::Connection>,
}

impl<B: Backend> Clone for Builder<B> {
    fn clone(&self) -> Self {
        Self {
            backend: Arc::clone(&self.backend),
            config: self.config.clone(),
            hooks: self.hooks.clone(),
        }
    }
}

impl<B: Backend> fmt::Debug for Builder<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .field("hooks", &self.hooks)
            .finish_non_exhaustive()
    }
}

impl<B: Backend> Builder<B> {
    /// Lets the pool record times here, together with others.
    pub(crate) fn times(mut self, shared: &Arc<Times>) -> Self {
        self.config.times = Some(Arc::clone(shared));
        self
    }

    pub(crate) fn new(backend: B) -> Self {
        Self {
            backend: Arc::new(backend),
            hooks: Hooks::default(),
            config: Config {
                name: None,
                times: None,
                min_idle: 0,
                idle_timeout: Some(Duration::from_mins(10)),
                keepalive: None,
                overflow_linger: Duration::ZERO,
                recycle_jitter: 0.1,
                max_waiting: None,
                queue: QueueDiscipline::Fifo,
                reuse: Reuse::Packed,
                max_hold: None,
                leak_threshold: Some(Duration::from_mins(1)),
                budget: None,
                budget_weight: 1,
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
                #[cfg(all(feature = "lab", not(pool_shuttle)))]
                swap: crate::lab::Swap::default(),
            },
        }
    }

    /// What stands in the place of the pool's own parts.
    #[cfg(all(feature = "lab", not(pool_shuttle)))]
    pub(crate) fn swap(&mut self) -> &mut crate::lab::Swap {
        &mut self.config.swap
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
    /// Default `None`: any age. Zero is refused. Looked at on checkout, on return, and by maintenance, which
    /// replaces a connection that was used lately before it closes it, where there is room.
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

    /// The shortest and the longest pause between failed attempts to connect. `build` refuses a shortest that is
    /// longer than the longest.
    ///
    /// Default 50 ms and 2 seconds. The pause doubles with each failure in a row, and a random part of it
    /// is waited (full jitter, after Brooker, "Exponential Backoff And Jitter", 2015).
    pub fn backoff(mut self, shortest: Duration, longest: Duration) -> Self {
        self.config.backoff = (shortest, longest);
        self
    }

    /// What part of [`recycle`](Self::recycle) a connection's life may be shortened by, so that those that were
    /// opened together are not replaced together.
    ///
    /// Default 0.1 (a tenth); from 0 to 1. Drawn once for each connection, when it is opened.
    pub fn recycle_jitter(mut self, part: f64) -> Self {
        self.config.recycle_jitter = part;
        self
    }

    /// How many connections maintenance keeps idle, ready for a sudden load.
    ///
    /// Default 0; at most `pool_size`. They are opened from the first checkout on, a few at a time, while fewer
    /// than `pool_size` exist; [`Pool::warm_up`] opens them at start-up.
    pub fn min_idle(mut self, connections: usize) -> Self {
        self.config.min_idle = connections;
        self
    }

    /// Closes a connection once it has been idle for this long, down to [`min_idle`](Self::min_idle).
    ///
    /// Default 10 minutes; zero is refused, `None` keeps it. Maintenance looks four times in this span, at least
    /// every second, and closes at most a quarter of the idle ones in one look.
    pub fn idle_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.config.idle_timeout = limit.into();
        self
    }

    /// Pings a connection once it has been idle for this long, and again after as long.
    ///
    /// Default `None`. Zero is refused. For servers and balancers that drop what is silent; does not count as
    /// use for `idle_timeout`.
    pub fn keepalive(mut self, every: impl Into<Option<Duration>>) -> Self {
        self.config.keepalive = every.into();
        self
    }

    /// How long connections beyond `pool_size` stay open after their return.
    ///
    /// Default zero: one that is too many is closed at its return. Longer spares a load that hovers above
    /// `pool_size` from connecting for each request.
    pub fn overflow_linger(mut self, span: Duration) -> Self {
        self.config.overflow_linger = span;
        self
    }

    /// How many callers may wait beyond those for whom there is room; one more gets
    /// [`GetError::QueueFull`](crate::GetError::QueueFull) at once.
    ///
    /// Default `None`: any number.
    pub fn max_waiting(mut self, callers: impl Into<Option<usize>>) -> Self {
        self.config.max_waiting = callers.into();
        self
    }

    /// What becomes of the wait queue when it does not empty. Default [`QueueDiscipline::Fifo`].
    pub fn queue(mut self, discipline: QueueDiscipline) -> Self {
        self.config.queue = discipline;
        self
    }

    /// Which idle connection is handed out next. Default [`Reuse::Packed`].
    pub fn reuse(mut self, order: Reuse) -> Self {
        self.config.reuse = order;
        self
    }

    /// How long a connection may be held; beyond, there is an event, and it is closed when it comes back.
    ///
    /// Default `None`. Zero is refused. Nobody is interrupted. Exact to a quarter of it, at most a second.
    pub fn max_hold(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.config.max_hold = limit.into();
        self
    }

    /// After how long a checkout is suspected of a leak: counted, and told once as an event that names the line.
    ///
    /// Default 1 minute. Zero is refused, `None` suspects nobody.
    pub fn leak_threshold(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.config.leak_threshold = limit.into();
        self
    }

    /// What the pool is called in metrics and logs. Default: no name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = Some(name.into().into());
        self
    }

    /// Counts this pool's connections against a budget that it shares with others.
    ///
    /// Default: none.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.config.budget = Some(budget.clone());
        self
    }

    /// How large this pool's fair share of its [`budget`](Self::budget) is beside the others'.
    ///
    /// Default 1; zero is refused. Without a budget it means nothing.
    pub fn budget_weight(mut self, weight: u32) -> Self {
        self.config.budget_weight = weight;
        self
    }

    /// Does something to each connection right after it was opened; see [`hooks`](crate::hooks).
    ///
    /// ```
    /// # use pool_core::{FnBackend, Pool};
    /// # use std::convert::Infallible;
    /// let pool = Pool::builder(FnBackend::new(|| async { Ok::<_, Infallible>(Vec::<u8>::new()) }))
    ///     .on_connect(|buffer| Box::pin(async move {
    ///         buffer.reserve(4096);
    ///         Ok(())
    ///     }))
    ///     .build()?;
    /// # Ok::<(), pool_core::BuildError>(())
    /// ```
    pub fn on_connect<F>(mut self, hook: F) -> Self
    where
        F: for<'a> Fn(&'a mut B::Connection) -> HookFuture<'a> + Send + Sync + 'static,
    {
        self.hooks.connect = Some(Arc::new(hook));
        self
    }

    /// Looks at each connection before it is handed out; see [`hooks`](crate::hooks). Must not do I/O.
    pub fn on_checkout<F>(mut self, hook: F) -> Self
    where
        F: Fn(&mut B::Connection) -> OnCheckout + Send + Sync + 'static,
    {
        self.hooks.checkout = Some(Arc::new(hook));
        self
    }

    /// Looks at each connection that comes back fit; see [`hooks`](crate::hooks). Must not do I/O.
    pub fn on_return<F>(mut self, hook: F) -> Self
    where
        F: Fn(&mut B::Connection) -> OnReturn + Send + Sync + 'static,
    {
        self.hooks.give_back = Some(Arc::new(hook));
        self
    }

    /// Is told of each connection that is about to be closed, and why; see [`hooks`](crate::hooks).
    pub fn on_close<F>(mut self, hook: F) -> Self
    where
        F: Fn(&mut B::Connection, CloseReason) + Send + Sync + 'static,
    {
        self.hooks.close = Some(Arc::new(hook));
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
        let Self {
            backend,
            config,
            hooks,
        } = self;
        check_limits(config.pool_size, config.max_overflow)?;
        if config.max_connecting == 0 {
            return Err(BuildError::NoConnecting);
        }
        if config.min_idle > config.pool_size {
            return Err(BuildError::MinIdle {
                min_idle: config.min_idle,
                pool_size: config.pool_size,
            });
        }
        if !(0.0..=1.0).contains(&config.recycle_jitter) {
            return Err(BuildError::Jitter(config.recycle_jitter));
        }
        if config.budget_weight == 0 {
            return Err(BuildError::NoWeight);
        }
        let shed = match config.queue {
            QueueDiscipline::Fifo => None,
            QueueDiscipline::Shed(shed) => Some(shed),
        };
        for (name, limit) in [
            ("connect_timeout", Some(config.connect_timeout)),
            ("ping_timeout", Some(config.ping_timeout)),
            ("reset_timeout", Some(config.reset_timeout)),
            ("close_timeout", Some(config.close_timeout)),
            ("recycle", config.recycle),
            ("idle_timeout", config.idle_timeout),
            ("keepalive", config.keepalive),
            ("max_hold", config.max_hold),
            ("leak_threshold", config.leak_threshold),
            ("Shed::target", shed.map(|shed| shed.target)),
            ("Shed::interval", shed.map(|shed| shed.interval)),
        ] {
            if limit == Some(Duration::ZERO) {
                return Err(BuildError::ZeroDuration(name));
            }
        }
        if let (Some(idle), Some(every)) = (config.idle_timeout, config.keepalive)
            && every >= idle
        {
            return Err(BuildError::Contradiction {
                setting: ("keepalive", every),
                other: ("idle_timeout", idle),
            });
        }
        if !rt::has_timers() {
            return Err(BuildError::NoTimers);
        }
        let (shortest, longest) = config.backoff;
        if shortest > longest {
            return Err(BuildError::Backoff { shortest, longest });
        }
        Pool::new(backend, &config, hooks)
    }
}
