//! What a commit says when all goes well, and when it does not.

use pool_postgres::{Durability, ErrorKind, Strength};

use crate::support::{
    Lending, assert_next_borrower_is_at_ease, builder, count, database, one_connection, sessions,
    until,
};

#[tokio::test]
async fn committing_a_transaction_that_had_failed_is_an_error_that_names_the_first_failure() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    session
        .query("SELECT 1/0", &[])
        .await
        .expect_err("division by zero");
    session.query("SELECT 1", &[]).await.expect_err("refused");
    let error = session.commit().await.expect_err("nothing was committed");
    assert_eq!(error.kind(), ErrorKind::TransactionFailed);
    assert!(error.to_string().contains("division by zero"), "{error}");
    session
        .execute("INSERT INTO t VALUES (2)", &[])
        .await
        .expect("a new transaction");
    let _ = session.commit().await.expect("committed");
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn a_failure_behind_the_sessions_back_is_seen_in_the_commits_answer() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    {
        // Fails after the rows that anybody looks at.
        let sql = "SELECT 1 / (100000 - n) FROM generate_series(1, 100000) AS n";
        let mut rows = session.query_stream(sql, &[]).await.expect("a stream");
        rows.next().await.expect("a row").expect("no error yet");
    }
    let error = session.commit().await.expect_err("the server rolled back");
    assert_eq!(error.kind(), ErrorKind::TransactionFailed);
    assert_eq!(count(&engine).await, 0);
}

#[tokio::test]
async fn a_commit_that_the_server_refuses_is_its_error_and_the_session_usable() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    engine
        .execute(
            "ALTER TABLE t ADD CONSTRAINT once UNIQUE (n) DEFERRABLE INITIALLY DEFERRED",
            &[],
        )
        .await
        .expect("a constraint");
    let mut session = sessions.session();
    session
        .execute("INSERT INTO t VALUES (1), (1)", &[])
        .await
        .expect("not checked yet");
    let error = session.commit().await.expect_err("refused");
    assert_eq!(
        (error.kind(), error.sqlstate()),
        (ErrorKind::Constraint, Some("23505"))
    );
    assert!(error.connection_is_good());
    session
        .execute("INSERT INTO t VALUES (2)", &[])
        .await
        .expect("a new transaction");
    let _ = session.commit().await.expect("committed");
    assert_eq!((count(&engine).await, engine.status().open), (1, 1));
}

#[tokio::test]
async fn a_token_says_where_the_commit_is_and_none_that_nothing_was_written() {
    let db = database().await;
    let engine = one_connection(&db);
    let mut session = Lending::with_tokens(engine.clone(), 0xfeed).session();
    let lsn = "SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::int8";
    let position = async || {
        let row = engine.query_one(lsn, &[]).await.expect("a position");
        u64::try_from(row.get::<_, i64>(0)).expect("positive")
    };

    session.query("SELECT n FROM t", &[]).await.expect("read");
    assert_eq!(session.commit().await.expect("committed").token, None);

    let before = position().await;
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let done = session.commit().await.expect("committed");
    let token = done.token.expect("it wrote");
    assert_eq!((token.system_identifier, token.timeline), (0xfeed, 1));
    assert_eq!(
        (token.strength, done.durability),
        (Strength::Strong, Durability::Durable)
    );
    assert!(!done.token_lost);
    assert!(
        before < token.position && token.position <= position().await,
        "{token}"
    );
    assert_eq!(token.to_string().parse(), Ok(token));

    session
        .batch("SET LOCAL synchronous_commit = off; INSERT INTO t VALUES (2)")
        .await
        .expect("done");
    let token = session
        .commit()
        .await
        .expect("committed")
        .token
        .expect("it wrote");
    assert_eq!(token.strength, Strength::Weak);
    assert_eq!(count(&engine).await, 2);
}

