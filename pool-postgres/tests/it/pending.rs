//! Sessions that are dropped with work pending: rolled back, counted, and warned of.

use pool_postgres::Error;

use crate::log;
use crate::support::{count, database, sessions};

#[tokio::test]
async fn sessions_dropped_with_work_pending_are_counted_and_warned_of_once_a_second() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    log::listen();
    let line = line!() + 4;
    for _ in 0..3 {
        let mut session = sessions.session();
        session
            .execute("INSERT INTO t VALUES (1)", &[])
            .await
            .expect("inserted");
    }
    assert_eq!(engine.counts().dropped_with_work, 3);
    let seen = log::warnings();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].contains(&format!("pending.rs:{line}")), "{seen:?}");
    assert_eq!(count(&engine).await, 0);
}

#[tokio::test]
async fn what_ended_as_meant_or_only_read_is_not_counted() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let insert = "INSERT INTO t VALUES (1)";
    let mut session = sessions.session();
    session.execute(insert, &[]).await.expect("inserted");
    let _ = session.commit().await.expect("committed");
    session.execute(insert, &[]).await.expect("inserted");
    session.rollback().await.expect("rolled back");
    session.execute(insert, &[]).await.expect("inserted");
    session.close().await.expect("closed");
    session.query("SELECT n FROM t", &[]).await.expect("read");
    session
        .execute("UPDATE t SET n = 2 WHERE false", &[])
        .await
        .expect("no row");
    drop(session);
    let mut session = sessions.session();
    session.execute(insert, &[]).await.expect("inserted");
    session
        .query("SELECT 1/0", &[])
        .await
        .expect_err("division by zero");
    drop(session); // The error was told already.
    let mut single = sessions.autocommit().session();
    single.execute(insert, &[]).await.expect("inserted");
    drop(single);
    sessions
        .begin::<Error, ()>(async |s| {
            s.execute(insert, &[]).await?;
            s.query("SELECT 1/0", &[]).await?;
            Ok(())
        })
        .await
        .expect_err("division by zero");
    assert_eq!(engine.counts().dropped_with_work, 0);
}
