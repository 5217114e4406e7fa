//! Settings for one transaction.

use pool_postgres::ErrorKind;

use crate::support::{database, one_connection, pid, sessions};

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
    let mut session = pool_postgres::SessionFactory::new(engine.clone())
        .autocommit()
        .session();
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
