//! Connections to a TCP server: pooled, pinged before use, replaced when the server has hung up.
//! `cargo run -p pool-core --example tcp`

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use pool_core::{Backend, Failure, Health, Pool, PrePing, When};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A server that sends back each line, and hangs up after `quit`.
struct Echo(SocketAddr);

impl Echo {
    async fn ask(conn: &mut TcpStream, line: &str) -> io::Result<String> {
        conn.write_all(format!("{line}\n").as_bytes()).await?;
        let mut answer = Vec::new();
        loop {
            match conn.read_u8().await? {
                b'\n' => break,
                byte => answer.push(byte),
            }
        }
        String::from_utf8(answer).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }
}

impl Backend for Echo {
    type Connection = TcpStream;
    type Error = io::Error;

    async fn connect(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self.0).await
    }

    /// Without waiting: end of stream, an error, and an answer that nobody has read are all bad signs.
    fn check(&self, conn: &mut TcpStream, _: When) -> Health {
        match conn.try_read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Health::Good,
            _ => Health::Broken,
        }
    }

    async fn ping(&self, conn: &mut TcpStream) -> io::Result<()> {
        Self::ask(conn, "ping").await.map(drop)
    }

    async fn close(&self, mut conn: TcpStream) {
        // Says goodbye, and waits until the server has let go.
        if conn.shutdown().await.is_ok() {
            let _ = conn.read(&mut [0]).await;
        }
    }

    fn classify(&self, error: &io::Error) -> Failure {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof => Failure::Generation,
            ErrorKind::InvalidInput => Failure::Permanent,
            _ => Failure::Transient,
        }
    }
}

async fn serve(mut conn: TcpStream) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        let byte = conn.read_u8().await?;
        line.push(byte);
        if byte == b'\n' {
            if line == b"quit\n" {
                return Ok(());
            }
            conn.write_all(&line).await?;
            line.clear();
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move {
        while let Ok((conn, _)) = listener.accept().await {
            tokio::spawn(serve(conn));
        }
    });

    let pool = Pool::builder(Echo(address))
        .pool_size(2)
        .max_overflow(2)
        .pre_ping(PrePing::Always)
        .build()?;
    let mut callers = JoinSet::new();
    for caller in 0..20 {
        let pool = pool.clone();
        callers.spawn(async move {
            let mut conn = pool.get_owned().await.map_err(io::Error::other)?;
            Echo::ask(&mut conn, &format!("hello from {caller}")).await
        });
    }
    while let Some(answer) = callers.join_next().await {
        println!("{}", answer??);
    }
    println!("{}", pool.status());

    // The server hangs up on one; whoever comes next gets a connection that works.
    pool.get().await?.write_all(b"quit\n").await?;
    println!(
        "{}",
        Echo::ask(&mut *pool.get().await?, "still here").await?
    );

    let report = pool.close().await;
    println!("closed; everything came back: {}", report.is_clean());
    server.abort();
    Ok(())
}
