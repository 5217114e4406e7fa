//! One task per node that looks at it, on a connection of its own, for as long as the database lives.
//!
//! What always holds: a node that has not answered within [`LIMIT`] is out of rotation, and one look or one
//! attempt to connect at a time goes on beside all requests until it answers again. No request waits for a
//! look, but for the primary's first after a lazy start. Without replicas that first look is the last.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{Either, select};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::course::{CONNECT_LIMIT, Course, LATE, LIMIT};
use crate::link::Link;
use crate::sample::Sample;
use crate::shared::Shared;

/// A node's monitor.
pub(crate) struct Monitor {
    shared: Arc<Shared>,
    node: usize,
    /// Told when the database shuts down.
    stop: watch::Receiver<bool>,
    link: Option<Link>,
    course: Course,
}

/// How a look ended.
enum Look {
    Answered(Sample),
    Failed(String),
}

impl Monitor {
    /// Goes on from a first look, on its connection, or from nothing if there was none.
    pub(crate) fn new(
        shared: Arc<Shared>,
        node: usize,
        link: Option<Link>,
        course: Course,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            shared,
            node,
            stop,
            link,
            course,
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
            if ended || (!self.course.has_failed() && !self.shared.is_watched()) {
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
                if let Some(timeline) = self.course.unread_history(&sample) {
                    self.read_history(timeline).await;
                }
                self.course.answered(sample.clone());
                self.shared.answered(self.node, sample);
            }
            Look::Failed(why) => {
                self.course.failed();
                self.link = None;
                self.shared.silent(self.node, &why);
            }
        }
    }

    /// Waits for the next look's time, or until somebody rings.
    async fn pause(&self) {
        let rung = pin!(self.shared.nodes[self.node].look.notified());
        let (now, chance) = (Instant::now(), fastrand::f64());
        let time = pin!(sleep(self.course.pause(&self.shared.demand, now, chance)));
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
            let mut answer = pin!(link.look(self.course.last()));
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

    /// Learns where the timelines before this one ended, if the server may tell us. Without an answer the next look
    /// asks again.
    async fn read_history(&mut self, timeline: u32) {
        let Some(link) = &self.link else { return };
        match timeout(LIMIT, link.forks(timeline)).await {
            Ok(Ok(forks)) => {
                self.course.read_history(timeline);
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
