//! Why a pool could not be built, and why a caller left without a connection.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::status::{Holder, Status};

/// Why [`Pool::get`](crate::Pool::get) came back without a connection.
///
/// No statement was sent in any of these cases. [`is_retryable`](Self::is_retryable) tells whether trying
/// again may help.
#[non_exhaustive]
pub enum GetError<E> {
    /// Neither a connection nor room for one came free within `pool_timeout`.
    ///
    /// All in use and many waiting: the pool is too small, or connections are held across slow work (see
    /// `longest`). Many opening: the server is slow to accept. Trying again is safe.
    TimedOut(Box<TimedOut<E>>),
    /// The connection meant for this caller could not be opened.
    Connect(ConnectError<E>),
    /// Opening failed several times in a row; the pool probes in the background and refuses until then.
    ///
    /// It comes without waiting for anything. A caller that tries again must pause in between: a loop without a
    /// pause would keep a single-threaded runtime from running the probe.
    Down {
        /// Failed attempts in a row.
        failures: u32,
        /// The last attempt's failure.
        cause: ConnectError<E>,
    },
    /// The connection was there, and its ping failed for a reason that another would share.
    Ping(Arc<E>),
    /// `max_waiting` callers wait already.
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// The queue has stood for too long, and this caller had waited for longer than
    /// [`Shed::target`](crate::Shed::target): the pool is asked for more than it can serve.
    Shed {
        /// How long the caller had waited.
        waited: Duration,
    },
    /// The caller's time was over while the pool was suspended.
    Suspended {
        /// How long the caller had waited.
        waited: Duration,
    },
    /// An `on_checkout` hook refused the connection, or sent three away in a row (then without a reason).
    Refused(Option<Arc<dyn Error + Send + Sync>>),
    /// The pool was closed.
    Closed,
    /// The future was polled outside a tokio runtime and had to open a connection or to wait.
    NoRuntime,
}

/// What the pool looked like when a caller's `pool_timeout` ran out.
#[derive(Debug)]
#[non_exhaustive]
pub struct TimedOut<E> {
    /// How long the caller waited.
    pub waited: Duration,
    /// The pool's numbers at that moment.
    pub seen: Status,
    /// Who has held a connection longest.
    pub longest: Option<Holder>,
    /// What the caller's own task holds: it may have waited for itself. Only in builds with debug assertions, and only of
    /// spawned tasks; else `None`.
    pub own: Option<Holder>,
    /// How the last attempt to open a connection failed, if none has succeeded since.
    pub last_connect_error: Option<ConnectError<E>>,
}

/// Why a connection could not be opened.
#[non_exhaustive]
pub enum ConnectError<E> {
    /// [`Backend::connect`](crate::Backend::connect) failed. All callers that it concerns share the cause.
    Backend(Arc<E>),
    /// It took longer than `connect_timeout`, which is this long.
    TimedOut(Duration),
    /// It panicked. The panic's message went to the panic hook.
    Panicked,
    /// The connection was opened, and the `on_connect` hook failed. It was closed.
    Hook(Arc<dyn Error + Send + Sync>),
}

impl<E> GetError<E> {
    /// Whether the same call may succeed later without anybody's doing.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TimedOut(_)
            | Self::Down { .. }
            | Self::QueueFull { .. }
            | Self::Shed { .. }
            | Self::Suspended { .. } => true,
            Self::Connect(cause) => !matches!(cause, ConnectError::Panicked),
            Self::Ping(_) | Self::Refused(_) | Self::Closed | Self::NoRuntime => false,
        }
    }

    /// The backend's own error, where one is the cause.
    pub fn backend_error(&self) -> Option<&Arc<E>> {
        match self {
            Self::Connect(cause) | Self::Down { cause, .. } => cause.backend_error(),
            Self::Ping(cause) => Some(cause),
            Self::TimedOut(timed_out) => timed_out
                .last_connect_error
                .as_ref()
                .and_then(ConnectError::backend_error),
            _ => None,
        }
    }
}

impl<E> ConnectError<E> {
    /// The backend's own error, unless the attempt ran out of time or panicked.
    pub fn backend_error(&self) -> Option<&Arc<E>> {
        match self {
            Self::Backend(cause) => Some(cause),
            Self::TimedOut(_) | Self::Panicked | Self::Hook(_) => None,
        }
    }
}

