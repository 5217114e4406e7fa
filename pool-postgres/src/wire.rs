//! What went over a connection, recorded as it passes.
//!
//! The driver hides the transaction status, the tags of finished commands, the request that a notice belongs to
//! and why a connection ended. [`Recorded`] stands between the driver and the stream (above TLS), follows the
//! frames of both directions by their headers, and keeps what we need in a [`Wire`]. Row data is skipped, not
//! copied.
//!
//! # Requests
//! Each `Query` and each `Sync` that was written is answered by one `ReadyForQuery`, in order. So nothing is
//! under way when as many came back as went out. What the driver has queued and not written yet is not
//! counted: see [`PgConnection::settled`](crate::connection::PgConnection::settled). One exception: a server that
//! waits for the data of a `COPY` swallows the `Sync` that came with the statement.
//!
//! # Servers that lie
//! Everything is bounded before the driver sees it: the length of a frame, all that comes before the first
//! `ReadyForQuery`, the names of parameters, the work that a password's proof asks for. What does not fit is an
//! error of the stream, which ends the connection.

mod events;
mod frames;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use crate::error::{Error, ErrorKind};
use crate::fnv::fnv1a;
use crate::statements;
use events::{Code, Event, Events, Since, Tag};
use frames::{Frames, KEPT};

/// How much a server may say before it is ready: its parameters and a notice or two take 2 KiB.
const START_UP: u64 = 256 * 1024;
/// How many parameters a server may report: PostgreSQL has 14.
const PARAMETERS: usize = 256;
/// How often a server may have a password hashed: PostgreSQL asks for 4,096. A million take half a second.
const ITERATIONS: u64 = 1_000_000;

/// Where the server stands, as of its last `ReadyForQuery`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionStatus {
    Idle,
    InTransaction,
    Failed,
}

/// The record of one connection.
pub(crate) struct Wire {
    record: Mutex<Record>,
    /// Raised by each command that takes prepared statements away, or may have made them useless.
    cleared: AtomicU64,
    /// The longest frame that is taken from the server.
    longest: usize,
}

struct Record {
    transaction: TransactionStatus,
    /// Requests written, and requests answered.
    written: u64,
    answered: u64,
    /// Requests that a `COPY` has swallowed.
    swallowed: u64,
    /// Which of those written and not answered are simple queries, by their numbers.
    simple: VecDeque<u64>,
    events: Events,
    /// The process and the secret that a cancel request names.
    key: Option<(i32, i32)>,
    in_hot_standby: Option<bool>,
    server_version: Option<String>,
    /// Bytes read before the server was ready.
    start_up: u64,
    /// Hashes of the names of the parameters that were reported.
    parameters: Vec<u64>,
    /// Why the connection ended.
    end: Option<Error>,
    inbound: Frames,
    outbound: Frames,
}

impl Wire {
    /// The record of a new connection that takes frames of up to so many bytes.
    pub(crate) fn new(longest: usize) -> Self {
        Self {
            record: Mutex::new(Record {
                transaction: TransactionStatus::Idle,
                // The start-up is answered by a ReadyForQuery too.
                written: 1,
                answered: 0,
                swallowed: 0,
                simple: VecDeque::new(),
                events: Events::new(),
                key: None,
                in_hot_standby: None,
                server_version: None,
                start_up: 0,
                parameters: Vec::new(),
                end: None,
                inbound: Frames::typed(),
                outbound: Frames::start_up(),
            }),
            cleared: AtomicU64::new(0),
            longest,
        }
    }

    pub(crate) fn transaction(&self) -> TransactionStatus {
        self.record.lock().transaction
    }

    /// How many requests were written and not answered yet.
    pub(crate) fn unanswered(&self) -> u64 {
        self.record.lock().unanswered()
    }

    /// How many requests were written so far, the start-up counted.
    pub(crate) fn written(&self) -> u64 {
        self.record.lock().written
    }

    /// A place in the record, for [`since`](Self::since).
    pub(crate) fn mark(&self) -> usize {
        self.record.lock().events.count()
    }

