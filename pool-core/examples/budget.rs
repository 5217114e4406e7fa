//! Many servers, few connections: a pool for each server, made at its first use, all under one budget.
//! `cargo run -p pool-core --example budget`

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pool_core::{Backend, Budget, Pool, PoolMap};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How many servers there are, and how many connections all pools together may have.
const SERVERS: usize = 12;
const CONNECTIONS: usize = 4;

/// How many connections the servers have now, and had at most.
#[derive(Default)]
struct Seen {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// Answers each line with the server's number and that line, until the client has no more.
async fn serve(number: usize, conn: TcpStream, seen: Arc<Seen>) -> io::Result<()> {
    let now = seen.now.fetch_add(1, Ordering::Relaxed) + 1;
    seen.most.fetch_max(now, Ordering::Relaxed);
    let mut conn = BufReader::new(conn);
    let mut line = String::new();
    while conn.read_line(&mut line).await? > 0 {
        let answer = format!("server {number}: {line}");
        conn.write_all(answer.as_bytes()).await?;
        line.clear();
    }
    seen.now.fetch_sub(1, Ordering::Relaxed);
    Ok(()) // The client's `close` reads to here.
}

async fn listen(number: usize, seen: &Arc<Seen>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let seen = Arc::clone(seen);
    tokio::spawn(async move {
        while let Ok((conn, _)) = listener.accept().await {
            tokio::spawn(serve(number, conn, Arc::clone(&seen)));
        }
    });
    Ok(address)
}

struct Server(SocketAddr);

impl Backend for Server {
    type Connection = BufReader<TcpStream>;
    type Error = io::Error;

    async fn connect(&self) -> io::Result<Self::Connection> {
        TcpStream::connect(self.0).await.map(BufReader::new)
    }

    /// Waits until the server has let go: only then does the budget count the connection as gone.
    async fn close(&self, mut conn: Self::Connection) {
        if conn.shutdown().await.is_ok() {
            let _ = conn.read(&mut [0]).await;
        }
    }
}

async fn ask(conn: &mut BufReader<TcpStream>, question: &str) -> io::Result<String> {
    let question = format!("{question}\n");
    conn.write_all(question.as_bytes()).await?;
    let mut answer = String::new();
    conn.read_line(&mut answer).await?;
    Ok(answer.trim_end().to_owned())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seen = Arc::<Seen>::default();
    let mut addresses = Vec::new();
    for number in 0..SERVERS {
        addresses.push(listen(number, &seen).await?);
    }

    // Each pool alone could have four connections; the budget says four over all of them.
    let budget = Budget::new(CONNECTIONS);
    let each = budget.clone();
    let servers = PoolMap::new(move |number: &usize| {
        let server = Server(addresses[*number]);
        let pool = Pool::builder(server).pool_size(4).max_overflow(0);
        pool.name(format!("server {number}")).budget(&each)
    });
    println!("{} pools before anybody asks", servers.len());

    // Callers by the dozen, of every server at once.
    let mut callers = JoinSet::new();
    for caller in 0..10 * SERVERS {
        let servers = servers.clone();
        callers.spawn(async move {
            let pool = servers.pool(&(caller % SERVERS))?;
            let mut conn = pool.get_owned().await?;
            let answer = ask(&mut conn, "hello").await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(answer)
        });
    }
    let mut answers = 0;
    while let Some(answer) = callers.join_next().await {
        answers += usize::from(!answer?.map_err(|error| error.to_string())?.is_empty());
    }
    println!(
        "{answers} answers through {} pools, never more than {} connections at a time",
        servers.len(),
        seen.most.load(Ordering::Relaxed),
    );
    println!("{:?}", budget.status());

    // All connections stand idle somewhere; one of them gives way to a server that has none.
    let idle = |number: &usize| servers.pool(number).map(|pool| pool.status().idle);
    let (mut with, mut without) = (0, 0);
    for number in 0..SERVERS {
        if idle(&number)? == 0 {
            without = number;
        } else {
            with += 1;
        }
    }
    println!("{with} servers have idle connections, server {without} has none");
    let pool = servers.pool(&without)?;
    println!("{}", ask(&mut *pool.get().await?, "make room").await?);

    // One server takes everything and wants more. Another's first caller still comes before that.
    let rich = servers.pool(&0)?;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(rich.get_owned().await?);
    }
    let more = tokio::spawn(rich.get_owned());
    let first = tokio::spawn(servers.pool(&1)?.get_owned());
    while budget.status().starving == 0 || rich.status().waiting == 0 {
        tokio::task::yield_now().await;
    }
    println!(
        "server 0 holds {} and waits for more; {:?}",
        rich.status().in_use,
        budget.status()
    );
    held.pop(); // Closed when it comes back, for the sake of the pool that holds nothing.
    let mut conn = first.await??;
    println!("{}", ask(&mut conn, "at last").await?);
    println!("server 0's own caller is served: {}", more.is_finished());
    drop((held, conn));
    drop(more.await??);
    drop((pool, rich)); // While somebody has a handle, a pool stays in the budget.

    servers.close().await;
    println!("closed; {:?}", budget.status());
    Ok(())
}
