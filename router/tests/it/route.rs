//! Decisions without connections.

use std::pin::pin;
use std::time::Duration;

use futures_util::{StreamExt, poll};
use pool_router::{Consistency, EventKind, Request, RouteError};

use crate::support::{note, routed};

#[tokio::test(flavor = "multi_thread")]
async fn a_route_says_where_to_go_and_proves_the_promise_there() {
    let (cluster, db) = routed(1).await;
    let replica = cluster.replica(0);
    let token = note(&db, "kept").await.token.expect("a token");
    replica
        .wait_until_caught_up(cluster.primary())
        .await
        .expect("caught up");
    db.health().await; // Looked at after the write.
    let route = db
        .route(Consistency::ReadYourWrites(token))
        .await
        .expect("a route");
    assert_eq!((route.node(), route.name()), (1, "replica 1"));
    assert_eq!(route.address().render_with_password(), replica.url());
    assert!(!format!("{route:?}").contains("app:app@"), "{route:?}");
    assert_eq!(route.timeline(), Some(token.timeline));
    let rows = replica
        .sql(route.proof().expect("a promise to prove"))
        .await;
    route
        .verify(&rows.expect("rows"))
        .expect("it has the write");
    assert_eq!(db.status().nodes[1].outstanding, 1);
    let before = db.status().nodes[1].latency;
    route.answered(Duration::from_secs(1));
    assert!(db.status().nodes[1].latency > before);
    drop(route);
    let status = db.status();
    assert_eq!(
        (status.nodes[1].outstanding, status.nodes[1].counts.reads),
        (0, 1)
    );
    let any = db.route(Consistency::Eventual).await.expect("a route");
    assert_eq!(any.proof(), None);
    any.verify(&[]).expect("nothing to prove");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_prove_the_promise_is_avoided_in_the_next_route() {
    let (cluster, db) = routed(1).await;
    let consistency = Consistency::default();
    let route = db.route(consistency).await.expect("a route");
    assert_eq!(route.node(), 1);
    // As if a promoted server had answered.
    let rows = cluster
        .primary()
        .sql(route.proof().expect("to prove"))
        .await;
    let error = route
        .verify(&rows.expect("rows"))
        .expect_err("another role");
    let cause = RouteError::behind(&error)
        .expect("a routing error")
        .to_string();
    assert!(cause.contains("it is a primary now"), "{cause}");
    drop(route);
    assert_eq!(db.status().nodes[1].counts.refused, 1);
    let mut request = Request::new(consistency);
    request.avoid = Some(1);
    assert_eq!(db.route(request).await.expect("a route").node(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routed_write_waits_while_writes_are_suspended_and_reports_what_it_met() {
    let (_cluster, db) = routed(1).await;
    let mut events = db.events();
    let suspended = db.suspend_writes(Duration::from_mins(1));
    let mut writing = pin!(db.route_write());
    assert!(poll!(&mut writing).is_pending());
    drop(suspended);
    let route = writing.await.expect("a route");
    assert_eq!((route.node(), route.proof()), (0, None));
    route.failed(
        Some("25006"),
        "cannot execute INSERT in a read-only transaction",
    );
    let told = async {
        while let Some(event) = events.next().await {
            if matches!(event.kind, EventKind::WriteRefused { .. }) {
                return;
            }
        }
        panic!("the stream ended");
    };
    let told = tokio::time::timeout(Duration::from_secs(20), told).await;
    told.expect("the event comes");
    route.failed(None, "connection reset");
    let last = db.status().nodes[0].last_error.clone();
    assert_eq!(last.as_deref(), Some("connection reset"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_connections_keep_failing_is_out_and_an_event_says_so() {
    let (_cluster, db) = routed(2).await;
    let mut events = db.events();
    let mut request = Request::new(Consistency::Eventual);
    request.avoid = Some(2);
    for _ in 0..5 {
        let route = db.route(request).await.expect("a route");
        assert_eq!(route.node(), 1);
        route.failed(Some("57014"), "a slow statement says nothing about a node");
        route.failed(None, "connection reset");
    }
    let event = events.next().await.expect("an event").kind;
    let EventKind::Ejected { node, time } = event else {
        panic!("{event:?}")
    };
    assert_eq!((&*node, time), ("replica 1", Duration::from_secs(10)));
    for _ in 0..20 {
        let route = db.route(Consistency::Eventual).await.expect("a route");
        assert_eq!(route.node(), 2);
    }
    let status = db.status();
    assert!(status.nodes[1].ejected.is_some_and(|left| left <= time));
    assert!(
        status.to_string().contains("its connections keep failing"),
        "{status}"
    );
    let explained = db.explain(Consistency::Eventual).to_string();
    assert!(
        explained.contains("passed over: is out for a while"),
        "{explained}"
    );
}
