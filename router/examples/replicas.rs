//! A primary and its replicas: writes, reads that see them, and what the router knows.
//!
//! Start servers in one terminal with `cargo testbed up --replicas 2`, then give their URLs, the primary's
//! first:
//!
//! ```sh
//! cargo run -p pool-router --example replicas -- URL URL URL
//! ```

use std::time::Duration;

use pool_router::{Consistency, Database, Session};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut urls = std::env::args().skip(1);
    let Some(primary) = urls.next() else {
        anyhow::bail!("give the URL of the primary, then those of its replicas");
    };
    let db = Database::builder()
        .primary(primary)
        .replicas(urls)
        .pool_size(5)
        .default_consistency(Consistency::BoundedStaleness(Duration::from_secs(5)))
        .connect()
        .await?;

    let sessions = db.sessions().write();
    sessions
        .begin::<anyhow::Error, _>(async |s| {
            s.execute(
                "CREATE TABLE IF NOT EXISTS visits (at timestamptz DEFAULT now())",
                &[],
            )
            .await?;
            Ok(())
        })
        .await?;

    for _ in 0..100 {
        let mut writing = db.write();
        writing
            .execute("INSERT INTO visits DEFAULT VALUES", &[])
            .await?;
        let token = writing.commit().await?.token;
        // Whichever node serves this read has the visit.
        let _seen = count(&mut db.read_after(&token)).await?;
        // This one may be up to five seconds behind.
        let _lately = count(&mut db.read()).await?;
    }

    println!(
        "{} visits",
        count(&mut db.read_with(Consistency::Strong)).await?
    );
    println!("{}", db.status());
    let report = db.shutdown().await;
    println!(
        "{}",
        if report.is_clean() {
            "all connections closed"
        } else {
            "some were still held"
        }
    );
    Ok(())
}

/// Serves a read on any node.
async fn count(s: &mut Session) -> anyhow::Result<i64> {
    Ok(s.query_one("SELECT count(*) FROM visits", &[])
        .await?
        .get(0))
}
