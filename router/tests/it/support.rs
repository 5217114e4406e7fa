//! Clusters with a routed database on them, and waits for named events.

use std::time::{Duration, Instant};

use pool_router::{Builder, Committed, Database, DatabaseStatus, Lag, Session};
use testbed::{Cluster, Node};

/// How long an event may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A builder of all nodes of a cluster.
pub(crate) fn builder(cluster: &Cluster) -> Builder {
    let replicas = cluster.replicas().iter().map(Node::url);
    Database::builder()
        .primary(cluster.primary().url())
        .replicas(replicas)
}

/// A cluster with a table `notes`, and a database routed over it.
pub(crate) async fn routed(replicas: usize) -> (Cluster, Database) {
    let cluster = testbed::cluster()
        .replicas(replicas)
        .start()
        .await
        .expect("a cluster");
    let db = builder(&cluster).connect().await.expect("a database");
    create_notes(&db).await;
    for replica in cluster.replicas() {
        replica
            .wait_until_caught_up(cluster.primary())
            .await
            .expect("caught up");
    }
    (cluster, db)
}

pub(crate) async fn create_notes(db: &Database) {
    let mut session = db.write();
    session
        .execute("CREATE TABLE IF NOT EXISTS notes (body text)", &[])
        .await
        .expect("a table");
    let _ = session.commit().await.expect("committed");
}

/// Writes one note.
pub(crate) async fn note(db: &Database, body: &str) -> Committed {
    let mut session = db.write();
    session
        .execute("INSERT INTO notes VALUES ($1)", &[&body])
        .await
        .expect("written");
    session.commit().await.expect("committed")
}

/// How many such notes a session sees.
pub(crate) async fn notes(session: &mut Session, body: &str) -> i64 {
    let row = session
        .query_one("SELECT count(*) FROM notes WHERE body = $1", &[&body])
        .await;
    row.expect("counted").get(0)
}

/// The port of the server that a session reads from.
pub(crate) async fn server(session: &mut Session) -> u16 {
    let row = session
        .query_one("SELECT current_setting('port')", &[])
        .await
        .expect("a port");
    row.get::<_, String>(0).parse().expect("a number")
}

/// How many such notes a server has, asked past the router.
pub(crate) async fn notes_on(node: &Node, body: &str) -> String {
    one(
        node,
        &format!("SELECT count(*) FROM notes WHERE body = '{body}'"),
    )
    .await
    .expect("a count")
}

/// The only cell that a query gives.
pub(crate) async fn one(node: &Node, sql: &str) -> Option<String> {
    let rows = node.sql(sql).await.expect("rows");
    rows.into_iter()
        .next()
        .and_then(|row| row.into_iter().next())
        .flatten()
}

/// Returns once the status is as expected, and says how long that took.
pub(crate) async fn wait_for_status(
    db: &Database,
    what: &str,
    expected: impl Fn(&DatabaseStatus) -> bool,
) -> Duration {
    let start = Instant::now();
    while !expected(&db.status()) {
        assert!(
            start.elapsed() < PATIENCE,
            "waited in vain until {what}:\n{}",
            db.status()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    start.elapsed()
}

/// Returns once the node's data is known to be older than this.
pub(crate) async fn wait_until_older(db: &Database, node: usize, age: Duration) {
    let older = |lag| matches!(lag, Lag::Stale(stale) if stale > age) || lag == Lag::Unknown;
    wait_for_status(db, "the replica is stale", |status| {
        older(status.nodes[node].lag)
    })
    .await;
}

/// Returns once a query on a server gives this answer.
pub(crate) async fn wait_for_answer(node: &Node, sql: &str, expected: &str) {
    let start = Instant::now();
    loop {
        let answer = one(node, sql).await;
        if answer.as_deref() == Some(expected) {
            return;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "waited in vain for {expected} from {sql}: {answer:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Connections to a server whose application name ends in `monitor`, as the server sees them.
pub(crate) const MONITORS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%monitor'";

/// Connections of the application's user to a server.
pub(crate) const CONNECTIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
