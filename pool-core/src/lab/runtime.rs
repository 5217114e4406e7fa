//! The door to the runtime in a build with the laboratory: the current [`World`](super::World) where this thread
//! is in one, else tokio.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::runtime;
pub(crate) use tokio::sync::Notify;
#[cfg(debug_assertions)]
pub(crate) use tokio::task::Id as TaskId;

use super::world::{self, Link};
use crate::clock;

/// How far a world's beginning lies after the clock's origin: a number, so that no rounding differs between runs.
const BEGINNING: Duration = Duration::from_hours(1);

pub(crate) use world::is_inside;

/// Which runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Id {
    Tokio(runtime::Id),
    World(u64),
}

/// A runtime.
#[derive(Clone)]
pub(crate) enum Handle {
    Tokio(runtime::Handle),
    World(Link),
}

impl Handle {
    pub(crate) fn try_current() -> Result<Self, runtime::TryCurrentError> {
        match world::link() {
            Some(link) => Ok(Self::World(link)),
            None => runtime::Handle::try_current().map(Self::Tokio),
        }
    }

    pub(crate) fn current() -> Self {
        match world::link() {
            Some(link) => Self::World(link),
            None => Self::Tokio(runtime::Handle::current()),
        }
    }

    pub(crate) fn id(&self) -> Id {
        match self {
            Self::Tokio(handle) => Id::Tokio(handle.id()),
            Self::World(link) => Id::World(link.number),
        }
    }

    /// Starts a task that nobody joins.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match self {
            Self::Tokio(handle) => drop(handle.spawn(task)),
            Self::World(link) => link.spawn(task),
        }
    }
}

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(std::time::Instant);

impl Instant {
    pub(crate) fn now() -> Self {
        Self(match world::nanos() {
            Some(nanos) => clock::origin() + BEGINNING + Duration::from_nanos(nanos),
            None => tokio::time::Instant::now().into_std(),
        })
    }

    pub(crate) fn from_std(at: std::time::Instant) -> Self {
        Self(at)
    }

    pub(crate) fn into_std(self) -> std::time::Instant {
        self.0
    }
}

pin_project! {
    /// Ready at a point in time.
    #[project = SleepOf]
    pub(crate) enum Sleep {
        Tokio { #[pin] sleep: tokio::time::Sleep },
        World { #[pin] sleep: world::Sleep },
    }
}

pub(crate) fn sleep(span: Duration) -> Sleep {
    if is_inside() {
        let sleep = world::sleep(span);
        return Sleep::World { sleep };
    }
    let sleep = tokio::time::sleep(span);
    Sleep::Tokio { sleep }
}

pub(crate) fn sleep_until(at: Instant) -> Sleep {
    if is_inside() {
        let span = at.0.saturating_duration_since(clock::origin() + BEGINNING);
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let sleep = world::Sleep::until(nanos);
        return Sleep::World { sleep };
    }
    let sleep = tokio::time::sleep_until(tokio::time::Instant::from_std(at.0));
    Sleep::Tokio { sleep }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.project() {
            SleepOf::Tokio { sleep } => sleep.poll(cx),
            SleepOf::World { sleep } => sleep.poll(cx),
        }
    }
}
