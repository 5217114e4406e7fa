//! Settings for one transaction.

use std::time::Duration;

use pool_postgres::{ErrorKind, SessionFactory};

use crate::round_trips::{behind_a_proxy, trips};
use crate::support::{count, database, one_connection, pid, sessions};

/// What a hostile or careless name looks like.
const HOSTILE: [&str; 6] = [
    "x\"; DROP TABLE t; --",
    "'",
    "public, other",
    "Größe",
    " ",
    "$1",
];

#[tokio::test]
async fn what_is_set_for_a_transaction_ends_with_it() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let server = pid(&mut session).await;
    let shown = "SELECT current_setting('app.tenant', true), current_setting('work_mem')";
    for ends_well in [true, false] {
        session
            .set_local("app.tenant", "acme'; --")
            .await
            .expect("set");
        session.set_local("work_mem", "7MB").await.expect("set");
        let row: (Option<String>, String) = session.query_one_as(shown, &[]).await.expect("shown");
        assert_eq!(row, (Some("acme'; --".to_owned()), "7MB".to_owned()));
        if ends_well {
            let _ = session.commit().await.expect("committed");
        } else {
            session.rollback().await.expect("rolled back");
        }
        assert_eq!(pid(&mut session).await, server, "the same connection");
        let row: (Option<String>, String) = session.query_one_as(shown, &[]).await.expect("shown");
        assert!(row.0.is_none_or(|tenant| tenant.is_empty()));
        assert_ne!(row.1, "7MB");
        session.rollback().await.expect("rolled back");
    }
}

#[tokio::test]
async fn names_are_taken_as_they_are_whatever_is_in_them() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    for name in HOSTILE {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        session
            .batch(&format!(
                "CREATE SCHEMA {quoted}; CREATE TABLE {quoted}.here (n bigint)"
            ))
            .await
            .expect("created");
        session
            .set_local_search_path(&[name, "public"])
            .await
            .expect("set");
        session
            .query("SELECT n FROM here", &[])
            .await
            .expect("found there");
        session
            .query("SELECT n FROM t", &[])
            .await
            .expect("and in public");
        session.rollback().await.expect("rolled back");
        let refused = session
            .set_local(name, "1")
            .await
            .expect_err("no such setting");
        assert!(refused.sqlstate().is_some(), "{name:?}: {refused}");
        session.rollback().await.expect("rolled back");
        let refused = session
            .set_local_role(name)
            .await
            .expect_err("no such role");
        assert!(refused.sqlstate().is_some(), "{name:?}: {refused}");
        session.rollback().await.expect("rolled back");
    }
    engine
        .query("SELECT n FROM t", &[])
        .await
        .expect("still there");
    let error = session
        .set_local("app.x", "a\0b")
        .await
        .expect_err("no text");
    assert_eq!(error.sqlstate(), Some("22021"), "{error}");
}

#[tokio::test]
async fn a_role_taken_on_is_laid_down_with_the_transaction() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let user = "SELECT current_user::text";
    let mut session = sessions.session();
    let before: String = session.query_scalar(user, &[]).await.expect("a user");
    session
        .set_local_role("pg_monitor")
        .await
        .expect("a member of it");
    let during: String = session.query_scalar(user, &[]).await.expect("a user");
    assert_eq!(during, "pg_monitor");
    drop(session);
    let mut session = sessions.session();
    let after: String = session.query_scalar(user, &[]).await.expect("a user");
    assert_eq!(after, before);
}

#[tokio::test]
async fn without_a_transaction_nothing_can_be_set_for_one() {
    let db = database().await;
    let engine = one_connection(&db);
    let mut session = SessionFactory::new(engine.clone()).autocommit().session();
    for error in [
        session
            .set_local("work_mem", "7MB")
            .await
            .expect_err("left behind"),
        session
            .set_local_role("pg_monitor")
            .await
            .expect_err("left behind"),
        session
            .set_local_search_path(&["public"])
            .await
            .expect_err("left behind"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("autocommit"), "{error}");
    }
    assert_eq!(engine.status().in_use, 0);
}

#[tokio::test]
async fn a_factorys_settings_travel_with_begin_and_end_with_each_transaction() {
    let db = database().await;
    let (engine, proxy) = behind_a_proxy(&db).await;
    let plain = SessionFactory::new(engine.clone());
    let tenant = plain
        .with_local("app.tenant", "a'b\\c\"; --")
        .with_local("role", "pg_monitor")
        .statement_timeout(Duration::from_secs(5));
    let show = "SELECT current_setting('app.tenant', true), current_user::text";
    let mut session = tenant.session();
    session.query(show, &[]).await.expect("prepared");
    for _ in 0..2 {
        let _ = session.commit().await.expect("committed");
        let (taken, row) = trips(&proxy, session.query_one_as::<(String, String)>(show, &[])).await;
        let expected = ("a'b\\c\"; --".to_owned(), "pg_monitor".to_owned());
        assert_eq!(row.expect("a row"), expected);
        assert_eq!(taken, 1, "BEGIN, settings, timeouts and the statement");
    }
    drop(session);
    let after: (Option<String>, String) = engine.query_one_as(show, &[]).await.expect("a row");
    assert_eq!(
        (after.0.unwrap_or_default().as_str(), after.1.as_str()),
        ("", "app")
    );
    assert_eq!(engine.status().open, 1);
}

#[tokio::test]
async fn a_factorys_setting_that_is_refused_lets_no_statement_run() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let insert = "INSERT INTO t VALUES (1)";
    engine.execute(insert, &[]).await.expect("prepared");
    for (name, value) in [
        ("role", "nobody at all"),
        ("no such", "1"),
        ("work_mem", "much"),
    ] {
        for sql in [insert, "INSERT INTO t VALUES (2)"] {
            let mut session = sessions.with_local(name, value).session();
            let error = session.execute(sql, &[]).await.expect_err("refused");
            assert!(
                error.sqlstate().is_some_and(|code| code != "25P02"),
                "{name}: {error}"
            );
            session.commit().await.expect_err("it failed");
        }
    }
    for sessions in [
        sessions.with_local("a.b", "c\0d"),
        sessions.with_local("a.b", "c").autocommit(),
    ] {
        let error = sessions
            .session()
            .execute(insert, &[])
            .await
            .expect_err("refused here");
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert_eq!(engine.status().in_use, 0);
    }
    assert_eq!(count(&engine).await, 1);
}
