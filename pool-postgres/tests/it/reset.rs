//! What a returned connection may carry: each state is made in one session and looked for in the next, under each
//! policy, and the result is the one that is documented.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use pool_postgres::pool_core::CloseReason;
use pool_postgres::{
    Committed, Durability, Engine, ErrorKind, PrePing, ResetPolicy, SessionFactory,
};
use testbed::TestDatabase;
use tokio_postgres::{Client, CopyInSink};

use crate::support::{SOON, builder, count, database, one_connection, until};

/// What is left of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Stays,
    Gone,
    Closed,
}

/// States that statements make, and a query for each whose answer tells them from a new connection's.
const BY_STATEMENTS: [(&str, &[&str], &str); 15] = [
    (
        "open transaction",
        &["BEGIN", "INSERT INTO t VALUES (1)"],
        "SELECT count(*)::text FROM t",
    ),
    (
        "failed transaction",
        &["BEGIN", "SELECT 1/0"],
        "SELECT 'fine'",
    ),
    (
        "cursor",
        &["BEGIN", "DECLARE mine CURSOR FOR SELECT 1"],
        "SELECT count(*)::text FROM pg_cursors WHERE name = 'mine'",
    ),
    (
        "cursor `WITH HOLD`",
        &["DECLARE mine CURSOR WITH HOLD FOR SELECT 1"],
        "SELECT count(*)::text FROM pg_cursors WHERE name = 'mine'",
    ),
    ("`SET`", &["SET work_mem = '77MB'"], "SHOW work_mem"),
    ("role", &["SET ROLE app"], "SELECT current_user::text"),
    (
        "session authorization",
        &["SET SESSION AUTHORIZATION app"],
        "SELECT session_user::text",
    ),
    (
        "`search_path`",
        &["SET search_path = nowhere"],
        "SHOW search_path",
    ),
    (
        "temporary table",
        &["CREATE TEMP TABLE pg_prepared_statements (name text)"],
        "SELECT to_regclass('pg_temp.pg_prepared_statements')::text",
    ),
    (
        "prepared name",
        &["PREPARE \"my \"\" own\" AS SELECT 1"],
        "SELECT count(*)::text FROM pg_prepared_statements WHERE name LIKE 'my%'",
    ),
    (
        "`LISTEN`",
        &["LISTEN news"],
        "SELECT count(*)::text FROM pg_listening_channels()",
    ),
    (
        "advisory lock",
        &["SELECT pg_advisory_lock(7)"],
        "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    ),
    (
        "last value of a sequence",
        &[
            "CREATE SEQUENCE IF NOT EXISTS numbers",
            "SELECT nextval('numbers')",
        ],
        "SELECT lastval()::text",
    ),
    (
        "loaded library",
        &["LOAD 'auto_explain'"],
        "SELECT count(*)::text FROM pg_settings WHERE name LIKE 'auto_explain.%'",
    ),
    (
        "known name of a custom setting",
        &["SET my.setting = 'x'"],
        "SELECT (current_setting('my.setting', true) IS NULL)::text",
    ),
];

fn policies() -> [ResetPolicy; 4] {
    [
        ResetPolicy::Rollback,
        ResetPolicy::Full,
        ResetPolicy::None,
        ResetPolicy::custom("DISCARD ALL"),
    ]
}

/// What the documentation says that is left of a state under each of the policies.
fn documented(state: &str) -> [Left; 4] {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let row = page
        .lines()
        .find_map(|line| line.strip_prefix(&format!("| {state} | ")));
    let row = row.unwrap_or_else(|| panic!("no row for {state}"));
    let cells: Vec<Left> = row
        .split('|')
        .filter_map(|cell| match cell.trim() {
            "stays" => Some(Left::Stays),
            "gone" => Some(Left::Gone),
            "closed" => Some(Left::Closed),
            _ => None,
        })
        .collect();
    cells.try_into().expect("four cells")
}

/// An engine of the superuser's with room for one connection.
fn engine(db: &TestDatabase, policy: ResetPolicy) -> Engine {
    builder(&db.superuser_url())
        .pool_size(1)
        .max_overflow(0)
        .reset_timeout(Duration::from_secs(1))
        .reset_policy(policy)
        .build()
        .expect("good settings")
}

/// The first column of the first row, or the error's code.
async fn answer(client: &Client, sql: &str) -> String {
    match client.query_opt(sql, &[]).await {
        Ok(row) => row
            .and_then(|row| row.get::<_, Option<String>>(0))
            .unwrap_or_default(),
        Err(error) => error
            .code()
            .map_or_else(|| error.to_string(), |code| code.code().to_owned()),
    }
}

async fn pid(client: &Client) -> String {
    answer(client, "SELECT pg_backend_pid()::text").await
}

/// Makes a state on a connection, gives that back and looks what is left of it.
async fn left(engine: &Engine, state: &str, make: impl AsyncFn(&Client), probe: &str) -> Left {
    let connection = engine.connect().await.expect("a connection");
    let before = pid(connection.client()).await;
    let clean = answer(connection.client(), probe).await;
    make(connection.client()).await;
    drop(connection);
    let next = tokio::time::timeout(SOON, engine.connect()).await;
    let next = next.expect("in time").expect("a connection");
    if tokio::time::timeout(SOON, pid(next.client()))
        .await
        .expect("at ease")
        != before
    {
        return Left::Closed;
    }
    if answer(next.client(), probe).await == clean {
        return Left::Gone;
    }
    assert_ne!(state, "failed transaction", "handed on");
    Left::Stays
}

#[tokio::test]
async fn what_statements_leave_behind_is_what_the_documentation_says() {
    let db = database().await;
    for (place, policy) in policies().into_iter().enumerate() {
        for (state, statements, probe) in BY_STATEMENTS {
            let engine = engine(&db, policy.clone());
            let make = async |client: &Client| {
                for sql in statements {
                    // One of them fails on purpose.
                    let _ = client.batch_execute(sql).await;
                }
            };
            let found = left(&engine, state, make, probe).await;
            assert_eq!(found, documented(state)[place], "{state} under {policy:?}");
        }
    }
}

/// What a borrower can leave unfinished.
#[derive(Clone, Copy, Debug)]
enum Unfinished {
    FewRows,
    EndlessRows,
    Running,
    Copy,
    CopyThatGoesOn,
    Pipeline,
}

impl Unfinished {
    const ALL: [(Self, &str); 6] = [
        (Self::FewRows, "unread rows, few"),
        (Self::EndlessRows, "unread rows, without end"),
        (Self::Running, "running statement"),
        (Self::Copy, "`COPY` half-way"),
        (Self::CopyThatGoesOn, "`COPY` that goes on"),
        (Self::Pipeline, "pending pipeline that opened a transaction"),
    ];

    /// Leaves it on a connection. What is given back has to be kept.
    async fn leave(self, client: &Client) -> Option<Pin<Box<CopyInSink<Bytes>>>> {
        match self {
            Self::FewRows => a_row_of(client, "SELECT generate_series(1, 100)").await,
            Self::EndlessRows => {
                let sql = "SELECT repeat('x', 1000), generate_series(1, 100000000)";
                a_row_of(client, sql).await;
            }
            Self::Running => queue(client.batch_execute("SELECT pg_sleep(1000)")),
            Self::Copy | Self::CopyThatGoesOn => {
                let sink = client.copy_in("COPY t FROM STDIN").await.expect("a sink");
                let mut sink = Box::pin(sink);
                sink.send(Bytes::from_static(b"1\n2\n"))
                    .await
                    .expect("sent");
                return matches!(self, Self::CopyThatGoesOn).then_some(sink);
            }
            Self::Pipeline => {
                for sql in [
                    "BEGIN",
                    "INSERT INTO t VALUES (1)",
                    "SELECT 1/0",
                    "SELECT 2",
                ] {
                    queue(client.batch_execute(sql));
                }
            }
        }
        None
    }
}

/// Reads the first of a statement's rows.
async fn a_row_of(client: &Client, sql: &str) {
    let rows = client.query_raw(sql, std::iter::empty::<&i32>()).await;
    let mut rows = pin!(rows.expect("rows"));
    rows.next().await.expect("a row").expect("no error");
}

/// Has the driver queue what a future sends, and waits no longer for it.
fn queue(future: impl Future) {
    let _ = future.now_or_never();
}

#[tokio::test]
async fn what_was_not_waited_for_is_gone_or_its_connection_closed_as_documented() {
    let db = database().await;
    for (place, policy) in policies().into_iter().enumerate() {
        for (unfinished, state) in Unfinished::ALL {
            let engine = engine(&db, policy.clone());
            let kept = RefCell::new(None);
            let make = async |client: &Client| {
                let sink = unfinished.leave(client).await;
                kept.replace(sink);
            };
            let found = left(&engine, state, make, "SELECT count(*)::text FROM t").await;
            assert_eq!(found, documented(state)[place], "{state} under {policy:?}");
            let failed = engine.pool().stats().closed.by(CloseReason::ResetFailed);
            let closed = u64::from(found == Left::Closed);
            assert_eq!(failed, closed, "{state} under {policy:?}: each is counted");
        }
    }
}

#[tokio::test]
async fn a_copy_that_ended_well_leaves_its_connection_to_the_next() {
    let db = database().await;
    let engine = engine(&db, ResetPolicy::Rollback);
    let connection = engine.connect().await.expect("a connection");
    let before = pid(connection.client()).await;
    let sink = connection.client().copy_in("COPY t FROM STDIN").await;
    let mut sink = pin!(sink.expect("a sink"));
    sink.send(Bytes::from_static(b"1\n2\n"))
        .await
        .expect("sent");
    assert_eq!(sink.finish().await.expect("copied"), 2);
    drop(connection);
    let next = engine.connect().await.expect("a connection");
    assert_eq!(pid(next.client()).await, before);
}

/// A cancel that comes late strikes what brings the role back.
#[tokio::test]
async fn a_reset_that_is_struck_by_a_cancel_closes_the_connection_and_never_hands_its_role_on() {
    let db = database().await;
    let admin = engine(&db, ResetPolicy::Rollback);
    let blocker = engine(&db, ResetPolicy::Rollback);
    let slow = "SET search_path = mine; SELECT pg_sleep(1000); RESET ROLE";
    for policy in [ResetPolicy::custom(slow), ResetPolicy::Full] {
        // What `Full` reads is locked, so that it waits with the role changed or half changed back.
        let mut blocking = SessionFactory::new(blocker.clone()).session();
        if policy == ResetPolicy::Full {
            blocking
                .batch("LOCK TABLE pg_catalog.pg_prepared_statements IN ACCESS EXCLUSIVE MODE")
                .await
                .expect("locked");
        }
        let engine = builder(&db.superuser_url())
            .pool_size(1)
            .max_overflow(0)
            .reset_policy(policy.clone())
            .build()
            .expect("good settings");
        let connection = engine.connect().await.expect("a connection");
        let victim = pid(connection.client()).await;
        connection
            .client()
            .batch_execute("SET ROLE app")
            .await
            .expect("set");
        drop(connection);
        let at_it = format!(
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE pid = {victim} AND state = 'active' \
             AND wait_event IS NOT NULL AND wait_event <> 'ClientRead'"
        );
        until(&admin, &at_it).await;
        assert_eq!(
            engine.status().idle,
            0,
            "not to be had before its reset is acknowledged"
        );
        let cancel = format!("SELECT pg_cancel_backend({victim})");
        admin.execute(&cancel, &[]).await.expect("struck");
        let next = tokio::time::timeout(SOON, engine.connect()).await;
        let next = next.expect("in time").expect("a connection");
        assert_ne!(pid(next.client()).await, victim, "{policy:?}");
        assert_ne!(
            answer(next.client(), "SELECT current_user::text").await,
            "app",
            "{policy:?}"
        );
        let stats = engine.pool().stats();
        assert_eq!(stats.closed.by(CloseReason::ResetFailed), 1, "{policy:?}");
        blocking.rollback().await.expect("no error");
    }
}

#[tokio::test]
async fn a_full_reset_keeps_the_statements_that_we_have_prepared() {
    let db = database().await;
    let engine = engine(&db, ResetPolicy::Full);
    let ours = "SELECT count(*) FROM pg_prepared_statements WHERE NOT from_sql";
    let seen = async || {
        engine
            .query_one(ours, &[])
            .await
            .expect("a count")
            .get::<_, i64>(0)
    };
    assert_eq!(seen().await, 1, "itself");
    engine
        .execute("PREPARE theirs AS SELECT 1", &[])
        .await
        .expect("prepared");
    // Its name is dropped at the return, and with it nothing of ours.
    assert_eq!(seen().await, 2, "and the one that prepares");
    assert_eq!(seen().await, 2);
}

#[tokio::test]
async fn a_connection_that_was_not_used_needs_no_reset() {
    let db = database().await;
    let engine = builder(&db.url())
        .pool_size(1)
        .max_overflow(0)
        .pre_ping(PrePing::Always)
        .reset_policy(ResetPolicy::custom("SELECT 1/0"))
        .build()
        .expect("good settings");
    for _ in 0..3 {
        drop(engine.connect().await.expect("a connection"));
        assert_eq!(engine.status().idle, 1, "back at once");
    }
    engine.execute("SELECT 1", &[]).await.expect("used");
    let next = engine.connect().await.expect("another");
    assert_eq!(engine.pool().stats().closed.by(CloseReason::ResetFailed), 1);
    drop(next);
}

#[tokio::test]
async fn the_warnings_of_one_borrower_are_not_taken_for_the_nexts() {
    let db = database().await;
    let engine = one_connection(&db);
    let connection = engine.connect().await.expect("a connection");
    let warn = "DO $$BEGIN RAISE WARNING 'careful'; END$$";
    connection
        .client()
        .batch_execute(warn)
        .await
        .expect("warned");
    // This one warns, too: there is no transaction.
    queue(connection.client().batch_execute("ROLLBACK"));
    drop(connection);
    let mut session = SessionFactory::new(engine.clone()).session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let committed: Committed = session.commit().await.expect("committed");
    assert_eq!(committed.durability, Durability::Durable);
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn a_limit_of_messages_that_is_too_low_is_refused_and_a_longer_row_ends_its_connection() {
    let db = database().await;
    let error = builder(&db.url())
        .max_message(1000)
        .build()
        .expect_err("too low");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("max_message"), "{error}");
    let engine = builder(&db.url())
        .max_message(64 * 1024)
        .build()
        .expect("good settings");
    let row = async |length: i32| engine.query_one("SELECT repeat('x', $1)", &[&length]).await;
    row(60_000).await.expect("short enough");
    let error = row(70_000).await.expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::ConnectionLost);
    let cause = std::error::Error::source(&error)
        .expect("a cause")
        .to_string();
    assert!(cause.contains("message of 70"), "{cause}");
    row(1).await.expect("on another connection");
}
