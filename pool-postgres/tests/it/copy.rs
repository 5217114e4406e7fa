//! COPY, in and out.

use futures_util::TryStreamExt;
use pool_postgres::ErrorKind;

use crate::support::{assert_next_borrower_is_at_ease, count, database, pid, sessions};

const COPY_IN: &str = "COPY t FROM STDIN";

#[tokio::test]
async fn a_copy_in_is_part_of_the_transaction() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let server = pid(&mut session).await;
    for _ in 0..2 {
        let mut copy = session.copy_in(COPY_IN).await.expect("started");
        for n in 0..10_000 {
            copy.send(format!("{n}\n")).await.expect("sent");
        }
        assert_eq!(copy.finish().await.expect("copied"), 10_000);
    }
    session
        .execute("DELETE FROM t WHERE n < 10", &[])
        .await
        .expect("deleted");
    let _ = session.commit().await.expect("committed");
    assert_eq!(count(&engine).await, 19_980);
    let mut copy = session.copy_in(COPY_IN).await.expect("started");
    copy.send("1\n").await.expect("sent");
    copy.finish().await.expect("copied");
    session.rollback().await.expect("rolled back");
    assert_eq!(count(&engine).await, 19_980);
    assert_eq!(
        pid(&mut session).await,
        server,
        "on the same connection throughout"
    );
}

#[tokio::test]
async fn an_engine_copies_by_itself() {
    let db = database().await;
    let (engine, _) = sessions(&db);
    let mut copy = engine.copy_in(COPY_IN).await.expect("started");
    copy.send("1\n2\n3\n").await.expect("sent");
    assert_eq!(copy.finish().await.expect("copied"), 3);
    let data = engine.copy_out("COPY t TO STDOUT").await.expect("started");
    let data: Vec<_> = data.try_collect().await.expect("all came");
    assert_eq!(data.concat(), b"1\n2\n3\n");
    drop(engine.copy_in(COPY_IN).await.expect("started"));
    assert_eq!(count(&engine).await, 3);
}

#[tokio::test]
async fn a_copy_in_that_is_dropped_keeps_nothing_and_fails_the_transaction() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    for sent in [false, true] {
        let mut session = sessions.session();
        session
            .execute("INSERT INTO t VALUES (1)", &[])
            .await
            .expect("inserted");
        let mut copy = session.copy_in(COPY_IN).await.expect("started");
        if sent {
            copy.send("2\n".repeat(100_000)).await.expect("sent");
        }
        drop(copy);
        let error = session.commit().await.expect_err("half a copy");
        assert_eq!(error.kind(), ErrorKind::TransactionFailed);
        assert_next_borrower_is_at_ease(&engine, "a dropped copy").await;
        assert_eq!(count(&engine).await, 0);
    }
}

#[tokio::test]
async fn a_copy_in_that_is_given_up_costs_its_savepoint_only() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let mut savepoint = session.begin_nested();
    let mut copy = savepoint.copy_in(COPY_IN).await.expect("started");
    copy.send("2\n").await.expect("sent");
    copy.abort().await.expect("given up");
    savepoint.rollback().await.expect("rolled back");
    let _ = session.commit().await.expect("committed");
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn data_that_the_server_does_not_take_is_its_error() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let mut copy = session.copy_in(COPY_IN).await.expect("started");
    copy.send("1\nno number\n").await.expect("sent");
    let error = copy.finish().await.expect_err("no number");
    assert_eq!(error.sqlstate(), Some("22P02"), "{error}");
    let error = session.commit().await.expect_err("nothing is kept");
    assert!(
        error.to_string().contains("invalid input syntax"),
        "{error}"
    );
    assert_next_borrower_is_at_ease(&engine, "a refused copy").await;
    assert_eq!((count(&engine).await, engine.status().open), (0, 1));
}

#[tokio::test]
async fn what_is_no_copy_is_refused_before_it_is_sent_and_a_copy_that_is_not_allowed_by_the_server()
{
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    for sql in ["INSERT INTO t VALUES (1)", "COPY t TO STDOUT", "SELECT 1"] {
        let error = session
            .copy_in(sql)
            .await
            .map(drop)
            .expect_err("no copy in");
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    }
    assert!(!session.in_transaction());
    assert_eq!(
        count(&engine).await,
        0,
        "prepared: from here on it is sent once"
    );
    // Refused when it is executed, after it was prepared.
    let mut session = sessions.read_only().session();
    let error = session
        .copy_in(COPY_IN)
        .await
        .map(drop)
        .expect_err("read-only");
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    drop(session);
    for _ in 0..5 {
        assert_eq!(count(&engine).await, 0, "answers stay with their questions");
    }
}

#[tokio::test]
async fn a_copy_out_gives_all_and_one_dropped_half_way_never_makes_the_next_borrower_wait() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    {
        let mut data = session
            .copy_out("COPY (SELECT generate_series(1, 1000)) TO STDOUT")
            .await
            .expect("started");
        let mut lines = 0;
        while let Some(piece) = data.next().await {
            // A row each.
            assert!(piece.expect("data").ends_with(b"\n"));
            lines += 1;
        }
        assert_eq!(lines, 1000);
    }
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("goes on");
    {
        let many = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 10000000)) TO STDOUT";
        let mut data = session.copy_out(many).await.expect("started");
        data.next().await.expect("a row").expect("no error");
    }
    drop(session);
    assert_next_borrower_is_at_ease(&engine, "a copy out dropped half-way").await;
    assert_eq!(count(&engine).await, 0);
}
