//! One database: an engine, single statements, a session, a transaction in one call.
//!
//! `cargo run --example quickstart -- postgresql://user:pass@localhost/db`

use std::time::Duration;

use pool_postgres::{Committed, Engine, Error, SessionFactory};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "postgresql:///postgres".to_owned());
    let engine = Engine::builder(url)
        .pool_size(5)
        .max_overflow(10)
        .pool_timeout(Duration::from_secs(30))
        .application_name("quickstart")
        .build()?;

    // One statement, autocommit, one round trip.
    engine
        .execute(
            "CREATE TABLE IF NOT EXISTS users (id bigserial PRIMARY KEY, name text NOT NULL)",
            &[],
        )
        .await?;

    // Commits on Ok, rolls back on Err, panic or drop.
    let sessions = SessionFactory::new(engine.clone());
    let id = sessions
        .begin::<Error, _>(async |s| {
            let row = s
                .query_one(
                    "INSERT INTO users (name) VALUES ($1) RETURNING id",
                    &[&"Ada"],
                )
                .await?;
            Ok(row.get::<_, i64>(0))
        })
        .await?;

    // Borrows nothing until the first statement; dropped, it rolls back.
    let mut session = sessions.session();
    for row in session
        .query("SELECT name FROM users WHERE id = $1", &[&id])
        .await?
    {
        println!("user {id} is {}", row.get::<_, &str>("name"));
    }
    let done: Committed = session.commit().await?;
    println!(
        "committed: {:?}; pool: {}",
        done.durability,
        engine.status()
    );

    engine.close().await;
    Ok(())
}