impl<E> Clone for ConnectError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Backend(cause) => Self::Backend(Arc::clone(cause)),
            Self::TimedOut(limit) => Self::TimedOut(*limit),
            Self::Panicked => Self::Panicked,
            Self::Hook(cause) => Self::Hook(Arc::clone(cause)),
        }
    }
}

impl<E> fmt::Display for GetError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(timed_out) => fmt::Display::fmt(timed_out, f),
            Self::Connect(ConnectError::Backend(_)) => f.write_str("could not open a connection"),
            Self::QueueFull { waiting } => write!(
                f,
                "the wait queue is full: {waiting} callers wait already (max_waiting)"
            ),
            Self::Shed { waited } => write!(
                f,
                "sent away after {waited:?}: the pool is asked for more than it can serve"
            ),
            Self::Suspended { waited } => {
                write!(f, "the pool was suspended all the time, for {waited:?}")
            }
            Self::Refused(Some(_)) => f.write_str("a hook refused the connection"),
            Self::Refused(None) => f.write_str("a hook sent several connections away in a row"),
            Self::Connect(cause) => fmt::Display::fmt(cause, f),
            Self::Down { failures, cause } => {
                write!(
                    f,
                    "the last {failures} attempts to open a connection failed"
                )?;
                match cause {
                    ConnectError::Backend(_) | ConnectError::Hook(_) => Ok(()),
                    other => write!(f, ": {other}"),
                }
            }
            Self::Ping(_) => f.write_str("the ping before the checkout failed"),
            Self::Closed => f.write_str("the pool is closed"),
            Self::NoRuntime => f.write_str(
                "no tokio runtime: poll this future inside one, or take what is idle with try_get",
            ),
        }
    }
}

impl<E> fmt::Display for TimedOut<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status {
            in_use,
            capacity,
            connecting,
            waiting,
            ..
        } = &self.seen;
        write!(
            f,
            "no connection came free within {:?}: {in_use} of {capacity} in use, {connecting} opening, \
             {waiting} waiting",
            self.waited
        )?;
        if let Some(longest) = &self.longest {
            write!(f, "; longest held {longest}")?;
        }
        if let Some(own) = &self.own {
            write!(
                f,
                "; the waiting task itself holds one for {own}: give it back first, or pass it on"
            )?;
        }
        if self.last_connect_error.is_some() {
            f.write_str("; the last attempt to open one failed")?;
        }
        Ok(())
    }
}

impl<E> fmt::Display for ConnectError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(_) => f.write_str("the backend could not connect"),
            Self::TimedOut(limit) => write!(f, "no connection was opened within {limit:?}"),
            Self::Panicked => f.write_str("the backend panicked while opening a connection"),
            Self::Hook(_) => f.write_str("the on_connect hook failed"),
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for GetError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(timed_out) => f.debug_tuple("TimedOut").field(timed_out).finish(),
            Self::Connect(cause) => f.debug_tuple("Connect").field(cause).finish(),
            Self::Down { failures, cause } => f
                .debug_struct("Down")
                .field("failures", failures)
                .field("cause", cause)
                .finish(),
            Self::Ping(cause) => f.debug_tuple("Ping").field(cause).finish(),
            Self::QueueFull { waiting } => f
                .debug_struct("QueueFull")
                .field("waiting", waiting)
                .finish(),
            Self::Shed { waited } => f.debug_struct("Shed").field("waited", waited).finish(),
            Self::Suspended { waited } => {
                f.debug_struct("Suspended").field("waited", waited).finish()
            }
            Self::Refused(cause) => f.debug_tuple("Refused").field(cause).finish(),
            Self::Closed => f.write_str("Closed"),
            Self::NoRuntime => f.write_str("NoRuntime"),
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for ConnectError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(cause) => f.debug_tuple("Backend").field(cause).finish(),
            Self::TimedOut(limit) => f.debug_tuple("TimedOut").field(limit).finish(),
            Self::Panicked => f.write_str("Panicked"),
            Self::Hook(cause) => f.debug_tuple("Hook").field(cause).finish(),
        }
    }
}

