//! Behind a real PgBouncer, for a session and for a transaction at a time.
//!
//! Where there is no PgBouncer on the machine, the tests end at once and say so.

use futures_util::future::try_join_all;
use pool_postgres::pool_core::CloseReason;
use pool_postgres::types::ToSql;
use pool_postgres::{Engine, Error, ErrorKind, ResetPolicy, SessionFactory, SessionOptions};
use testbed::{PgBouncer, PoolMode, TestDatabase};

use crate::support::{builder, count, database, until};

/// A pooler with so many connections to the server, and the database behind it.
async fn pooler(mode: PoolMode, connections: u32) -> Option<(PgBouncer, TestDatabase)> {
    if testbed::install::pgbouncer().is_none() {
        eprintln!("no PgBouncer on this machine: left out");
        return None;
    }
    let database = database().await;
    let pooler = PgBouncer::before(database.node(), mode, connections)
        .await
        .expect("a pooler");
    Some((pooler, database))
}

fn through(pooler: &PgBouncer, database: &TestDatabase) -> Engine {
    builder(&pooler.url_for(database.name()))
        .pool_size(8)
        .external_pooler(true)
        .build()
        .expect("good settings")
}

/// Names that the server knows, over all of its connections behind the pooler: those that ask hold theirs for a
/// moment, so that each meets another.
async fn names_left(engine: &Engine) -> i64 {
    let sql = "SELECT count(*) FROM pg_sleep(0.05), pg_prepared_statements";
    let asked = (0..4).map(|_| engine.query_scalar::<i64>(sql, &[]));
    try_join_all(asked).await.expect("counts").into_iter().sum()
}

/// Sessions, single statements and pipelines of many tasks.
async fn everything_works(engine: &Engine) -> Result<(), Error> {
    let sessions = SessionFactory::new(engine.clone());
    let work = (0..40_i64).map(|n| {
        let (engine, sessions) = (engine.clone(), sessions.clone());
        async move {
            let insert = "INSERT INTO t VALUES ($1)";
            sessions
                .begin::<Error, _>(async |s| {
                    s.execute(insert, &[&n]).await?;
                    let mut nested = s.begin_nested();
                    nested.execute(insert, &[&-1_i64]).await?;
                    nested.rollback().await?;
                    let seen: i64 = s
                        .query_scalar("SELECT count(*) FROM t WHERE n = $1", &[&n])
                        .await?;
                    assert_eq!(seen, 1);
                    Ok(())
                })
                .await?;
            let back: Option<i64> = engine
                .query_scalar("SELECT max(n) FROM t WHERE n = $1 AND $2", &[&n, &true])
                .await?;
            assert_eq!(back, Some(n));
            let mut session = sessions.session();
            let answers = session
                .pipeline()
                .statement("SELECT $1::text || $2", &[&"a", &"b"])
                .statement("SELECT cardinality($1::int[])", &[&vec![1, 2, 3]])
                .run()
                .await?;
            assert_eq!(answers[0].scalar::<String>()?, "ab");
            assert_eq!(answers[1].scalar::<i32>()?, 3);
            session.rollback().await
        }
    });
    try_join_all(work).await?;
    engine.ping().await
}

#[tokio::test]
async fn everything_works_behind_a_pooler_of_transactions_and_no_name_is_used() {
    let Some((pooler, database)) = pooler(PoolMode::Transaction, 2).await else {
        return;
    };
    let engine = through(&pooler, &database);
    everything_works(&engine).await.expect("all of it");
    assert_eq!(count(&engine).await, 40);
    assert_eq!(names_left(&engine).await, 0);
}

#[tokio::test]
async fn everything_works_behind_a_pooler_of_sessions() {
    let Some((pooler, database)) = pooler(PoolMode::Session, 10).await else {
        return;
    };
    let engine = through(&pooler, &database);
    everything_works(&engine).await.expect("all of it");
    assert_eq!(count(&engine).await, 40);
}

#[tokio::test]
async fn shared_connections_work_behind_a_pooler_of_transactions() {
    let Some((pooler, database)) = pooler(PoolMode::Transaction, 2).await else {
        return;
    };
    let engine = through(&pooler, &database);
    let shared = engine.shared();
    let answers = try_join_all((0..50_i64).map(|n| {
        let shared = shared.clone();
        async move {
            let row = shared.query_one("SELECT $1 + 1", &[&n]).await?;
            Ok::<i64, Error>(row.get(0))
        }
    }));
    let expected: Vec<_> = (1..=50).collect();
    assert_eq!(answers.await.expect("answers"), expected);
}

#[tokio::test]
async fn copies_and_row_streams_work_behind_a_pooler_of_transactions() {
    use futures_util::TryStreamExt;
    let Some((pooler, database)) = pooler(PoolMode::Transaction, 2).await else {
        return;
    };
    let engine = through(&pooler, &database);
    for _ in 0..3 {
        engine
            .begin::<Error, _>(async |s| {
                let mut copy = s.copy_in("COPY t FROM STDIN").await?;
                copy.send("1\n2\n3\n").await?;
                copy.finish().await?;
                Ok(())
            })
            .await
            .expect("copied");
    }
    let mut session = engine.session();
    let rows = session
        .query_stream("SELECT n FROM t WHERE n > $1", &[&1_i64])
        .await
        .expect("a stream");
    let rows: Vec<_> = rows.try_collect().await.expect("rows");
    assert_eq!(rows.len(), 6);
    drop(session);
    let left = "SELECT count(*) FROM pg_prepared_statements";
    let asked = try_join_all((0..4).map(|_| engine.query_scalar::<i64>(left, &[])));
    assert_eq!(
        asked.await.expect("counts"),
        [0; 4],
        "a copy gives its name back"
    );
}

