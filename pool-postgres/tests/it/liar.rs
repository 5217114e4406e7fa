//! A server that answers by the book until it lies, on a port of its own.
//!
//! It knows just enough of the protocol for a session with statements, a batch and a copy. When the talk comes to a
//! certain point it tells its lie, once; then it goes on by the book, so that a pool which survived the lie works
//! again.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use postgres_protocol::message::backend as tag;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// More than any lie gets through to a client that keeps its bounds.
pub(crate) const ENDLESS: u64 = 256 << 20;

/// When a lie is told: in place of the answer to this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// The question whether it speaks TLS.
    Tls,
    /// The start-up message.
    StartUp,
    /// What is said behind the login.
    LoggedIn,
    /// The preparation of a statement.
    Parse,
    /// Its description.
    Describe,
    /// Its parameters.
    Bind,
    /// Its execution.
    Execute,
    /// A simple query.
    Query,
    /// The end of a request.
    Sync,
    /// The data of a copy.
    CopyData,
    /// The end of a copy.
    CopyDone,
    /// The goodbye.
    Terminate,
}

impl Point {
    pub(crate) const ALL: [Self; 12] = [
        Self::Tls,
        Self::StartUp,
        Self::LoggedIn,
        Self::Parse,
        Self::Describe,
        Self::Bind,
        Self::Execute,
        Self::Query,
        Self::Sync,
        Self::CopyData,
        Self::CopyDone,
        Self::Terminate,
    ];

    /// The point that a message of the client's brings the talk to.
    fn of(kind: u8) -> Option<Self> {
        Some(match kind {
            b'P' => Self::Parse,
            b'D' => Self::Describe,
            b'B' => Self::Bind,
            b'E' => Self::Execute,
            b'Q' => Self::Query,
            b'S' => Self::Sync,
            b'd' => Self::CopyData,
            b'c' => Self::CopyDone,
            b'X' => Self::Terminate,
            _ => return None,
        })
    }
}

/// What is said.
#[derive(Clone, Debug)]
pub(crate) enum Lie {
    /// These bytes once, and the honest answer behind them.
    Before(Vec<u8>),
    /// These bytes in place of the answer.
    Instead(Vec<u8>),
    /// These bytes for ever.
    Endless(Vec<u8>),
    /// Nothing any more.
    Silence,
    /// The end of the connection.
    End,
}

/// A message of the server's.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("short");
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// A well-formed message of each kind there is.
pub(crate) fn one_of_each() -> Vec<(u8, Vec<u8>)> {
    let copy = [0, 0, 1, 0, 0];
    let mut all: Vec<(u8, Vec<u8>)> = vec![
        (tag::PARSE_COMPLETE_TAG, vec![]),
        (tag::BIND_COMPLETE_TAG, vec![]),
        (tag::CLOSE_COMPLETE_TAG, vec![]),
        (
            tag::NOTIFICATION_RESPONSE_TAG,
            b"\0\0\0\x01news\0hello\0".to_vec(),
        ),
        (tag::COPY_DONE_TAG, vec![]),
        (tag::COMMAND_COMPLETE_TAG, b"SELECT 1\0".to_vec()),
        (tag::COPY_DATA_TAG, b"1\n".to_vec()),
        (tag::DATA_ROW_TAG, row(1)),
        (
            tag::ERROR_RESPONSE_TAG,
            b"SERROR\0VERROR\0C22012\0Mdivision by zero\0\0".to_vec(),
        ),
        (
            tag::ERROR_RESPONSE_TAG,
            b"SFATAL\0VFATAL\0C57P01\0Mgo away\0\0".to_vec(),
        ),
        (tag::ERROR_RESPONSE_TAG, b"\0".to_vec()),
        (tag::COPY_IN_RESPONSE_TAG, copy.to_vec()),
        (tag::COPY_OUT_RESPONSE_TAG, copy.to_vec()),
        (b'W', copy.to_vec()),
        (tag::EMPTY_QUERY_RESPONSE_TAG, vec![]),
        (tag::BACKEND_KEY_DATA_TAG, vec![0; 8]),
        (tag::NO_DATA_TAG, vec![]),
        (
            tag::NOTICE_RESPONSE_TAG,
            b"SNOTICE\0C00000\0Mhm\0\0".to_vec(),
        ),
        (tag::AUTHENTICATION_TAG, vec![0, 0, 0, 0]),
        (tag::AUTHENTICATION_TAG, vec![0, 0, 0, 3]),
        (
            tag::AUTHENTICATION_TAG,
            b"\0\0\0\x0aSCRAM-SHA-256\0\0".to_vec(),
        ),
        (
            tag::AUTHENTICATION_TAG,
            b"\0\0\0\x0br=x,s=eA==,i=4294967295".to_vec(),
        ),
        (tag::PORTAL_SUSPENDED_TAG, vec![]),
        (tag::PARAMETER_STATUS_TAG, b"TimeZone\0UTC\0".to_vec()),
        (tag::PARAMETER_DESCRIPTION_TAG, vec![0, 1, 0, 0, 0, 23]),
        (tag::PARAMETER_DESCRIPTION_TAG, vec![0, 1, 0, 1, 0, 0]),
        (tag::ROW_DESCRIPTION_TAG, described()),
        (tag::READY_FOR_QUERY_TAG, b"I".to_vec()),
        (tag::READY_FOR_QUERY_TAG, b"T".to_vec()),
        (tag::READY_FOR_QUERY_TAG, b"?".to_vec()),
        (b'v', vec![0; 8]),
        (0xff, vec![1, 2, 3]),
    ];
    // Each of them cut short, too: the body ends where its fields do not.
    let cut: Vec<(u8, Vec<u8>)> = all
        .iter()
        .filter(|(_, body)| !body.is_empty())
        .map(|(kind, body)| (*kind, body[..body.len() - 1].to_vec()))
        .collect();
    all.extend(cut);
    all
}

