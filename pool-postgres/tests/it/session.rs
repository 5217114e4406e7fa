//! Sessions: when they borrow, what they see, how they end.

use pool_postgres::{Error, ErrorKind, IsolationLevel, Session, SessionFactory};

use crate::support::{
    Lending, assert_next_borrower_is_at_ease, builder, count, database, one_connection, pid,
    sessions,
};

#[tokio::test]
async fn nothing_is_borrowed_before_the_first_statement_nor_after_the_end() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    engine.execute("SELECT 1", &[]).await.expect("warm");
    let mut session = sessions.session();
    assert_eq!(engine.status().in_use, 0);
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    assert_eq!(engine.status().in_use, 1);
    let done = session.commit().await.expect("committed");
    assert_eq!((done.token, engine.status().in_use), (None, 0));
    session
        .execute("INSERT INTO t VALUES (2)", &[])
        .await
        .expect("the next transaction");
    session.rollback().await.expect("rolled back");
    assert_eq!(engine.status().in_use, 0);
    session
        .execute("INSERT INTO t VALUES (3)", &[])
        .await
        .expect("the next transaction");
    session.close().await.expect("closed");
    assert_eq!(engine.status().in_use, 0);
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn ending_a_session_that_did_nothing_sends_nothing() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let _ = session.commit().await.expect("nothing to commit");
    session.rollback().await.expect("nothing to roll back");
    session.close().await.expect("nothing to close");
    drop(session.begin_nested());
    session
        .begin_nested()
        .commit()
        .await
        .expect("nothing to keep");
    assert_eq!(engine.status().open, 0, "no connection was ever opened");
}

#[tokio::test]
async fn a_dropped_session_rolls_back_and_its_connection_is_used_again() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let first = pid(&mut session).await;
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    drop(session);
    assert_next_borrower_is_at_ease(&engine, "a dropped session").await;
    assert_eq!(count(&engine).await, 0);
    assert_eq!(pid(&mut sessions.session()).await, first);
}

#[tokio::test]
async fn a_read_only_session_is_refused_writes_by_the_server_and_ends_with_commit_when_dropped() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let reads = sessions.read_only();
    let mut session = reads.session();
    let error = session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect_err("read-only");
    assert_eq!(
        (error.kind(), error.sqlstate()),
        (ErrorKind::ReadOnly, Some("25006"))
    );
    drop(session);
    let numbers = "SELECT xact_commit, xact_rollback FROM pg_stat_database \
                   WHERE datname = current_database()";
    // A server process reports what it counted at the latest when asked to.
    let flush = "SELECT pg_stat_force_next_flush()";
    let (mut commits, mut rollbacks) = (0_i64, 0_i64);
    for round in 0..4 {
        let _ = engine.execute(flush, &[]).await;
        let row = engine.query_one(numbers, &[]).await.expect("numbers");
        if round == 1 {
            (commits, rollbacks) = (row.get(0), row.get(1));
            for _ in 0..3 {
                let mut session = reads.session();
                session.query("SELECT n FROM t", &[]).await.expect("read");
            }
        }
        if round == 3 {
            assert_eq!(
                row.get::<_, i64>(1),
                rollbacks,
                "reads raised the rollbacks"
            );
            assert!(row.get::<_, i64>(0) >= commits + 3);
        }
    }
}

#[tokio::test]
async fn a_session_used_after_an_error_says_why_it_cannot_go_on() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let error = session
        .query("SELECT 1/0", &[])
        .await
        .expect_err("division by zero");
    assert_eq!(
        (error.kind(), error.sqlstate()),
        (ErrorKind::Data, Some("22012"))
    );
    let error = session
        .query("SELECT 1", &[])
        .await
        .expect_err("the transaction has failed");
    assert_eq!(error.kind(), ErrorKind::TransactionFailed);
    let text = error.to_string();
    assert!(
        text.contains("division by zero") && text.contains("rolled back"),
        "{text}"
    );
    session.rollback().await.expect("rolled back");
    session.query("SELECT 1", &[]).await.expect("usable again");
}

#[tokio::test]
async fn wrong_row_counts_leave_the_transaction_usable() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    for (sql, text) in [
        ("SELECT 1 WHERE false", "no row"),
        ("SELECT generate_series(1, 3)", "3 rows"),
    ] {
        let error = session.query_one(sql, &[]).await.expect_err("not one row");
        assert_eq!(error.kind(), ErrorKind::RowCount);
        assert!(error.to_string().contains(text), "{error}");
    }
    assert!(
        session
            .query_opt("SELECT 1 WHERE false", &[])
            .await
            .expect("no row")
            .is_none()
    );
    let _ = session.commit().await.expect("committed");
}

