//! What is logged of statements, and what never is.

use std::time::Duration;

use pool_postgres::{Engine, EngineBuilder, ErrorKind, SessionFactory};
use tokio::time::Instant;
use tracing::Level;

use crate::log;
use crate::support::{SOON, builder, database};

const SLOW: Duration = Duration::from_millis(40);

async fn engine(
    settings: impl FnOnce(EngineBuilder) -> EngineBuilder,
) -> (testbed::TestDatabase, Engine) {
    let db = database().await;
    let engine = settings(builder(&db.url())).build().expect("good settings");
    engine.ping().await.expect("a connection");
    log::listen();
    (db, engine)
}

/// The one line that says this.
fn only(lines: &[String], what: &str) -> String {
    let found: Vec<_> = lines.iter().filter(|line| line.contains(what)).collect();
    assert_eq!(found.len(), 1, "{what}: {lines:#?}");
    found[0].clone()
}

#[tokio::test]
async fn a_slow_statement_is_logged_with_its_line_and_without_its_parameters() {
    let (_db, engine) = engine(|builder| builder.log_slow(SLOW)).await;
    let sql = "SELECT pg_sleep($1), $2::text";
    let line = line!() + 1;
    let rows = engine.query(sql, &[&0.05, &"a secret"]).await;
    rows.expect("a row");
    let told = only(&log::warnings(), "a slow statement");
    assert!(told.contains(sql), "{told}");
    assert!(told.contains(&format!("logging.rs:{line}")), "{told}");
    assert!(!told.contains("secret"), "{told}");
}

#[tokio::test]
async fn what_is_quick_is_not_logged() {
    let (_db, engine) = engine(|builder| builder.log_slow(Duration::from_mins(1))).await;
    let mut session = SessionFactory::new(engine.clone()).session();
    session.query("SELECT 1", &[]).await.expect("a row");
    let _ = session.commit().await.expect("committed");
    engine.shared().query("SELECT 1", &[]).await.expect("a row");
    assert_eq!(log::warnings(), Vec::<String>::new());
}

#[tokio::test]
async fn a_statement_that_does_not_end_is_logged_while_it_runs() {
    for shared in [false, true] {
        let (_db, engine) = engine(|builder| builder.log_slow(SLOW)).await;
        let sessions = SessionFactory::new(engine.clone());
        let mut session = sessions.session();
        let shared = shared.then(|| engine.shared());
        let sql = "SELECT pg_sleep(60)";
        let running = async {
            match &shared {
                Some(shared) => shared.query(sql, &[]).await,
                None => session.query(sql, &[]).await,
            }
        };
        let told = async {
            let deadline = Instant::now() + SOON;
            loop {
                let lines = log::warnings();
                if lines.iter().any(|line| line.contains("still running")) {
                    return only(&lines, "still running");
                }
                assert!(Instant::now() < deadline, "nobody told");
                tokio::task::yield_now().await;
            }
        };
        let told = tokio::select! {
            _ = running => panic!("it ended"),
            told = told => told,
        };
        assert!(told.contains(sql) && told.contains("logging.rs"), "{told}");
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = $1
                   AND datname = current_database()";
        engine.query(end, &[&sql]).await.expect("ended");
    }
}

#[tokio::test]
async fn warnings_of_a_kind_come_once_a_second_with_a_count_of_what_was_held_back() {
    let (_db, engine) = engine(|builder| builder.log_slow(Duration::from_millis(1))).await;
    let begun = Instant::now();
    let mut statements = 0_u64;
    // As many as there are until a second has passed, and the one that tells of them.
    let mut lines: Vec<String> = Vec::new();
    while lines
        .iter()
        .filter(|line| line.contains("a slow statement"))
        .count()
        < 2
    {
        engine
            .query("SELECT pg_sleep(0.02)", &[])
            .await
            .expect("a row");
        statements += 1;
        lines.extend(log::warnings());
        assert!(begun.elapsed() < SOON, "{lines:#?}");
    }
    assert!(begun.elapsed() >= Duration::from_millis(900), "too soon");
    let slow: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("a slow statement"))
        .collect();
    assert!(slow[0].contains("held_back=0"), "{slow:?}");
    assert!(
        slow[1].contains(&format!("held_back={} ", statements - 2)),
        "{statements}: {slow:?}"
    );
}

#[tokio::test]
async fn every_statement_is_logged_where_that_is_asked_for_and_how_it_ended() {
    let settings =
        |builder: EngineBuilder| builder.log_statements(Level::WARN).log_parameters(true);
    let (_db, engine) = engine(settings).await;
    let mut session = SessionFactory::new(engine.clone()).session();
    session
        .query("SELECT $1::int4", &[&42_i32])
        .await
        .expect("a row");
    session
        .query("SELECT 1 / 0", &[])
        .await
        .expect_err("division by zero");
    session.rollback().await.expect("rolled back");
    session.batch("SELECT 7; SELECT 8").await.expect("done");
    let _ = session.commit().await.expect("committed");
    engine.shared().query("SELECT 9", &[]).await.expect("a row");
    let lines = log::warnings();
    let good = only(&lines, "statement=SELECT $1::int4 ");
    assert!(good.contains("42") && !good.contains("failure"), "{good}");
    assert!(only(&lines, "statement=SELECT 1 / 0 ").contains("division by zero"));
    for sql in ["SELECT 7; SELECT 8", "COMMIT", "SELECT 9"] {
        only(&lines, &format!("statement={sql} "));
    }
}

#[tokio::test]
async fn a_statement_has_a_span_by_the_names_of_open_telemetry() {
    let (_db, engine) = engine(|builder| builder).await;
    let sql = "/* x */ select $1::text";
    let line = line!() + 1;
    let rows = engine.query(sql, &[&"secret"]).await;
    rows.expect("a row");
    engine
        .query("SELECT 1 / 0", &[])
        .await
        .expect_err("division by zero");
    let spans = log::spans();
    let good = only(&spans, "select $1::text");
    for field in [
        "db.system.name=\"postgresql\"",
        "db.operation.name=\"SELECT\"",
        "db.namespace=test_",
        "otel.kind=\"client\"",
        "server.address=\"127.0.0.1\"",
        "server.port=",
        &format!("code.line.number={line}"),
    ] {
        assert!(good.contains(field), "{field}: {good}");
    }
    assert!(
        !good.contains("secret") && !good.contains("error.type"),
        "{good}"
    );
    let bad = only(&spans, "SELECT 1 / 0");
    assert!(bad.contains("db.response.status_code=\"22012\""), "{bad}");
    assert!(bad.contains("error.type=Data"), "{bad}");
}

#[tokio::test]
async fn a_statement_whose_caller_leaves_is_logged_as_dropped_and_runs_no_more() {
    let settings = |builder: EngineBuilder| builder.log_statements(Level::WARN);
    let one = |builder: EngineBuilder| settings(builder).pool_size(1).max_overflow(0);
    let (_db, engine) = engine(one).await;
    let sql = "SELECT pg_sleep(60)";
    let left = tokio::time::timeout(Duration::from_millis(50), engine.query(sql, &[])).await;
    assert!(left.is_err());
    engine.ping().await.expect("the next borrower");
    let told = only(&log::warnings(), sql);
    assert!(told.contains("dropped before its answer"), "{told}");
}

#[test]
fn a_threshold_of_zero_is_refused() {
    let error = builder("postgresql://localhost/x")
        .log_slow(Duration::ZERO)
        .build();
    let error = error.expect_err("every statement would be slow");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("log_statements"), "{error}");
}
