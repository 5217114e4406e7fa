//! What happens to a database's nodes, as a stream.
//!
//! Each observer may be [`BEHIND`] events behind; whoever is slower loses the oldest and is told how many, and
//! never holds up the router.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::orders::Reads;

/// How many events an observer may be behind.
const BEHIND: usize = 256;

/// One thing that happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// When.
    pub at: Instant,
    /// What.
    pub kind: EventKind,
}

/// What can happen. `node` is a node's name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A node answers again, or for the first time.
    CameBack {
        /// Which.
        node: Arc<str>,
    },
    /// A node does not answer, and is out of rotation.
    WentAway {
        /// Which.
        node: Arc<str>,
        /// What was seen, with its causes.
        why: String,
    },
    /// A replica that answers is out of rotation for a while: its connections keep being lost, or none can be had.
    Ejected {
        /// Which.
        node: Arc<str>,
        /// For how long.
        time: Duration,
    },
    /// Another node takes writes from now on.
    Promoted {
        /// Which.
        node: Arc<str>,
    },
    /// A node was the primary and is no longer. Its idle connections are closed, those in use when they come back.
    Demoted {
        /// Which.
        node: Arc<str>,
    },
    /// A write was refused as read-only (25006): the node may have changed its role, so all are looked at now.
    WriteRefused {
        /// By which.
        node: Arc<str>,
    },
    /// Reads are kept away from a node: [`Database::drain`](crate::Database::drain).
    Drained {
        /// Which.
        node: Arc<str>,
    },
    /// Reads may go to a node again: [`Database::resume`](crate::Database::resume).
    Resumed {
        /// Which.
        node: Arc<str>,
    },
    /// Where reads may go was changed: [`Database::reads`](crate::Database::reads).
    Reads(Reads),
    /// Writes wait: [`Database::suspend_writes`](crate::Database::suspend_writes).
    WritesSuspended {
        /// For how long at most.
        limit: Duration,
    },
    /// Writes go on.
    WritesResumed,
}

impl EventKind {
    /// The name of the kind, as the enumeration has it: for logs and labels.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CameBack { .. } => "CameBack",
            Self::WentAway { .. } => "WentAway",
            Self::Ejected { .. } => "Ejected",
            Self::Promoted { .. } => "Promoted",
            Self::Demoted { .. } => "Demoted",
            Self::WriteRefused { .. } => "WriteRefused",
            Self::Drained { .. } => "Drained",
            Self::Resumed { .. } => "Resumed",
            Self::Reads(_) => "Reads",
            Self::WritesSuspended { .. } => "WritesSuspended",
            Self::WritesResumed => "WritesResumed",
        }
    }

    /// The node that it happened to, if it is one node's.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::CameBack { node }
            | Self::WentAway { node, .. }
            | Self::Ejected { node, .. }
            | Self::Promoted { node }
            | Self::Demoted { node }
            | Self::WriteRefused { node }
            | Self::Drained { node }
            | Self::Resumed { node } => Some(node),
            Self::Reads(_) | Self::WritesSuspended { .. } | Self::WritesResumed => None,
        }
    }
}

/// One line for people.
impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CameBack { node } => write!(f, "{node} answers, and is in rotation"),
            Self::WentAway { node, why } => write!(f, "{node} is out of rotation: {why}"),
            Self::Ejected { node, time } => write!(
                f,
                "{node} is out of rotation for {time:.1?}: its connections keep failing"
            ),
            Self::Promoted { node } => write!(f, "{node} takes writes now"),
            Self::Demoted { node } => write!(f, "{node} is the primary no longer"),
            Self::WriteRefused { node } => write!(f, "{node} refused a write as read-only"),
            Self::Drained { node } => write!(f, "reads are kept away from {node}"),
            Self::Resumed { node } => write!(f, "reads may go to {node} again"),
            Self::Reads(reads) => write!(f, "reads go {reads}, by order"),
            Self::WritesSuspended { limit } => write!(f, "writes wait, for {limit:.1?} at most"),
            Self::WritesResumed => f.write_str("writes go on"),
        }
    }
}

/// A database's events from now on: [`Database::events`](crate::Database::events).
///
/// A [`Stream`]; it ends after [`Database::shutdown`](crate::Database::shutdown), or once the last handle, session and
/// factory is gone. Holds up to 256 events: beyond, the oldest are lost, and [`dropped`](Self::dropped) counts them.
///
/// ```no_run
/// use futures_util::StreamExt;
///
/// # async fn example(db: pool_router::Database) {
/// let mut events = db.events();
/// while let Some(event) = events.next().await {
///     println!("{:?}", event.kind);
/// }
/// # }
/// ```
#[must_use = "events are lost while nobody reads them"]
pub struct Events {
    stream: BoxStream<'static, Event>,
    dropped: Arc<AtomicU64>,
}

impl Events {
    fn new(receiver: broadcast::Receiver<Event>) -> Self {
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        let stream = stream::unfold((receiver, counted), |(mut receiver, counted)| async move {
            loop {
                match receiver.recv().await {
                    Ok(event) => return Some((event, (receiver, counted))),
                    Err(RecvError::Lagged(lost)) => {
                        // Relaxed: a count that stands alone.
                        counted.fetch_add(lost, Relaxed);
                    }
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        Self {
            stream: stream.boxed(),
            dropped,
        }
    }

    /// How many events were lost because they were not read in time.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.stream.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}

/// Tells events to whoever observes.
#[derive(Debug)]
pub(crate) struct Teller(Mutex<Option<broadcast::Sender<Event>>>);

impl Teller {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Some(broadcast::Sender::new(BEHIND))))
    }

    pub(crate) fn observe(&self) -> Events {
        let receiver = match &*self.0.lock() {
            Some(sender) => sender.subscribe(),
            None => broadcast::channel(1).1,
        };
        Events::new(receiver)
    }

    pub(crate) fn tell(&self, kind: EventKind) {
        #[cfg(feature = "metrics")]
        crate::metrics::event(&kind);
        let at = Instant::now();
        if let Some(sender) = &*self.0.lock() {
            // An error means that nobody observes.
            let _ = sender.send(Event { at, kind });
        }
    }

    /// Ends all streams, and those that are asked for later.
    pub(crate) fn end(&self) {
        self.0.lock().take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_observer_is_told_how_many_it_lost_and_the_end_ends_all() {
        let teller = Teller::new();
        let mut events = teller.observe();
        for _ in 0..BEHIND + 3 {
            teller.tell(EventKind::WritesResumed);
        }
        teller.end();
        let mut seen = 0;
        while events.next().await.is_some() {
            seen += 1;
        }
        assert_eq!((seen, events.dropped()), (BEHIND, 3));
        assert!(teller.observe().next().await.is_none());
    }
}
