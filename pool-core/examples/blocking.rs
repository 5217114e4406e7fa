//! Threads without a runtime share connections to a TCP server.
//! `cargo run -p pool-core --example blocking`

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use pool_core::{BlockingPool, FnBackend, GetError, Pool};

/// A connection of the standard library's, which blocks.
type Conn = BufReader<TcpStream>;

fn ask(conn: &mut Conn, question: &str) -> io::Result<String> {
    conn.get_mut()
        .write_all(format!("{question}\n").as_bytes())?;
    let mut answer = String::new();
    conn.read_line(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}

/// Answers each line with itself, in a thread for each connection.
fn serve(listener: &TcpListener) {
    for conn in listener.incoming().flatten() {
        thread::spawn(move || -> io::Result<u64> { io::copy(&mut conn.try_clone()?, &mut &conn) });
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || serve(&listener));

    // Connecting blocks as well, so it is done where blocking is allowed.
    let backend = FnBackend::new(move || async move {
        let connected = tokio::task::spawn_blocking(move || TcpStream::connect(address)).await;
        connected.map_err(io::Error::other)?.map(BufReader::new)
    });
    let settings = Pool::builder(backend).pool_size(3).max_overflow(0);
    let pool = BlockingPool::new(settings)?;

    thread::scope(|threads| {
        for thread in 1..=9 {
            let pool = &pool;
            threads.spawn(move || -> Result<(), GetError<io::Error>> {
                let mut conn = pool.get()?;
                let answer = ask(&mut conn, &format!("hello from thread {thread}"));
                println!("{answer:?} through {:?}", conn.get_ref().local_addr());
                Ok(())
            });
        }
    });
    println!("{}", pool.status());

    // All are held: whoever has little time learns who holds them.
    let held = [pool.get()?, pool.get()?, pool.get()?];
    if let Err(error) = pool.get_timeout(Duration::from_millis(50)) {
        println!("{error}");
    }
    drop(held);

    // A guard of its own may go to another thread.
    let (send, receive) = mpsc::channel();
    let mut conn = pool.get_owned()?;
    thread::spawn(move || send.send(ask(&mut conn, "from elsewhere")));
    println!("{}", receive.recv()??);

    println!("closed; everything came back: {}", pool.close().is_clean());
    Ok(())
}
