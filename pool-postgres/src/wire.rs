//! What went over a connection, recorded as it passes.
//!
//! The driver hides the transaction status, the tags of finished commands and the request that a notice belongs
//! to. [`Recorded`] stands between the driver and the stream (above TLS), follows the frames of both
//! directions by their headers, and keeps what we need in a [`Wire`]. Row data is skipped, not copied.
//!
//! # Requests
//! Each `Query` and each `Sync` that was written is answered by one `ReadyForQuery`, in order. So nothing is
//! under way when as many came back as went out. What the driver has queued and not written yet is not
//! counted: see [`PgConnection::settled`](crate::connection::PgConnection::settled).

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

/// A frame longer than this is no answer of a PostgreSQL server: it sends none above 1 GiB.
const LONGEST_FRAME: u32 = 1 << 30;
/// How much of a frame that we read is kept: more than any tag or notice code needs.
const KEPT: usize = 1024;
/// How many tags and notices are remembered.
const REMEMBERED: usize = 128;

/// Where the server stands, as of its last `ReadyForQuery`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionStatus {
    Idle,
    InTransaction,
    Failed,
}

/// The record of one connection.
pub(crate) struct Wire(Mutex<Record>);

struct Record {
    transaction: TransactionStatus,
    /// Requests written, and requests answered.
    written: u64,
    answered: u64,
    /// Tags and notices, oldest first; the first is number `forgotten`.
    events: VecDeque<Event>,
    forgotten: usize,
    /// The process and the secret that a cancel request names.
    key: Option<(i32, i32)>,
    in_hot_standby: Option<bool>,
    server_version: Option<String>,
    inbound: Frames,
    outbound: Frames,
}

enum Event {
    Tag(String),
    Notice(String),
}

/// What was recorded since a mark.
#[derive(Debug, Default)]
pub(crate) struct Since {
    pub(crate) tags: Vec<String>,
    /// SQLSTATEs of notices and warnings.
    pub(crate) notices: Vec<String>,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Record {
            transaction: TransactionStatus::Idle,
            // The start-up is answered by a ReadyForQuery too.
            written: 1,
            answered: 0,
            events: VecDeque::new(),
            forgotten: 0,
            key: None,
            in_hot_standby: None,
            server_version: None,
            inbound: Frames::typed(),
            outbound: Frames::start_up(),
        }))
    }

    pub(crate) fn transaction(&self) -> TransactionStatus {
        self.0.lock().transaction
    }

    /// How many requests were written and not answered yet.
    pub(crate) fn unanswered(&self) -> u64 {
        let record = self.0.lock();
        record.written - record.answered
    }

    /// A place in the record, for [`since`](Self::since).
    pub(crate) fn mark(&self) -> usize {
        let record = self.0.lock();
        record.forgotten + record.events.len()
    }

    /// What was recorded since then, as far as it is remembered.
    pub(crate) fn since(&self, mark: usize) -> Since {
        let record = self.0.lock();
        let mut since = Since::default();
        for event in record
            .events
            .iter()
            .skip(mark.saturating_sub(record.forgotten))
        {
            match event {
                Event::Tag(tag) => since.tags.push(tag.clone()),
                Event::Notice(code) => since.notices.push(code.clone()),
            }
        }
        since
    }

    pub(crate) fn key(&self) -> Option<(i32, i32)> {
        self.0.lock().key
    }

    pub(crate) fn in_hot_standby(&self) -> Option<bool> {
        self.0.lock().in_hot_standby
    }

    pub(crate) fn server_version(&self) -> Option<String> {
        self.0.lock().server_version.clone()
    }

    fn wrote(&self, bytes: &[u8]) {
        let record = &mut *self.0.lock();
        let written = &mut record.written;
        // Frames that we write are as long as we make them.
        let _ = record.outbound.feed(
            bytes,
            u32::MAX,
            |_| false,
            |kind, _| {
                *written += u64::from(matches!(kind, b'Q' | b'S'));
            },
        );
    }

    fn read(&self, bytes: &[u8]) -> io::Result<()> {
        let record = &mut *self.0.lock();
        let mut inbound = std::mem::replace(&mut record.inbound, Frames::typed());
        let kept = |kind| matches!(kind, b'Z' | b'C' | b'N' | b'K' | b'S');
        let fed = inbound.feed(bytes, LONGEST_FRAME, kept, |kind, body| {
            record.came(kind, body);
        });
        record.inbound = inbound;
        fed?;
        if record.answered > record.written {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the server answered a request that was never made",
            ));
        }
        Ok(())
    }
}

