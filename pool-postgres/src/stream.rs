//! Rows one after another, while the server sends them.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use tokio::time::Sleep;
use tokio_postgres::Row;

use crate::error::Error;
use crate::session::{Held, Limit};

/// The rows of a statement as they arrive; made by [`Session::query_stream`](crate::Session::query_stream) and
/// [`Session::into_stream`](crate::Session::into_stream).
///
/// A statement's and a transaction's timeouts hold until the last row: whoever reads slowly runs into them.
///
/// Dropped half-way, the rows that are still to come are thrown away: the session's next statement waits
/// until they have passed, while a connection that goes back to its pool with rows unread is cleaned or
/// closed before anybody else gets it.
#[must_use = "a stream gives its rows to whoever polls it"]
pub struct RowStream<'s> {
    session: Held<'s>,
    rows: Option<Pin<Box<tokio_postgres::RowStream>>>,
    limit: Option<(Limit, Pin<Box<Sleep>>)>,
}

impl<'s> RowStream<'s> {
    pub(crate) fn new(session: Held<'s>, rows: tokio_postgres::RowStream) -> Self {
        let sleep = |limit: Limit| Box::pin(tokio::time::sleep_until(limit.at()));
        let limit = session.limit().map(|limit| (limit, sleep(limit)));
        Self {
            session,
            rows: Some(Box::pin(rows)),
            limit,
        }
    }

    /// The next row, or `None` after the last.
    ///
    /// # Cancel safety
    /// May be dropped at any point; no row is lost.
    ///
    /// # Errors
    /// The statement's failure. Nothing comes after it.
    #[expect(
        clippy::should_implement_trait,
        reason = "the name that streams have for it"
    )]
    pub fn next(&mut self) -> impl Future<Output = Option<Result<Row, Error>>> + Send {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx))
    }
}

impl Stream for RowStream<'_> {
    type Item = Result<Row, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(rows) = &mut this.rows else {
            return Poll::Ready(None);
        };
        let Poll::Ready(next) = rows.as_mut().poll_next(cx) else {
            let Some((limit, sleep)) = &mut this.limit else {
                return Poll::Pending;
            };
            ready!(sleep.as_mut().poll(cx));
            let late = limit.exceeded();
            this.rows = None;
            return Poll::Ready(Some(Err(this.session.failure(late))));
        };
        let end = match next {
            Some(Ok(row)) => return Poll::Ready(Some(Ok(row))),
            Some(Err(error)) => Err(error),
            None => Ok(()),
        };
        this.rows = None;
        Poll::Ready(this.session.answered(end).err().map(Err))
    }
}

impl Drop for RowStream<'_> {
    fn drop(&mut self) {
        if self.rows.take().is_some() {
            self.session.stream_abandoned();
        }
    }
}

impl fmt::Debug for RowStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowStream")
            .field("finished", &self.rows.is_none())
            .finish_non_exhaustive()
    }
}
