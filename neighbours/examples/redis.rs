//! Redis through bb8-redis's manager, used unchanged; the server is a small one of this package's own.
//! `cargo run -p neighbours --example redis`, or with the address of a real one behind `--`.

use bb8_redis::RedisConnectionManager;
use bb8_redis::redis::AsyncCommands;
use neighbours::resp::Server;
use pool_core::{Failure, Pool, PrePing, compat};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::start().await?;
    let url = std::env::args().nth(1).unwrap_or_else(|| server.url());

    let manager = RedisConnectionManager::new(url)?;
    let backend = compat::Bb8(manager).classify(|error| {
        if error.is_io_error() || error.is_timeout() {
            Failure::Transient
        } else {
            Failure::Permanent // A wrong password, say: nobody has to wait for it to change.
        }
    });
    let pool = Pool::builder(backend)
        .pool_size(4)
        .max_overflow(0)
        .pre_ping(PrePing::Always)
        .build()?;

    let mut tasks = JoinSet::new();
    for task in 0..16_u32 {
        let pool = pool.clone();
        tasks.spawn(async move {
            let mut conn = pool.get().await?;
            let () = conn.set(format!("square of {task}"), task * task).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended?.map_err(|error| error.to_string())?;
    }
    println!("after 16 tasks: {}", pool.status());

    // The server closes everything. Whoever comes next gets a connection that works.
    server.hang_up().await;
    let square: u32 = pool.get().await?.get("square of 12").await?;
    println!("12 * 12 = {square}");

    let report = pool.close().await;
    println!("closed; everything came back: {}", report.is_clean());
    Ok(())
}
