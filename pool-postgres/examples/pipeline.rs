//! Many statements in one round trip: a transfer, and what happens when one of them fails.
//!
//! `cargo run --example pipeline -- postgresql://user:pass@localhost/db`

use std::time::Instant;

use pool_postgres::{Engine, Error, Session, SessionFactory};

const TAKE: &str = "UPDATE pipeline_accounts SET balance = balance - $2 WHERE id = $1";
const GIVE: &str = "UPDATE pipeline_accounts SET balance = balance + $2 WHERE id = $1";
const LEFT: &str = "SELECT balance FROM pipeline_accounts WHERE id = $1";

/// One statement after another: each waits for the network.
async fn one_by_one(s: &mut Session, from: i64, to: i64, amount: i64) -> Result<i64, Error> {
    s.execute(TAKE, &[&from, &amount]).await?;
    s.execute(GIVE, &[&to, &amount]).await?;
    s.query_scalar(LEFT, &[&from]).await
}

/// The same in one round trip; `BEGIN` travels along.
async fn together(s: &mut Session, from: i64, to: i64, amount: i64) -> Result<i64, Error> {
    let answers = s
        .pipeline()
        .statement(TAKE, &[&from, &amount])
        .statement(GIVE, &[&to, &amount])
        .statement(LEFT, &[&from])
        .run()
        .await?;
    answers[2].scalar()
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "postgresql:///postgres".to_owned());
    let engine = Engine::builder(url).build()?;
    engine
        .batch(
            "CREATE TABLE IF NOT EXISTS pipeline_accounts (id bigint PRIMARY KEY, balance bigint CHECK (balance >= 0));
             INSERT INTO pipeline_accounts VALUES (1, 1000), (2, 1000)
             ON CONFLICT (id) DO UPDATE SET balance = 1000",
        )
        .await?;
    let mut session = SessionFactory::new(engine.clone()).session();

    for round in ["the first time, which also prepares", "prepared"] {
        let begun = Instant::now();
        one_by_one(&mut session, 1, 2, 10).await?;
        let _ = session.commit().await?;
        let apart = begun.elapsed();
        let begun = Instant::now();
        let left = together(&mut session, 1, 2, 10).await?;
        let _ = session.commit().await?;
        println!(
            "{round}: one by one {apart:?}, together {:?}; {left} left",
            begun.elapsed()
        );
    }

    // Each statement's own result: what follows a failure is skipped.
    let (rich, poor, much) = (1_i64, 2_i64, 5000_i64);
    let results = session
        .pipeline()
        .statement(GIVE, &[&poor, &much])
        .statement(TAKE, &[&rich, &much])
        .statement(LEFT, &[&rich])
        .run_each()
        .await;
    for (number, result) in results.iter().enumerate() {
        match result {
            Ok(answer) => println!("statement {number}: {} rows", answer.affected()),
            Err(error) => println!("statement {number}: {error}"),
        }
    }
    session.rollback().await?;

    drop(session);
    engine.close().await;
    Ok(())
}
