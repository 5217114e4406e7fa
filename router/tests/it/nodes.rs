//! Nodes and their settings: roles that are found by asking, starts that ask nobody, what sets nodes apart.

use std::time::Duration;

use pool_router::{Budget, Database, NodeConfig, StartError};

use crate::support::{
    MONITORS, builder, create_notes, note, notes, routed, server, wait_for_answer, wait_for_status,
};

#[tokio::test(flavor = "multi_thread")]
async fn which_node_is_the_primary_is_found_by_asking() {
    let (cluster, _db) = routed(1).await;
    let (primary, replica) = (cluster.primary(), cluster.replica(0));
    let asked = Database::builder().nodes([replica.url(), primary.url()]);
    let db = asked.connect().await.expect("a database");
    let status = db.status();
    assert_eq!(status.primary, Some(0));
    let names: Vec<_> = status.nodes.iter().map(|node| &*node.name).collect();
    assert_eq!(names, ["node 2", "node 1"]);
    let token = note(&db, "kept").await.token;
    assert_eq!(notes(&mut db.read_after(&token), "kept").await, 1);
    assert_eq!(server(&mut db.read()).await, replica.port());

    let none = Database::builder().nodes([replica.url()]).connect().await;
    let none = none.expect_err("no primary");
    assert!(
        matches!(none, StartError::NoPrimaryAmong { .. }) && !none.may_pass(),
        "{none:?}"
    );
    let lazy = Database::builder().nodes([replica.url()]).connect_lazy();
    assert!(matches!(lazy, Err(StartError::NoPrimary)), "{lazy:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lazy_start_asks_nobody_and_its_first_requests_wait_for_the_first_answer() {
    let (cluster, _db) = routed(1).await;
    let db = builder(&cluster).connect_lazy().expect("a database");
    let token = note(&db, "first").await.token.expect("a token");
    assert_eq!(db.status().system_identifier, Some(token.system_identifier));
    wait_for_status(&db, "the replica has answered", |status| {
        status.nodes[1].is_up()
    })
    .await;
    assert_eq!(notes(&mut db.read_after(&token), "first").await, 1);
    assert_eq!(server(&mut db.read()).await, cluster.replica(0).port());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lazy_start_without_a_server_fails_clearly_until_it_is_there() {
    let (cluster, warm) = routed(0).await;
    warm.shutdown().await;
    let primary = cluster.primary();
    primary.stop().await.expect("stopped");
    let db = builder(&cluster).connect_lazy().expect("a database");
    let refused = db.write().execute("SELECT 1", &[]).await;
    let refused = refused.expect_err("nobody there");
    let cause = pool_router::RouteError::behind(&refused).expect("a routing error");
    assert!(
        cause.to_string().contains("primary does not answer"),
        "{cause}"
    );
    primary.start().await.expect("started");
    wait_for_status(&db, "the primary has answered", |status| {
        status.primary == Some(0)
    })
    .await;
    create_notes(&db).await;
    let token = note(&db, "late").await.token;
    assert_eq!(notes(&mut db.read_after(&token), "late").await, 1);
    // Without replicas nobody watches once the primary has answered.
    wait_for_answer(primary, MONITORS, "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_has_its_own_settings_and_all_share_a_budget() {
    let (cluster, _db) = routed(1).await;
    let replica = NodeConfig::new(cluster.replica(0).url()).pool_size(3);
    let budget = Budget::new(4);
    let db = Database::builder()
        .primary(cluster.primary().url())
        .replica(replica.clone().max_overflow(1))
        .pool_size(2)
        .max_overflow(0)
        .budget(&budget)
        .pool_timeout(Duration::from_secs(5))
        .connect()
        .await
        .expect("a database");
    let capacities = db.status().nodes.into_iter().map(|node| node.pool.capacity);
    assert_eq!(capacities.collect::<Vec<_>>(), [2, 4]);
    assert_eq!(budget.status().pools, 2, "the monitors' are beside it");
    let mut held = vec![db.read(), db.read(), db.read()];
    for session in &mut held {
        assert_eq!(server(session).await, cluster.replica(0).port());
    }
    let _ = note(&db, "kept").await;
    assert_eq!(budget.status().free, 0);

    let weightless = Database::builder()
        .primary(cluster.primary().url())
        .replica(replica.weight(0))
        .connect()
        .await
        .expect_err("a weight of zero");
    assert!(weightless.to_string().contains("replica 1"), "{weightless}");
}