    /// What was recorded since then, as far as it is remembered.
    pub(crate) fn since(&self, mark: usize) -> Since {
        self.record.lock().events.since(mark)
    }

    /// How many commands so far took prepared statements away.
    pub(crate) fn cleared(&self) -> u64 {
        // Ordering: Relaxed; the answer that raised it reached whoever asks through the driver's channel.
        self.cleared.load(Ordering::Relaxed)
    }

    pub(crate) fn key(&self) -> Option<(i32, i32)> {
        self.record.lock().key
    }

    pub(crate) fn in_hot_standby(&self) -> Option<bool> {
        self.record.lock().in_hot_standby
    }

    pub(crate) fn server_version(&self) -> Option<String> {
        self.record.lock().server_version.clone()
    }

    /// Why the connection ended, if it did and said so.
    pub(crate) fn end(&self) -> Option<Error> {
        self.record.lock().end.clone()
    }

    /// Takes note of why the connection ends; the first reason stays.
    pub(crate) fn ends(&self, reason: impl FnOnce() -> Error) {
        let mut record = self.record.lock();
        if record.end.is_none() {
            record.end = Some(reason());
        }
    }

    fn wrote(&self, bytes: &[u8]) {
        let record = &mut *self.record.lock();
        let (written, simple) = (&mut record.written, &mut record.simple);
        // Frames that we write are as long as we make them.
        let _ = record.outbound.feed(
            bytes,
            usize::MAX,
            |_| false,
            |kind, _| {
                *written += u64::from(matches!(kind, b'Q' | b'S'));
                if kind == b'Q' {
                    simple.push_back(*written);
                }
                Ok(())
            },
        );
    }

    fn read(&self, bytes: &[u8]) -> io::Result<()> {
        let record = &mut *self.record.lock();
        let mut inbound = std::mem::replace(&mut record.inbound, Frames::typed());
        let kept = |kind| matches!(kind, b'Z' | b'C' | b'N' | b'K' | b'S' | b'R' | b'E');
        let fed = inbound.feed(bytes, self.longest, kept, |kind, body| {
            record.came(kind, body, &self.cleared)
        });
        record.inbound = inbound;
        fed?;
        if record.answered + record.swallowed > record.written {
            return Err(lie("the server answered a request that was never made"));
        }
        if record.answered == 0 {
            record.start_up += bytes.len() as u64;
            if record.start_up > START_UP {
                return Err(lie("the server talks on and on and is never ready"));
            }
        }
        Ok(())
    }
}

fn lie(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Record {
    fn unanswered(&self) -> u64 {
        // What is swallowed may still be on its way out.
        self.written.saturating_sub(self.answered + self.swallowed)
    }

    fn came(&mut self, kind: u8, body: &[u8], cleared: &AtomicU64) -> io::Result<()> {
        match kind {
            b'Z' => {
                self.answered += 1;
                let number = self.answered + self.swallowed;
                self.simple.pop_front_if(|first| *first <= number);
                self.transaction = match body {
                    [b'I'] => TransactionStatus::Idle,
                    [b'T'] => TransactionStatus::InTransaction,
                    [b'E'] => TransactionStatus::Failed,
                    _ => return Err(lie("the server is in no state that there is")),
                };
            }
            b'C' => {
                let tag = Tag::new(body);
                if statements::are_cleared_by(tag.as_bytes()) {
                    // Ordering: Relaxed, as in `cleared`.
                    cleared.fetch_add(1, Ordering::Relaxed);
                }
                self.events.note(Event::Tag(tag));
            }
            b'N' => {
                let code = field(body, b'C').unwrap_or_default();
                self.events.note(Event::Notice(Code::new(code)));
            }
            b'E' if is_fatal(body) && self.end.is_none() => {
                self.end = Some(Error::from_fields(|kind| {
                    field(body, kind).map(String::from_utf8_lossy)
                }));
            }
            b'K' => {
                if let (Some(process), Some(secret)) = (
                    body.first_chunk(),
                    body.get(4..).and_then(<[u8]>::first_chunk),
                ) {
                    self.key = Some((i32::from_be_bytes(*process), i32::from_be_bytes(*secret)));
                }
            }
            b'G' => {
                let number = self.answered + self.swallowed + 1;
                if number <= self.written && self.simple.front() != Some(&number) {
                    self.swallowed += 1;
                }
            }
            b'S' => self.reported(body)?,
            b'R' => bearable(body)?,
            _ => {}
        }
        Ok(())
    }

    /// A parameter's value. The driver keeps each name for as long as the connection lives.
    fn reported(&mut self, body: &[u8]) -> io::Result<()> {
        let mut parts = body.split(|byte| *byte == 0);
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
            return Ok(());
        };
        match name {
            b"in_hot_standby" => self.in_hot_standby = Some(value == b"on"),
            b"server_version" => {
                self.server_version = Some(String::from_utf8_lossy(value).into_owned());
            }
            _ => {}
        }
        if body.len() >= KEPT {
            return Err(lie("the server reports a parameter as long as a page"));
        }
        let hash = fnv1a(name);
        if !self.parameters.contains(&hash) {
            if self.parameters.len() == PARAMETERS {
                return Err(lie("the server reports more parameters than it can have"));
            }
            self.parameters.push(hash);
        }
        Ok(())
    }
}

