//! Transactions in tasks of their own, with an error type by thiserror and with anyhow.
//!
//! `cargo run --example spawned -- postgresql://user:pass@localhost/db`

use anyhow::Context;
use pool_postgres::{Engine, Error, SessionFactory};

#[derive(Debug, thiserror::Error)]
enum AppError {
    #[error("the database failed")]
    Database(#[from] Error),
    #[error("account {0} has not enough money")]
    TooLittle(i64),
}

async fn withdraw(sessions: SessionFactory, account: i64, amount: i64) -> Result<i64, AppError> {
    sessions
        .begin::<AppError, _>(async |s| {
            let sql = "UPDATE accounts SET balance = balance - $2 WHERE id = $1 RETURNING balance";
            let row = s.query_one(sql, &[&account, &amount]).await?;
            match row.get::<_, i64>(0) {
                balance if balance < 0 => Err(AppError::TooLittle(account)), // Rolls back.
                balance => Ok(balance),
            }
        })
        .await
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "postgresql:///postgres".to_owned());
    let engine = Engine::builder(url).build()?;
    let sessions = SessionFactory::new(engine.clone());

    // With anyhow, the error type is named all the same.
    let set_up = sessions.clone();
    tokio::spawn(async move {
        set_up
            .begin::<anyhow::Error, _>(async |s| {
                s.batch(
                    "CREATE TABLE IF NOT EXISTS accounts (id bigint PRIMARY KEY, balance bigint);
                     INSERT INTO accounts VALUES (1, 100), (2, 100)
                     ON CONFLICT (id) DO UPDATE SET balance = 100",
                )
                .await
                .context("creating the accounts")?;
                Ok(())
            })
            .await
    })
    .await??;

    let rich = tokio::spawn(withdraw(sessions.clone(), 1, 30));
    let poor = tokio::spawn(withdraw(sessions.clone(), 2, 3000));
    println!("account 1 has {} left", rich.await??);
    println!("account 2: {}", poor.await?.expect_err("it has only 100"));

    engine.close().await;
    Ok(())
}
