//! Shared connections: what they take and refuse, that nobody's leaving, slowness or silence disturbs the rest, and
//! what a broken one leaves known.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use pool_postgres::{Engine, Error, ErrorKind, Outcome, SharedConnections, SharedOptions};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::support::{
    SOON, assert_next_borrower_is_at_ease, builder, count, database, one_connection,
    poll_then_drop, until,
};

/// An engine that shares as `options` say, on a pool of `pool_size`.
fn engine(db: &testbed::TestDatabase, pool_size: usize, options: SharedOptions) -> Engine {
    builder(&db.url())
        .pool_size(pool_size)
        .max_overflow(0)
        .shared(options)
        .build()
        .expect("good settings")
}

/// Shares one connection, however slow it is.
fn one_line() -> SharedOptions {
    SharedOptions::default().connections(1).max_connections(1)
}

async fn pid(shared: &SharedConnections) -> i32 {
    let row = shared.query_one("SELECT pg_backend_pid()", &[]).await;
    row.expect("a pid").get(0)
}

/// Waits until all shared connections are back in the pool.
async fn given_back(shared: &SharedConnections) {
    let deadline = Instant::now() + SOON;
    while shared.status().connections > 0 {
        assert!(Instant::now() < deadline, "still held: {}", shared.status());
        tokio::task::yield_now().await;
    }
}

/// Polls a future once, so that it has sent what it sends.
async fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    let mut future = Some(future);
    poll_fn(|cx| Poll::Ready(future.take().expect("polled once").poll(cx))).await
}

