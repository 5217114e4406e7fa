//! Serializable transactions that meet, and are begun again until each has had its turn.
//!
//! `cargo run --example retries -- postgresql://user:pass@localhost/db`

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pool_postgres::{Engine, Error, IsolationLevel, Retry, SessionFactory};

const TASKS: i64 = 8;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "postgresql:///postgres".to_owned());
    let engine = Engine::builder(url).build()?;
    engine
        .batch(
            "CREATE TABLE IF NOT EXISTS retries_counter (n bigint);
             DELETE FROM retries_counter; INSERT INTO retries_counter VALUES (0)",
        )
        .await?;
    let sessions = SessionFactory::new(engine.clone())
        .isolation(IsolationLevel::Serializable)
        .transaction_timeout(Duration::from_secs(5));
    let retry = Retry::serializable().attempts(50);

    let attempts = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (sessions, attempts) = (sessions.clone(), Arc::clone(&attempts));
            tokio::spawn(async move {
                // `async move`, so that the future can be spawned; called again for each attempt.
                let work = sessions.begin_retrying::<Error, _>(retry, async move |s| {
                    attempts.fetch_add(1, Ordering::Relaxed);
                    let n: i64 = s.query_scalar("SELECT n FROM retries_counter", &[]).await?;
                    s.execute("UPDATE retries_counter SET n = $1", &[&(n + 1)])
                        .await
                });
                work.await
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic")?;
    }
    let n: i64 = engine
        .query_scalar("SELECT n FROM retries_counter", &[])
        .await?;
    println!(
        "{TASKS} transactions, {} attempts, the counter is at {n}",
        attempts.load(Ordering::Relaxed)
    );
    assert_eq!(n, TASKS, "none was lost");

    engine.close().await;
    Ok(())
}
