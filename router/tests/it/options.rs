//! Reads that wait for a replica, that may not go to the primary, and that never go back.

use std::time::{Duration, Instant};

use pool_router::{
    CommitToken, Consistency, Database, ErrorKind, ReadOptions, RouteError, Strength, WaitPolicy,
};

use crate::support::{note, notes, routed, server};

const LONG: WaitPolicy = WaitPolicy::UpTo(Duration::from_hours(1));

fn after(token: CommitToken) -> ReadOptions {
    ReadOptions::new(Consistency::ReadYourWrites(token))
}

async fn token_of(db: &Database, body: &str) -> CommitToken {
    note(db, body).await.token.expect("a token")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_a_replica_until_it_has_replayed_its_token() {
    let (cluster, db) = routed(1).await;
    let replica = cluster.replica(0);
    replica.pause_replay().await.expect("paused");
    let token = token_of(&db, "waited for").await;
    let mut session = db.read_with(after(token).wait(LONG).forbid_primary());
    let reading = async {
        assert_eq!(notes(&mut session, "waited for").await, 1);
        server(&mut session).await
    };
    let mut reading = Box::pin(reading);
    let early = tokio::time::timeout(Duration::from_millis(700), &mut reading).await;
    assert!(early.is_err(), "it waits as long as replay is paused");
    replica.resume_replay().await.expect("resumed");
    assert_eq!(reading.await, replica.port());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_a_replica_that_trails_rather_than_use_the_primary() {
    let (cluster, db) = routed(1).await;
    let replica = cluster.replica(0);
    let delay = Duration::from_millis(300);
    replica.set_apply_delay(delay).await.expect("delayed");
    let token = token_of(&db, "late").await;
    let mut session = db.read_with(after(token).wait(LONG));
    assert_eq!(notes(&mut session, "late").await, 1);
    assert_eq!(server(&mut session).await, replica.port());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_does_not_wait_for_a_paused_replica_where_the_primary_may_serve_it() {
    let (cluster, db) = routed(1).await;
    cluster.replica(0).pause_replay().await.expect("paused");
    let token = token_of(&db, "at once").await;
    let mut session = db.read_with(after(token).wait(LONG));
    assert_eq!(notes(&mut session, "at once").await, 1);
    assert_eq!(server(&mut session).await, cluster.primary().port());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_may_not_use_the_primary_is_refused_at_its_limit() {
    let (cluster, db) = routed(1).await;
    cluster.replica(0).pause_replay().await.expect("paused");
    let token = token_of(&db, "in vain").await;
    let limit = Duration::from_millis(300);
    let options = after(token).forbid_primary();
    for (options, at_least) in [
        (options, Duration::ZERO),
        (options.wait(WaitPolicy::UpTo(limit)), limit),
    ] {
        let start = Instant::now();
        let asked = db.read_with(options).query("SELECT 1", &[]).await;
        let error = asked.expect_err("refused");
        assert!(start.elapsed() >= at_least, "{:?}", start.elapsed());
        assert_eq!(error.kind(), ErrorKind::Source);
        let cause = RouteError::behind(&error).expect("a routing error");
        let text = cause.to_string();
        let why = "replica 1 has not replayed up to the token (stands at ";
        for part in [why, "has to be at", "allow the primary"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(
            text.contains("it may wait 300ms"),
            !at_least.is_zero(),
            "{text}"
        );
    }
    let primary = &db.status().nodes[0];
    assert_eq!(primary.counts.reads, 0, "{primary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_the_database() {
    let (cluster, db) = routed(1).await;
    cluster.replica(0).pause_replay().await.expect("paused");
    let token = token_of(&db, "gone").await;
    let mut session = db.read_with(after(token).wait(LONG).forbid_primary());
    let asked = session.query("SELECT 1", &[]);
    let (asked, _) = tokio::join!(asked, db.shutdown());
    asked.expect_err("refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn monotonic_reads_never_go_back_while_nodes_alternate() {
    let (cluster, db) = routed(2).await;
    cluster.replica(1).pause_replay().await.expect("paused");
    let mut seen = 0;
    let mut ports = Vec::new();
    for round in 1..=8 {
        let token = token_of(&db, "again").await;
        for wait in [LONG, WaitPolicy::Never] {
            let options = ReadOptions::new(Consistency::Monotonic(token)).wait(wait);
            let mut session = db.read_with(options);
            let now = notes(&mut session, "again").await;
            assert!(now >= seen && now >= round, "{now} after {seen}");
            seen = now;
            ports.push(server(&mut session).await);
        }
    }
    assert!(ports.contains(&cluster.replica(0).port()), "{ports:?}");
    assert!(!ports.contains(&cluster.replica(1).port()), "{ports:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weak_token_keeps_a_monotonic_read_from_going_back_on_a_replica() {
    let (cluster, db) = routed(1).await;
    let weak = CommitToken {
        strength: Strength::Weak,
        ..token_of(&db, "weak").await
    };
    let mut session = db.read_with(ReadOptions::new(Consistency::Monotonic(weak)).wait(LONG));
    assert_eq!(server(&mut session).await, cluster.replica(0).port());
    let mut session = db.read_with(after(weak).wait(LONG));
    assert_eq!(server(&mut session).await, cluster.primary().port());
}