impl Record {
    fn came(&mut self, kind: u8, body: &[u8]) {
        match kind {
            b'Z' => {
                self.answered += 1;
                self.transaction = match body.first() {
                    Some(b'T') => TransactionStatus::InTransaction,
                    Some(b'E') => TransactionStatus::Failed,
                    _ => TransactionStatus::Idle,
                };
            }
            // The driver has sent a Sync along with the COPY, which the server ignores while it copies in.
            b'G' => self.written = self.written.saturating_sub(1),
            b'C' => self.note(Event::Tag(text(body))),
            b'N' => {
                let code = body
                    .split(|byte| *byte == 0)
                    .find(|field| field.first() == Some(&b'C'));
                self.note(Event::Notice(text(code.map_or(&[], |field| &field[1..]))));
            }
            b'K' => {
                if let (Some(process), Some(secret)) = (
                    body.first_chunk(),
                    body.get(4..).and_then(<[u8]>::first_chunk),
                ) {
                    self.key = Some((i32::from_be_bytes(*process), i32::from_be_bytes(*secret)));
                }
            }
            b'S' => {
                let mut parts = body.split(|byte| *byte == 0);
                match (parts.next(), parts.next()) {
                    (Some(b"in_hot_standby"), Some(value)) => {
                        self.in_hot_standby = Some(value == b"on");
                    }
                    (Some(b"server_version"), Some(value)) => {
                        self.server_version = Some(text(value));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn note(&mut self, event: Event) {
        if self.events.len() == REMEMBERED {
            self.events.pop_front();
            self.forgotten += 1;
        }
        self.events.push_back(event);
    }
}

/// A C string as text.
fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Follows frames by their headers, over any split of the bytes.
struct Frames {
    /// The header so far: a type byte (unless it is the first message of all) and a length.
    header: [u8; 5],
    have: usize,
    /// Whether the next frame has no type byte.
    untyped: bool,
    /// How much of the current frame's body is still to come.
    body: u32,
    in_body: bool,
    kept: Vec<u8>,
}

impl Frames {
    fn typed() -> Self {
        Self {
            header: [0; 5],
            have: 0,
            untyped: false,
            body: 0,
            in_body: false,
            kept: Vec::new(),
        }
    }

    fn start_up() -> Self {
        // As if a type byte had been read.
        Self {
            have: 1,
            untyped: true,
            ..Self::typed()
        }
    }

    /// Takes bytes in. `keep` says of which types the body is wanted; `done` gets each frame.
    fn feed(
        &mut self,
        mut bytes: &[u8],
        longest: u32,
        keep: impl Fn(u8) -> bool,
        mut done: impl FnMut(u8, &[u8]),
    ) -> io::Result<()> {
        while !bytes.is_empty() || (self.in_body && self.body == 0) {
            if !self.in_body {
                let take = (5 - self.have).min(bytes.len());
                self.header[self.have..self.have + take].copy_from_slice(&bytes[..take]);
                self.have += take;
                bytes = &bytes[take..];
                if self.have < 5 {
                    return Ok(());
                }
                let [_, a, b, c, d] = self.header;
                let length = u32::from_be_bytes([a, b, c, d]);
                if length < 4 || length > longest {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!(
                            "the server announced a message of {length} bytes, which none of its messages has"
                        ),
                    ));
                }
                self.body = length - 4;
                self.in_body = true;
                self.kept.clear();
            }
            let kind = self.header[0];
            let take = bytes.len().min(self.body as usize);
            if keep(kind) && self.kept.len() < KEPT {
                let room = KEPT - self.kept.len();
                self.kept.extend_from_slice(&bytes[..take.min(room)]);
            }
            bytes = &bytes[take..];
            self.body -= u32::try_from(take).unwrap_or(u32::MAX);
            if self.body == 0 {
                if !std::mem::take(&mut self.untyped) {
                    done(kind, &self.kept);
                }
                self.have = 0;
                self.in_body = false;
            }
        }
        Ok(())
    }
}

/// A stream that is recorded as it passes.
pub(crate) struct Recorded<S> {
    stream: S,
    wire: Arc<Wire>,
}

impl<S> Recorded<S> {
    pub(crate) fn new(stream: S, wire: Arc<Wire>) -> Self {
        Self { stream, wire }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        Poll::Ready(self.wire.read(&buf.filled()[before..]))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Recorded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // The driver reads and writes in one task, so no answer is read before its request is counted.
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.wire.wrote(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Ends our direction, and reads the other to its end: then the server is known to have let go.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        loop {
            let mut ignored = [0; 1024];
            let mut buf = ReadBuf::new(&mut ignored);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                // The end, or a reset, which is one.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: TlsStream + AsyncRead + AsyncWrite + Unpin> TlsStream for Recorded<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("short");
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    fn session() -> (Vec<u8>, Vec<u8>) {
        let out = [
            &[0, 0, 0, 9][..],
            b"start",
            &frame(b'Q', b"BEGIN\0"),
            &frame(b'P', b"x\0SELECT 1\0\0\0"),
            &frame(b'S', b""),
        ];
        let came = [
            frame(b'S', b"in_hot_standby\0on\0"),
            frame(b'K', &[0, 0, 0, 7, 0, 0, 0, 9]),
            frame(b'Z', b"I"),
            frame(b'C', b"BEGIN\0"),
            frame(b'Z', b"T"),
            frame(b'D', &[1; 3000]),
            frame(b'N', b"SWARNING\0C01000\0Mhm\0\0"),
            frame(b'C', b"SELECT 1\0"),
        ];
        (out.concat(), came.concat())
    }

    #[test]
    fn any_split_of_the_bytes_gives_the_same_record() {
        let (out, came) = session();
        for size in [1, 2, 3, 5, 7, 64, 10_000] {
            let wire = Wire::new();
            let mark = wire.mark();
            out.chunks(size).for_each(|bytes| wire.wrote(bytes));
            assert_eq!(
                wire.unanswered(),
                3,
                "start-up, Query and Sync, {size} bytes at a time"
            );
            for bytes in came.chunks(size) {
                wire.read(bytes).expect("well-formed");
            }
            let since = wire.since(mark);
            assert_eq!(since.tags, ["BEGIN", "SELECT 1"]);
            assert_eq!(since.notices, ["01000"]);
            assert_eq!(wire.unanswered(), 1);
            assert_eq!(wire.transaction(), TransactionStatus::InTransaction);
            assert_eq!(wire.key(), Some((7, 9)));
            assert_eq!(wire.in_hot_standby(), Some(true));
        }
    }

    #[test]
    fn a_length_that_no_server_sends_is_refused() {
        for length in [0_u32, 3, u32::MAX] {
            let bytes = [&b"D"[..], &length.to_be_bytes()].concat();
            assert!(Wire::new().read(&bytes).is_err(), "{length}");
        }
    }

    #[test]
    fn the_record_forgets_its_oldest_events_and_marks_stay_right() {
        let wire = Wire::new();
        for _ in 0..300 {
            wire.read(&frame(b'C', b"SELECT 1\0")).expect("well-formed");
        }
        let mark = wire.mark();
        wire.read(&frame(b'C', b"COMMIT\0")).expect("well-formed");
        assert_eq!(wire.since(mark).tags, ["COMMIT"]);
        assert_eq!(wire.since(0).tags.len(), REMEMBERED);
    }
}
