//! Futures dropped at every await: the next borrower finds a clean connection, and the pool its room.

use std::time::Duration;

use futures_util::FutureExt;
use pool_postgres::{Engine, Error, ErrorKind, Retry, Session, SessionFactory};

use crate::support::{
    SOON, assert_next_borrower_is_at_ease, builder, count, database, one_connection,
    poll_then_drop, sessions, until,
};

/// Drops what `work` does with a session after 0, 1, 2… polls, until it runs to its end; looks each time at
/// what the next borrower finds. `cold` starts each round on a connection that has prepared nothing.
async fn dropped_at_every_await<T>(
    name: &str,
    cold: bool,
    before: impl AsyncFn(&mut Session),
    work: impl AsyncFn(&mut Session) -> Result<T, Error>,
    least: usize,
) {
    let db = database().await;
    let (mut engine, mut sessions) = sessions(&db);
    for polls in 0.. {
        if cold {
            (engine, sessions) = self::sessions(&db);
        }
        let mut session = sessions.session();
        before(&mut session).await;
        let done = poll_then_drop(polls, work(&mut session)).await;
        let after = format!("{name} dropped after {polls} polls");
        if done.is_none() && session.in_transaction() {
            // The session itself knows that it cannot vouch for what it did.
            if let Err(error) = session
                .execute("INSERT INTO t VALUES (0)", &[])
                .now_or_never()
                .unwrap_or(Ok(0))
            {
                assert_eq!(error.kind(), ErrorKind::TransactionFailed, "{after}");
            }
        }
        drop(session);
        assert_as_new(&engine, &after).await;
        assert_eq!(count(&engine).await, 0, "{after}: something was kept");
        let status = engine.status();
        assert_eq!((status.in_use, status.waiting), (0, 0), "{after}");
        if let Some(done) = done {
            done.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(polls >= least, "{name} had only {polls} awaits");
            return;
        }
    }
}

async fn nothing(_: &mut Session) {}

async fn inserted(session: &mut Session) {
    session
        .execute("INSERT INTO t VALUES ($1)", &[&1_i64])
        .await
        .expect("inserted");
}

#[tokio::test]
async fn a_cold_first_statement_can_be_dropped_at_every_await() {
    let work = async |s: &mut Session| s.execute("INSERT INTO t VALUES ($1)", &[&1_i64]).await;
    dropped_at_every_await("a cold first statement", true, nothing, work, 3).await;
}

#[tokio::test]
async fn a_first_statement_can_be_dropped_at_every_await() {
    let work = async |s: &mut Session| s.execute("INSERT INTO t VALUES ($1)", &[&1_i64]).await;
    dropped_at_every_await("a first statement", false, nothing, work, 2).await;
}

#[tokio::test]
async fn a_later_statement_can_be_dropped_at_every_await() {
    let work = async |s: &mut Session| s.query("SELECT n, $1::int8 FROM t", &[&1_i64]).await;
    dropped_at_every_await("a later statement", false, inserted, work, 1).await;
}

#[tokio::test]
async fn a_batch_can_be_dropped_at_every_await() {
    let work = async |s: &mut Session| {
        s.batch("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)")
            .await
    };
    dropped_at_every_await("a batch", false, nothing, work, 1).await;
}

#[tokio::test]
async fn a_savepoint_can_be_dropped_at_every_await() {
    let work = async |s: &mut Session| {
        s.nested::<Error, _>(async |s| s.execute("INSERT INTO t VALUES ($1)", &[&2_i64]).await)
            .await
    };
    dropped_at_every_await("a savepoint", false, nothing, work, 2).await;
}

#[tokio::test]
async fn a_rollback_can_be_dropped_at_every_await() {
    let work = async |s: &mut Session| s.rollback().await;
    dropped_at_every_await("a rollback", false, inserted, work, 1).await;
}

#[tokio::test]
async fn a_failing_statement_can_be_dropped_at_every_await() {
    let work = async |s: &mut Session| {
        s.execute("INSERT INTO t VALUES (1/0)", &[])
            .await
            .expect_err("division by zero");
        Ok(())
    };
    dropped_at_every_await("a failing statement", false, inserted, work, 1).await;
}