#[tokio::test]
async fn with_a_token_too_a_failed_transaction_is_an_error_and_leaves_nothing_behind() {
    let db = database().await;
    let engine = one_connection(&db);
    let mut session = Lending::with_tokens(engine.clone(), 1).session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    {
        let sql = "SELECT 1 / (100000 - n) FROM generate_series(1, 100000) AS n";
        let mut rows = session.query_stream(sql, &[]).await.expect("a stream");
        rows.next().await.expect("a row").expect("no error yet");
    }
    let error = session.commit().await.expect_err("the server refused");
    assert_eq!(error.kind(), ErrorKind::TransactionFailed);
    assert_next_borrower_is_at_ease(&engine, "a refused commit").await;
    assert_eq!(count(&engine).await, 0);
}

/// A commit that takes its time: a deferred trigger waits for an advisory lock that the test holds.
const SLOW: &str = "
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION wait()";

#[tokio::test]
async fn a_server_process_killed_in_the_middle_of_commit_leaves_the_outcome_unknown() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let holder = one_connection(&db).connect().await.expect("a connection");
    holder
        .client()
        .batch_execute(SLOW)
        .await
        .expect("a trigger");
    holder
        .client()
        .batch_execute("SELECT pg_advisory_lock(1)")
        .await
        .expect("locked");
    let watcher = builder(&db.url()).build().expect("good settings");
    let mut session = sessions.session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let victim = crate::support::pid(&mut session).await;
    let kill = async {
        let waits =
            format!("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {victim}");
        until(&watcher, &waits).await;
        watcher
            .execute("SELECT pg_terminate_backend($1)", &[&victim])
            .await
            .expect("killed");
    };
    let (done, ()) = tokio::join!(session.commit(), kill);
    let error = done.expect_err("nobody knows");
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    assert!(!error.is_retryable());
    assert!(std::error::Error::source(&error).is_some());
    session
        .query("SELECT 1", &[])
        .await
        .expect("a new transaction on a new connection");
}

#[tokio::test]
async fn a_commit_on_a_connection_known_to_be_dead_was_certainly_not_applied() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let killer = one_connection(&db);
    let mut session = sessions.session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let victim = crate::support::pid(&mut session).await;
    killer
        .execute("SELECT pg_terminate_backend($1, 10000)", &[&victim])
        .await
        .expect("killed");
    session.query("SELECT 1", &[]).await.expect_err("killed");
    let error = session.commit().await.expect_err("nothing was sent");
    assert_eq!(error.kind(), ErrorKind::TransactionFailed);
    assert_eq!(count(&engine).await, 0);
}

#[tokio::test]
async fn a_commit_whose_wait_for_a_standby_was_given_up_is_local_only() {
    // Only whoever asks for it waits for the standby, which is nowhere.
    let cluster = testbed::cluster()
        .setting("synchronous_standby_names", "nobody")
        .setting("synchronous_commit", "local")
        .start()
        .await
        .expect("a cluster");
    let node = cluster.primary();
    node.sql("CREATE TABLE t (n bigint); GRANT ALL ON t TO PUBLIC")
        .await
        .expect("a table");
    let engine = builder(&node.superuser_url())
        .pool_size(1)
        .max_overflow(0)
        .build()
        .expect("settings");
    let mut session = Lending::with_tokens(engine.clone(), 1).session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let committer = crate::support::pid(&mut session).await;
    session
        .execute("SET LOCAL synchronous_commit TO on", &[])
        .await
        .expect("set");
    let watcher = builder(&node.superuser_url()).build().expect("settings");
    let give_up = async {
        let waits =
            format!("SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = {committer}");
        until(&watcher, &waits).await;
        watcher
            .execute("SELECT pg_cancel_backend($1)", &[&committer])
            .await
            .expect("cancelled");
    };
    let (done, ()) = tokio::join!(session.commit(), give_up);
    let done = done.expect("committed on the primary");
    assert_eq!(done.durability, Durability::LocalOnly);
    assert!(done.token.is_some());
    assert_eq!(count(&engine).await, 1);
}
