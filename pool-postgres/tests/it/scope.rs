//! Scopes: what confines a transaction travels with `BEGIN`, is proved before a row is handed out, and leaves nothing.

use pool_postgres::{Engine, ErrorKind, Scope, SessionFactory};

use crate::round_trips::{behind_a_proxy, trips};
use crate::support::{builder, count, database, pid, sessions};

/// Two schemas with a table of the same name, whose column is of a type of its own.
async fn two_schemas(engine: &Engine) {
    for (schema, kind) in [("acme", "text"), ("beta", "bigint")] {
        for sql in [
            format!("CREATE SCHEMA {schema}"),
            format!("CREATE TABLE {schema}.orders (item {kind})"),
            format!("INSERT INTO {schema}.orders VALUES ('1')"),
        ] {
            engine.execute(&sql, &[]).await.expect("created");
        }
    }
}

fn of_schema(schema: &str) -> Scope {
    Scope::new(schema)
        .set("search_path", &format!("\"{schema}\", pg_temp"))
        .expect("current_schema()", schema)
        .separate_statements()
}

#[tokio::test]
async fn a_scope_is_set_and_proved_in_the_round_trip_of_the_first_statement() {
    let db = database().await;
    let (engine, proxy) = behind_a_proxy(&db).await;
    two_schemas(&engine).await;
    let sessions = SessionFactory::new(engine.clone());
    let mut session = sessions.with_scope(&of_schema("acme")).session();
    let read = "SELECT item FROM orders";
    session.query(read, &[]).await.expect("prepared");
    let _ = session.commit().await.expect("committed");
    assert_eq!(session.scope(), Some("acme"));
    let (taken, item) = trips(&proxy, session.query_scalar::<String>(read, &[])).await;
    assert_eq!(item.expect("a row"), "1");
    assert_eq!(taken, 1, "BEGIN, the setting, the proof and the statement");
}

#[tokio::test]
async fn statements_of_one_scope_never_answer_for_another() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    two_schemas(&engine).await;
    let (acme, beta) = (
        sessions.with_scope(&of_schema("acme")),
        sessions.with_scope(&of_schema("beta")),
    );
    let read = "SELECT item FROM orders";
    for _ in 0..3 {
        let item: String = acme.session().query_scalar(read, &[]).await.expect("text");
        assert_eq!(item, "1");
        let item: i64 = beta
            .session()
            .query_scalar(read, &[])
            .await
            .expect("a number");
        assert_eq!(item, 1);
    }
    let prepared =
        "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT item FROM orders'";
    let plans: i64 = engine.query_scalar(prepared, &[]).await.expect("counted");
    assert_eq!(plans, 2, "one for each, used again");
    engine
        .query(read, &[])
        .await
        .expect_err("nobody's statement is anybody's");
}

#[tokio::test]
async fn where_the_proof_fails_nothing_of_the_transaction_runs() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let insert = "INSERT INTO t VALUES (1)";
    engine.execute(insert, &[]).await.expect("prepared");
    // Falls through to `public`, where there is a table of that name.
    let missing = Scope::new("o'hara\\")
        .set("search_path", "missing, public")
        .expect("current_schema()", "missing");
    let sessions = sessions.with_scope(&missing);
    for attempt in 0..4 {
        let mut session = sessions.session();
        let error = match attempt {
            0 => session.execute(insert, &[]).await.map(drop),
            1 => session.batch(insert).await,
            2 => session.copy_in("COPY t FROM STDIN").await.map(drop),
            _ => session
                .pipeline()
                .statement(insert, &[])
                .run()
                .await
                .map(drop),
        };
        let error = error.expect_err("it does not hold");
        assert_eq!(error.kind(), ErrorKind::Scope, "{attempt}: {error}");
        let text = error.to_string();
        let expected = "current_schema() is public and not missing";
        assert!(
            text.ends_with(expected) && text.contains("o'hara"),
            "{text}"
        );
        session.commit().await.expect_err("it failed");
    }
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn a_confined_session_can_not_leave_its_scope_by_its_own_calls() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let scope = Scope::new("acme")
        .set("app.tenant_id", "acme")
        .expect("current_setting('app.tenant_id', true)", "acme");
    let confined = sessions.with_scope(&scope);
    for error in [
        confined
            .session()
            .set_local("App.Tenant_id", "beta")
            .await
            .expect_err("held"),
        confined
            .with_local("app.tenant_id", "beta")
            .session()
            .query("SELECT 1", &[])
            .await
            .expect_err("held"),
        confined
            .with_scope(&Scope::new("beta"))
            .session()
            .query("SELECT 1", &[])
            .await
            .expect_err("confined"),
        confined
            .autocommit()
            .session()
            .query("SELECT 1", &[])
            .await
            .expect_err("no transaction"),
        sessions
            .with_scope(&Scope::new("a").expect("'a'", "\0"))
            .session()
            .query("SELECT 1", &[])
            .await
            .expect_err("a NUL"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    }
    assert_eq!(engine.status().in_use, 0);
    // What was set before is set again by the scope, and what else is set stays possible.
    let both = sessions
        .with_local("app.tenant_id", "beta")
        .with_scope(&scope)
        .with_local("work_mem", "7MB");
    let shown = "SELECT current_setting('app.tenant_id'), current_setting('work_mem')";
    let row: (String, String) = both
        .session()
        .query_one_as(shown, &[])
        .await
        .expect("shown");
    assert_eq!((row.0.as_str(), row.1.as_str()), ("acme", "7MB"));
}

#[tokio::test]
async fn what_a_confined_session_leaves_on_its_connection_is_gone_for_the_next() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let confined = sessions.with_scope(&Scope::new("acme").set("app.tenant_id", "acme"));
    let server = pid(&mut sessions.session()).await;
    for sql in [
        "SET app.tenant_id = 'acme'",
        "SELECT set_config('app.tenant_id', 'acme', false)",
        "CREATE TEMP TABLE left_here AS SELECT 1",
        "DECLARE left_here CURSOR WITH HOLD FOR SELECT 1",
    ] {
        for alone in [true, false] {
            let mut session = confined.session();
            if alone {
                session.execute(sql, &[]).await.expect("done");
            } else {
                session.batch(sql).await.expect("done");
            }
            let _ = session.commit().await.expect("committed");
            drop(session);
            let left = "SELECT coalesce(current_setting('app.tenant_id', true), '') \
                 || (SELECT count(*) FROM pg_cursors WHERE is_holdable) || (to_regclass('left_here') IS NOT NULL)::text";
            let left: String = engine.query_scalar(left, &[]).await.expect("shown");
            assert_eq!(left, "0false", "{sql}");
        }
    }
    assert_eq!(pid(&mut sessions.session()).await, server, "made as new");
}

#[tokio::test]
async fn a_connection_that_has_served_many_scopes_is_closed_at_its_return() {
    let db = database().await;
    let engine = builder(&db.url())
        .pool_size(1)
        .max_overflow(0)
        .max_scopes(2)
        .build()
        .expect("settings");
    let sessions = SessionFactory::new(engine.clone());
    let mut servers = Vec::new();
    for name in ["a", "b", "a", "c", "d"] {
        let scope = Scope::new(name).separate_statements();
        servers.push(pid(&mut sessions.with_scope(&scope).session()).await);
    }
    assert!(
        servers[..4].iter().all(|it| *it == servers[0]),
        "{servers:?}"
    );
    assert_ne!(servers[4], servers[0]);
}
