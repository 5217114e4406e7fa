//! Clusters as a whole, and what is done to a server's process.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::shared::text;

#[tokio::test]
async fn a_cluster_starts_with_replicas_streaming_and_leaves_nothing() {
    let began = Instant::now();
    let cluster = testbed::cluster()
        .replicas(2)
        .start()
        .await
        .expect("a cluster");
    println!(
        "primary and 2 replicas started in {:?}: {}",
        began.elapsed(),
        cluster.installation()
    );
    let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    assert_eq!(text(&cluster.primary().sql(streaming).await.unwrap()), "2");
    let slots =
        "SELECT string_agg(slot_name, ' ' ORDER BY 1) FROM pg_replication_slots WHERE active";
    assert_eq!(
        text(&cluster.primary().sql(slots).await.unwrap()),
        "replica1 replica2"
    );
    let dir = cluster.dir().to_owned();
    let began = Instant::now();
    cluster.stop().await.unwrap();
    println!("stopped in {:?}", began.elapsed());
    assert!(!dir.exists(), "the folder must go");
}

#[tokio::test]
async fn dropping_a_cluster_with_a_frozen_replica_leaves_nothing() {
    let cluster = testbed::cluster()
        .replicas(1)
        .start()
        .await
        .expect("a cluster");
    cluster.replica(0).freeze().await.unwrap();
    let dir = cluster.dir().to_owned();
    drop(cluster);
    assert!(!dir.exists(), "the folder must go");
}

#[tokio::test]
async fn a_killed_server_recovers_what_was_committed() {
    let cluster = testbed::cluster().start().await.expect("a cluster");
    let node = cluster.primary();
    node.sql("CREATE TABLE t AS SELECT 7 AS n").await.unwrap();
    node.kill().await.unwrap();
    node.kill().await.expect("killing it again changes nothing");
    assert!(!node.is_running());
    node.start().await.unwrap();
    assert_eq!(text(&node.sql("SELECT n FROM t").await.unwrap()), "7");
}

#[tokio::test]
async fn a_server_starts_once_the_last_process_of_its_killed_one_is_gone() {
    let cluster = testbed::cluster().start().await.expect("a cluster");
    let node = cluster.primary();
    let pids = "SELECT split_part(pg_read_file('postmaster.pid'), chr(10), 1) || ' ' || pid \
                FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
    let pids = text(&node.sql(pids).await.unwrap());
    let pids: Vec<Pid> = pids
        .split(' ')
        .map(|pid| Pid::from_raw(pid.parse().unwrap()))
        .collect();
    let [postmaster, checkpointer] = pids[..] else {
        panic!("two processes: {pids:?}")
    };
    // It keeps the server's memory, and notices nothing.
    kill(checkpointer, Signal::SIGSTOP).unwrap();
    kill(postmaster, Signal::SIGKILL).unwrap();
    while node.is_running() {
        tokio::task::yield_now().await;
    }

    let refused = || {
        let log = std::fs::read_to_string(node.log_file()).unwrap();
        log.contains("pre-existing shared memory block")
    };
    let start = node.start();
    tokio::pin!(start);
    while !refused() {
        tokio::select! {
            biased;
            started = &mut start => panic!("started beside it: {started:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    kill(checkpointer, Signal::SIGKILL).unwrap();
    start.await.unwrap();
    assert_eq!(text(&node.sql("SELECT 1").await.unwrap()), "1");
}

#[tokio::test]
async fn a_frozen_server_is_silent_until_it_thaws() {
    let cluster = testbed::cluster().start().await.expect("a cluster");
    let node = cluster.primary();
    let client = node.client().await.unwrap();
    node.freeze().await.unwrap();
    node.freeze()
        .await
        .expect("freezing it again changes nothing");
    let answer = client.simple_query("SELECT 1");
    tokio::pin!(answer);
    let silent = tokio::time::timeout(Duration::from_millis(300), &mut answer).await;
    assert!(silent.is_err(), "a frozen server must not answer");
    assert!(node.is_running(), "it is there all the same");
    node.thaw().await.unwrap();
    answer
        .await
        .expect("the same statement is answered after the thaw");
}

#[tokio::test]
async fn a_stop_behind_a_frozen_replica_does_not_hang() {
    let cluster = testbed::cluster()
        .replicas(1)
        .start()
        .await
        .expect("a cluster");
    cluster.replica(0).freeze().await.unwrap();
    cluster
        .primary()
        .sql("CREATE TABLE t (n int)")
        .await
        .unwrap();
    let began = Instant::now();
    cluster.primary().stop().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(!cluster.primary().is_running());
}

#[tokio::test]
async fn the_ordinary_user_owns_its_database_and_no_more() {
    let cluster = testbed::cluster().start().await.expect("a cluster");
    let node = cluster.primary();
    let question = "SELECT rolsuper::text, pg_has_role('app', 'pg_monitor', 'member')::text, \
         pg_has_role('app', 'pg_signal_backend', 'member')::text FROM pg_roles WHERE rolname = 'app'";
    let row = node.sql(question).await.unwrap().remove(0);
    assert_eq!(
        row,
        ["false", "true", "false"].map(|text| Some(text.to_owned()))
    );
    node.sql("CREATE TABLE from_superuser (n int)")
        .await
        .unwrap();
    for url in [node.url(), node.socket_url()] {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .expect("a connection");
        tokio::spawn(connection);
        client
            .batch_execute("CREATE TABLE mine (n int); DROP TABLE mine")
            .await
            .unwrap();
        client
            .batch_execute("INSERT INTO from_superuser VALUES (1)")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_setting_that_the_server_refuses_shows_its_own_words() {
    let refused = testbed::cluster().setting("work_mem", "much").start().await;
    let message = refused.expect_err("no such amount of memory").to_string();
    assert!(message.contains("primary did not start"), "{message}");
    assert!(message.contains("work_mem"), "{message}");
}

#[tokio::test]
async fn a_replica_can_be_added_later() {
    let mut cluster = testbed::cluster().start().await.expect("a cluster");
    cluster
        .primary()
        .sql("CREATE TABLE t AS SELECT 1 AS n")
        .await
        .unwrap();
    let replica = cluster.add_replica().await.expect("a replica");
    assert_eq!(text(&replica.sql("SELECT n FROM t").await.unwrap()), "1");
}
