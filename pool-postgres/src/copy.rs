//! Many rows at once: `COPY`, in and out.
//!
//! What always holds: a copy that is not finished fails, and its transaction with it; nothing of it is kept. A
//! connection on which a copy was left half-way goes back to its pool marked as unsettled, and is cleaned before
//! anybody else gets it.

use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{SinkExt, Stream};
use tokio_postgres::{CopyInSink, CopyOutStream};

use crate::error::{Error, ErrorKind};
use crate::session::Held;

/// A `COPY … FROM STDIN` under way; made by [`Session::copy_in`](crate::Session::copy_in).
///
/// The data is passed on as it is, in whatever pieces, in the format that the statement names. Dropped before
/// [`finish`](Self::finish), the copy fails and the transaction can only be rolled back; see also
/// [`abort`](Self::abort).
///
/// ```no_run
/// # use pool_postgres::{Error, Session};
/// # async fn example(s: &mut Session) -> Result<(), Error> {
/// let mut copy = s.copy_in("COPY users (id, name) FROM STDIN (FORMAT csv)").await?;
/// for id in 0..1_000_000 {
///     copy.send(format!("{id},user {id}\n")).await?;
/// }
/// let rows = copy.finish().await?;
/// # let _ = rows; Ok(()) }
/// ```
#[must_use = "a copy that is dropped fails"]
pub struct CopyIn<'s> {
    session: Held<'s>,
    sink: Option<Pin<Box<CopyInSink<Bytes>>>>,
}

impl<'s> CopyIn<'s> {
    pub(crate) async fn start(
        mut session: Held<'s>,
        place: &'static Location<'static>,
        sql: &str,
    ) -> Result<Self, Error> {
        let sink = session.start_copy_in(place, sql).await?;
        Ok(Self {
            session,
            sink: Some(Box::pin(sink)),
        })
    }

    /// Sends data. Small pieces are gathered; waits while the network is slower than the caller.
    ///
    /// Whether the server likes it is told by [`finish`](Self::finish).
    ///
    /// # Cancel safety
    /// Dropped half-way, this piece may be missing from the copy: drop that too.
    ///
    /// # Errors
    /// [`ErrorKind::ConnectionLost`]: nothing of the copy is kept.
    pub async fn send(&mut self, data: impl Into<Bytes>) -> Result<(), Error> {
        let Some(sink) = &mut self.sink else {
            return Err(Error::new(
                ErrorKind::Usage,
                "the copy has failed already, so it takes no more data",
            ));
        };
        let Err(error) = sink.feed(data.into()).await else {
            return Ok(());
        };
        // The driver only says that it is closed; the reason comes with the answer.
        let sink = self.sink.take();
        let told = match sink {
            Some(mut sink) => sink.as_mut().finish().await.err(),
            None => None,
        };
        Err(self.session.failure(told.unwrap_or(error).into()))
    }

    /// Ends the copy and tells how many rows it brought.
    ///
    /// # Cancel safety
    /// Dropped half-way, the transaction can only be rolled back.
    ///
    /// # Errors
    /// The server's, where it did not take the data, and those of a connection that broke. In autocommit the
    /// outcome of the latter is unknown.
    pub async fn finish(mut self) -> Result<u64, Error> {
        let Some(mut sink) = self.sink.take() else {
            return Err(Error::new(ErrorKind::Usage, "the copy has failed already"));
        };
        let limit = self.session.limit();
        match crate::session::within(limit, sink.as_mut().finish()).await {
            Ok(rows) => self.session.answered(rows),
            Err(late) => Err(self.session.failure(late)),
        }
    }

    /// Gives the copy up. Nothing of it is kept; inside a savepoint only that has to be rolled back.
    ///
    /// # Cancel safety
    /// As dropping the copy.
    ///
    /// # Errors
    /// A connection that broke.
    pub async fn abort(mut self) -> Result<(), Error> {
        drop(self.sink.take()); // The driver tells the server.
        self.session.copy_aborted().await
    }
}

impl fmt::Debug for CopyIn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyIn").finish_non_exhaustive()
    }
}

/// A `COPY … TO STDOUT` under way; made by [`Session::copy_out`](crate::Session::copy_out).
///
/// A stream of the data, in pieces as the server sends them (a row each). Dropped half-way, the rest is thrown
/// away, as with [`RowStream`](crate::RowStream).
#[must_use = "a stream gives its data to whoever polls it"]
pub struct CopyOut<'s> {
    session: Held<'s>,
    data: Option<Pin<Box<CopyOutStream>>>,
}

impl<'s> CopyOut<'s> {
    pub(crate) async fn start(
        mut session: Held<'s>,
        place: &'static Location<'static>,
        sql: &str,
    ) -> Result<Self, Error> {
        let data = session.start_copy_out(place, sql).await?;
        Ok(Self {
            session,
            data: Some(Box::pin(data)),
        })
    }

    /// The next piece of data, or `None` after the last.
    ///
    /// # Cancel safety
    /// May be dropped at any point; nothing is lost.
    ///
    /// # Errors
    /// The statement's failure. Nothing comes after it.
    #[expect(
        clippy::should_implement_trait,
        reason = "the name that streams have for it"
    )]
    pub fn next(&mut self) -> impl Future<Output = Option<Result<Bytes, Error>>> + Send {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx))
    }
}

impl Stream for CopyOut<'_> {
    type Item = Result<Bytes, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(data) = &mut this.data else {
            return Poll::Ready(None);
        };
        let end = match ready!(data.as_mut().poll_next(cx)) {
            Some(Ok(piece)) => return Poll::Ready(Some(Ok(piece))),
            Some(Err(error)) => Err(error),
            None => Ok(()),
        };
        this.data = None;
        Poll::Ready(this.session.answered(end).err().map(Err))
    }
}

impl Drop for CopyOut<'_> {
    fn drop(&mut self) {
        if self.data.take().is_some() {
            self.session.stream_abandoned();
        }
    }
}

impl fmt::Debug for CopyOut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOut")
            .field("finished", &self.data.is_none())
            .finish_non_exhaustive()
    }
}