#[tokio::test]
async fn a_row_stream_can_be_dropped_at_every_await() {
    let work = async |s: &mut Session| {
        let mut rows = s
            .query_stream("SELECT generate_series(1, 20000)", &[])
            .await?;
        while let Some(row) = rows.next().await {
            row?;
        }
        Ok(())
    };
    dropped_at_every_await("a row stream", false, inserted, work, 2).await;
}

#[tokio::test]
async fn a_pipeline_can_be_dropped_at_every_await() {
    let work = async |s: &mut Session| {
        let (one, two) = (1_i64, 2_i64);
        s.pipeline()
            .statement("INSERT INTO t VALUES ($1)", &[&one])
            .statement("INSERT INTO t VALUES ($1::bigint + 1)", &[&two])
            .statement("SELECT n FROM t", &[])
            .run()
            .await
    };
    dropped_at_every_await("a cold pipeline", true, nothing, work, 3).await;
    dropped_at_every_await("a pipeline", false, nothing, work, 1).await;
    dropped_at_every_await("a later pipeline", false, inserted, work, 1).await;
}

#[tokio::test]
async fn a_copy_in_can_be_dropped_at_every_await() {
    let work = async |s: &mut Session| {
        let mut copy = s.copy_in("COPY t FROM STDIN").await?;
        for _ in 0..3 {
            copy.send("1\n".repeat(10_000)).await?;
        }
        copy.finish().await
    };
    dropped_at_every_await("a cold copy", true, nothing, work, 3).await;
    dropped_at_every_await("a copy", false, inserted, work, 2).await;
    let work = async |s: &mut Session| {
        let copy = s.copy_in("COPY t FROM STDIN").await?;
        copy.abort().await
    };
    dropped_at_every_await("a copy given up", false, nothing, work, 2).await;
}

#[tokio::test]
async fn a_copy_out_can_be_dropped_at_every_await() {
    let work = async |s: &mut Session| {
        let sql = "COPY (SELECT generate_series(1, 20000)) TO STDOUT";
        let mut data = s.copy_out(sql).await?;
        while let Some(piece) = data.next().await {
            piece?;
        }
        Ok(())
    };
    dropped_at_every_await("a copy out", false, inserted, work, 2).await;
}

#[tokio::test]
async fn a_setting_for_the_transaction_can_be_dropped_at_every_await() {
    let work = async |s: &mut Session| {
        s.set_local_search_path(&["nowhere"]).await?;
        s.set_local("work_mem", "7MB").await
    };
    dropped_at_every_await("settings", false, nothing, work, 2).await;
}

#[tokio::test]
async fn a_session_with_limits_can_be_dropped_at_every_await() {
    let limits = async |s: &mut Session| {
        let limit = Duration::from_mins(10);
        let options = s
            .options()
            .statement_timeout(limit)
            .transaction_timeout(limit);
        s.set_options(options).expect("nothing is open");
    };
    let work = async |s: &mut Session| {
        s.execute("INSERT INTO t VALUES ($1)", &[&1_i64]).await?;
        s.query("SELECT n FROM t", &[]).await
    };
    dropped_at_every_await("a session with limits", false, limits, work, 2).await;
}

#[tokio::test]
async fn a_session_that_becomes_a_stream_can_be_dropped_at_every_await() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    for polls in 0.. {
        let work = async {
            let sql = "SELECT n FROM generate_series(1, 20000) AS n";
            let mut rows = sessions.session().into_stream(sql, &[]).await?;
            let mut seen = 0;
            while let Some(row) = rows.next().await {
                row?;
                seen += 1;
            }
            Ok::<_, Error>(seen)
        };
        let done = poll_then_drop(polls, work).await;
        assert_next_borrower_is_at_ease(&engine, &format!("{polls} polls of a stream")).await;
        if let Some(seen) = done {
            assert_eq!(seen.expect("all came"), 20_000);
            assert!(polls >= 2);
            break;
        }
    }
}

