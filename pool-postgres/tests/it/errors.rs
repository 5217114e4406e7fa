//! What errors say: kinds for the server's codes, outcomes, the statement and the place in it.

use std::error::Error as _;

use pool_postgres::{Engine, Error, ErrorKind, Outcome, SessionFactory};
use testbed::TestDatabase;

use crate::support::{SOON, builder, count, database, one_connection, pid, sessions, until};

/// What the statements below are provoked with.
const SETUP: &str = "
    INSERT INTO t VALUES (1);
    CREATE TABLE parent (id int PRIMARY KEY, name varchar(3) NOT NULL, age int CHECK (age > 0));
    INSERT INTO parent VALUES (1, 'ada', 36);
    CREATE TABLE child (parent int REFERENCES parent);
    CREATE TABLE spans (span int4range, EXCLUDE USING gist (span WITH &&));
    INSERT INTO spans VALUES ('[1,5)');
    CREATE VIEW small AS SELECT n FROM t WHERE n < 10 WITH CHECK OPTION;
    CREATE SEQUENCE numbers;
    CREATE FUNCTION raises() RETURNS int LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;
    CREATE FUNCTION forgets() RETURNS int LANGUAGE plpgsql AS $$BEGIN END$$;
    CREATE FUNCTION strict_about(n bigint) RETURNS int LANGUAGE plpgsql AS
        $$DECLARE found int; BEGIN SELECT 1 INTO STRICT found FROM generate_series(1, n); RETURN found; END$$;
    CREATE FUNCTION asserts() RETURNS int LANGUAGE plpgsql AS $$BEGIN ASSERT false; END$$;
    CREATE FUNCTION recurses() RETURNS int LANGUAGE plpgsql AS $$BEGIN RETURN recurses(); END$$;
";

/// Statements that fail by themselves, each with its code.
const ALONE: [(&str, &str); 52] = [
    ("42601", "SELEC 1"),
    ("42P01", "SELECT * FROM nowhere"),
    ("42703", "SELECT nothing FROM t"),
    ("42883", "SELECT nothing(1)"),
    ("42804", "SELECT CASE WHEN 1 THEN 2 END"),
    ("42P07", "CREATE TABLE t (n int)"),
    ("42701", "CREATE TABLE twice (n int, n int)"),
    ("42702", "SELECT n FROM t AS a, t AS b"),
    ("42803", "SELECT n, count(*) FROM t"),
    ("42501", "SELECT * FROM pg_authid"),
    ("42704", "SELECT 1::nothing"),
    ("42P06", "CREATE SCHEMA public"),
    ("42846", "SELECT ROW(1)::int"),
    (
        "42P10",
        "INSERT INTO t VALUES (1) ON CONFLICT (n) DO NOTHING",
    ),
    ("42P18", "SELECT pg_typeof($1)"),
    ("22012", "SELECT 1 / 0"),
    ("22003", "SELECT 2147483647 + 1"),
    ("22P02", "SELECT 'x'::int"),
    ("22001", "INSERT INTO parent VALUES (2, 'Lovelace', 1)"),
    ("22007", "SELECT 'x'::date"),
    ("22008", "SELECT '2020-13-01'::date"),
    ("22023", "SET work_mem = 'much'"),
    ("22021", "SELECT convert_from('\\xff', 'UTF8')"),
    ("2201E", "SELECT ln(0)"),
    ("2201F", "SELECT power(0, -1)"),
    ("2201W", "SELECT 1 LIMIT -1"),
    ("22004", "SELECT array_fill(1, NULL)"),
    ("22025", "SELECT 'ab' LIKE 'a\\'"),
    ("2201B", "SELECT 'a' ~ '('"),
    ("21000", "SELECT (SELECT generate_series(1, 2))"),
    ("23505", "INSERT INTO parent VALUES (1, 'bob', 1)"),
    ("23503", "INSERT INTO child VALUES (7)"),
    ("23502", "INSERT INTO parent VALUES (2, NULL, 1)"),
    ("23514", "INSERT INTO parent VALUES (2, 'bob', -1)"),
    ("23P01", "INSERT INTO spans VALUES ('[4,6)')"),
    ("44000", "INSERT INTO small VALUES (11)"),
    ("25P01", "SAVEPOINT outside"),
    ("2BP01", "DROP TABLE parent"),
    ("26000", "EXECUTE nothing"),
    ("34000", "FETCH nothing"),
    ("3F000", "CREATE TABLE nowhere.t (n int)"),
    ("3D000", "ALTER DATABASE nowhere SET work_mem = '1MB'"),
    ("0A000", "SELECT count(*) FROM t FOR UPDATE"),
    ("54000", "SELECT repeat('x', 1500000000)"),
    ("54001", "SELECT recurses()"),
    ("55000", "SELECT currval('numbers')"),
    ("57014", "SELECT pg_sleep(10)"),
    ("P0001", "SELECT raises()"),
    ("P0002", "SELECT strict_about(0)"),
    ("P0003", "SELECT strict_about(2)"),
    ("P0004", "SELECT asserts()"),
    ("2F005", "SELECT forgets()"),
];

