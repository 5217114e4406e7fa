//! A small server that speaks Redis's protocol (RESP2): enough for a client to connect, ask and be cut off.
//!
//! It knows PING, ECHO, SET, GET, DEL, CLIENT and SELECT; all else is answered with Redis's own error. What is
//! set is seen by all connections. A test can [cut all connections](Server::hang_up) and
//! [make the server silent](Server::fall_silent).

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// The longest text and the longest command that is read.
const LIMIT: usize = 1 << 20;

/// A running server; it ends, with all its connections, when this is dropped.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use neighbours::resp::Server;
///
/// let server = Server::start().await?;
/// assert!(server.url().starts_with("redis://127.0.0.1:"));
/// assert_eq!(server.connected(), 0);
/// # Ok::<(), std::io::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    values: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    /// How many connections there are now, and how many there were at most at once.
    connected: watch::Sender<(usize, usize)>,
    hang_up: Notify,
    silent: watch::Sender<bool>,
}

impl Server {
    /// Starts a server on a free port, in tasks of the current runtime.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            values: Mutex::default(),
            connected: watch::Sender::new((0, 0)),
            hang_up: Notify::new(),
            silent: watch::Sender::new(false),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Self {
            address,
            state,
            accepting,
        })
    }

    /// Where a client finds it.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// How many connections there are now.
    pub fn connected(&self) -> usize {
        self.state.connected.borrow().0
    }

    /// How many connections there were at most at the same time.
    pub fn most_connected(&self) -> usize {
        self.state.connected.borrow().1
    }

    /// Ready once there are this many connections.
    pub async fn connections(&self, wanted: usize) {
        let mut connected = self.state.connected.subscribe();
        let seen = connected.wait_for(|(now, _)| *now == wanted).await;
        drop(seen.expect("the sender is ours"));
    }

    /// Cuts all connections; ready once they are gone.
    pub async fn hang_up(&self) {
        self.state.hang_up.notify_waiters();
        self.connections(0).await;
    }

    /// Whether to keep the answers back. They are given when it speaks again.
    pub fn fall_silent(&self, silent: bool) {
        self.state.silent.send_replace(silent);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        self.state.hang_up.notify_waiters();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let counted = Counted::new(&state);
        tokio::spawn(async move {
            tokio::select! {
                () = counted.0.hang_up.notified() => {}
                // A client that goes, whichever way, is no concern of the server's.
                _ = serve(stream, &counted.0) => {}
            }
        });
    }
}

/// Counts one connection for as long as it is there.
struct Counted(Arc<State>);

impl Counted {
    fn new(state: &Arc<State>) -> Self {
        state.connected.send_modify(|(now, most)| {
            *now += 1;
            *most = (*most).max(*now);
        });
        Self(Arc::clone(state))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connected.send_modify(|(now, _)| *now -= 1);
    }
}

async fn serve(stream: TcpStream, state: &State) -> io::Result<()> {
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    let mut silent = state.silent.subscribe();
    while let Some(command) = command(&mut from).await? {
        let answer = answer(&command, state);
        // An error means that the server has ended.
        silent
            .wait_for(|silent| !silent)
            .await
            .map_err(io::Error::other)?;
        to.write_all(&answer).await?;
    }
    Ok(())
}

/// Reads one command, an array of texts; `None` at the end of the stream.
async fn command(from: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<Vec<u8>>>> {
    let Some(count) = number(from, b'*').await? else {
        return Ok(None);
    };
    let mut words = Vec::new();
    for _ in 0..count {
        let Some(length) = number(from, b'$').await? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let mut word = vec![0; length + 2];
        from.read_exact(&mut word).await?;
        word.truncate(length);
        words.push(word);
    }
    Ok(Some(words))
}

/// Reads a line that holds a sign and a number.
async fn number(from: &mut BufReader<OwnedReadHalf>, sign: u8) -> io::Result<Option<usize>> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    let number = line
        .strip_prefix(&[sign])
        .and_then(|rest| std::str::from_utf8(rest).ok())
        .and_then(|text| text.trim_end().parse().ok())
        .filter(|number| *number <= LIMIT);
    let text = || String::from_utf8_lossy(&line);
    number.map(Some).ok_or_else(|| {
        let expected = format!("expected {:?} and a number, not {:?}", sign as char, text());
        io::Error::new(io::ErrorKind::InvalidData, expected)
    })
}

fn answer(command: &[Vec<u8>], state: &State) -> Vec<u8> {
    let mut values = state.values.lock().unwrap_or_else(PoisonError::into_inner);
    let mut words = command.iter().map(Vec::as_slice);
    let name = words.next().map(<[u8]>::to_ascii_uppercase);
    let words: Vec<&[u8]> = words.collect();
    match (name.as_deref().unwrap_or_default(), &*words) {
        (b"PING", []) => b"+PONG\r\n".to_vec(),
        (b"ECHO" | b"PING", [word]) => bulk(word),
        (b"SET", [key, value, ..]) => {
            values.insert(key.to_vec(), value.to_vec());
            b"+OK\r\n".to_vec()
        }
        (b"GET", [key]) => match values.get(*key) {
            Some(value) => bulk(value),
            None => b"$-1\r\n".to_vec(),
        },
        (b"DEL", [key]) => match values.remove(*key) {
            Some(_) => b":1\r\n".to_vec(),
            None => b":0\r\n".to_vec(),
        },
        (b"CLIENT" | b"SELECT", [..]) => b"+OK\r\n".to_vec(),
        (name, _) => {
            let name = String::from_utf8_lossy(name);
            format!("-ERR unknown command '{name}'\r\n").into_bytes()
        }
    }
}

fn bulk(text: &[u8]) -> Vec<u8> {
    let mut answer = format!("${}\r\n", text.len()).into_bytes();
    answer.extend_from_slice(text);
    answer.extend_from_slice(b"\r\n");
    answer
}