#[tokio::test]
async fn parameters_that_do_not_fit_are_named_and_leave_the_transaction_usable() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let error = session
        .query("SELECT $1::int8", &[&"text"])
        .await
        .expect_err("a text is no int8");
    assert_eq!(error.kind(), ErrorKind::Parameter);
    let error = session
        .query("SELECT $1::int8", &[])
        .await
        .expect_err("a parameter is missing");
    assert_eq!(error.kind(), ErrorKind::Parameter);
    session
        .query("SELECT $1::int8", &[&1_i64])
        .await
        .expect("it fits");
    let _ = session.commit().await.expect("committed");
}

#[tokio::test]
async fn isolation_is_as_asked_and_ends_with_the_transaction() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let show = "SELECT current_setting('transaction_isolation')";
    let mut session = sessions.isolation(IsolationLevel::Serializable).session();
    assert_eq!(
        session
            .query_one(show, &[])
            .await
            .expect("a level")
            .get::<_, &str>(0),
        "serializable"
    );
    let error = session
        .set_options(sessions.options())
        .expect_err("inside a transaction");
    assert_eq!(error.kind(), ErrorKind::Usage);
    drop(session);
    let mut session = sessions.session();
    assert_eq!(
        session
            .query_one(show, &[])
            .await
            .expect("a level")
            .get::<_, &str>(0),
        "read committed"
    );
}

#[tokio::test]
async fn two_sessions_see_of_each_other_what_is_committed() {
    let db = database().await;
    let engine = builder(&db.url()).build().expect("good settings");
    let sessions = SessionFactory::new(engine);
    let (mut one, mut other) = (sessions.session(), sessions.session());
    assert_ne!(pid(&mut one).await, pid(&mut other).await);
    let rows = "SELECT n FROM t";
    one.execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    assert!(other.query(rows, &[]).await.expect("rows").is_empty());
    let _ = one.commit().await.expect("committed");
    assert_eq!(other.query(rows, &[]).await.expect("rows").len(), 1);
}

async fn drop_inside(s: &mut Session) {
    let mut savepoint = s.begin_nested();
    savepoint
        .execute("INSERT INTO t VALUES (4)", &[])
        .await
        .expect("inserted");
}

#[tokio::test]
async fn a_savepoint_undoes_its_own_part_only() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let failed = session
        .nested::<Error, _>(async |s| {
            s.execute("INSERT INTO t VALUES (2)", &[]).await?;
            s.execute("INSERT INTO t VALUES (1/0)", &[]).await
        })
        .await
        .expect_err("division by zero");
    assert_eq!(failed.sqlstate(), Some("22012"));
    session
        .nested::<Error, _>(async |s| {
            s.execute("INSERT INTO t VALUES (3)", &[]).await?;
            drop_inside(s).await;
            s.execute("INSERT INTO t VALUES (5)", &[]).await
        })
        .await
        .expect("kept");
    let _ = session.commit().await.expect("committed");
    let rows = engine
        .query("SELECT n FROM t ORDER BY n", &[])
        .await
        .expect("rows");
    assert_eq!(
        rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>(),
        [1, 3, 5]
    );
}

#[tokio::test]
async fn a_savepoint_in_which_a_statement_failed_cannot_be_kept_and_the_transaction_goes_on() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let mut savepoint = session.begin_nested();
    savepoint
        .execute("INSERT INTO t VALUES (1/0)", &[])
        .await
        .expect_err("division by zero");
    let error = savepoint.commit().await.expect_err("a statement failed");
    assert_eq!(error.kind(), ErrorKind::TransactionFailed);
    assert!(error.to_string().contains("division by zero"), "{error}");
    let _ = session.commit().await.expect("committed");
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn the_transaction_cannot_end_inside_a_savepoint() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let mut savepoint = session.begin_nested();
    let inner: &mut Session = &mut savepoint;
    for error in [
        inner.commit().await.expect_err("inside a savepoint"),
        inner.rollback().await.expect_err("inside a savepoint"),
        inner.close().await.expect_err("inside a savepoint"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("savepoint"), "{error}");
    }
    savepoint.commit().await.expect("kept");
    let _ = session.commit().await.expect("committed");
}