/// Nothing that a transaction or an earlier borrower could have left is found on the connection.
async fn assert_as_new(engine: &Engine, after: &str) {
    assert_next_borrower_is_at_ease(engine, after).await;
    let sql = "SELECT current_setting('search_path'), current_setting('statement_timeout'), \
               current_setting('role'), (SELECT count(*) FROM pg_cursors WHERE name <> ''), \
               (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())";
    let found: (String, String, String, i64, i64) =
        engine.query_one_as(sql, &[]).await.expect("a row");
    let expected = (
        "\"$user\", public".to_owned(),
        "0".to_owned(),
        "none".to_owned(),
        0,
        0,
    );
    assert_eq!(found, expected, "{after}");
}

#[tokio::test]
async fn a_commit_dropped_at_any_await_happened_or_did_not() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    for polls in 0.. {
        let before = count(&engine).await;
        let mut session = sessions.session();
        session
            .execute("INSERT INTO t VALUES (1), (2)", &[])
            .await
            .expect("inserted");
        let done = poll_then_drop(polls, session.commit()).await;
        drop(session);
        assert_next_borrower_is_at_ease(&engine, &format!("a commit dropped after {polls} polls"))
            .await;
        let gained = count(&engine).await - before;
        match (polls, &done) {
            (0, _) => assert_eq!(gained, 0, "nothing was sent"),
            (_, None) => assert!(gained == 0 || gained == 2, "{gained} of 2 rows"),
            (_, Some(done)) => {
                done.as_ref().expect("committed");
                assert_eq!(gained, 2);
            }
        }
        if done.is_some() {
            assert!(polls >= 1);
            break;
        }
    }
}

