//! One proxied connection: two directions, each a reader that takes bytes as they come and a writer that
//! passes them on when they are due. A delay therefore costs time and no throughput.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Control, Levers, Side};

/// Chunks read and not yet passed on; a full queue stops the reader, as a full socket would.
const QUEUE: usize = 1024;

/// Carries one client's connection until either end closes it or a lever cuts it.
pub(super) async fn connection(client: TcpStream, control: Arc<Control>) {
    let _open = Open::new(&control);
    let mut levers = control.levers.subscribe();
    let cuts = levers.borrow().cuts;
    let carried = carry(client, &control);
    tokio::select! {
        // Both ends see the connection close; there is nobody to report an error to.
        _ = carried => {}
        // The sender lives in `control`.
        _ = levers.wait_for(|levers| levers.cuts != cuts) => {}
    }
}

struct Open<'a>(&'a Control);

impl<'a> Open<'a> {
    fn new(control: &'a Control) -> Self {
        // Ordering: Relaxed, here and below; only the number is used.
        control.open.fetch_add(1, Ordering::Relaxed);
        Self(control)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn carry(mut client: TcpStream, control: &Control) -> io::Result<()> {
    let mut levers = control.levers.subscribe();
    through(&mut levers).await;
    let mut server = TcpStream::connect(("127.0.0.1", control.server)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    // True from a client's first bytes until an answer was passed on.
    let asked = AtomicBool::new(false);
    tokio::try_join!(
        direction(Side::Client, from_client, to_server, control, &asked),
        direction(Side::Server, from_server, to_client, control, &asked),
    )?;
    Ok(())
}

/// Waits for the end of a black hole.
async fn through(levers: &mut watch::Receiver<Levers>) {
    // An error means that the proxy is gone, and this task with it.
    let _ = levers.wait_for(|levers| !levers.black_hole).await;
}

/// Carries one direction up to its end; an error means that both are over.
async fn direction(
    side: Side,
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    control: &Control,
    asked: &AtomicBool,
) -> io::Result<()> {
    let (queue, due) = mpsc::channel(QUEUE);
    tokio::try_join!(
        read(side, from, queue, control, asked),
        write(side, to, due, control, asked),
    )?;
    Ok(())
}

enum Passed {
    Bytes(Vec<u8>, Instant),
    /// The last bytes that `cut_after` allowed have been queued before this.
    Cut,
}

async fn read(
    side: Side,
    mut from: impl AsyncRead + Unpin,
    queue: mpsc::Sender<Passed>,
    control: &Control,
    asked: &AtomicBool,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(()); // The writer closes its half when the queue ends.
        }
        if side == Side::Client {
            // Ordering: Relaxed, here and below; both directions run in one task.
            asked.store(true, Ordering::Relaxed);
        }
        let (admitted, cut) = control.admit(side, read);
        // A closed queue means that the writer failed, which ends the connection.
        let _ = queue
            .send(Passed::Bytes(buffer[..admitted].to_vec(), Instant::now()))
            .await;
        if cut {
            let _ = queue.send(Passed::Cut).await;
            return Ok(());
        }
    }
}

async fn write(
    side: Side,
    mut to: impl AsyncWrite + Unpin,
    mut due: mpsc::Receiver<Passed>,
    control: &Control,
    asked: &AtomicBool,
) -> io::Result<()> {
    let mut levers = control.levers.subscribe();
    while let Some(passed) = due.recv().await {
        let Passed::Bytes(bytes, came) = passed else {
            to.flush().await?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        };
        let delay = levers.borrow().delay;
        tokio::time::sleep_until(came + delay).await;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            through(&mut levers).await;
            let now = *levers.borrow();
            let (piece, after) = rest.split_at(piece(&now, rest.len()));
            // Counted before the client can see the answer.
            if side == Side::Server && asked.swap(false, Ordering::Relaxed) {
                control.round_trips.fetch_add(1, Ordering::Relaxed);
            }
            to.write_all(piece).await?;
            if let Some(rate) = now.throttle {
                let share = Duration::from_secs(piece.len() as u64).as_nanos() / u128::from(rate);
                tokio::time::sleep(Duration::from_nanos(share.try_into().unwrap_or(u64::MAX)))
                    .await;
            } else if now.split_bytes {
                tokio::task::yield_now().await;
            }
            rest = after;
        }
    }
    to.shutdown().await
}

/// How much of `len` bytes goes into the next write.
fn piece(levers: &Levers, len: usize) -> usize {
    if levers.split_bytes {
        return 1;
    }
    // Twenty writes a second keep the flow even.
    let even = levers.throttle.map_or(u64::MAX, |rate| (rate / 20).max(1));
    usize::try_from(even).unwrap_or(usize::MAX).min(len)
}
