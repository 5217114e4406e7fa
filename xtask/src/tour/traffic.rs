//! What the load's requests came to: where each was served and how long it took, or how it failed.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use pool_router::Error;

use super::checks::lock;

/// What a request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// An order or a tick to be written.
    Write,
    /// `read_after` an order's token.
    ReadAfter,
    /// `read`, with the default promise.
    Read,
    /// `read_within` some age.
    ReadWithin,
}

/// A request that was served.
#[derive(Clone, Copy)]
pub(crate) struct Served {
    pub(crate) ask: Ask,
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    /// The port of the server; of reads only.
    pub(crate) port: Option<u16>,
}

/// A request that failed.
#[derive(Clone)]
pub(crate) struct Failure {
    pub(crate) ask: Ask,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) why: String,
}

/// The requests of one phase.
#[derive(Default)]
pub(crate) struct Traffic {
    served: Mutex<Vec<Served>>,
    failed: Mutex<Vec<Failure>>,
}

impl Traffic {
    /// Notes a request that was served just now.
    pub(crate) fn served(&self, ask: Ask, began: Instant, port: Option<i32>) {
        let port = port.and_then(|port| u16::try_from(port).ok());
        lock(&self.served).push(Served {
            ask,
            began,
            took: began.elapsed(),
            port,
        });
    }

    /// Notes a request that failed just now.
    pub(crate) fn failed(&self, ask: Ask, began: Instant, error: &Error) {
        lock(&self.failed).push(Failure {
            ask,
            began,
            ended: Instant::now(),
            why: format!("{ask:?}: {}", chain(error)),
        });
    }

    /// All that were served.
    pub(crate) fn all_served(&self) -> Vec<Served> {
        lock(&self.served).clone()
    }

    /// All that failed.
    pub(crate) fn failures(&self) -> Vec<Failure> {
        lock(&self.failed).clone()
    }

    /// Whether a request like that was served by that server after that moment.
    pub(crate) fn any_since(&self, moment: Instant, like: impl Fn(&Served) -> bool) -> bool {
        let served = lock(&self.served);
        served
            .iter()
            .rev()
            .take(2000)
            .any(|one| one.began >= moment && like(one))
    }
}

/// An error with all its causes, as one line.
pub(crate) fn chain(error: &Error) -> String {
    let causes: Vec<_> = anyhow::Chain::new(error).map(ToString::to_string).collect();
    causes.join(": ")
}