#[tokio::test]
async fn a_statement_that_ends_the_transaction_by_itself_is_pointed_out() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let error = session
        .batch("INSERT INTO t VALUES (1); COMMIT")
        .await
        .expect_err("pointed out");
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert_eq!(engine.status().in_use, 0);
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn a_session_in_autocommit_mode_runs_what_a_transaction_cannot() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.autocommit().session();
    session
        .execute("VACUUM t", &[])
        .await
        .expect("outside a transaction");
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    session
        .batch("INSERT INTO t VALUES (2)")
        .await
        .expect("inserted");
    assert_eq!(engine.status().in_use, 0);
    session.rollback().await.expect("nothing to undo");
    session
        .query("SELECT 1/0", &[])
        .await
        .expect_err("division by zero");
    session
        .query("SELECT 1", &[])
        .await
        .expect("each stands alone");
    assert_eq!(count(&engine).await, 2);
    let error = session
        .begin_nested()
        .execute("SELECT 1", &[])
        .await
        .expect_err("no transaction");
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[tokio::test]
async fn a_first_statement_that_meets_a_dead_connection_runs_on_another() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let killer = one_connection(&db);
    let statement = "INSERT INTO t VALUES (1)";
    // Once with a statement that is known already, once with one that is not.
    for sql in [statement, "INSERT INTO t VALUES ($1)"] {
        let mut session = sessions.session();
        session.execute(statement, &[]).await.expect("inserted");
        let victim = pid(&mut session).await;
        session.rollback().await.expect("rolled back");
        killer
            .execute("SELECT pg_terminate_backend($1, 10000)", &[&victim])
            .await
            .expect("killed");
        let params: &[&(dyn pool_postgres::types::ToSql + Sync)] =
            if sql == statement { &[] } else { &[&2_i64] };
        session
            .execute(sql, params)
            .await
            .expect("sent again on another connection");
        assert_ne!(pid(&mut session).await, victim);
        let _ = session.commit().await.expect("committed");
    }
    assert_eq!(count(&engine).await, 2);
}

#[tokio::test]
async fn a_connection_lost_inside_a_transaction_is_not_replaced_before_a_rollback() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let killer = one_connection(&db);
    let mut session = sessions.session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let victim = pid(&mut session).await;
    killer
        .execute("SELECT pg_terminate_backend($1, 10000)", &[&victim])
        .await
        .expect("killed");
    let lost = session
        .execute("INSERT INTO t VALUES (2)", &[])
        .await
        .expect_err("killed");
    assert_eq!(lost.kind(), ErrorKind::ConnectionLost);
    assert!(!lost.connection_is_good());
    let error = session
        .execute("INSERT INTO t VALUES (3)", &[])
        .await
        .expect_err("roll back first");
    assert_eq!(error.kind(), ErrorKind::TransactionFailed);
    session.rollback().await.expect("nothing left to undo");
    session
        .execute("INSERT INTO t VALUES (4)", &[])
        .await
        .expect("a new transaction");
    let _ = session.commit().await.expect("committed");
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn a_guard_that_refuses_sends_the_transaction_elsewhere_and_nothing_of_it_is_seen() {
    let db = database().await;
    let engine = one_connection(&db);
    let sessions = Lending::guarded(engine.clone(), "SELECT count(*) FROM t", |attempt, rows| {
        // Heard before the transaction: it never sees the row that the statement inserts.
        assert_eq!(rows[..], [vec![Some("0".to_owned())]]);
        if attempt < 2 {
            return Err(Error::new(ErrorKind::Source, "not this one"));
        }
        Ok(())
    });
    let mut session = sessions.session();
    for _ in 0..2 {
        session
            .execute("INSERT INTO t VALUES (1)", &[])
            .await
            .expect("at the third attempt");
        assert_eq!(
            session
                .query("SELECT n FROM t", &[])
                .await
                .expect("rows")
                .len(),
            1
        );
        session.rollback().await.expect("rolled back");
    }
    let never = Lending::guarded(engine.clone(), "SELECT 1", |_, _| {
        Err(Error::new(ErrorKind::Source, "never"))
    });
    let mut session = never.session();
    let error = session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect_err("always refused");
    assert_eq!(
        (error.kind(), error.to_string()),
        (ErrorKind::Source, "never".to_owned())
    );
    assert!(!session.in_transaction());
    drop(session);
    assert_eq!(count(&engine).await, 0);
}
