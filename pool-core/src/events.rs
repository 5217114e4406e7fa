//! What happens in a pool, as a stream.
//!
//! Each observer has a ring of its own ([`Events`]): whoever is slow loses its oldest events and is told how
//! many, and never holds up the pool. While nobody observes, nothing is made.

use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use futures::Stream;
use futures::task::AtomicWaker;
use parking_lot::Mutex;

use crate::stats::CloseReason;
use crate::status::Holder;

/// One thing that happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// When.
    pub at: Instant,
    /// What.
    pub kind: EventKind,
}

/// What can happen. `connection` is a connection's number in its pool, counted from one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// An attempt to open a connection begins.
    Connecting,
    /// A connection was opened.
    Connected {
        /// Its number; the first ever has 1.
        connection: u64,
        /// How long it took.
        took: Duration,
    },
    /// An attempt to open a connection failed.
    ConnectFailed {
        /// Failed attempts in a row, this one counted.
        failures: u32,
        /// Why, with its causes.
        cause: String,
    },
    /// The other side accepts no more connections ([`Failure::Full`](crate::Failure::Full)): those who wait go on
    /// waiting for one to come back.
    Full {
        /// How many connections the pool has.
        open: usize,
        /// What the other side said, with its causes.
        cause: String,
    },
    /// The pool is down: callers for whom nothing is idle are refused until an attempt succeeds.
    Down,
    /// An attempt succeeded after some had failed.
    Recovered,
    /// A connection was handed out.
    CheckedOut {
        /// Its number.
        connection: u64,
    },
    /// A connection came back.
    Returned {
        /// Its number.
        connection: u64,
        /// How long it was held, by the pool's clock.
        held: Duration,
    },
    /// A connection was taken out of the pool.
    Detached {
        /// Its number.
        connection: u64,
    },
    /// A connection is closed.
    Closed {
        /// Its number.
        connection: u64,
        /// Why.
        reason: CloseReason,
    },
    /// A caller's time was over.
    TimedOut {
        /// How long it had waited.
        waited: Duration,
    },
    /// A caller waits for a connection to come back while its own task holds one: where all do so, nobody goes on. Only
    /// in builds with debug assertions, and only of spawned tasks.
    WaitsWhileHolding {
        /// The line that waits.
        place: &'static Location<'static>,
        /// What the task holds.
        holder: Holder,
    },
    /// All connections opened before now are suspect, or are to be closed when they come back.
    GenerationEnded,
    /// A connection has been held for longer than `leak_threshold`.
    LeakSuspected {
        /// By whom, and for how long.
        holder: Holder,
    },
    /// A connection has been held for longer than `max_hold`, and will be closed when it comes back.
    HeldTooLong {
        /// By whom, and for how long.
        holder: Holder,
    },
    /// The pool was resized.
    Resized {
        /// `pool_size` from now on.
        pool_size: usize,
        /// How many may exist from now on.
        capacity: usize,
    },
    /// Nothing is handed out from now on.
    Suspended,
    /// Connections are handed out again.
    Resumed,
    /// All connections are to be renewed.
    Renewing {
        /// Within this span.
        over: Duration,
    },
    /// The pool is closed.
    PoolClosed,
}

/// How many events an observer may be behind.
const BEHIND: usize = 1024;

/// A pool's events from now on: [`Pool::events`](crate::Pool::events).
///
/// A [`Stream`]; it ends once the pool is closed, holds no connection any more, and its last event was read. Holds up to 1,024 events: beyond,
/// the oldest are lost, and [`dropped`](Self::dropped) counts them.
///
/// ```
/// # struct Echo;
/// # impl pool_core::Backend for Echo {
/// #     type Connection = String;
/// #     type Error = std::convert::Infallible;
/// #     async fn connect(&self) -> Result<String, Self::Error> { Ok(String::from("hello")) }
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use futures::StreamExt;
/// use pool_core::{EventKind, Pool};
///
/// let pool = Pool::builder(Echo).build()?;
/// let mut events = pool.events();
/// drop(pool.get().await?);
/// assert!(matches!(events.next().await.unwrap().kind, EventKind::Connecting));
/// assert!(matches!(events.next().await.unwrap().kind, EventKind::Connected { connection: 1, .. }));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[must_use = "events are lost while nobody reads them"]
pub struct Events(Arc<Ring>);

struct Ring {
    events: ArrayQueue<Event>,
    dropped: AtomicU64,
    waker: AtomicWaker,
}

/// Everybody who observes a pool.
#[derive(Default)]
pub(crate) struct Hub {
    observers: Mutex<Vec<Weak<Ring>>>,
    /// Whether nothing is told any more. Under the mutex.
    over: AtomicBool,
    /// How many there are, as a hint that saves the mutex.
    count: AtomicUsize,
}

impl Hub {
    pub(crate) fn observe(&self) -> Events {
        let ring = Arc::new(Ring {
            events: ArrayQueue::new(BEHIND),
            dropped: AtomicU64::new(0),
            waker: AtomicWaker::new(),
        });
        let mut observers = self.observers.lock();
        // Ordering: Relaxed; only used under the mutex.
        if self.over.load(Ordering::Relaxed) {
            return Events(ring);
        }
        observers.push(Arc::downgrade(&ring));
        // Ordering: Relaxed; an event at the same moment may be missed.
        self.count.store(observers.len(), Ordering::Relaxed);
        Events(ring)
    }

    /// Ends all streams, and those that are asked for later.
    pub(crate) fn end(&self) {
        let observers = {
            let mut observers = self.observers.lock();
            // Ordering: Relaxed, as in `observe`.
            self.over.store(true, Ordering::Relaxed);
            self.count.store(0, Ordering::Relaxed);
            std::mem::take(&mut *observers)
        };
        release(observers);
    }

    pub(crate) fn is_observed(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Tells everybody.
    pub(crate) fn tell(&self, kind: EventKind) {
        let event = Event {
            at: Instant::now(),
            kind,
        };
        let mut reached = Vec::new();
        {
            let mut observers = self.observers.lock();
            observers.retain(|observer| {
                let ring = observer.upgrade();
                reached.extend(ring.clone());
                ring.is_some()
            });
            self.count.store(observers.len(), Ordering::Relaxed);
        }
        for ring in reached {
            if ring.events.force_push(event.clone()).is_some() {
                ring.dropped.fetch_add(1, Ordering::Relaxed);
            }
            ring.waker.wake();
        }
    }
}

impl Events {
    /// The next event, if one is there.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.events.pop()
    }

    /// How many events were lost because they were not read in time.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let ring = &self.0;
        if let Some(event) = ring.events.pop() {
            return Poll::Ready(Some(event));
        }
        ring.waker.register(cx.waker());
        // Once more, for what came before the waker was there.
        if let Some(event) = ring.events.pop() {
            return Poll::Ready(Some(event));
        }
        // Only the hub holds it weakly; where that is gone, nothing comes any more.
        if Arc::weak_count(ring) == 0 {
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        release(std::mem::take(self.observers.get_mut()));
    }
}

/// Lets go of observers: their streams end.
fn release(observers: Vec<Weak<Ring>>) {
    for ring in observers {
        let alive = ring.upgrade();
        drop(ring); // Before its reader looks whether anything may still come.
        if let Some(alive) = alive {
            alive.waker.wake();
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("pending", &self.0.events.len())
            .field("dropped", &self.dropped())
            .finish()
    }
}
