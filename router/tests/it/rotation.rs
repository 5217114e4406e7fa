//! Nodes that go and come back.

use std::time::Duration;

use pool_router::{Database, DatabaseStatus};

use crate::support::{
    CONNECTIONS, MONITORS, note, notes, one, routed, server, wait_for_answer, wait_for_status,
};

fn up(node: usize) -> impl Fn(&DatabaseStatus) -> bool {
    move |status| status.nodes[node].is_up()
}

fn down(node: usize) -> impl Fn(&DatabaseStatus) -> bool {
    move |status| !status.nodes[node].is_up()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_replica_is_out_within_a_second_and_returns() {
    let (cluster, db) = routed(1).await;
    let replica = cluster.replica(0);
    assert_eq!(server(&mut db.read()).await, replica.port());
    replica.freeze().await.expect("frozen");
    let noticed = wait_for_status(&db, "the replica is out", down(1)).await;
    assert!(noticed < Duration::from_secs(1), "{noticed:?}");
    for _ in 0..10 {
        assert_eq!(server(&mut db.read()).await, cluster.primary().port());
    }
    replica.thaw().await.expect("thawed");
    wait_for_status(&db, "the replica is back", up(1)).await;
    assert_eq!(server(&mut db.read()).await, replica.port());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_frozen_replica_goes_elsewhere() {
    let (cluster, warm) = routed(1).await;
    drop(warm);
    let db = crate::support::builder(&cluster)
        .pool_size(1)
        .max_overflow(0)
        .connect()
        .await
        .expect("a database");
    let mut holder = db.read();
    assert_eq!(server(&mut holder).await, cluster.replica(0).port());
    let waiting = tokio::spawn({
        let db = db.clone();
        async move { server(&mut db.read()).await }
    });
    wait_for_status(&db, "somebody waits", |status| {
        status.nodes[1].pool.waiting == 1
    })
    .await;
    cluster.replica(0).freeze().await.expect("frozen");
    assert_eq!(waiting.await.expect("no panic"), cluster.primary().port());
    cluster.replica(0).thaw().await.expect("thawed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_costs_no_read_and_returns() {
    let (cluster, db) = routed(2).await;
    let _ = note(&db, "kept").await;
    cluster.replica(0).kill().await.expect("killed");
    for _ in 0..40 {
        let mut session = db.read();
        assert!(server(&mut session).await != cluster.replica(0).port());
    }
    wait_for_status(&db, "the replica is out", down(1)).await;
    cluster.replica(0).start().await.expect("started");
    wait_for_status(&db, "the replica is back", up(1)).await;
    wait_until_it_serves(&db, cluster.replica(0).port()).await;
}

/// Reads until this server has served one.
async fn wait_until_it_serves(db: &Database, port: u16) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while std::time::Instant::now() < deadline {
        if server(&mut db.read()).await == port {
            return;
        }
    }
    panic!("the server at {port} serves nothing:\n{}", db.status());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_replica_left_the_primary_serves() {
    let (cluster, db) = routed(2).await;
    let token = note(&db, "kept").await.token;
    for replica in cluster.replicas() {
        replica.kill().await.expect("killed");
    }
    for mut session in [
        db.read(),
        db.read_after(&token),
        db.read_within(Duration::from_secs(5)),
    ] {
        assert_eq!(notes(&mut session, "kept").await, 1);
        assert_eq!(server(&mut session).await, cluster.primary().port());
    }
    let status = db.status();
    let passed: u64 = status.nodes[1]
        .counts
        .passed_over
        .iter()
        .map(|(_, count)| count)
        .sum();
    assert!(
        passed >= 3,
        "reads that could have gone to a replica are counted:\n{status}"
    );
    let health = db.health().await;
    assert!(
        health.can_read && health.can_write && !health.is_whole(),
        "{health:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_replicas_reads_use_the_primary_and_nobody_monitors() {
    let (cluster, db) = routed(0).await;
    let primary = cluster.primary();
    let token = note(&db, "kept").await.token;
    for mut session in [
        db.read(),
        db.read_after(&token),
        db.read_within(Duration::from_millis(1)),
    ] {
        assert_eq!(notes(&mut session, "kept").await, 1);
        let read_only = session
            .query_one("SHOW transaction_read_only", &[])
            .await
            .expect("shown");
        assert_eq!(read_only.get::<_, String>(0), "on", "as on a replica");
    }
    assert!(db.health().await.is_whole());
    wait_for_answer(primary, MONITORS, "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_has_one_monitor_and_shutdown_leaves_nothing() {
    let (cluster, db) = routed(1).await;
    for node in [cluster.primary(), cluster.replica(0)] {
        assert_eq!(one(node, MONITORS).await.as_deref(), Some("1"));
    }
    assert!(db.health().await.is_whole());
    let _ = server(&mut db.read()).await;
    let report = db.shutdown().await;
    assert!(report.is_clean(), "{report:?}");
    for node in [cluster.primary(), cluster.replica(0)] {
        assert_eq!(one(node, CONNECTIONS).await.as_deref(), Some("0"));
    }
    let refused = db
        .read()
        .query("SELECT 1", &[])
        .await
        .expect_err("the database is shut down");
    assert_eq!(
        refused.kind(),
        pool_router::ErrorKind::PoolClosed,
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_monitors_stop_with_the_last_handle() {
    let (cluster, db) = routed(1).await;
    let sessions = db.sessions().read();
    drop(db);
    assert_eq!(
        one(cluster.replica(0), MONITORS).await.as_deref(),
        Some("1"),
        "a factory is a handle"
    );
    drop(sessions);
    wait_for_answer(cluster.replica(0), MONITORS, "0").await;
}
