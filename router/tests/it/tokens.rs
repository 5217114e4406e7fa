//! Reads that see a commit, wherever they run.

use pool_router::{CommitToken, Consistency, ErrorKind, RouteError, TokenRefusal};

use crate::support::{note, notes, routed, server, wait_for_status};

#[tokio::test(flavor = "multi_thread")]
async fn a_read_after_a_token_sees_the_write_and_replicas_serve_it() {
    let (_cluster, db) = routed(2).await;
    for round in 0..100 {
        let body = format!("round {round}");
        let token = note(&db, &body).await.token.expect("a token");
        assert_eq!(notes(&mut db.read_after(&token), &body).await, 1, "{token}");
    }
    let status = db.status();
    let on_replicas: u64 = status.nodes[1..].iter().map(|node| node.counts.reads).sum();
    assert!(on_replicas > 0, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_travels_as_text() {
    let (_cluster, db) = routed(1).await;
    let token = note(&db, "told").await.token.expect("a token");
    let parsed: CommitToken = token.to_string().parse().expect("a token");
    assert_eq!(notes(&mut db.read_after(&parsed), "told").await, 1);
    let error = "nonsense"
        .parse::<CommitToken>()
        .expect_err("no token")
        .to_string();
    assert!(error.contains("nonsense"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_wrote_nothing_sets_no_floor() {
    let (cluster, db) = routed(1).await;
    let mut session = db.write();
    session.query("SELECT 1", &[]).await.expect("read");
    let token = session.commit().await.expect("committed").token;
    assert_eq!(token, None);
    assert_eq!(
        server(&mut db.read_after(&token)).await,
        cluster.replica(0).port()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_cluster_is_an_error() {
    let (_cluster, db) = routed(1).await;
    let token = note(&db, "ours").await.token.expect("a token");
    let other = CommitToken {
        system_identifier: token.system_identifier ^ 1,
        ..token
    };
    let error = db
        .read_after(&other)
        .query("SELECT 1", &[])
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Token);
    let cause = RouteError::behind(&error)
        .expect("a routing error")
        .to_string();
    assert!(
        cause.contains(&other.system_identifier.to_string()),
        "{cause}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_beyond_the_primarys_log_is_a_lost_write() {
    let (_cluster, db) = routed(1).await;
    let token = note(&db, "ours").await.token.expect("a token");
    let beyond = CommitToken {
        position: token.position + (1 << 40),
        ..token
    };
    let error = db
        .read_after(&beyond)
        .query("SELECT 1", &[])
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Token);
    let cause = RouteError::behind(&error)
        .expect("a routing error")
        .to_string();
    assert!(cause.contains("was lost"), "{cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_timeline_that_nobody_is_on_cannot_be_told() {
    let (_cluster, db) = routed(1).await;
    let token = note(&db, "ours").await.token.expect("a token");
    let newer = CommitToken {
        timeline: token.timeline + 1,
        ..token
    };
    let error = db
        .read_after(&newer)
        .query("SELECT 1", &[])
        .await
        .expect_err("refused");
    let cause = RouteError::behind(&error).expect("a routing error");
    let told = TokenRefusal::CannotTell {
        token: newer.timeline,
        ours: Some(token.timeline),
    };
    assert_eq!(cause.to_string(), told.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_on_a_read_session_is_refused() {
    let (_cluster, db) = routed(1).await;
    let token = note(&db, "ours").await.token;
    for mut session in [
        db.read(),
        db.read_after(&token),
        db.read_with(Consistency::Strong),
    ] {
        let error = session
            .execute("INSERT INTO notes VALUES ('no')", &[])
            .await
            .expect_err("read-only");
        assert_eq!(
            (error.kind(), error.sqlstate()),
            (ErrorKind::ReadOnly, Some("25006"))
        );
    }
    assert_eq!(notes(&mut db.read_with(Consistency::Strong), "no").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_after_a_token_takes_one_round_trip() {
    let cluster = testbed::cluster()
        .replicas(1)
        .start()
        .await
        .expect("a cluster");
    let proxy = cluster.replica(0).proxy().await.expect("a proxy");
    let through_proxy = cluster.replica(0).url().replace(
        &format!(":{}/", cluster.replica(0).port()),
        &format!(":{}/", proxy.port()),
    );
    let db = pool_router::Database::builder()
        .primary(cluster.primary().url())
        .replica(through_proxy)
        .connect()
        .await
        .expect("a database");
    crate::support::create_notes(&db).await;
    let token = note(&db, "counted").await.token;
    cluster
        .replica(0)
        .wait_until_caught_up(cluster.primary())
        .await
        .expect("caught up");
    db.health().await;
    wait_for_status(&db, "the replica is fresh", |status| {
        status.nodes[1].lag == pool_router::Lag::Fresh
    })
    .await;
    let mut fewest = u64::MAX;
    for _ in 0..20 {
        let mut session = db.read_after(&token);
        // The monitor goes through the proxy too; of twenty reads some meet no look.
        let before = proxy.round_trips();
        assert_eq!(notes(&mut session, "counted").await, 1);
        let after = proxy.round_trips();
        assert!(after > before, "the replica served it");
        fewest = fewest.min(after - before);
    }
    assert_eq!(
        fewest, 1,
        "the proof, BEGIN and the statement travel together"
    );
}
