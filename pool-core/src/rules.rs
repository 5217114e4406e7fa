//! A pool's settings as it keeps them: those that are asked for after it was built, and small, for there may be
//! ten thousand pools.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::policy::{PrePing, QueueDiscipline, TimeSource};
use crate::rt;
use crate::tally::Times;

/// A duration in half the room, exact to a nanosecond; beyond 584 years it is [`Duration::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(NonZeroU64);

impl Span {
    fn new(span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        // One more, so that an option of it takes no more room.
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }

    pub(crate) fn get(self) -> Duration {
        match self.0 {
            NonZeroU64::MAX => Duration::MAX,
            nanos => Duration::from_nanos(nanos.get() - 1),
        }
    }
}

/// See the module. What each means stands at its method of [`Builder`](crate::Builder).
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) name: Option<Arc<str>>,
    /// Where a pool of a map records times.
    pub(crate) times: Option<Arc<Times>>,
    pub(crate) min_idle: usize,
    pub(crate) max_connecting: usize,
    pub(crate) recycle_jitter: f64,
    pub(crate) pool_timeout: Option<Span>,
    pub(crate) connect_timeout: Span,
    pub(crate) ping_timeout: Span,
    pub(crate) reset_timeout: Span,
    pub(crate) close_timeout: Span,
    pub(crate) close_deadline: Span,
    pub(crate) idle_timeout: Option<Span>,
    pub(crate) keepalive: Option<Span>,
    pub(crate) recycle: Option<Span>,
    pub(crate) max_hold: Option<Span>,
    pub(crate) leak_threshold: Option<Span>,
    /// After how long idle a connection is pinged before it is handed out; `None` for never.
    pub(crate) ping_after: Option<Span>,
    /// `None` where overflow does not linger.
    pub(crate) overflow_linger: Option<Span>,
    /// After how long somebody may be sent away from a queue that stands.
    pub(crate) shed_interval: Option<Span>,
    backoff: (Span, Span),
    pub(crate) down_after: u32,
    pub(crate) time_source: TimeSource,
}

impl Rules {
    pub(crate) fn of(config: &Config) -> Self {
        let span = |span: Option<Duration>| span.map(Span::new);
        Self {
            name: config.name.clone(),
            times: config.times.clone(),
            min_idle: config.min_idle,
            max_connecting: config.max_connecting,
            recycle_jitter: config.recycle_jitter,
            pool_timeout: span(config.pool_timeout),
            connect_timeout: Span::new(config.connect_timeout),
            ping_timeout: Span::new(config.ping_timeout),
            reset_timeout: Span::new(config.reset_timeout),
            close_timeout: Span::new(config.close_timeout),
            close_deadline: Span::new(config.close_deadline),
            idle_timeout: span(config.idle_timeout),
            keepalive: span(config.keepalive),
            recycle: span(config.recycle),
            max_hold: span(config.max_hold),
            leak_threshold: span(config.leak_threshold),
            ping_after: match config.pre_ping {
                PrePing::Never => None,
                PrePing::Always => Some(Span::new(Duration::ZERO)),
                PrePing::IdleFor(idle) => Some(Span::new(idle)),
            },
            overflow_linger: span(Some(config.overflow_linger).filter(|span| !span.is_zero())),
            shed_interval: match &config.queue {
                QueueDiscipline::Fifo => None,
                QueueDiscipline::Shed(shed) => Some(Span::new(shed.interval)),
            },
            backoff: (Span::new(config.backoff.0), Span::new(config.backoff.1)),
            down_after: config.down_after,
            time_source: rt::time_source(config.time_source),
        }
    }

    /// The shortest and the longest pause between failed attempts to connect.
    pub(crate) fn backoff(&self) -> (Duration, Duration) {
        (self.backoff.0.get(), self.backoff.1.get())
    }

    /// How many of `capacity` may stay idle when they come back.
    pub(crate) fn keep(&self, pool_size: usize, capacity: usize) -> usize {
        if self.overflow_linger.is_none() {
            pool_size
        } else {
            capacity // Maintenance closes what is too many.
        }
    }
}
