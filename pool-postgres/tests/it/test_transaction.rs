//! Sessions for tests: all in savepoints of one connection, leaving nothing.

use std::time::Duration;

use pool_postgres::{Error, ErrorKind, Session};

use crate::support::{
    SOON, assert_next_borrower_is_at_ease, builder, count, database, one_connection, pid,
    poll_then_drop,
};

const INSERT: &str = "INSERT INTO t VALUES (1)";

async fn seen(session: &mut Session) -> i64 {
    session
        .query_scalar("SELECT count(*) FROM t", &[])
        .await
        .expect("a count")
}

#[tokio::test]
async fn what_one_session_commits_the_next_sees_and_nobody_else_ever() {
    let db = database().await;
    let (engine, outside) = (one_connection(&db), one_connection(&db));
    let sessions = engine.test_transaction();
    assert_eq!(
        engine.status().open,
        0,
        "nothing is borrowed before the first statement"
    );
    let mut session = sessions.session();
    session.execute(INSERT, &[]).await.expect("inserted");
    assert_eq!(session.commit().await.expect("kept").token, None);
    session.execute(INSERT, &[]).await.expect("inserted");
    session.rollback().await.expect("undone");
    assert_eq!(seen(&mut session).await, 1);
    session.execute(INSERT, &[]).await.expect("inserted");
    drop(session); // Undone as well.
    let two = sessions
        .begin::<Error, _>(async |s| {
            s.execute(INSERT, &[]).await?;
            Ok(seen(s).await)
        })
        .await
        .expect("kept");
    assert_eq!(two, 2);
    let mut session = sessions.clone().session();
    session
        .nested::<Error, _>(async |s| {
            s.execute(INSERT, &[]).await?;
            s.execute("INSERT INTO t VALUES (1/0)", &[]).await
        })
        .await
        .expect_err("division by zero");
    assert_eq!(seen(&mut session).await, 2);
    drop(session);
    assert_eq!(count(&outside).await, 0);
    drop(sessions);
    assert_next_borrower_is_at_ease(&engine, "a test transaction").await;
    assert_eq!(count(&engine).await, 0);
}

#[tokio::test]
async fn a_session_that_fails_leaves_the_others_usable_and_its_commit_is_an_error() {
    let db = database().await;
    let sessions = one_connection(&db).test_transaction();
    let mut session = sessions.session();
    session.execute(INSERT, &[]).await.expect("inserted");
    session
        .query("SELECT 1/0", &[])
        .await
        .expect_err("division by zero");
    let error = session.commit().await.expect_err("it failed");
    assert_eq!(error.kind(), ErrorKind::TransactionFailed);
    assert!(error.to_string().contains("division by zero"), "{error}");
    assert_eq!(seen(&mut session).await, 0);
    session.rollback().await.expect("rolled back");
    // With a deferred failure that the session does not see coming.
    let mut rows = session
        .query_stream(
            "SELECT 1 / (100000 - n) FROM generate_series(1, 100000) AS n",
            &[],
        )
        .await
        .expect("a stream");
    rows.next().await.expect("a row").expect("no error yet");
    drop(rows);
    session.commit().await.expect_err("the server refuses");
    assert_eq!(seen(&mut session).await, 0);
}

#[tokio::test]
async fn read_only_and_autocommit_sessions_behave_as_they_should() {
    let db = database().await;
    let sessions = one_connection(&db).test_transaction();
    let mut single = sessions.autocommit().session();
    single.execute(INSERT, &[]).await.expect("kept");
    single.query("SELECT 1/0", &[]).await.expect_err("alone");
    single
        .batch("INSERT INTO t VALUES (2)")
        .await
        .expect("kept");
    let mut reads = sessions.read_only().session();
    assert_eq!(seen(&mut reads).await, 2);
    let error = reads.execute(INSERT, &[]).await.expect_err("read-only");
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    drop(reads);
    let mut writes = sessions.session();
    writes.execute(INSERT, &[]).await.expect("writes go on");
    assert_eq!(seen(&mut writes).await, 3);
}