/// Whether a request of authentication asks for no more work than a server needs to ask for.
fn bearable(body: &[u8]) -> io::Result<()> {
    const SASL_CONTINUE: [u8; 4] = [0, 0, 0, 11];
    if body.len() >= KEPT {
        return Err(lie(
            "the server's request of authentication is as long as a page",
        ));
    }
    let Some(message) = body.strip_prefix(&SASL_CONTINUE) else {
        return Ok(());
    };
    let count = message
        .split(|byte| *byte == b',')
        .find_map(|part| part.strip_prefix(b"i="));
    let count = count.and_then(|digits| std::str::from_utf8(digits).ok());
    match count.map(str::parse::<u64>) {
        Some(Ok(count)) if count > ITERATIONS => {
            Err(lie("the server wants the password hashed a million times"))
        }
        _ => Ok(()),
    }
}

/// The field of an error or a notice that begins with this byte.
fn field(body: &[u8], kind: u8) -> Option<&[u8]> {
    body.split(|byte| *byte == 0)
        .find_map(|field| field.strip_prefix(&[kind]))
}

/// Whether an error ends the connection.
fn is_fatal(body: &[u8]) -> bool {
    // `V` is never translated; servers before 9.6 have only `S`.
    let severity = field(body, b'V').or_else(|| field(body, b'S'));
    matches!(severity, Some(b"FATAL" | b"PANIC"))
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
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf))
            .and_then(|()| self.wire.read(&buf.filled()[before..]));
        // Told before the driver knows, so that nobody learns of the end without its reason.
        let broken = |error: &io::Error| Error::new(ErrorKind::ConnectionLost, error.to_string());
        Poll::Ready(read.inspect_err(|error| self.wire.ends(|| broken(error))))
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
    use super::events::REMEMBERED;
    use super::*;

    /// The longest frame of a real server.
    const LONGEST: usize = 1 << 30;

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
            let wire = Wire::new(LONGEST);
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
            assert!(Wire::new(LONGEST).read(&bytes).is_err(), "{length}");
        }
    }

    #[test]
    fn the_record_forgets_its_oldest_events_and_marks_stay_right() {
        let wire = Wire::new(LONGEST);
        for _ in 0..300 {
            wire.read(&frame(b'C', b"SELECT 1\0")).expect("well-formed");
        }
        let mark = wire.mark();
        wire.read(&frame(b'C', b"COMMIT\0")).expect("well-formed");
        assert_eq!(wire.since(mark).tags, ["COMMIT"]);
        assert_eq!(wire.since(0).tags.len(), REMEMBERED);
    }
}
