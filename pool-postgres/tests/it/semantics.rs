//! What people who come from SQLAlchemy's sessions expect, where no other test says it.

use pool_postgres::{Error, IsolationLevel, SessionFactory, SessionOptions};

use crate::support::{count, database, one_connection, pid, sessions};

async fn insert(s: &mut pool_postgres::Session, n: i64) {
    s.execute("INSERT INTO t VALUES ($1)", &[&n])
        .await
        .expect("inserted");
}

#[tokio::test]
async fn savepoints_nest_and_each_is_kept_or_undone_with_what_is_inside() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    insert(&mut session, 1).await;
    let mut outer = session.begin_nested();
    insert(&mut outer, 2).await;
    let mut inner = outer.begin_nested();
    insert(&mut inner, 3).await;
    inner.rollback().await.expect("undone");
    let mut inner = outer.begin_nested();
    insert(&mut inner, 4).await;
    inner.commit().await.expect("kept");
    outer.commit().await.expect("kept");
    let mut undone = session.begin_nested();
    insert(&mut undone, 5).await;
    let mut inner = undone.begin_nested();
    insert(&mut inner, 6).await;
    inner.commit().await.expect("kept, for now");
    undone
        .rollback()
        .await
        .expect("undone, with what was kept inside");
    let _ = session.commit().await.expect("committed");
    let rows: Vec<(i64,)> = engine
        .query_as("SELECT n FROM t ORDER BY n", &[])
        .await
        .expect("rows");
    assert_eq!(rows, [(1,), (2,), (4,)]);
}

#[tokio::test]
async fn a_savepoint_before_any_statement_begins_the_transaction_with_its_first() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let mut savepoint = session.begin_nested();
    assert_eq!(engine.status().open, 0, "nothing was sent");
    insert(&mut savepoint, 1).await;
    savepoint.commit().await.expect("kept");
    assert!(
        session.in_transaction(),
        "the transaction stays open after it"
    );
    session.close().await.expect("closed");
    assert_eq!(count(&engine).await, 0, "and what it kept ends with it");
}

#[tokio::test]
async fn a_factorys_options_are_its_own_and_those_made_from_it_change_nothing_in_it() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let serializable = sessions.isolation(IsolationLevel::Serializable);
    let reads = serializable.with_options(serializable.options().read_only().deferrable());
    let show = "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'), \
                current_setting('transaction_deferrable')";
    for (factory, expected) in [
        (&reads, ("serializable", "on", "on")),
        (&serializable, ("serializable", "off", "off")),
        (&sessions, ("read committed", "off", "off")),
        (
            &serializable.isolation(None),
            ("read committed", "off", "off"),
        ),
    ] {
        let mut session = factory.session();
        for _ in 0..2 {
            let (level, read_only, deferrable): (String, String, String) =
                session.query_one_as(show, &[]).await.expect("settings");
            assert_eq!((&*level, &*read_only, &*deferrable), expected);
            let _ = session.commit().await.expect("committed");
        }
    }
    assert_eq!(sessions.options(), SessionOptions::default());
}

#[tokio::test]
async fn options_may_change_between_two_transactions_of_a_session_and_not_inside_one() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let level = "SELECT current_setting('transaction_isolation')";
    let mut session = sessions.session();
    session.query("SELECT 1", &[]).await.expect("begun");
    let serializable = session.options().isolation(IsolationLevel::Serializable);
    session.set_options(serializable).expect_err("inside");
    assert_eq!(
        session.options(),
        sessions.options(),
        "a refused change is not remembered"
    );
    session.rollback().await.expect("rolled back");
    for (options, expected) in [
        (serializable, "serializable"),
        (sessions.options(), "read committed"),
    ] {
        session.set_options(options).expect("between");
        let found: String = session.query_scalar(level, &[]).await.expect("a level");
        assert_eq!(found, expected);
        session.rollback().await.expect("rolled back");
    }
}

#[tokio::test]
async fn closing_or_dropping_a_session_whose_connection_was_killed_is_no_error_and_frees_its_room()
{
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let killer = one_connection(&db);
    for closes in [true, false] {
        let mut session = sessions.session();
        insert(&mut session, 1).await;
        let victim = pid(&mut session).await;
        killer
            .execute("SELECT pg_terminate_backend($1, 10000)", &[&victim])
            .await
            .expect("killed");
        if closes {
            session
                .close()
                .await
                .expect("the server has rolled back by itself");
            assert_ne!(pid(&mut session).await, victim, "usable at once");
        }
        drop(session);
        assert_eq!((engine.status().in_use, count(&engine).await), (0, 0));
    }
}

#[tokio::test]
async fn an_ordinary_error_costs_no_connection() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let before = pid(&mut session).await;
    session
        .nested::<Error, _>(async |s| s.query("SELECT 1/0", &[]).await)
        .await
        .expect_err("division by zero");
    session
        .query("SELECT 1/0", &[])
        .await
        .expect_err("division by zero");
    session.rollback().await.expect("rolled back");
    assert_eq!(pid(&mut session).await, before);
    drop(session);
    let mut again = SessionFactory::new(engine).session();
    assert_eq!(pid(&mut again).await, before);
}
