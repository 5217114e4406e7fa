//! How often a unit of work waits for the network, counted by a proxy before each server.
//!
//! Counts say what times on one machine cannot: there a round trip costs next to nothing.

use anyhow::{Context, Result, anyhow};
use pool_router::{CommitToken, Database, Lag};
use testbed::{Node, Proxy};

use crate::report::{Report, Rounds, Target, Verdict};

const STATEMENT: &str = "a first statement, with BEGIN";
const COMMIT: &str = "commit, with its token";
const READ_AFTER: &str = "read_after, statement and proof";

/// Counts them. Monitors go through the proxies too, so each is the least of several tries.
///
/// # Errors
/// Where the cluster could not be started or a statement failed.
pub fn compare(rounds: usize) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let figures = runtime.block_on(async {
        let cluster = testbed::cluster().replicas(1).start().await?;
        let (primary, primary_url) = before(cluster.primary()).await?;
        let (replica, replica_url) = before(cluster.replica(0)).await?;
        let db = Database::builder()
            .primary(primary_url)
            .replica(replica_url)
            .pool_size(1)
            .connect()
            .await?;
        cluster.primary().sql("CREATE TABLE notes (n int)").await?;
        let mut figures = Rounds::default();
        for _ in 0..rounds {
            let mut least = [f64::MAX; 3];
            for _ in 0..20 {
                let ([statement, commit], token) = write(&db, &primary).await?;
                cluster
                    .replica(0)
                    .wait_until_caught_up(cluster.primary())
                    .await?;
                while db.status().nodes[1].lag != Lag::Fresh {
                    let _ = db.health().await; // Looks at all nodes.
                }
                let read = read_after(&db, token, &replica).await?;
                for (least, count) in least.iter_mut().zip([statement, commit, read]) {
                    *least = least.min(count);
                }
            }
            for (name, count) in [STATEMENT, COMMIT, READ_AFTER].into_iter().zip(least) {
                figures.note(name, count);
            }
        }
        db.shutdown().await;
        anyhow::Ok(figures)
    })?;
    let verdicts = [STATEMENT, COMMIT, READ_AFTER]
        .map(|name| Verdict::new(name, figures.median(name), Target::AtMost(1.0)));
    Ok(Report {
        workload: "round trips on warm connections",
        measures: vec![figures.measure("round trips")],
        verdicts: verdicts.into(),
    })
}

/// A proxy before a node, and the node's URL by way of it.
async fn before(node: &Node) -> Result<(Proxy, String)> {
    let proxy = node.proxy().await?;
    let url = node.url().replace(
        &format!(":{}/", node.port()),
        &format!(":{}/", proxy.port()),
    );
    Ok((proxy, url))
}

/// Writes a row; the counts of the statement and of the commit, and the token.
async fn write(db: &Database, primary: &Proxy) -> Result<([f64; 2], CommitToken)> {
    let mut session = db.write();
    let begun = primary.round_trips();
    session.execute("INSERT INTO notes VALUES (1)", &[]).await?;
    let written = primary.round_trips();
    let done = session.commit().await?;
    let committed = primary.round_trips();
    let token = done.token.context("a write has a token")?;
    Ok(([count(begun, written), count(written, committed)], token))
}

async fn read_after(db: &Database, token: CommitToken, replica: &Proxy) -> Result<f64> {
    let mut session = db.read_after(&token);
    let begun = replica.round_trips();
    session.query_one("SELECT count(*) FROM notes", &[]).await?;
    let read = replica.round_trips();
    if read == begun {
        return Err(anyhow!("the read did not go to the replica"));
    }
    Ok(count(begun, read))
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn count(from: u64, to: u64) -> f64 {
    (to - from) as f64
}
