//! Orders given while a database runs, and what is told of them.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, poll};
use pool_router::{Consistency, ErrorKind, Event, EventKind, Events, Reads};

use crate::support::{note, notes, notes_on, routed, server, wait_for_status};

/// The next event of a kind.
async fn next(events: &mut Events, wanted: impl Fn(&EventKind) -> bool) -> Event {
    let found = async {
        loop {
            let event = events.next().await.expect("the stream goes on");
            if wanted(&event.kind) {
                return event;
            }
        }
    };
    let limit = Duration::from_secs(20);
    let found = tokio::time::timeout(limit, found).await;
    found.expect("the event comes")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_replica_gets_no_reads_until_it_is_resumed() {
    let (cluster, db) = routed(1).await;
    let (primary, replica) = (cluster.primary().port(), cluster.replica(0).port());
    let mut events = db.events();
    let mut running = db.read();
    assert_eq!(server(&mut running).await, replica);

    db.drain("replica 1").expect("it exists");
    let drained =
        |kind: &EventKind| matches!(kind, EventKind::Drained { node } if &**node == "replica 1");
    next(&mut events, drained).await;
    assert_eq!(server(&mut db.read()).await, primary);
    assert!(db.status().nodes[1].drained);
    let explained = db.explain(Consistency::default()).to_string();
    assert!(explained.contains("passed over: is drained"), "{explained}");
    let missed = db.status().missed_replicas();
    assert_eq!(missed, [(pool_router::view::Reason::Drained, 1)]);

    let mut quiet = pin!(db.drained(1));
    assert!(poll!(&mut quiet).is_pending(), "a transaction runs there");
    assert_eq!(server(&mut running).await, replica, "and goes on");
    running.rollback().await.expect("ended");
    quiet.await.expect("it exists");

    db.resume(1).expect("it exists");
    next(&mut events, |kind| {
        matches!(kind, EventKind::Resumed { .. })
    })
    .await;
    assert_eq!(server(&mut db.read()).await, replica);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_reads_go_to_the_primary_while_that_is_ordered() {
    let (cluster, db) = routed(1).await;
    let token = note(&db, "kept").await.token;
    db.reads(Reads::PrimaryOnly);
    for mut session in [
        db.read(),
        db.read_after(&token),
        db.read_with(Consistency::Eventual),
    ] {
        assert_eq!(server(&mut session).await, cluster.primary().port());
        assert_eq!(notes(&mut session, "kept").await, 1);
    }
    assert!(db.status().to_string().contains("to the primary only"));
    db.reads(Reads::Routed);
    assert_eq!(server(&mut db.read()).await, cluster.replica(0).port());
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_writes_wait_before_they_begin_and_reads_do_not() {
    let (cluster, db) = routed(1).await;
    let mut events = db.events();
    let mut running = db.write();
    running.execute("SELECT 1", &[]).await.expect("begun");

    let suspended = db.suspend_writes(Duration::from_mins(1));
    {
        let mut quiet = pin!(suspended.quiet());
        assert!(poll!(&mut quiet).is_pending(), "a write is under way");
        let _ = running.commit().await.expect("it goes on to its end");
        quiet.await;
    }
    let mut writing = pin!(note(&db, "late"));
    assert!(poll!(&mut writing).is_pending());
    suspended.quiet().await;
    let status = db.status();
    let pool = &status.nodes[0].pool;
    assert_eq!((pool.in_use, pool.waiting), (0, 0), "nothing was asked for");
    assert!(
        status
            .writes_suspended
            .is_some_and(|left| left > Duration::from_secs(30))
    );
    assert_eq!(notes(&mut db.read(), "late").await, 0);

    drop(suspended);
    let _ = writing.await;
    assert_eq!(notes_on(cluster.primary(), "late").await, "1");
    assert_eq!(db.status().writes_suspended, None);
    next(&mut events, |kind| {
        matches!(kind, EventKind::WritesSuspended { .. })
    })
    .await;
    next(&mut events, |kind| *kind == EventKind::WritesResumed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_that_nobody_lifts_ends_at_its_limit() {
    let (_cluster, db) = routed(1).await;
    let mut events = db.events();
    let limit = Duration::from_millis(200);
    let start = Instant::now();
    let suspended = db.suspend_writes(limit);
    let _ = note(&db, "late").await;
    assert!(start.elapsed() >= limit);
    assert_eq!(suspended.remaining(), Duration::ZERO);
    next(&mut events, |kind| *kind == EventKind::WritesResumed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_waited_go_to_the_new_primary() {
    let (cluster, db) = routed(1).await;
    let (old, new) = (cluster.primary(), cluster.replica(0));
    let mut events = db.events();
    let suspended = db.suspend_writes(Duration::from_mins(1));
    let mut writing = pin!(note(&db, "after"));
    assert!(poll!(&mut writing).is_pending());
    suspended.quiet().await;
    new.wait_until_caught_up(old).await.expect("caught up");
    new.promote().await.expect("promoted");
    next(&mut events, |kind| {
        matches!(kind, EventKind::Promoted { .. })
    })
    .await;
    drop(suspended);
    let _ = writing.await;
    assert_eq!(notes_on(new, "after").await, "1");
    assert_eq!(notes_on(old, "after").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_on_a_named_node_runs_there() {
    let (cluster, db) = routed(1).await;
    let ports = [cluster.primary().port(), cluster.replica(0).port()];
    for (index, name) in ["primary", "replica 1"].into_iter().enumerate() {
        let mut by_name = db.on(name).expect("it exists");
        assert_eq!(server(&mut by_name).await, ports[index]);
        let mut by_index = db.on(index).expect("it exists");
        assert_eq!(server(&mut by_index).await, ports[index]);
    }
    let mut writing = db.on("primary").expect("it exists");
    let insert = "INSERT INTO notes VALUES ('here')";
    writing.execute(insert, &[]).await.expect("written");
    let token = writing.commit().await.expect("committed").token;
    assert_eq!(notes(&mut db.read_after(&token), "here").await, 1);
    let mut there = db.on("replica 1").expect("it exists");
    let refused = there.execute(insert, &[]).await;
    assert_eq!(refused.expect_err("a replica").kind(), ErrorKind::ReadOnly);
    let unknown = db.on("replica 7").expect_err("no such node").to_string();
    assert!(unknown.contains("replica 7") && unknown.contains("replica 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_refused_as_read_only_has_all_nodes_looked_at() {
    let (cluster, _db) = routed(1).await;
    let read_only = "ALTER ROLE app SET default_transaction_read_only = on";
    cluster.primary().sql(read_only).await.expect("altered");
    // Its connections begin with the new setting.
    let fresh = crate::support::builder(&cluster).connect().await;
    let fresh = fresh.expect("a database");
    let mut events = fresh.events();
    let mut writing = fresh.write();
    let refused = writing.execute("INSERT INTO notes VALUES ('x')", &[]).await;
    assert_eq!(refused.expect_err("read-only").kind(), ErrorKind::ReadOnly);
    let told =
        |kind: &EventKind| matches!(kind, EventKind::WriteRefused { node } if &**node == "primary");
    next(&mut events, told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_go_and_come_are_events_and_shutdown_ends_them() {
    let (cluster, db) = routed(1).await;
    let mut events = db.events();
    cluster.replica(0).kill().await.expect("killed");
    let went = next(&mut events, |kind| {
        matches!(kind, EventKind::WentAway { .. })
    })
    .await;
    assert!(went.at <= Instant::now());
    cluster.replica(0).start().await.expect("started");
    next(&mut events, |kind| {
        matches!(kind, EventKind::CameBack { .. })
    })
    .await;
    wait_for_status(&db, "the replica is back", |status| status.nodes[1].is_up()).await;
    db.shutdown().await;
    while events.next().await.is_some() {}
}