#[tokio::test]
async fn a_single_statement_can_be_dropped_at_every_await() {
    let db = database().await;
    for cold in [true, false] {
        let mut engine = one_connection(&db);
        for polls in 0.. {
            if cold {
                engine = one_connection(&db);
            }
            let statement = engine.query("SELECT n FROM t WHERE n = $1", &[&1_i64]);
            let done = poll_then_drop(polls, statement).await;
            assert_next_borrower_is_at_ease(&engine, &format!("{polls} polls of a statement"))
                .await;
            if done.is_some() {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_statement_that_still_runs_when_it_is_dropped_is_cancelled_on_the_server() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let watcher = one_connection(&db);
    let sleeps = "FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(1000)%' AND state = 'active' \
                  AND datname = current_database()";
    let mut session = sessions.session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let asleep = format!("SELECT count(*) = 1 {sleeps}");
    tokio::select! {
        _ = session.query("SELECT pg_sleep(1000)", &[]) => panic!("it sleeps"),
        () = until(&watcher, &asleep) => {}
    }
    let error = session
        .query("SELECT 1", &[])
        .await
        .expect_err("nobody knows what the other did");
    assert_eq!(error.kind(), ErrorKind::TransactionFailed);
    let error = session
        .commit()
        .await
        .expect_err("nobody knows what the other did");
    assert_eq!(error.kind(), ErrorKind::TransactionFailed);
    assert_next_borrower_is_at_ease(&engine, "a running statement").await;
    until(&watcher, &format!("SELECT count(*) = 0 {sleeps}")).await;
    assert_eq!(count(&engine).await, 0);
}

#[tokio::test]
async fn a_transaction_that_is_begun_again_can_be_dropped_at_every_await() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let sessions = sessions.with_local("work_mem", "7MB");
    let lose = "DO 'BEGIN RAISE EXCEPTION USING ERRCODE = ''40001''; END'";
    for polls in 0.. {
        let before = count(&engine).await;
        let mut attempts = 0;
        let retry = Retry::serializable().backoff(Duration::ZERO, Duration::ZERO);
        let work = sessions.begin_retrying::<Error, _>(retry, async |s| {
            attempts += 1;
            s.execute("INSERT INTO t VALUES ($1)", &[&1_i64]).await?;
            if attempts == 1 {
                s.batch(lose).await
            } else {
                Ok(())
            }
        });
        let done = poll_then_drop(polls, work).await;
        let after = format!("begun again, dropped after {polls} polls");
        assert_as_new(&engine, &after).await;
        let gained = count(&engine).await - before;
        match done {
            Some(done) => {
                done.expect("the second time");
                assert_eq!((attempts, gained), (2, 1));
                assert!(polls >= 4, "dropped at {polls} points only");
                return;
            }
            // More than the one row of a commit that was under way would be a transaction run twice.
            None => assert!((0..=1).contains(&gained), "{after}: {gained} rows"),
        }
    }
}

#[tokio::test]
async fn in_autocommit_a_statement_that_was_dropped_half_way_is_nothing_to_the_next() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    for sessions in [sessions.autocommit(), sessions.autocommit().read_only()] {
        let mut session = sessions.session();
        session.query("SELECT 1", &[]).await.expect("well");
        let short = Duration::from_millis(20);
        tokio::time::timeout(short, session.query("SELECT pg_sleep(1000)", &[]))
            .await
            .expect_err("it sleeps");
        let next = tokio::time::timeout(SOON, session.query("SELECT 1", &[]));
        next.await
            .expect("the other was cancelled")
            .expect("each stands alone");
    }
    let mut session = sessions.autocommit().session();
    drop(session.copy_in("COPY t FROM STDIN").await.expect("started"));
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("each stands alone");
    assert_eq!(count(&engine).await, 1);
}

/// Statements are dropped around the moment at which they end anyhow, so that many cancels come too late; a slow
/// network delays them further. Whoever has the connection next must never be struck.
#[tokio::test]
async fn a_cancel_that_comes_late_never_strikes_the_next_borrower() {
    let db = database().await;
    let (engine, proxy) = crate::round_trips::behind_a_proxy(&db).await;
    let sessions = SessionFactory::new(engine.clone());
    let mut dropped = 0;
    for round in 0..40_u64 {
        proxy.set_delay(Duration::from_millis(round % 4));
        let mut session = sessions.session();
        session
            .execute("INSERT INTO t VALUES (1)", &[])
            .await
            .expect("inserted");
        // The pool waits 50 ms for it before it cancels.
        let statement = session.query("SELECT pg_sleep($1)", &[&0.07]);
        let patience = Duration::from_millis(10 + round / 4);
        dropped += usize::from(tokio::time::timeout(patience, statement).await.is_err());
        drop(session);
        for _ in 0..3 {
            let next = engine.query("SELECT pg_sleep(0.004)", &[]).await;
            next.unwrap_or_else(|error| {
                panic!("round {round}: the next borrower was struck: {error}")
            });
        }
    }
    assert!(dropped > 30, "dropped only {dropped} times");
    assert_eq!(count(&engine).await, 0);
}

/// The outage of a cancelled `BEGIN`: many tasks, each given less time than it needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_timeouts_leaves_all_connections_in_order() {
    const CONNECTIONS: usize = 4;
    let db = database().await;
    let engine: Engine = builder(&db.url())
        .pool_size(CONNECTIONS)
        .max_overflow(0)
        .build()
        .expect("good settings");
    let sessions = SessionFactory::new(engine.clone());
    let storm = (0..400_u64).map(|n| {
        let sessions = sessions.clone();
        tokio::spawn(async move {
            let work = sessions.begin::<Error, _>(async |s| {
                let n = i64::try_from(n).expect("small");
                s.execute("INSERT INTO t VALUES ($1)", &[&n]).await?;
                s.execute("INSERT INTO t VALUES ($1)", &[&n]).await
            });
            tokio::time::timeout(Duration::from_micros(n * 37 % 9000), work)
                .await
                .is_ok_and(|done| done.is_ok())
        })
    });
    let mut committed = 0;
    for task in storm.collect::<Vec<_>>() {
        committed += i64::from(task.await.expect("no panic"));
    }
    let all = (0..CONNECTIONS).map(|_| engine.connect());
    let all = tokio::time::timeout(SOON, futures_util::future::try_join_all(all));
    let all = all
        .await
        .expect("none is lost")
        .expect("all can be had at once");
    for connection in &all {
        let refused = connection.client().batch_execute("SAVEPOINT inside").await;
        refused.expect_err("no transaction is open");
    }
    drop(all);
    let halves = "SELECT count(*) FROM (SELECT n FROM t GROUP BY n HAVING count(*) <> 2) AS halves";
    assert_eq!(
        engine
            .query_one(halves, &[])
            .await
            .expect("a count")
            .get::<_, i64>(0),
        0
    );
    // Those that were dropped while they committed may have, too.
    assert!(count(&engine).await >= 2 * committed);
}
