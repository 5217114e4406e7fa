//! What counts as lag and what does not.

use std::time::Duration;

use pool_router::{Consistency, Lag};

use crate::support::{
    builder, note, notes, notes_on, one, routed, server, wait_for_answer, wait_for_status,
    wait_until_older,
};

const HALF_A_SECOND: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_primary_does_not_look_like_lag() {
    let (cluster, db) = routed(1).await;
    let _ = note(&db, "last").await;
    let replica = cluster.replica(0);
    // By the server's own clock the replica ages, for nothing is written any more.
    let aged = "SELECT now() - pg_last_xact_replay_timestamp() > interval '1.5 s'";
    wait_for_answer(replica, aged, "t").await;
    db.health().await;
    assert_eq!(db.status().nodes[1].lag, Lag::Fresh);
    let mut session = db.read_within(Duration::from_secs(1));
    assert_eq!(server(&mut session).await, replica.port());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_of_segments_is_no_lag() {
    let (cluster, db) = routed(1).await;
    cluster
        .primary()
        .sql("SELECT pg_switch_wal()")
        .await
        .expect("switched");
    cluster
        .replica(0)
        .wait_until_caught_up(cluster.primary())
        .await
        .expect("caught up");
    db.health().await;
    wait_for_status(&db, "the replica is fresh", |status| {
        status.nodes[1].lag == Lag::Fresh
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_replica_is_used_for_nothing_that_it_cannot_keep() {
    let (cluster, loose) = routed(1).await;
    let half_a_second = Consistency::BoundedStaleness(HALF_A_SECOND);
    let db = builder(&cluster)
        .default_consistency(half_a_second)
        .connect()
        .await
        .expect("a database");
    let (primary, replica) = (cluster.primary(), cluster.replica(0));
    replica.pause_replay().await.expect("paused");
    let token = note(&db, "new").await.token;
    assert_eq!(notes(&mut db.read_after(&token), "new").await, 1);
    wait_until_older(&db, 1, HALF_A_SECOND).await;
    for mut session in [
        db.read_after(&token),
        db.read_within(HALF_A_SECOND),
        db.read(),
    ] {
        assert_eq!(server(&mut session).await, primary.port());
        assert_eq!(notes(&mut session, "new").await, 1);
    }
    // The danger was real: the replica answers, with old data.
    assert_eq!(notes_on(replica, "new").await, "0");
    let mut eventual = loose.read_with(Consistency::Eventual);
    assert_eq!(server(&mut eventual).await, replica.port());
    assert_eq!(notes(&mut eventual, "new").await, 0);
    let reasons = db.status().nodes[1].counts.passed_over.clone();
    assert!(
        reasons.iter().map(|(_, count)| count).sum::<u64>() >= 3,
        "{reasons:?}"
    );

    replica.resume_replay().await.expect("resumed");
    replica
        .wait_until_caught_up(primary)
        .await
        .expect("caught up");
    wait_for_status(&db, "the replica is fresh", |status| {
        status.nodes[1].lag == Lag::Fresh
    })
    .await;
    assert_eq!(server(&mut db.read_after(&token)).await, replica.port());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_replica_that_knows_no_replay_time_is_not_fresh() {
    let (cluster, db) = routed(1).await;
    let (primary, replica) = (cluster.primary(), cluster.replica(0));
    // With a restart point behind the last commit nothing is replayed at the next start.
    primary.sql("CHECKPOINT").await.expect("checkpoint");
    replica
        .wait_until_caught_up(primary)
        .await
        .expect("caught up");
    replica.sql("CHECKPOINT").await.expect("restart point");
    replica
        .set_apply_delay(Duration::from_hours(1))
        .await
        .expect("delayed");
    replica.restart().await.expect("restarted");
    replica.wait_streaming().await.expect("streaming");
    let token = note(&db, "unseen").await.token;
    let replayed = one(replica, "SELECT pg_last_xact_replay_timestamp()").await;
    assert_eq!(replayed, None, "what others take for no lag");
    wait_for_status(&db, "the replica answers", |status| status.nodes[1].is_up()).await;
    wait_until_older(&db, 1, HALF_A_SECOND).await;
    for mut session in [db.read_within(HALF_A_SECOND), db.read_after(&token)] {
        assert_eq!(server(&mut session).await, primary.port());
        assert_eq!(notes(&mut session, "unseen").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_receiver_is_cut_off_does_not_look_fresh() {
    let (cluster, db) = routed(1).await;
    let (primary, replica) = (cluster.primary(), cluster.replica(0));
    for sql in [
        "ALTER SYSTEM SET primary_conninfo = ''",
        "SELECT pg_reload_conf()",
    ] {
        replica.sql(sql).await.expect("set");
    }
    wait_for_answer(replica, "SELECT count(*) FROM pg_stat_wal_receiver", "0").await;
    let token = note(&db, "unseen").await.token;
    let caught_up = "SELECT pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn()";
    assert_eq!(
        one(replica, caught_up).await.as_deref(),
        Some("t"),
        "what others take for no lag"
    );
    wait_until_older(&db, 1, HALF_A_SECOND).await;
    for mut session in [db.read_within(HALF_A_SECOND), db.read_after(&token)] {
        assert_eq!(server(&mut session).await, primary.port());
        assert_eq!(notes(&mut session, "unseen").await, 1);
    }
}
