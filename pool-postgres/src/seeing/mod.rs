//! Statements in logs and traces: what runs, since when, from which line, and what was slow.
//!
//! Each connection has a [`Sight`], on which its statement stands for as long as it runs. A task looks at all of them
//! now and then, so that a statement that never ends is told of too. Where neither the log nor a trace wants anything,
//! a statement costs one look at two settings; the files: `sight` (one statement), this one (settings, the look-out).
//!
//! # What always holds
//! Values of parameters are written down only where [`Options::parameters`] says so.

mod sight;

use std::panic::Location;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::sleep;
use tracing::Level;

use crate::throttle::Throttle;
pub(crate) use sight::{End, Sight};

/// How much of a statement is shown.
const SHOWN: usize = 1000;

/// What an engine's builder says of logs.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// From which duration on a statement is logged as slow.
    pub(crate) slow: Option<Duration>,
    /// The level at which every statement is logged.
    pub(crate) level: Option<Level>,
    /// Whether values of parameters are shown.
    pub(crate) parameters: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            slow: Some(Duration::from_secs(1)),
            level: None,
            parameters: false,
        }
    }
}

/// What an engine sees of its statements.
#[derive(Debug)]
pub(crate) struct Seeing {
    options: Options,
    /// The database's name, for traces.
    namespace: String,
    sights: Mutex<Sights>,
    /// Slow statements, and those that still run.
    slow: Throttle,
    running: Throttle,
}

#[derive(Debug, Default)]
struct Sights {
    all: Vec<Weak<Sight>>,
    /// Of statements on shared connections, where several run at once: those that no statement stands on.
    spare: Vec<Arc<Sight>>,
    watched: bool,
}

impl Seeing {
    pub(crate) fn new(options: Options, namespace: String) -> Arc<Self> {
        Arc::new(Self {
            options,
            namespace,
            sights: Mutex::default(),
            slow: Throttle::default(),
            running: Throttle::default(),
        })
    }

    /// A sight for a connection to that host and port.
    pub(crate) fn sight(self: &Arc<Self>, server: Option<(String, u16)>) -> Arc<Sight> {
        let sight = Arc::new(Sight::new(Arc::clone(self), server));
        let Some(slow) = self.options.slow else {
            return sight;
        };
        let mut sights = self.sights.lock();
        sights.all.push(Arc::downgrade(&sight));
        if !sights.watched
            && let Ok(runtime) = Handle::try_current()
        {
            sights.watched = true;
            drop(sights);
            runtime.spawn(Watch(Arc::downgrade(self)).keep(interval(slow)));
        }
        sight
    }

    /// A sight for one statement among several on a connection; `None` where nothing is wanted.
    pub(crate) fn lend(self: &Arc<Self>) -> Option<Lent> {
        if !self.is_wanted() {
            return None;
        }
        let spare = self.sights.lock().spare.pop();
        let sight = spare.unwrap_or_else(|| self.sight(None));
        Some(Lent(sight))
    }

    /// Whether anybody wants to know of statements.
    fn is_wanted(&self) -> bool {
        self.options.slow.is_some() || self.options.level.is_some() || sight::is_traced()
    }

    /// Looks for statements that run for too long; says whether there is anything to look at.
    fn look(&self, slow: Duration, now: Instant) -> bool {
        let mut sights = self.sights.lock();
        let mut all = Vec::with_capacity(sights.all.len());
        sights.all.retain(|sight| match sight.upgrade() {
            Some(sight) => {
                all.push(sight);
                true
            }
            None => false,
        });
        let used = all.len() > sights.spare.len();
        if !used {
            // Nothing but spare ones: with them the look-out ends.
            sights.spare.clear();
            sights.watched = false;
        }
        drop(sights);
        for sight in all {
            sight.tell_if_slow(slow, now);
        }
        used
    }
}

/// A sight that goes back to the spare ones.
pub(crate) struct Lent(Arc<Sight>);

impl Lent {
    pub(crate) fn sight(&self) -> &Sight {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.end(End::Dropped);
        let seeing = self.0.seeing();
        seeing.sights.lock().spare.push(Arc::clone(&self.0));
    }
}

/// The look-out of one engine; ends with its last connection.
struct Watch(Weak<Seeing>);

impl Watch {
    async fn keep(self, interval: Duration) {
        loop {
            sleep(interval).await;
            let Some(seeing) = self.0.upgrade() else {
                return;
            };
            let Some(slow) = seeing.options.slow else {
                return;
            };
            if !seeing.look(slow, Instant::now()) {
                return;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // With its runtime, perhaps: the next connection starts another one.
        if let Some(seeing) = self.0.upgrade() {
            seeing.sights.lock().watched = false;
        }
    }
}

/// How often to look for statements slower than this.
fn interval(slow: Duration) -> Duration {
    (slow / 4).clamp(Duration::from_millis(5), Duration::from_millis(500))
}

/// A statement as it is shown.
fn shortened(sql: &str) -> &str {
    match sql.char_indices().nth(SHOWN) {
        Some((end, _)) => &sql[..end],
        None => sql,
    }
}

/// Where in the code, as it is shown.
fn line(place: &Location<'_>) -> String {
    format!("{}:{}", place.file(), place.line())
}
