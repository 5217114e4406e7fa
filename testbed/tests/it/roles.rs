//! What replicas do with the log, and changes of role.

use std::time::Duration;

use testbed::Cluster;

use crate::shared::text;

async fn with_replicas(replicas: usize) -> Cluster {
    let cluster = testbed::cluster().replicas(replicas);
    cluster.start().await.expect("a cluster")
}

#[tokio::test]
async fn a_paused_replica_serves_old_data_and_then_catches_up() {
    let cluster = with_replicas(1).await;
    let (primary, replica) = (cluster.primary(), cluster.replica(0));
    primary.sql("CREATE TABLE t (n int)").await.unwrap();
    replica.wait_until_caught_up(primary).await.unwrap();
    replica.pause_replay().await.unwrap();
    replica
        .pause_replay()
        .await
        .expect("pausing it again changes nothing");
    primary.sql("INSERT INTO t VALUES (1)").await.unwrap();
    let received = "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()";
    assert_eq!(
        text(&replica.sql("SELECT count(*) FROM t").await.unwrap()),
        "0"
    );
    replica.resume_replay().await.unwrap();
    replica
        .resume_replay()
        .await
        .expect("resuming it again changes nothing");
    replica.wait_until_caught_up(primary).await.unwrap();
    assert_eq!(
        text(&replica.sql("SELECT count(*) FROM t").await.unwrap()),
        "1"
    );
    assert_eq!(text(&replica.sql(received).await.unwrap()), "f");
}

#[tokio::test]
async fn an_apply_delay_holds_commits_back() {
    let cluster = with_replicas(1).await;
    let (primary, replica) = (cluster.primary(), cluster.replica(0));
    primary.sql("CREATE TABLE t (n int)").await.unwrap();
    replica.wait_until_caught_up(primary).await.unwrap();
    replica
        .set_apply_delay(Duration::from_mins(10))
        .await
        .unwrap();
    let before = "SELECT pg_current_wal_lsn()";
    primary.sql("INSERT INTO t VALUES (1)").await.unwrap();
    let written = text(&primary.sql(before).await.unwrap());
    // It has the commit before it shows it.
    let client = replica.client().await.unwrap();
    let received = format!("SELECT pg_last_wal_receive_lsn() >= '{written}'");
    while !client
        .query_one(&received, &[])
        .await
        .unwrap()
        .get::<_, bool>(0)
    {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        text(&replica.sql("SELECT count(*) FROM t").await.unwrap()),
        "0"
    );
    replica
        .pause_replay()
        .await
        .expect("a delayed replica can be paused");
    replica.resume_replay().await.unwrap();
    replica.set_apply_delay(Duration::ZERO).await.unwrap();
    replica.wait_until_caught_up(primary).await.unwrap();
    assert_eq!(
        text(&replica.sql("SELECT count(*) FROM t").await.unwrap()),
        "1"
    );
}

#[tokio::test]
async fn an_old_primary_rejoins_the_promoted_one_and_loses_what_it_alone_had() {
    let cluster = with_replicas(2).await;
    let (old, new, other) = (cluster.primary(), cluster.replica(0), cluster.replica(1));
    old.sql("CREATE TABLE t (n int)").await.unwrap();
    new.wait_until_caught_up(old).await.unwrap();
    new.promote().await.unwrap();
    new.promote()
        .await
        .expect("promoting it again changes nothing");
    old.sql("INSERT INTO t VALUES (1)")
        .await
        .expect("the old primary knows nothing of it");
    new.sql("INSERT INTO t VALUES (2)").await.unwrap();
    old.rejoin(new).await.unwrap();
    old.rejoin(new)
        .await
        .expect("rejoining it again changes nothing");
    other.rejoin(new).await.unwrap();
    for node in [old, other] {
        node.wait_until_caught_up(new).await.unwrap();
        assert_eq!(
            text(
                &node
                    .sql("SELECT string_agg(n::text, ' ') FROM t")
                    .await
                    .unwrap()
            ),
            "2"
        );
        assert_eq!(
            text(&node.sql("SELECT pg_is_in_recovery()").await.unwrap()),
            "t"
        );
    }
}

#[tokio::test]
async fn a_replica_follows_the_promoted_one_without_losing_its_connections() {
    let cluster = with_replicas(2).await;
    let (old, new, other) = (cluster.primary(), cluster.replica(0), cluster.replica(1));
    old.sql("CREATE TABLE t (n int)").await.unwrap();
    for replica in cluster.replicas() {
        replica.wait_until_caught_up(old).await.unwrap();
    }
    let connected = other.client().await.unwrap();
    new.promote().await.unwrap();
    other.follow(new).await.unwrap();
    other
        .follow(new)
        .await
        .expect("following it again changes nothing");
    new.sql("INSERT INTO t VALUES (2)").await.unwrap();
    other.wait_until_caught_up(new).await.unwrap();
    let seen = connected.query_one("SELECT n FROM t", &[]).await.unwrap();
    assert_eq!(seen.get::<_, i32>(0), 2);
    let message = new.follow(old).await.unwrap_err().to_string();
    assert_eq!(
        message,
        "replica1 is a primary and follows nobody; `rejoin` makes it a replica"
    );
}

#[tokio::test]
async fn a_killed_old_primary_rejoins() {
    let cluster = with_replicas(1).await;
    let (old, new) = (cluster.primary(), cluster.replica(0));
    old.sql("CREATE TABLE t (n int)").await.unwrap();
    new.wait_until_caught_up(old).await.unwrap();
    old.kill().await.unwrap();
    new.promote().await.unwrap();
    new.sql("INSERT INTO t VALUES (2)").await.unwrap();
    old.rejoin(new).await.unwrap();
    old.wait_until_caught_up(new).await.unwrap();
    assert_eq!(text(&old.sql("SELECT n FROM t").await.unwrap()), "2");
}

#[tokio::test]
async fn a_node_joins_neither_itself_nor_a_replica() {
    let cluster = with_replicas(1).await;
    let (primary, replica) = (cluster.primary(), cluster.replica(0));
    let message = primary.rejoin(primary).await.unwrap_err().to_string();
    assert_eq!(message, "primary can't be a replica of itself");
    let message = primary.rejoin(replica).await.unwrap_err().to_string();
    assert_eq!(message, "primary can't join replica1, which is no primary");
}
