//! Many statements in one round trip.

use pool_postgres::{ErrorKind, SessionFactory};

use crate::round_trips::{behind_a_proxy, trips};
use crate::support::{count, database, sessions};

const INSERT: &str = "INSERT INTO t VALUES ($1)";
const COUNT: &str = "SELECT count(*) FROM t";

#[tokio::test]
async fn a_pipeline_gives_each_statement_its_answer_in_order() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    // Once with statements that are unknown, once with all prepared.
    for round in 0..2_i64 {
        let (one, two) = (1_i64, 2_i64);
        let answers = session
            .pipeline()
            .statement(INSERT, &[&one])
            .statement(COUNT, &[])
            .statement(INSERT, &[&two])
            .statement("SELECT n FROM t ORDER BY n", &[])
            .run()
            .await
            .expect("all went well");
        assert_eq!(answers.len(), 4);
        assert_eq!(answers[0].affected(), 1);
        assert_eq!(answers[1].scalar::<i64>().expect("a count"), 2 * round + 1);
        let numbers: Vec<(i64,)> = answers[3].rows_as().expect("numbers");
        assert_eq!(numbers.len() as u64, answers[3].affected());
        assert_eq!(numbers[0], (1,));
        let done = session.commit().await.expect("committed");
        assert_eq!(done.token, None);
    }
    assert_eq!(count(&engine).await, 4);
    assert!(session.pipeline().run().await.expect("nothing").is_empty());
    assert!(!session.in_transaction());
}

#[tokio::test]
async fn three_statements_take_three_round_trips_and_in_a_pipeline_one() {
    let db = database().await;
    let (engine, proxy) = behind_a_proxy(&db).await;
    let mut session = SessionFactory::new(engine.clone()).session();
    let n = 1_i64;
    let transaction = async |session: &mut pool_postgres::Session| {
        for _ in 0..3 {
            session.execute(INSERT, &[&n]).await.expect("inserted");
        }
    };
    transaction(&mut session).await; // Prepares.
    let _ = session.commit().await.expect("committed");
    let (taken, ()) = trips(&proxy, transaction(&mut session)).await;
    assert_eq!(taken, 3, "as many as statements");
    let (taken, done) = trips(&proxy, session.commit()).await;
    let _ = done.expect("committed");
    assert_eq!(taken, 1, "COMMIT");

    let pipeline = session
        .pipeline()
        .statement(INSERT, &[&n])
        .statement(INSERT, &[&n])
        .statement(INSERT, &[&n]);
    let (taken, done) = trips(&proxy, pipeline.run()).await;
    done.expect("inserted");
    assert_eq!(taken, 1, "BEGIN and three statements");
    let (taken, done) = trips(&proxy, session.commit()).await;
    let _ = done.expect("committed");
    assert_eq!(taken, 1, "COMMIT");

    let cold = session
        .pipeline()
        .statement("SELECT 1", &[])
        .statement("SELECT 2", &[])
        .statement("SELECT 3", &[]);
    let (taken, done) = trips(&proxy, cold.run()).await;
    done.expect("rows");
    assert_eq!(taken, 2, "all are prepared together, and run together");
    drop(session);
    assert_eq!(count(&engine).await, 9);
}

#[tokio::test]
async fn the_first_failure_of_a_pipeline_skips_the_rest_and_fails_the_transaction() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let (one, zero) = (1_i64, 0_i64);
    for _ in 0..2 {
        let results = session
            .pipeline()
            .statement(INSERT, &[&one])
            .statement("SELECT 1 / $1::bigint", &[&zero])
            .statement(INSERT, &[&one])
            .statement(COUNT, &[])
            .run_each()
            .await;
        assert_eq!(results.len(), 4);
        assert_eq!(results[0].as_ref().expect("it ran").affected(), 1);
        let failure = results[1].as_ref().expect_err("division by zero");
        assert_eq!(failure.sqlstate(), Some("22012"));
        for skipped in &results[2..] {
            let skipped = skipped.as_ref().expect_err("skipped");
            assert_eq!(skipped.kind(), ErrorKind::TransactionFailed);
            assert!(
                skipped.to_string().contains("division by zero"),
                "{skipped}"
            );
        }
        let error = session.commit().await.expect_err("the transaction failed");
        assert!(error.to_string().contains("division by zero"), "{error}");
    }
    assert_eq!((count(&engine).await, engine.status().open), (0, 1));
}

#[tokio::test]
async fn what_cannot_be_prepared_is_told_in_its_place_and_nothing_runs() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let one = 1_i64;
    let results = session
        .pipeline()
        .statement(INSERT, &[&one])
        .statement("SELECT * FROM missing", &[])
        .run_each()
        .await;
    let error = results[1].as_ref().expect_err("there is no such table");
    assert_eq!(error.sqlstate(), Some("42P01"));
    results[0].as_ref().expect_err("it did not run");
    session.rollback().await.expect("rolled back");
    assert_eq!(count(&engine).await, 0);
}

#[tokio::test]
async fn a_parameter_that_does_not_fit_ends_the_pipeline_there_and_the_transaction_goes_on() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let one = 1_i64;
    let results = session
        .pipeline()
        .statement(INSERT, &[&one])
        .statement(INSERT, &[&"text"])
        .statement(INSERT, &[&one])
        .run_each()
        .await;
    results[0].as_ref().expect("it ran");
    let error = results[1].as_ref().expect_err("no number");
    assert_eq!(error.kind(), ErrorKind::Parameter);
    let error = results[2].as_ref().expect_err("not sent");
    assert_eq!(error.kind(), ErrorKind::TransactionFailed);
    let _ = session.commit().await.expect("one row");
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn in_autocommit_each_statement_of_a_pipeline_stands_alone() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.autocommit().session();
    let one = 1_i64;
    for _ in 0..2 {
        let results = session
            .pipeline()
            .statement(INSERT, &[&one])
            .statement("SELECT 1/0", &[])
            .statement("SELECT * FROM missing", &[])
            .statement(INSERT, &[&"text"])
            .statement(INSERT, &[&one])
            .run_each()
            .await;
        let went_well: Vec<_> = results.iter().map(Result::is_ok).collect();
        assert_eq!(went_well, [true, false, false, false, true]);
        assert_eq!(engine.status().in_use, 0);
    }
    assert_eq!((count(&engine).await, engine.status().open), (4, 1));
}

#[tokio::test]
async fn a_savepoint_holds_a_pipelines_failure() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let one = 1_i64;
    session.execute(INSERT, &[&one]).await.expect("inserted");
    let mut savepoint = session.begin_nested();
    savepoint
        .pipeline()
        .statement(INSERT, &[&one])
        .statement("SELECT 1/0", &[])
        .run()
        .await
        .expect_err("division by zero");
    savepoint.rollback().await.expect("rolled back");
    let _ = session.commit().await.expect("committed");
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn large_answers_of_a_pipeline_do_not_stop_it() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let text = "x".repeat(300_000);
    let mut pipeline = session.pipeline();
    for _ in 0..40 {
        pipeline = pipeline.statement("SELECT $1::text", &[&text]);
    }
    let answers = pipeline.run().await.expect("all came");
    assert!(
        answers
            .iter()
            .all(|a| a.scalar::<String>().is_ok_and(|a| a == text))
    );
}