#[tokio::test]
async fn statements_of_many_tasks_get_their_own_answers() {
    let db = database().await;
    let shared = engine(&db, 5, SharedOptions::default()).shared();
    let mut tasks = JoinSet::new();
    for task in 0..64_i32 {
        let shared = shared.clone();
        tasks.spawn(async move {
            for n in 0..20_i32 {
                let row = shared
                    .query_one(
                        "SELECT $1::int4, $2::text, $3::text",
                        &[&(task * 100 + n), &format!("of {task}"), &None::<&str>],
                    )
                    .await
                    .expect("a row");
                assert_eq!(row.get::<_, i32>(0), task * 100 + n);
                assert_eq!(row.get::<_, &str>(1), format!("of {task}"));
                assert_eq!(row.get::<_, Option<&str>>(2), None);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("the task went through");
    }
    given_back(&shared).await;
}

#[tokio::test]
async fn each_way_of_asking_gives_what_it_says() {
    let db = database().await;
    let shared = one_connection(&db).shared();
    let insert = "INSERT INTO t VALUES ($1), ($2)";
    let affected = shared.execute(insert, &[&1_i64, &2_i64]).await;
    assert_eq!(affected.expect("inserted"), 2);
    let rows = shared.query("SELECT n FROM t ORDER BY n", &[]).await;
    assert_eq!(rows.expect("rows").len(), 2);
    let none = shared.query_opt("SELECT n FROM t WHERE n = 7", &[]).await;
    assert!(none.expect("an answer").is_none());
    let error = shared.query_one("SELECT n FROM t", &[]).await;
    assert_eq!(error.expect_err("two rows").kind(), ErrorKind::RowCount);
    let error = shared.query_one("SELECT 1 / 0", &[]).await;
    let error = error.expect_err("division by zero");
    assert_eq!(error.sqlstate(), Some("22012"), "{error}");
    assert!(error.connection_is_good());
}

#[tokio::test]
async fn one_connection_carries_many_statements_at_once_and_goes_back_when_all_are_answered() {
    let db = database().await;
    let engine = engine(&db, 1, one_line());
    let shared = engine.shared();
    let asked = (0..50).map(|_| shared.query_one("SELECT pg_backend_pid()", &[]));
    let pids: Vec<i32> = join_all(asked)
        .await
        .into_iter()
        .map(|row| row.expect("a row").get(0))
        .collect();
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    // The pool has one connection: that others get it shows that it went back.
    assert_next_borrower_is_at_ease(&engine, "fifty shared statements").await;
    assert_eq!(engine.status().in_use, 0);
}

#[tokio::test]
async fn what_would_leave_something_behind_is_refused_and_nothing_is_sent() {
    let db = database().await;
    let engine = one_connection(&db);
    let shared = engine.shared();
    for sql in [
        "SET search_path = pg_catalog",
        "BEGIN",
        "LISTEN c",
        "COPY t TO STDOUT",
        "CREATE TEMP TABLE x (n int)",
        "INSERT INTO t VALUES (1); SET search_path = pg_catalog",
    ] {
        let error = shared.execute(sql, &[]).await.expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::Usage, "{sql}: {error}");
        assert_eq!(error.outcome(), Outcome::NotSent, "{sql}");
    }
    assert_eq!(engine.status().open, 0, "not even a connection was opened");
}

#[tokio::test]
async fn a_parameter_that_does_not_fit_is_refused_as_elsewhere_and_disturbs_nobody() {
    let db = database().await;
    let engine = engine(&db, 1, one_line());
    let shared = engine.shared();
    let sql = "SELECT $1::int4";
    let (good, wrong, few, again) = futures_util::join!(
        shared.query_one(sql, &[&1_i32]),
        shared.query_one(sql, &[&"one"]),
        shared.query_one(sql, &[]),
        shared.query_one(sql, &[&2_i32]),
    );
    assert_eq!(good.expect("a row").get::<_, i32>(0), 1);
    assert_eq!(again.expect("a row").get::<_, i32>(0), 2);
    for error in [wrong, few] {
        let error = error.expect_err("does not fit");
        assert_eq!(error.kind(), ErrorKind::Parameter, "{error}");
    }
    let elsewhere = engine.query_one(sql, &[&"one"]).await.expect_err("text");
    let here = shared.query_one(sql, &[&"one"]).await.expect_err("text");
    assert_eq!(here.to_string(), elsewhere.to_string());
}

#[tokio::test]
async fn a_slow_statement_holds_up_only_what_was_sent_behind_it_at_once() {
    let db = database().await;
    let options = SharedOptions::default()
        .connections(1)
        .max_connections(2)
        .grow_after(Duration::from_millis(5));
    let engine = engine(&db, 3, options);
    let shared = engine.shared();
    let held = engine.connect().await.expect("a connection");
    held.client()
        .batch_execute("SELECT pg_advisory_lock(7)")
        .await
        .expect("locked");
    // Waits on the server until the lock is let go.
    let slow = tokio::spawn({
        let shared = shared.clone();
        async move {
            let sql = "SELECT pg_advisory_xact_lock(7), pg_backend_pid()";
            shared.query_one(sql, &[]).await
        }
    });
    let watcher = builder(&db.url()).build().expect("good settings");
    until(
        &watcher,
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'advisory'",
    )
    .await;
    // As soon as the slow one is older than the bound, others pass it by.
    let deadline = Instant::now() + SOON;
    while shared.status().oldest < Some(Duration::from_millis(6)) {
        assert!(Instant::now() < deadline, "{}", shared.status());
        tokio::task::yield_now().await;
    }
    for _ in 0..5 {
        timeout(SOON, pid(&shared)).await.expect("held up");
    }
    assert!(!slow.is_finished());
    held.client()
        .batch_execute("SELECT pg_advisory_unlock(7)")
        .await
        .expect("unlocked");
    slow.await.expect("no panic").expect("it came through");
}

#[tokio::test]
async fn a_caller_that_does_not_poll_holds_up_nobody() {
    let db = database().await;
    let engine = engine(&db, 1, one_line().grow_after(Duration::from_millis(5)));
    let shared = engine.shared();
    pid(&shared).await;
    // Far more than the driver keeps for a caller that does not read.
    let sql = "SELECT repeat('x', 1000) FROM generate_series(1, 5000)";
    shared.query(sql, &[]).await.expect("prepared");
    let mut idle = pin!(shared.query(sql, &[]));
    assert!(poll_once(idle.as_mut()).await.is_pending());
    timeout(SOON, pid(&shared)).await.expect("held up");
    let rows = idle.await.expect("its answer waits for it");
    assert_eq!(rows.len(), 5000);
}

#[tokio::test]
async fn a_statement_can_be_dropped_at_every_await_and_disturbs_nobody() {
    for cold in [true, false] {
        let db = database().await;
        let mut engine = engine(&db, 1, one_line());
        for polls in 0.. {
            if cold {
                engine = self::engine(&db, 1, one_line());
            }
            let shared = engine.shared();
            let insert = "INSERT INTO t VALUES ($1)";
            let before = shared.query_one("SELECT $1::int4", &[&1_i32]);
            let behind = shared.query_one("SELECT $1::int4", &[&2_i32]);
            let (before, done, behind) = futures_util::join!(
                before,
                poll_then_drop(polls, shared.execute(insert, &[&1_i64])),
                behind,
            );
            let after = format!("dropped after {polls} polls");
            assert_eq!(before.expect("a row").get::<_, i32>(0), 1, "{after}");
            assert_eq!(behind.expect("a row").get::<_, i32>(0), 2, "{after}");
            given_back(&shared).await;
            assert_next_borrower_is_at_ease(&engine, &after).await;
            let status = engine.status();
            assert_eq!((status.in_use, status.waiting), (0, 0), "{after}");
            assert_eq!(status.open, 1, "{after}: the connection was closed");
            if let Some(done) = done {
                assert_eq!(done.expect("inserted"), 1);
                assert!(polls >= 2, "only {polls} awaits");
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_was_sent_runs_although_its_caller_leaves() {
    let db = database().await;
    let engine = engine(&db, 1, one_line());
    let shared = engine.shared();
    // Longer than a connection's clean-up would wait before it cancels.
    let insert = "INSERT INTO t SELECT $1 FROM pg_sleep(0.2)";
    shared.execute(insert, &[&1_i64]).await.expect("prepared");
    {
        let mut left = pin!(shared.execute(insert, &[&2_i64]));
        assert!(poll_once(left.as_mut()).await.is_pending());
    }
    given_back(&shared).await;
    assert_eq!(count(&engine).await, 2);
}

#[tokio::test]
async fn a_broken_connection_fails_what_was_under_way_on_it_and_nothing_else() {
    let db = database().await;
    let engine = engine(&db, 1, one_line());
    let shared = engine.shared();
    let sleeper = "SELECT pg_sleep(60), $1::int4";
    let victim = pid(&shared).await;
    let asked = (0..3_i32).map(|n| {
        let shared = shared.clone();
        async move {
            let error = shared.query(sleeper, &[&n]).await;
            error.expect_err("its connection breaks")
        }
    });
    let watcher = builder(&db.url()).build().expect("good settings");
    let kill = async {
        let running = "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        until(&watcher, running).await;
        let kill = "SELECT pg_terminate_backend($1)";
        watcher.query(kill, &[&victim]).await.expect("killed");
    };
    let (errors, ()) = futures_util::join!(join_all(asked), kill);
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{error}");
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        assert!(!error.is_retryable());
    }
    assert_ne!(pid(&shared).await, victim, "others go to another one");
}

#[tokio::test]
async fn a_connection_found_dead_before_anything_is_sent_costs_no_error() {
    let db = database().await;
    let engine = one_connection(&db);
    let shared = engine.shared();
    let victim = pid(&shared).await;
    let watcher = builder(&db.url()).build().expect("good settings");
    let kill = "SELECT pg_terminate_backend($1)";
    watcher.query(kill, &[&victim]).await.expect("killed");
    until(
        &watcher,
        &format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {victim}"),
    )
    .await;
    // Not prepared yet on that connection: its preparation fails, and is made on another.
    let row = shared.query_one("SELECT 41 + $1::int4", &[&1_i32]).await;
    assert_eq!(row.expect("a row").get::<_, i32>(0), 42);
}

#[tokio::test]
async fn what_is_beyond_the_room_waits_and_is_told_when_it_waited_too_long() {
    let db = database().await;
    let options = one_line()
        .max_in_flight(2)
        .timeout(Duration::from_millis(50));
    let engine = engine(&db, 2, options);
    engine.ping().await.expect("opened before any time counts");
    let shared = engine.shared();
    pid(&shared).await;
    let sleeper = "SELECT pg_sleep(60)";
    let (one, two) = (shared.query(sleeper, &[]), shared.query(sleeper, &[]));
    let (mut one, mut two) = (pin!(one), pin!(two));
    assert!(poll_once(one.as_mut()).await.is_pending());
    assert!(poll_once(two.as_mut()).await.is_pending());
    let error: Error = shared
        .query("SELECT 1", &[])
        .await
        .expect_err("there is no room");
    assert_eq!(error.kind(), ErrorKind::PoolTimeout);
    assert_eq!(error.outcome(), Outcome::NotSent);
    assert!(error.to_string().contains("2 unanswered"), "{error}");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = $1";
    engine.query(end, &[&sleeper]).await.expect("ended");
}

#[tokio::test]
async fn a_pool_that_can_open_nothing_says_why() {
    let engine = builder("postgresql://nobody@127.0.0.1:1/none")
        .pool_timeout(Duration::from_millis(500))
        .build()
        .expect("good settings");
    let error = engine.shared().query("SELECT 1", &[]).await;
    let error = error.expect_err("nobody listens there");
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    assert_eq!(engine.shared().status().connecting, 0);
}

#[tokio::test]
async fn others_that_wait_for_the_pool_get_their_turn_beside_steady_sharing() {
    let db = database().await;
    let engine = engine(&db, 1, one_line());
    let shared = engine.shared();
    let mut steady = JoinSet::new();
    for _ in 0..4 {
        let shared = shared.clone();
        steady.spawn(async move {
            loop {
                shared.query("SELECT 1", &[]).await.expect("an answer");
            }
        });
    }
    pid(&shared).await;
    for _ in 0..2 {
        let row = timeout(SOON, engine.query_one("SELECT 1", &[])).await;
        row.expect("the pool's one connection never came back")
            .expect("a row");
    }
    steady.shutdown().await;
}

#[tokio::test]
async fn closing_the_engine_lets_what_is_under_way_finish_and_refuses_the_rest() {
    let db = database().await;
    let engine = engine(&db, 1, one_line());
    let shared = engine.shared();
    pid(&shared).await;
    let insert = "INSERT INTO t SELECT 1 FROM pg_sleep(0.05)";
    let (done, report, refused) =
        futures_util::join!(shared.execute(insert, &[]), engine.close(), async {
            let error = shared.query("SELECT 1", &[]).await;
            error.expect_err("the engine is closing")
        },);
    assert_eq!(done.expect("it was under way"), 1);
    assert!(report.still_held.is_empty(), "{report:?}");
    assert_eq!(refused.kind(), ErrorKind::PoolClosed);
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let zero = SharedOptions::default();
    for options in [
        zero.connections(0),
        zero.max_connections(1),
        zero.max_in_flight(0),
        zero.grow_after(Duration::ZERO),
    ] {
        let error = builder("postgresql://localhost/x").shared(options).build();
        let error = error.expect_err("can't work");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("shared connections"), "{error}");
    }
}

#[tokio::test]
async fn a_changed_table_is_prepared_anew() {
    let db = database().await;
    let engine = engine(&db, 2, one_line());
    let shared = engine.shared();
    let sql = "SELECT * FROM t";
    shared
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    assert_eq!(shared.query_one(sql, &[]).await.expect("a row").len(), 1);
    engine
        .execute("ALTER TABLE t ADD COLUMN more text", &[])
        .await
        .expect("altered");
    assert_eq!(shared.query_one(sql, &[]).await.expect("a row").len(), 2);
}
