//! How often a caller waits for the network, counted by a proxy; and what a network that breaks leaves known.

use std::time::Duration;

use pool_postgres::{Engine, ErrorKind, Outcome, SessionFactory};
use testbed::{Proxy, Side};

use crate::support::{Lending, SOON, builder, count, database};

/// Slow enough that what is sent together arrives together.
const DELAY: Duration = Duration::from_millis(5);

/// An engine of one connection behind a proxy, and the proxy.
pub(crate) async fn behind_a_proxy(db: &testbed::TestDatabase) -> (Engine, Proxy) {
    let proxy = db.node().proxy().await.expect("a proxy");
    proxy.set_delay(DELAY);
    let engine = builder(&proxy.url_for(db.name()))
        .pool_size(1)
        .max_overflow(0)
        .build()
        .expect("good settings");
    (engine, proxy)
}

/// How many round trips something takes.
pub(crate) async fn trips<T>(proxy: &Proxy, work: impl Future<Output = T>) -> (u64, T) {
    let before = proxy.round_trips();
    let done = work.await;
    (proxy.round_trips() - before, done)
}

#[tokio::test]
async fn a_cached_single_statement_takes_one_round_trip() {
    let db = database().await;
    let (engine, proxy) = behind_a_proxy(&db).await;
    let query = || engine.query_one("SELECT $1::int8", &[&1_i64]);
    query().await.expect("prepared");
    let (taken, row) = trips(&proxy, query()).await;
    assert_eq!(row.expect("a row").get::<_, i64>(0), 1);
    assert_eq!(taken, 1);
}

#[tokio::test]
async fn begin_travels_with_the_first_statement_and_each_further_one_takes_one_round_trip() {
    let db = database().await;
    let (engine, proxy) = behind_a_proxy(&db).await;
    let sessions = SessionFactory::new(engine.clone());
    let insert = "INSERT INTO t VALUES ($1)";
    let mut session = sessions.session();
    session.execute(insert, &[&1_i64]).await.expect("prepared");
    let _ = session.commit().await.expect("committed");
    let (taken, done) = trips(&proxy, session.execute(insert, &[&2_i64])).await;
    done.expect("inserted");
    assert_eq!(taken, 1, "BEGIN and the statement");
    let (taken, done) = trips(&proxy, session.execute(insert, &[&3_i64])).await;
    done.expect("inserted");
    assert_eq!(taken, 1, "the statement");
    let (taken, done) = trips(&proxy, session.commit()).await;
    let _ = done.expect("committed");
    assert_eq!(taken, 1, "COMMIT");
    assert_eq!(count(&engine).await, 3);
}

#[tokio::test]
async fn a_savepoint_travels_with_its_first_statement() {
    let db = database().await;
    let (engine, proxy) = behind_a_proxy(&db).await;
    let insert = "INSERT INTO t VALUES ($1)";
    engine.execute(insert, &[&1_i64]).await.expect("prepared");
    let mut session = SessionFactory::new(engine.clone()).session();
    let mut savepoint = session.begin_nested();
    let (taken, done) = trips(&proxy, savepoint.execute(insert, &[&2_i64])).await;
    done.expect("inserted");
    assert_eq!(taken, 1, "BEGIN, SAVEPOINT and the statement");
}

#[tokio::test]
async fn a_commit_with_a_token_takes_one_round_trip() {
    let db = database().await;
    let (engine, proxy) = behind_a_proxy(&db).await;
    let mut session = Lending::with_tokens(engine, 7).session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let (taken, committed) = trips(&proxy, session.commit()).await;
    let written_at = committed
        .expect("committed")
        .token
        .expect("something was written");
    assert_eq!(written_at.system_identifier, 7);
    assert_eq!(taken, 1);
}

#[tokio::test]
async fn what_a_dropped_session_rolls_back_costs_the_next_borrower_no_round_trip() {
    let db = database().await;
    let (engine, proxy) = behind_a_proxy(&db).await;
    let insert = "INSERT INTO t VALUES ($1)";
    engine.execute(insert, &[&1_i64]).await.expect("prepared");
    let mut session = SessionFactory::new(engine.clone()).session();
    session.execute(insert, &[&2_i64]).await.expect("inserted");
    let (taken, done) = trips(&proxy, async {
        drop(session);
        engine.execute(insert, &[&3_i64]).await
    })
    .await;
    done.expect("inserted");
    assert_eq!(taken, 1, "ROLLBACK and the statement");
    assert_eq!(count(&engine).await, 2, "what was not committed is gone");
}

#[tokio::test]
async fn a_network_that_breaks_behind_commit_leaves_the_outcome_unknown() {
    let db = database().await;
    let (engine, proxy) = behind_a_proxy(&db).await;
    let mut session = SessionFactory::new(engine.clone()).session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    proxy.cut_after(Side::Server, 0); // The answer to COMMIT does not come through.
    let error = session.commit().await.expect_err("no answer came");
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert!(!error.is_retryable(), "it may have happened");
    // It did: COMMIT itself had come through.
    let direct = builder(&db.url()).build().expect("good settings");
    let deadline = tokio::time::Instant::now() + SOON;
    while count(&direct).await == 0 {
        assert!(tokio::time::Instant::now() < deadline, "never committed");
    }
}

#[tokio::test]
async fn a_stream_split_into_single_bytes_is_understood() {
    let db = database().await;
    let (engine, proxy) = behind_a_proxy(&db).await;
    proxy.set_delay(Duration::ZERO);
    proxy.split_bytes(true);
    let mut session = SessionFactory::new(engine.clone()).session();
    for n in 0..5_i64 {
        session
            .execute("INSERT INTO t VALUES ($1)", &[&n])
            .await
            .expect("inserted");
    }
    let _ = session.commit().await.expect("committed");
    assert_eq!(count(&engine).await, 5);
}