#[tokio::test]
async fn two_test_transactions_side_by_side_see_nothing_of_each_other() {
    let db = database().await;
    let engine = builder(&db.url()).pool_size(2).build().expect("settings");
    let (one, two) = (engine.test_transaction(), engine.test_transaction());
    let (mut one, mut two) = (one.session(), two.session());
    assert_ne!(pid(&mut one).await, pid(&mut two).await);
    one.execute(INSERT, &[]).await.expect("inserted");
    let _ = one.commit().await.expect("kept");
    assert_eq!((seen(&mut one).await, seen(&mut two).await), (1, 0));
}

#[tokio::test]
async fn sessions_of_one_test_transaction_take_turns() {
    let db = database().await;
    let sessions = one_connection(&db).test_transaction();
    let tasks: Vec<_> = (0..20_i64)
        .map(|n| {
            let sessions = sessions.clone();
            tokio::spawn(async move {
                let work = sessions.begin::<Error, _>(async |s| {
                    let before = seen(s).await;
                    s.execute("INSERT INTO t VALUES ($1)", &[&n]).await?;
                    assert_eq!(seen(s).await, before + 1, "nobody else's work");
                    if n % 2 == 0 {
                        Ok(())
                    } else {
                        Err(Error::new(ErrorKind::Usage, "odd"))
                    }
                });
                work.await.is_ok()
            })
        })
        .collect();
    for (n, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.expect("no panic"), n % 2 == 0);
    }
    assert_eq!(seen(&mut sessions.session()).await, 10);
}

#[tokio::test]
async fn a_second_session_beside_an_open_one_is_told_who_holds_the_connection() {
    let db = database().await;
    let sessions = one_connection(&db).test_transaction();
    let mut holder = sessions.session();
    let line = line!() + 1;
    holder.execute(INSERT, &[]).await.expect("inserted");
    tokio::time::pause(); // Nothing else is waited for, so the time is over at once.
    let error = sessions
        .session()
        .query("SELECT 1", &[])
        .await
        .expect_err("held");
    tokio::time::resume();
    assert_eq!(error.kind(), ErrorKind::PoolTimeout);
    assert!(
        error
            .to_string()
            .contains(&format!("test_transaction.rs:{line}")),
        "{error}"
    );
}

#[tokio::test]
async fn a_statement_that_ends_the_test_transaction_is_found_out() {
    let db = database().await;
    let sessions = one_connection(&db).test_transaction();
    let mut session = sessions.session();
    session.batch("COMMIT").await.expect_err("pointed out");
    let error = session
        .query("SELECT 1", &[])
        .await
        .expect_err("no longer safe");
    assert_eq!(error.kind(), ErrorKind::TransactionFailed);
    assert!(
        error.to_string().contains("ended by a statement"),
        "{error}"
    );
}

#[tokio::test]
async fn a_session_dropped_at_any_await_does_not_disturb_the_next() {
    let db = database().await;
    let engine = one_connection(&db);
    let sessions = engine.test_transaction();
    let mut kept = 0;
    for polls in 0.. {
        let work = sessions.begin::<Error, _>(async |s| {
            s.execute("INSERT INTO t VALUES ($1)", &[&7_i64]).await?;
            s.query("SELECT n FROM t", &[]).await
        });
        let done = poll_then_drop(polls, work).await;
        let mut next = sessions.session();
        let now = seen(&mut next).await;
        assert!(
            (kept..=kept + 1).contains(&now),
            "after {polls} polls: {now}"
        );
        next.execute(INSERT, &[]).await.expect("usable");
        drop(next);
        kept = now;
        if let Some(done) = done {
            done.expect("kept");
            assert!(polls > 3, "dropped at {polls} points only");
            break;
        }
    }
    drop(sessions);
    assert_next_borrower_is_at_ease(&engine, "a test transaction").await;
}

#[tokio::test]
async fn a_statement_left_running_is_cancelled_before_the_next_session() {
    let db = database().await;
    let sessions = one_connection(&db).test_transaction();
    let mut session = sessions.session();
    session.execute(INSERT, &[]).await.expect("inserted");
    let _ = session.commit().await.expect("kept");
    let short = Duration::from_millis(20);
    tokio::time::timeout(short, session.query("SELECT pg_sleep(1000)", &[]))
        .await
        .expect_err("it sleeps");
    drop(session);
    let mut next = sessions.session();
    let now = tokio::time::timeout(SOON, seen(&mut next))
        .await
        .expect("it was cancelled");
    assert_eq!(now, 1);
}
