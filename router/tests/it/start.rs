//! Nodes that do not belong together, or are not there.

use std::error::Error as _;
use std::time::Duration;

use pool_router::{Database, StartError};

use crate::support::{builder, server, wait_for_status};

/// A port of this machine that refuses connections.
const REFUSED: &str = "postgresql://app:hush@127.0.0.1:1/app";

#[tokio::test(flavor = "multi_thread")]
async fn without_a_primary_there_is_no_database() {
    let error = Database::builder()
        .replica(REFUSED)
        .connect()
        .await
        .expect_err("no primary");
    assert!(matches!(error, StartError::NoPrimary), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_url_names_the_node() {
    let error = Database::builder()
        .primary(REFUSED)
        .replica(REFUSED)
        .replica("mysql://app:hush@db/app")
        .connect()
        .await
        .expect_err("a wrong scheme");
    assert!(error.to_string().contains("replica 2"), "{error}");
    let cause = error.source().expect("a cause").to_string();
    assert!(
        cause.contains("mysql") && !cause.contains("hush"),
        "{cause}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn more_replicas_cannot_be_required_than_are_given() {
    let error = Database::builder()
        .primary(REFUSED)
        .min_replicas(1)
        .connect()
        .await
        .expect_err("too many");
    assert!(
        matches!(
            error,
            StartError::RequiresMore {
                required: 1,
                given: 0
            }
        ),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_cannot_be_reached_is_an_error() {
    let error = Database::builder()
        .primary(REFUSED)
        .connect()
        .await
        .expect_err("nobody there");
    assert!(
        error.to_string().contains("primary") && error.may_pass(),
        "{error}"
    );
    assert!(!format!("{error:?}").contains("hush"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_checked_and_servers_told_apart() {
    let cluster = testbed::cluster()
        .replicas(1)
        .start()
        .await
        .expect("a cluster");
    let (primary, replica) = (cluster.primary().url(), cluster.replica(0).url());

    let swapped = Database::builder()
        .primary(&replica)
        .replica(&primary)
        .connect()
        .await;
    let error = swapped.expect_err("the other way round");
    assert!(
        matches!(error, StartError::PrimaryIsReplica { .. }),
        "{error:?}"
    );

    let twice = Database::builder()
        .primary(&primary)
        .replica(&replica)
        .replica(&replica)
        .connect()
        .await;
    let error = twice.expect_err("the same replica twice");
    assert!(matches!(error, StartError::SameServer { .. }), "{error:?}");
    assert!(
        error.to_string().contains("replica 1") && error.to_string().contains("replica 2"),
        "{error}"
    );

    // The same server by another way: its socket.
    let socket = cluster.primary().socket_url();
    let error = Database::builder()
        .primary(&primary)
        .replica(socket)
        .connect()
        .await
        .expect_err("itself");
    assert!(matches!(error, StartError::SameServer { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_primary_and_another_cluster_are_no_replicas() {
    let (ours, theirs) = tokio::join!(
        testbed::cluster().replicas(1).start(),
        testbed::cluster().replicas(1).start()
    );
    let (ours, theirs) = (ours.expect("a cluster"), theirs.expect("a cluster"));
    let primary = ours.primary().url();

    let error = Database::builder()
        .primary(&primary)
        .replica(theirs.primary().url())
        .connect()
        .await;
    let error = error.expect_err("a primary");
    assert!(
        matches!(error, StartError::ReplicaIsPrimary { .. }),
        "{error:?}"
    );

    let error = Database::builder()
        .primary(&primary)
        .replica(theirs.replica(0).url())
        .connect()
        .await;
    let error = error.expect_err("a stranger");
    assert!(
        matches!(error, StartError::OtherCluster { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("replica 1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_away_is_forgiven_or_not() {
    let cluster = testbed::cluster()
        .replicas(1)
        .start()
        .await
        .expect("a cluster");
    cluster.replica(0).stop().await.expect("stopped");

    let strict = builder(&cluster)
        .degraded_start(false)
        .connect()
        .await
        .expect_err("it is required");
    assert!(
        matches!(
            strict,
            StartError::TooFewReplicas {
                required: 1,
                answered: 0,
                ..
            }
        ),
        "{strict:?}"
    );
    assert!(strict.to_string().contains("replica 1"), "{strict}");

    let db = builder(&cluster).connect().await.expect("it is not");
    assert_eq!(server(&mut db.read()).await, cluster.primary().port());
    cluster.replica(0).start().await.expect("started");
    wait_for_status(&db, "the replica joins", |status| status.nodes[1].is_up()).await;
    db.health().await;
    assert_eq!(
        server(&mut db.read_within(Duration::from_secs(5))).await,
        cluster.replica(0).port()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_never_forgiven() {
    let cluster = testbed::cluster()
        .replicas(1)
        .start()
        .await
        .expect("a cluster");
    let url = cluster.replica(0).url();
    let (before, at) = url.split_once('@').expect("a password");
    let (before, _password) = before.rsplit_once(':').expect("a password");
    let wrong = format!("{before}:not-the-password@{at}");
    let error = Database::builder()
        .primary(cluster.primary().url())
        .replica(wrong)
        .connect()
        .await;
    let error = error.expect_err("a wrong password");
    assert!(
        error.to_string().contains("replica 1") && !error.may_pass(),
        "{error}"
    );
    assert!(
        !format!("{error:?}").contains("not-the-password"),
        "{error:?}"
    );
}

#[test]
fn a_builder_shows_no_secret() {
    let shown = format!(
        "{:?}",
        Database::builder().primary(REFUSED).replica(REFUSED)
    );
    assert!(!shown.contains("hush"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_pg_monitor_still_reads_from_replicas() {
    let cluster = testbed::cluster()
        .replicas(1)
        .start()
        .await
        .expect("a cluster");
    cluster
        .primary()
        .sql("REVOKE pg_monitor FROM app")
        .await
        .expect("revoked");
    cluster
        .replica(0)
        .wait_until_caught_up(cluster.primary())
        .await
        .expect("caught up");
    let db = builder(&cluster).connect().await.expect("a database");
    db.health().await;
    assert_eq!(server(&mut db.read()).await, cluster.replica(0).port());
}