/// The kind that the documentation gives for a code: the code's own row, or its class's.
fn documented(code: &str) -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `") || line.starts_with("| any other"))
        .map(|line| line.split('|').map(str::trim).collect())
        .filter(|cells: &Vec<&str>| cells.len() == 7)
        .collect();
    let kind = |wanted: &str| {
        let row = rows
            .iter()
            .find(|cells| cells[1].split(", ").any(|name| name == wanted))?;
        Some(row[3].trim_matches('`').to_owned())
    };
    kind(&format!("`{code}`"))
        .or_else(|| kind(&format!("`{}`", &code[..2])))
        .or_else(|| kind("any other"))
        .expect("a row")
}

/// Holds an error against its code and the documentation.
fn assert_as_documented(error: &Error, code: &str) {
    assert_eq!(error.sqlstate(), Some(code), "{error:#}");
    // What refuses a connection at its start is a statement's own failure later.
    let kind = match (format!("{:?}", error.kind()), error.connection_is_good()) {
        (kind, true) if code == "3D000" && kind == "Statement" => "NoSuchDatabase".to_owned(),
        (kind, _) => kind,
    };
    assert_eq!(kind, documented(code), "{code}: {error:#}");
}

async fn prepared_database() -> TestDatabase {
    let db = database().await;
    let connection = one_connection(&db).connect().await.expect("a connection");
    connection
        .client()
        .batch_execute(SETUP)
        .await
        .expect("set up");
    db
}

#[tokio::test]
async fn each_failing_statement_has_the_kind_that_is_documented_and_leaves_the_connection_good() {
    let db = prepared_database().await;
    let engine = builder(&format!("{}?options=-cstatement_timeout%3D1000", db.url()))
        .pool_size(1)
        .max_overflow(0)
        .build()
        .expect("good settings");
    let before = backend(&engine).await;
    for (code, sql) in ALONE {
        let error = engine.execute(sql, &[]).await.expect_err(sql);
        assert_as_documented(&error, code);
        assert!(error.connection_is_good(), "{code}: {error:#}");
        assert_eq!(error.outcome(), Outcome::NotApplied, "{code}: {error:#}");
        assert!(!error.is_retryable(), "{code}: {error:#}");
        assert!(
            sql.starts_with(error.statement().expect("a statement")),
            "{code}"
        );
    }
    assert_eq!(backend(&engine).await, before, "all on one connection");
}

async fn backend(engine: &Engine) -> i32 {
    let row = engine.query_one("SELECT pg_backend_pid()", &[]).await;
    row.expect("a pid").get(0)
}