/// The description of one column, a number called `n`.
fn described() -> Vec<u8> {
    let column = [&[0; 6][..], &[0, 0, 0, 23, 0, 4, 0, 0, 0, 0, 0, 1]].concat();
    [&[0, 1][..], b"n\0", &column].concat()
}

fn row(value: i32) -> Vec<u8> {
    let value = value.to_be_bytes();
    [&[0, 1, 0, 0, 0, 4][..], &value].concat()
}

/// A row that fills about a page.
pub(crate) fn wide_row() -> Vec<u8> {
    let body = [&[0, 1, 0, 0, 0x20, 0][..], &[b'x'; 0x2000]].concat();
    message(tag::DATA_ROW_TAG, &body)
}

/// A lie, and when it is told.
struct Plan {
    point: Point,
    /// How often the point is passed by before.
    skip: u64,
    lie: Lie,
    /// How often the talk came to the point.
    times: AtomicU64,
    /// How many bytes of a lie without end were taken.
    said: AtomicU64,
}

/// A server that lies once.
pub(crate) struct Liar {
    port: u16,
    plan: Arc<Plan>,
    task: JoinHandle<()>,
}

impl Liar {
    /// Lies at this point, having passed it by `skip` times.
    pub(crate) async fn new(point: Point, skip: u64, lie: Lie) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let plan = Arc::new(Plan {
            point,
            skip,
            lie,
            times: AtomicU64::new(0),
            said: AtomicU64::new(0),
        });
        let shared = Arc::clone(&plan);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let talk = Talk {
                    socket,
                    plan: Arc::clone(&shared),
                    in_transaction: false,
                    copies: HashSet::new(),
                    is_copy: false,
                    copying: false,
                };
                tokio::spawn(talk.run());
            }
        });
        Self { port, plan, task }
    }

    pub(crate) fn url(&self) -> String {
        format!(
            "postgresql://app:secret@127.0.0.1:{}/shop?sslmode=prefer",
            self.port
        )
    }

    /// How many bytes of a lie without end were taken.
    pub(crate) fn said(&self) -> u64 {
        self.plan.said.load(Ordering::Relaxed)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection, seen from the server.
struct Talk {
    socket: TcpStream,
    plan: Arc<Plan>,
    in_transaction: bool,
    /// The names of statements that are copies, and whether the one in hand is.
    copies: HashSet<Vec<u8>>,
    is_copy: bool,
    /// Whether its data are awaited, behind the end of its request.
    copying: bool,
}

impl Talk {
    async fn run(mut self) -> Option<()> {
        let mut start_up = self.unnamed().await?;
        if start_up.starts_with(&[4, 210, 22, 47]) {
            self.answer(Point::Tls, b"N".to_vec()).await?;
            start_up = self.unnamed().await?;
        }
        if start_up.starts_with(&[4, 210, 22, 46]) {
            return None; // A cancel request: what is under way here ends by itself.
        }
        let welcome = message(tag::AUTHENTICATION_TAG, &[0; 4]);
        self.answer(Point::StartUp, welcome).await?;
        let ready = [
            message(tag::PARAMETER_STATUS_TAG, b"server_version\x0015.0\0"),
            message(tag::BACKEND_KEY_DATA_TAG, &[0, 0, 0, 7, 0, 0, 0, 9]),
            message(tag::READY_FOR_QUERY_TAG, b"I"),
        ];
        self.answer(Point::LoggedIn, ready.concat()).await?;
        loop {
            let kind = self.socket.read_u8().await.ok()?;
            let body = self.unnamed().await?;
            let answer = self.by_the_book(kind, &body);
            match Point::of(kind) {
                Some(point) => self.answer(point, answer).await?,
                None => self.socket.write_all(&answer).await.ok()?,
            }
            if kind == b'X' {
                return None;
            }
        }
    }

    /// A length and a body.
    async fn unnamed(&mut self) -> Option<Vec<u8>> {
        let length = self.socket.read_u32().await.ok()?;
        let mut body = vec![0; usize::try_from(length).ok()?.checked_sub(4)?];
        self.socket.read_exact(&mut body).await.ok()?;
        Some(body)
    }

    /// Tells the lie if its time has come, else the honest answer.
    async fn answer(&mut self, point: Point, honest: Vec<u8>) -> Option<()> {
        let plan = Arc::clone(&self.plan);
        let due = plan.point == point && plan.times.fetch_add(1, Ordering::Relaxed) == plan.skip;
        if !due {
            return self.socket.write_all(&honest).await.ok();
        }
        match &plan.lie {
            Lie::Before(bytes) => {
                let both = [&bytes[..], &honest].concat();
                self.socket.write_all(&both).await.ok()
            }
            Lie::Instead(bytes) => self.socket.write_all(bytes).await.ok(),
            Lie::Endless(bytes) => {
                let many = bytes.repeat(1 + 16_384 / bytes.len());
                while plan.said.load(Ordering::Relaxed) < ENDLESS {
                    self.socket.write_all(&many).await.ok()?;
                    plan.said.fetch_add(many.len() as u64, Ordering::Relaxed);
                }
                None
            }
            Lie::Silence => {
                // Until the client has gone.
                let mut ignored = [0; 1024];
                while self.socket.read(&mut ignored).await.ok()? > 0 {}
                None
            }
            Lie::End => None,
        }
    }

    /// What a server answers.
    fn by_the_book(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        // Parse begins with the statement's name, Describe with `S` and the name, Bind with portal and name.
        let field = |number| {
            body.split(|byte| *byte == 0)
                .nth(number)
                .unwrap_or_default()
                .to_vec()
        };
        match kind {
            b'D' => self.is_copy = self.copies.contains(&field(0)[1..]),
            b'B' => self.is_copy = self.copies.contains(&field(1)),
            _ => {}
        }
        let starts = |text: &[u8]| body.starts_with(text);
        match kind {
            b'P' => {
                if field(1).starts_with(b"COPY") {
                    self.copies.insert(field(0));
                }
                message(tag::PARSE_COMPLETE_TAG, &[])
            }
            b'D' if self.is_copy => [
                message(tag::PARAMETER_DESCRIPTION_TAG, &[0, 0]),
                message(tag::NO_DATA_TAG, &[]),
            ]
            .concat(),
            b'D' => [
                message(tag::PARAMETER_DESCRIPTION_TAG, &[0, 0]),
                message(tag::ROW_DESCRIPTION_TAG, &described()),
            ]
            .concat(),
            b'B' => message(tag::BIND_COMPLETE_TAG, &[]),
            b'E' if self.is_copy => {
                self.copying = true;
                message(tag::COPY_IN_RESPONSE_TAG, &[0, 0, 1, 0, 0])
            }
            b'E' => [
                message(tag::DATA_ROW_TAG, &row(1)),
                message(tag::COMMAND_COMPLETE_TAG, b"SELECT 1\0"),
            ]
            .concat(),
            b'c' => message(tag::COMMAND_COMPLETE_TAG, b"COPY 1\0"),
            b'f' => message(
                tag::ERROR_RESPONSE_TAG,
                b"SERROR\0VERROR\0C57014\0Mgiven up\0\0",
            ),
            b'C' => message(tag::CLOSE_COMPLETE_TAG, &[]),
            // Ignored while the data of a copy are awaited.
            b'S' if std::mem::take(&mut self.copying) => vec![],
            b'S' => self.ready(),
            b'Q' => {
                let answer = if starts(b"\0") {
                    message(tag::EMPTY_QUERY_RESPONSE_TAG, &[])
                } else if starts(b"COMMIT") || starts(b"ROLLBACK") {
                    self.in_transaction = false;
                    message(tag::COMMAND_COMPLETE_TAG, &[&body[..6], b"\0"].concat())
                } else {
                    self.in_transaction |= starts(b"BEGIN");
                    message(tag::COMMAND_COMPLETE_TAG, b"BEGIN\0")
                };
                [answer, self.ready()].concat()
            }
            _ => vec![],
        }
    }

    fn ready(&self) -> Vec<u8> {
        let status = if self.in_transaction { b"T" } else { b"I" };
        message(tag::READY_FOR_QUERY_TAG, status)
    }
}