#[tokio::test]
async fn without_the_switch_names_of_one_meet_the_connections_of_others() {
    let Some((pooler, database)) = pooler(PoolMode::Transaction, 1).await else {
        return;
    };
    // Two connections of ours take turns on one of the server's: each prepares names that the other's know.
    let engine = builder(&pooler.url_for(database.name()))
        .pool_size(2)
        .build()
        .expect("good settings");
    let (one, two) = (engine.connect().await, engine.connect().await);
    let (one, two) = (one.expect("a connection"), two.expect("a connection"));
    let statement = one.client().prepare("SELECT 1").await.expect("prepared");
    two.client()
        .batch_execute("DEALLOCATE ALL")
        .await
        .expect("done");
    let error = one.client().query(&statement, &[]).await;
    let error = error.expect_err("gone with another's statement");
    assert_eq!(Error::from(error).sqlstate(), Some("26000"));
}

#[tokio::test]
async fn a_transaction_is_cancelled_through_the_pooler() {
    let Some((pooler, database)) = pooler(PoolMode::Transaction, 2).await else {
        return;
    };
    let engine = through(&pooler, &database);
    let options = SessionOptions::default().statement_timeout(std::time::Duration::from_millis(50));
    let mut session = engine.with_options(options).session();
    let error = session
        .query("SELECT pg_sleep(60)", &[])
        .await
        .expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    drop(session);
    // A future that is dropped half-way cancels as well, and the connection is clean for the next.
    let mut session = engine.session();
    let started = session.query("SELECT pg_sleep(60)", &[]);
    let given_up = tokio::time::timeout(std::time::Duration::from_millis(200), started).await;
    given_up.expect_err("a minute");
    drop(session);
    let settled = async {
        engine.ping().await.expect("well");
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' \
                       AND state = 'active' AND pid <> pg_backend_pid()";
        crate::support::until(&engine, &format!("({running}) = 0")).await;
    };
    tokio::time::timeout(crate::support::SOON, settled)
        .await
        .expect("nothing goes on for a minute");
}

#[tokio::test]
async fn a_parameter_of_a_type_of_its_own_is_told_with_the_remedy() {
    #[derive(Debug)]
    struct Mood;
    impl ToSql for Mood {
        fn to_sql(
            &self,
            _: &pool_postgres::types::Type,
            _: &mut bytes::BytesMut,
        ) -> Result<pool_postgres::types::IsNull, Box<dyn std::error::Error + Sync + Send>>
        {
            Ok(pool_postgres::types::IsNull::Yes)
        }
        fn accepts(ty: &pool_postgres::types::Type) -> bool {
            ty.name() == "mood"
        }
        pool_postgres::types::to_sql_checked!();
    }
    let Some((pooler, database)) = pooler(PoolMode::Transaction, 1).await else {
        return;
    };
    let engine = through(&pooler, &database);
    let params: [&(dyn ToSql + Sync); 2] = [&1, &Mood];
    let mut session = engine.session();
    for error in [
        engine
            .query("SELECT $1, $2", &params)
            .await
            .expect_err("no type"),
        session
            .query("SELECT $1, $2", &params)
            .await
            .expect_err("no type"),
        engine
            .shared()
            .query("SELECT $1, $2", &params)
            .await
            .expect_err("no type"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Parameter, "{error}");
        let message = error.to_string();
        assert!(
            message.contains("parameter 2") && message.contains("$2::text"),
            "{message}"
        );
    }
    session
        .query("SELECT 1", &[])
        .await
        .expect("nothing was sent");
}

#[tokio::test]
async fn what_outlives_a_transaction_is_refused_before_it_is_sent() {
    let url = "postgresql://u@127.0.0.1:1/db?external_pooler=on";
    let engine = Engine::builder(url).build().expect("good settings");
    for error in [
        engine
            .listen(&["news"])
            .await
            .map(drop)
            .expect_err("refused"),
        engine
            .advisory_lock(7)
            .await
            .map(drop)
            .expect_err("refused"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("external pooler"), "{error}");
    }
    for builder in [
        Engine::builder(url).after_connect(|_| Box::pin(async { Ok(()) })),
        Engine::builder(url).reset_policy(ResetPolicy::Full),
        Engine::builder(url).reset_policy(ResetPolicy::custom("RESET ROLE")),
    ] {
        let error = builder.build().expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("external_pooler"), "{error}");
    }
}

/// Nobody knows when a pooler has passed the cancel on, so it must find nobody else there.
#[tokio::test]
async fn a_connection_that_was_cancelled_through_a_pooler_is_not_used_again() {
    let Some((pooler, db)) = pooler(PoolMode::Transaction, 4).await else {
        return;
    };
    let engine = through(&pooler, &db);
    let direct = builder(&db.url()).build().expect("good settings");
    let asleep = "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(1000)%' \
                  AND state = 'active' AND datname = current_database()";
    tokio::select! {
        _ = engine.query("SELECT pg_sleep(1000)", &[]) => panic!("it sleeps"),
        () = until(&direct, asleep) => {}
    }
    until(&direct, &asleep.replace("= 1", "= 0")).await;
    for _ in 0..8 {
        engine.ping().await.expect("not struck");
    }
    let failed = engine.pool().stats().closed.by(CloseReason::ResetFailed);
    assert_eq!(failed, 1);
}
