//! What a fuzzer drives: a connection whose server says whatever the input says.
//!
//! The input is cut into what is said at once: a byte for the length, then so many bytes. The next part is said when
//! the client has written something. Time is expected to be virtual, so that a silence costs none.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use crate::address::{EngineConfig, Place, Target};
use crate::backend::PgBackend;
use crate::conduct::Conduct;
use crate::dial::{Encryption, Shaken};
use crate::error::Error;
use crate::reset::{self, ResetPolicy};
use crate::wire::Recorded;

/// What a server says that lets anybody in.
const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x07\0\0\0\x09Z\0\0\0\x05I";

/// Longer than any wait is given.
const PATIENCE: Duration = Duration::from_secs(5);

/// Talks to a server that says this. Without a panic, and in bounded time and memory, it comes to an end.
pub async fn converse(input: &[u8]) {
    let Some((&flags, said)) = input.split_first() else {
        return;
    };
    let conduct = Conduct {
        reset: match flags & 2 {
            0 => ResetPolicy::Full,
            _ => ResetPolicy::Rollback,
        },
        longest_message: 64 * 1024,
        ..Conduct::default()
    };
    let options: EngineConfig = "postgresql://app:secret@localhost/shop"
        .parse()
        .expect("well-formed");
    // Where nobody answers a cancel request.
    let place = Place::Unix {
        folder: "/nowhere".into(),
        port: 1,
    };
    let target = Target::new(&options, None, None).expect("complete");
    let backend = PgBackend::new(target, conduct, Vec::new());
    let stream = Said {
        parts: parts(said, flags & 1 == 0),
        pending: Vec::new(),
        owed: 0,
        reader: None,
    };
    let wire = backend.new_record();
    let stream = Recorded::new(stream, Arc::clone(&wire));
    let mut login = backend.target().login.clone();
    login.password("secret");
    let Ok(Ok(logged_in)) = timeout(PATIENCE, login.connect_raw(stream, Shaken)).await else {
        return;
    };
    let connection = backend.attach(logged_in, wire, &place, Encryption::No);
    let talk = async {
        let statement = connection.prepare("SELECT n FROM numbers").await?;
        let none = std::iter::empty::<&i32>();
        let fault = |error| connection.fault(error);
        let rows = connection.driver().query_raw(&statement, none).await;
        let mut rows = std::pin::pin!(rows.map_err(fault)?);
        while let Some(row) = rows.next().await {
            let _ = row.map_err(fault)?.try_get::<_, Option<i64>>(0);
        }
        connection
            .driver()
            .simple_query("BEGIN")
            .await
            .map_err(fault)?;
        let copy = connection.prepare("COPY numbers FROM STDIN").await?;
        let sink = connection.driver().copy_in::<_, bytes::Bytes>(&copy).await;
        let mut sink = std::pin::pin!(sink.map_err(fault)?);
        sink.send(bytes::Bytes::from_static(b"1\n"))
            .await
            .map_err(fault)?;
        sink.finish().await.map_err(fault)?;
        Ok::<(), Error>(())
    };
    if let Ok(Err(error)) = timeout(PATIENCE, talk).await {
        let shown = error.with_statement("SELECT n FROM numbers", None);
        let _text = format!("{shown:#}{shown:?}");
    }
    let _ = timeout(PATIENCE, reset::reset(&connection)).await;
    let _ = timeout(PATIENCE, connection.close()).await;
}

/// Cuts an input into what is said at once, the last part first.
fn parts(mut said: &[u8], welcome: bool) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    if welcome {
        parts.push(WELCOME.to_vec());
    }
    while let Some((&length, rest)) = said.split_first() {
        let (part, rest) = rest.split_at(rest.len().min(usize::from(length)));
        parts.push(part.to_vec());
        said = rest;
    }
    parts.reverse();
    parts
}

/// A stream that says its parts one after another, one for each write, and then ends.
struct Said {
    /// The last part first.
    parts: Vec<Vec<u8>>,
    /// What of the current part is not read yet.
    pending: Vec<u8>,
    /// How many writes have not been answered by a part.
    owed: usize,
    reader: Option<Waker>,
}

impl AsyncRead for Said {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.pending.is_empty() {
            if this.owed == 0 {
                this.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let Some(part) = this.parts.pop() else {
                return Poll::Ready(Ok(()));
            };
            this.owed -= 1;
            this.pending = part;
            if this.pending.is_empty() {
                cx.waker().wake_by_ref(); // Nothing is not the end.
                return Poll::Pending;
            }
        }
        let take = this.pending.len().min(buf.remaining());
        buf.put_slice(&this.pending[..take]);
        this.pending.drain(..take);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Said {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.owed += 1;
        if let Some(reader) = this.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was not said by now is said at once.
        let this = self.get_mut();
        this.owed = usize::MAX;
        Poll::Ready(Ok(()))
    }
}

impl TlsStream for Said {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}