impl<E: Error + 'static> Error for GetError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Refused(cause) => return cause.as_ref().map(|cause| &**cause as _),
            Self::Connect(cause) | Self::Down { cause, .. } => return cause.source(),
            _ => {}
        }
        self.backend_error()
            .map(|cause| &**cause as &(dyn Error + 'static))
    }
}

impl<E: Error + 'static> Error for ConnectError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if let Self::Hook(cause) = self {
            return Some(&**cause);
        }
        self.backend_error()
            .map(|cause| &**cause as &(dyn Error + 'static))
    }
}

/// Settings that [`Builder::build`](crate::Builder::build) refuses.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum BuildError {
    /// `pool_size(0)` with `max_overflow(0)`: such a pool could never hand anything out.
    NoCapacity,
    /// `pool_size + max_overflow` exceeds [`MAX_CONNECTIONS`](crate::MAX_CONNECTIONS).
    TooMany {
        /// The `pool_size` that was set.
        pool_size: usize,
        /// The `max_overflow` that was set.
        max_overflow: usize,
    },
    /// A duration that must not be zero is; holds the setting's name.
    ZeroDuration(&'static str),
    /// `max_connecting(0)`: nothing could ever be opened.
    NoConnecting,
    /// `min_idle` above `pool_size`: they could not be kept.
    MinIdle {
        /// The `min_idle` that was set.
        min_idle: usize,
        /// The `pool_size` that was set.
        pool_size: usize,
    },
    /// Two durations that can't both be meant; each with the name of its setting.
    Contradiction {
        /// The one that has no effect.
        setting: (&'static str, Duration),
        /// Because of this one.
        other: (&'static str, Duration),
    },
    /// `backoff` with a shortest pause above the longest.
    Backoff {
        /// The shortest pause.
        shortest: Duration,
        /// The longest pause.
        longest: Duration,
    },
    /// The current tokio runtime was built without `enable_time`.
    NoTimers,
    /// A `recycle_jitter` outside 0 to 1.
    Jitter(f64),
    /// `budget_weight(0)`: a pool without a share could never open anything under contention.
    NoWeight,
    /// The pools under one budget promise to keep more idle than it has.
    BudgetTooSmall {
        /// The sum of `min_idle` over the budget's pools, this one counted.
        promised: usize,
        /// How many connections the budget has.
        budget: usize,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCapacity => f.write_str(
                "pool_size is 0 and max_overflow is 0, so no connection could ever exist: raise one of \
                 them (pool_size 0 with overflow closes each connection on return)",
            ),
            Self::TooMany { pool_size, max_overflow } => write!(
                f,
                "pool_size {pool_size} and max_overflow {max_overflow} exceed the ceiling of {} \
                 connections: lower one of them (max_overflow(None) goes up to the ceiling)",
                crate::MAX_CONNECTIONS
            ),
            Self::ZeroDuration(setting) => write!(f, "{setting} is zero: set a positive duration"),
            Self::NoConnecting => f.write_str(
                "max_connecting is 0, so nothing could ever be opened: set at least 1",
            ),
            Self::MinIdle { min_idle, pool_size } => write!(
                f,
                "min_idle {min_idle} is above pool_size {pool_size}, so as many could never be kept: lower \
                 min_idle or raise pool_size"
            ),
            Self::Contradiction { setting, other } => write!(
                f,
                "{} {:?} is not below {} {:?}, so it would never take effect: lower the one or raise the other",
                setting.0, setting.1, other.0, other.1
            ),
            Self::Backoff { shortest, longest } => write!(
                f,
                "backoff's shortest pause {shortest:?} is above its longest {longest:?}: lower the one or raise \
                 the other"
            ),
            Self::NoTimers => f.write_str(
                "this tokio runtime has no timers, which all timeouts need: call enable_time (or enable_all) on \
                 its builder",
            ),
            Self::Jitter(part) => write!(
                f,
                "recycle_jitter {part} is not a part: set something from 0.0 to 1.0"
            ),
            Self::NoWeight => f.write_str("budget_weight is 0: set at least 1"),
            Self::BudgetTooSmall { promised, budget } => write!(
                f,
                "min_idle of the pools under this budget adds up to {promised}, and the budget has only \
                 {budget} connections: lower min_idle or enlarge the budget"
            ),
        }
    }
}

impl Error for BuildError {}
