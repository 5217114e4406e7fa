//! One task per node that looks at it, on a connection of its own, for as long as the database lives.
//!
//! What always holds: a node that has not answered within [`LIMIT`] is out of rotation, and one look or one
//! attempt to connect at a time goes on beside all requests until it answers again. No request waits for a
//! look, but for the primary's first after a lazy start. Without replicas that first look is the last.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::link::Link;
use crate::sample::{Role, Sample};
use crate::shared::Shared;

/// How long a look may take before the node counts as silent. With the longest pause between two looks this
/// stays below a second.
pub(crate) const LIMIT: Duration = Duration::from_millis(400);
/// How long an answer that is late already is waited for, so that a node which was only held up returns with
/// that answer. After that the connection is given up.
const LATE: Duration = Duration::from_secs(5);
/// How long opening the monitor's connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// The pause after a failed attempt: doubled each time from the first to the last, a random part waited.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// A node's monitor.
pub(crate) struct Monitor {
    shared: Arc<Shared>,
    node: usize,
    /// Told when the database shuts down.
    stop: watch::Receiver<bool>,
    link: Option<Link>,
    last: Option<Sample>,
    failures: u32,
    /// The timeline whose history was asked for and answered.
    history_of: Option<u32>,
}

/// How a look ended.
enum Look {
    Answered(Sample),
    Failed(String),
}

impl Monitor {
    /// Goes on from a first look, or from nothing if there was none.
    pub(crate) fn new(
        shared: Arc<Shared>,
        node: usize,
        first: Option<(Link, Sample)>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let (link, last) = first.unzip();
        Self {
            shared,
            node,
            stop,
            link,
            last,
            failures: 0,
            history_of: None,
        }
    }

    /// Looks until it is told to stop; then closes its connection.
    pub(crate) async fn run(mut self) {
        let mut stop = self.stop.clone();
        let mut stopped = pin!(stop.wait_for(|stop| *stop));
        loop {
            // Dropping the work half-way drops at most a connection that is being opened, or leaves an
            // answer unread on one that is closed next.
            let ended = {
                let turn = pin!(self.turn());
                matches!(select(stopped.as_mut(), turn).await, Either::Left(_))
            };
            if ended || (self.failures == 0 && !self.shared.is_watched()) {
                break;
            }
        }
        if let Some(link) = self.link {
            link.close().await;
        }
    }

    /// A pause, then a look.
    async fn turn(&mut self) {
        self.pause().await;
        match self.look().await {
            Look::Answered(sample) => {
                self.failures = 0;
                if let Some(timeline) = self.unread_history(&sample) {
                    self.read_history(timeline).await;
                }
                self.last = Some(sample.clone());
                self.shared.answered(self.node, sample);
            }
            Look::Failed(why) => {
                self.failures = self.failures.saturating_add(1);
                self.link = None;
                self.shared.silent(self.node, &why);
            }
        }
    }

    /// Waits for the next look's time, or until somebody rings.
    async fn pause(&self) {
        let rung = pin!(self.shared.nodes[self.node].look.notified());
        let time = pin!(sleep(match self.failures {
            0 => self.shared.demand.interval(Instant::now()),
            failures => backoff(failures),
        }));
        select(rung, time).await;
    }

    /// Asks, and says that the node is silent once the limit has passed, though the answer may still come.
    async fn look(&mut self) -> Look {
        let link = match self.link.take() {
            Some(link) => link,
            None => match self.open().await {
                Ok(link) => link,
                Err(why) => return Look::Failed(why),
            },
        };
        let answer = {
            let mut answer = pin!(link.look(self.last.as_ref()));
            if let Ok(answer) = timeout(LIMIT, answer.as_mut()).await {
                Some(answer)
            } else {
                self.shared
                    .silent(self.node, &format!("no answer within {LIMIT:?}"));
                timeout(LATE, answer).await.ok()
            }
        };
        match answer {
            Some(Ok(sample)) => {
                self.link = Some(link);
                Look::Answered(sample)
            }
            Some(Err(error)) => Look::Failed(chain(&error)),
            None => Look::Failed(format!("no answer within {:?}", LIMIT + LATE)),
        }
    }

    /// The timeline of a primary whose history has not been read yet. The first has none.
    fn unread_history(&self, sample: &Sample) -> Option<u32> {
        let unread = sample.role == Role::Primary && sample.timeline != self.history_of;
        sample.timeline.filter(|timeline| unread && *timeline > 1)
    }

    /// Learns where the timelines before this one ended, if the server may tell us. Without an answer the next look
    /// asks again.
    async fn read_history(&mut self, timeline: u32) {
        let Some(link) = &self.link else { return };
        match timeout(LIMIT, link.forks(timeline)).await {
            Ok(Ok(forks)) => {
                self.history_of = Some(timeline);
                self.shared.forks(&forks);
            }
            Ok(Err(error)) => {
                tracing::debug!(why = chain(&error), "the timelines' history cannot be read");
            }
            Err(_) => tracing::debug!("the timelines' history was not read in time"),
        }
    }

    async fn open(&self) -> Result<Link, String> {
        match timeout(
            CONNECT_LIMIT,
            Link::open(&self.shared.nodes[self.node].watching),
        )
        .await
        {
            Ok(opened) => opened.map_err(|error| chain(&error)),
            Err(_) => Err(format!("no connection within {CONNECT_LIMIT:?}")),
        }
    }
}

/// Full jitter, but never at once: half of the pause is always waited.
fn backoff(failures: u32) -> Duration {
    let (first, last) = PAUSE;
    let pause = first.saturating_mul(1 << (failures - 1).min(10)).min(last);
    pause / 2 + pause.mul_f64(fastrand::f64() / 2.0)
}

/// An error with all its causes, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_to_reach_a_dead_node_spread_out_and_never_stop() {
        for failures in [1, 2, 5, 100, u32::MAX] {
            let pause = backoff(failures);
            assert!(
                pause >= PAUSE.0 / 2 && pause <= PAUSE.1,
                "{failures}: {pause:?}"
            );
        }
        assert!(backoff(100) >= PAUSE.1 / 2);
    }

    #[test]
    fn a_silent_node_is_noticed_within_a_second() {
        let slowest = crate::demand::Demand::new(Instant::now()).interval(Instant::now());
        assert!(slowest + LIMIT < Duration::from_secs(1));
    }
}