#[tokio::test]
async fn what_fails_only_inside_a_transaction_has_the_kind_that_is_documented() {
    let db = prepared_database().await;
    let (_engine, sessions) = sessions(&db);
    for (code, sql) in [
        ("25001", "VACUUM"),
        ("3B001", "ROLLBACK TO SAVEPOINT nothing"),
        ("2D000", "DO $$BEGIN COMMIT; END$$"),
    ] {
        let mut session = sessions.session();
        session.execute("SELECT 1", &[]).await.expect("begun");
        let error = session.execute(sql, &[]).await.expect_err(sql);
        assert_as_documented(&error, code);
    }
    let mut session = sessions.read_only().session();
    let error = session.execute("INSERT INTO t VALUES (1)", &[]).await;
    assert_as_documented(&error.expect_err("read-only"), "25006");
    drop(session);
    let connection = one_connection(&db).connect().await.expect("a connection");
    let client = connection.client();
    client.batch_execute("BEGIN").await.expect("begun");
    client
        .batch_execute("SELECT 1/0")
        .await
        .expect_err("division");
    let error = client.batch_execute("SELECT 1").await.expect_err("failed");
    assert_as_documented(&Error::from(error), "25P02");
}

#[tokio::test]
async fn what_the_superuser_can_provoke_has_the_kind_that_is_documented() {
    let db = prepared_database().await;
    let engine = builder(&db.superuser_url())
        .pool_size(1)
        .build()
        .expect("good settings");
    let open = format!("DROP DATABASE {}", db.name());
    for (code, sql) in [
        ("58P01", "SELECT pg_read_file('nothing')"),
        ("55006", &*open),
    ] {
        let error = engine.execute(sql, &[]).await.expect_err(sql);
        assert_as_documented(&error, code);
        assert!(error.connection_is_good(), "{code}: {error:#}");
    }
}

#[tokio::test]
async fn a_lock_that_is_not_to_be_had_is_busy_and_may_be_tried_again() {
    let db = database().await;
    let holder = one_connection(&db);
    let mut holding = SessionFactory::new(holder).session();
    holding.execute("LOCK TABLE t", &[]).await.expect("locked");
    let (_engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let error = session.execute("LOCK TABLE t NOWAIT", &[]).await;
    let error = error.expect_err("another holds it");
    assert_as_documented(&error, "55P03");
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_transaction_that_lost_against_another_may_be_tried_again() {
    let db = database().await;
    let engine = builder(&db.url())
        .pool_size(2)
        .build()
        .expect("good settings");
    let sessions =
        SessionFactory::new(engine.clone()).isolation(pool_postgres::IsolationLevel::Serializable);
    let read = "SELECT count(*) FROM t";
    let write = "INSERT INTO t SELECT count(*) FROM t";
    let (mut first, mut second) = (sessions.session(), sessions.session());
    first.query(read, &[]).await.expect("read");
    second.query(read, &[]).await.expect("read");
    first.execute(write, &[]).await.expect("written");
    second.execute(write, &[]).await.expect("written");
    let _ = first.commit().await.expect("the first wins");
    let error = second.commit().await.expect_err("the second loses");
    assert_as_documented(&error, "40001");
    assert!(error.is_retryable() && error.connection_is_good());

    engine
        .execute("INSERT INTO t VALUES (100), (200)", &[])
        .await
        .expect("two rows");
    let sessions = SessionFactory::new(engine);
    let (mut first, mut second) = (sessions.session(), sessions.session());
    let update = "UPDATE t SET n = n WHERE n = $1";
    first.execute(update, &[&100_i64]).await.expect("locked");
    second.execute(update, &[&200_i64]).await.expect("locked");
    let (one, other) = tokio::join!(
        first.execute(update, &[&200_i64]),
        second.execute(update, &[&100_i64])
    );
    let error = one
        .err()
        .or(other.err())
        .expect("one of them is sacrificed");
    assert_as_documented(&error, "40P01");
    assert!(error.is_retryable() && error.connection_is_good());
}

#[tokio::test]
async fn what_ended_a_connection_is_the_cause_of_the_next_error_on_it() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let watcher = one_connection(&db);
    let mut session = sessions.session();
    let victim = pid(&mut session).await;
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    watcher
        .execute("SELECT pg_terminate_backend($1, 10000)", &[&victim])
        .await
        .expect("terminated");
    let error = session.execute("SELECT 1", &[]).await.expect_err("ended");
    assert_as_documented(&error, "57P01");
    assert!(!error.connection_is_good());
    assert_eq!(
        error.outcome(),
        Outcome::NotApplied,
        "the transaction is rolled back"
    );
    assert!(error.is_retryable(), "nothing of it happened");
    session.rollback().await.expect("no error");
    assert_eq!(count(&engine).await, 0);
}

#[tokio::test]
async fn a_transaction_idle_for_too_long_says_so_at_its_commit() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let watcher = one_connection(&db);
    let mut session = sessions.session();
    let victim = pid(&mut session).await;
    session
        .execute("SET idle_in_transaction_session_timeout = 1", &[])
        .await
        .expect("set");
    let gone = format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {victim}");
    until(&watcher, &gone).await;
    let error = session.commit().await.expect_err("it is too late");
    let message = format!("{error}: {:?}", error.source());
    assert!(
        matches!(
            error.kind(),
            ErrorKind::ConnectionLost | ErrorKind::OutcomeUnknown
        ),
        "{message}"
    );
    assert_eq!(error.sqlstate(), Some("25P03"), "{message}");
}

