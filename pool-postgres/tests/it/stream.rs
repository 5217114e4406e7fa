//! Rows as they arrive.

use futures_util::TryStreamExt;
use pool_postgres::Error;

use crate::support::{assert_next_borrower_is_at_ease, count, database, sessions, until};

/// So many rows that the server cannot have sent them all unasked.
const MANY: &str = "SELECT repeat('x', 1000), n FROM generate_series(1, 10000000) AS n";

#[tokio::test]
async fn a_stream_gives_all_rows_in_order_and_the_transaction_goes_on() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let mut expected = 0_i64;
    {
        let sql = "SELECT n FROM generate_series(1::bigint, $1) AS n";
        let mut rows = session
            .query_stream(sql, &[&1000_i64])
            .await
            .expect("a stream");
        while let Some(row) = rows.next().await {
            expected += 1;
            assert_eq!(row.expect("a row").get::<_, i64>(0), expected);
        }
        assert!(rows.next().await.is_none(), "the end stays the end");
    }
    assert_eq!(expected, 1000);
    session
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .expect("inserted");
    let _ = session.commit().await.expect("committed");
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn a_stream_that_fails_says_so_in_a_rows_place_and_fails_the_transaction() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    {
        let sql = "SELECT 1 / (3 - n) FROM generate_series(1, 5) AS n";
        let mut rows = session.query_stream(sql, &[]).await.expect("a stream");
        let mut seen = Vec::new();
        while let Some(row) = rows.next().await {
            seen.push(row.map_err(|error| error.sqlstate().map(str::to_owned)));
        }
        assert!(
            matches!(seen.last(), Some(Err(Some(code))) if code == "22012"),
            "{seen:?}"
        );
    }
    let error = session.commit().await.expect_err("the transaction failed");
    assert!(error.to_string().contains("division by zero"), "{error}");
}

#[tokio::test]
async fn a_stream_and_its_session_dropped_half_way_never_make_the_next_borrower_wait() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    for sessions in [
        sessions.clone(),
        sessions.read_only(),
        sessions.autocommit(),
    ] {
        let mut session = sessions.session();
        {
            let mut rows = session.query_stream(MANY, &[]).await.expect("a stream");
            rows.next().await.expect("a row").expect("no error");
        }
        drop(session);
        assert_next_borrower_is_at_ease(&engine, "a stream dropped half-way").await;
        until(
            &engine,
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database()",
        )
        .await;
    }
}

#[tokio::test]
async fn a_session_goes_on_after_a_stream_that_was_dropped_half_way() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    sessions
        .begin::<Error, _>(async |s| {
            {
                let sql = "SELECT n FROM generate_series(1, 100000) AS n";
                let mut rows = s.query_stream(sql, &[]).await?;
                rows.next().await.expect("a row")?;
            }
            s.execute("INSERT INTO t VALUES (1)", &[]).await
        })
        .await
        .expect("committed");
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn a_session_that_became_a_stream_outlives_its_maker_and_ends_with_the_stream() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let body = tokio::spawn(async move {
        let reads = sessions.read_only().session();
        reads
            .into_stream("SELECT n FROM generate_series(1::bigint, 1000) AS n", &[])
            .await
    });
    let rows = body.await.expect("no panic").expect("a stream");
    assert_eq!(engine.status().in_use, 1);
    let sum = rows.try_fold(0, async |sum, row| {
        Ok(sum + row.try_get::<_, i64>(0).expect("a number"))
    });
    assert_eq!(sum.await.expect("all came"), 500_500);
    assert_eq!(engine.status().in_use, 0);
    let mut rows = engine.query_stream(MANY, &[]).await.expect("a stream");
    rows.next().await.expect("a row").expect("no error");
    drop(rows);
    assert_next_borrower_is_at_ease(&engine, "an engine's stream dropped half-way").await;
}
