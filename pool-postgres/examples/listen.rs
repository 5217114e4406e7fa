//! A copy of a table in memory, kept fresh by notifications; and what to do when some may have been missed.
//!
//! `cargo run --example listen -- postgresql://user:pass@localhost/db`

use std::collections::BTreeMap;

use pool_postgres::{Engine, Error, ListenEvent};

/// All prices, as they are now.
async fn prices(engine: &Engine) -> Result<BTreeMap<String, i64>, Error> {
    let rows = engine.query("SELECT item, price FROM prices", &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "postgresql:///postgres".to_owned());
    let engine = Engine::builder(url).build()?;
    engine
        .batch("CREATE TABLE IF NOT EXISTS prices (item text PRIMARY KEY, price bigint NOT NULL)")
        .await?;

    // First listen, then read: what changes in between is heard.
    let mut changes = engine.listen(&["prices"]).await?;
    let mut copy = prices(&engine).await?;

    let set = "WITH new AS (INSERT INTO prices VALUES ($1, $2)
                   ON CONFLICT (item) DO UPDATE SET price = excluded.price RETURNING item)
               SELECT pg_notify('prices', item) FROM new";
    engine.execute(set, &[&"tea", &3_i64]).await?;

    while let Some(event) = changes.next().await {
        match event? {
            ListenEvent::Notification(change) => {
                let sql = "SELECT price FROM prices WHERE item = $1";
                let price: i64 = engine.query_scalar(sql, &[&change.payload]).await?;
                println!("{} costs {price} now", change.payload);
                copy.insert(change.payload, price);
                break; // Enough for an example.
            }
            // The connection broke and is back, or we were too slow: read it all again.
            _ => copy = prices(&engine).await?,
        }
    }
    println!("{} prices known", copy.len());

    engine.close().await; // Ends the listener too.
    Ok(())
}