#[tokio::test]
async fn connections_that_the_server_refuses_have_the_kinds_that_are_documented() {
    let db = database().await;
    let admin = builder(&db.superuser_url())
        .pool_size(1)
        .build()
        .expect("good settings");
    let nowhere = builder(&db.url().replace(db.name(), "nowhere"))
        .build()
        .expect("good settings");
    let error = nowhere
        .execute("SELECT 1", &[])
        .await
        .expect_err("no such database");
    assert_as_documented(&error, "3D000");
    assert_eq!(error.outcome(), Outcome::NotSent);
    let limit = format!("ALTER DATABASE \"{}\" CONNECTION LIMIT 0", db.name());
    admin.execute(&limit, &[]).await.expect("limited");
    let refused = builder(&db.url()).build().expect("good settings");
    let error = tokio::time::timeout(SOON, refused.execute("SELECT 1", &[]));
    let error = error.await.expect("in time").expect_err("no room");
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    assert!(
        error.sqlstate() == Some("53300") || cause.contains("53300"),
        "{error}: {cause}"
    );
}

#[tokio::test]
async fn an_error_shows_the_place_in_the_statement_and_never_its_parameters_unless_asked() {
    let db = prepared_database().await;
    let engine = one_connection(&db);
    let sql = "SELECT id,\n       nmae\nFROM parent";
    let error = engine.query(sql, &[]).await.expect_err("no such column");
    assert_eq!(error.position(), Some(19), "{error:#}");
    let shown = format!("{error:#}");
    assert!(
        shown.contains("\n  line 2:        nmae\n                 ^\n"),
        "{shown}"
    );
    assert!(shown.contains("hint: Perhaps you meant"), "{shown}");
    assert!(!error.to_string().contains('\n'), "one line: {error}");

    let secret = "s3cret-value";
    let insert = "INSERT INTO parent VALUES ($1, $2, 1)";
    let error = engine
        .execute(insert, &[&2_i32, &secret])
        .await
        .expect_err("too long");
    for shown in [
        format!("{error}"),
        format!("{error:#}"),
        format!("{error:?}"),
    ] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert_eq!(
        (error.statement(), error.parameters()),
        (Some(insert), None)
    );
    let open = builder(&db.url())
        .show_parameters(true)
        .build()
        .expect("good settings");
    let error = open
        .execute(insert, &[&2_i32, &secret])
        .await
        .expect_err("too long");
    assert_eq!(error.parameters(), Some("[2, \"s3cret-value\"]"));
    assert!(format!("{error:#}").contains(secret));
    let mut session = SessionFactory::new(open).session();
    let error = session
        .execute(insert, &[&3_i32, &secret])
        .await
        .expect_err("too long");
    assert_eq!(error.parameters(), Some("[3, \"s3cret-value\"]"));

    let error = engine
        .execute("INSERT INTO parent VALUES (1, 'bob', 1)", &[])
        .await;
    let error = error.expect_err("taken");
    assert_eq!(error.constraint(), Some("parent_pkey"));
    assert_eq!(error.table(), Some("parent"));
    let error = engine
        .execute("ALTER ROLE nobody PASSWORD 'hidden' NONSENSE", &[])
        .await;
    let error = error.expect_err("nonsense");
    assert!(
        !format!("{error:#}{error:?}").contains("hidden"),
        "{error:#}"
    );
}
