//! The smallest real statement, from many tasks over few connections to one server.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use pool_postgres::{Engine, SessionFactory};
use tokio::task::JoinSet;

use crate::contender::WAIT;
use crate::report::{Report, Rounds, Target, Verdict};

const TASKS: usize = 64;
pub(crate) const CONNECTIONS: usize = 8;
pub(crate) const SQL: &str = "SELECT $1::int + 1";
const ROUND: Duration = Duration::from_millis(1500);
const OURS: &str = "ours, engine";
/// A transaction for each statement: `BEGIN` travels with it, `COMMIT` is another round trip.
const SESSION: &str = "ours, session and commit";
const PEER: &str = "deadpool-postgres";
const PEER_TRANSACTION: &str = "deadpool-postgres, transaction";
/// By default it asks the server before each checkout whether the connection lives.
const SQLX: &str = "sqlx";

/// What a round found.
pub(crate) struct Found {
    /// Statements a second.
    pub(crate) rate: f64,
    /// How long 99 of 100 took at most, in microseconds.
    pub(crate) p99: f64,
}

/// Runs the comparison on a server of its own.
///
/// # Errors
/// Where the server could not be started or a statement failed.
pub fn compare(rounds: usize) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let figures = runtime.block_on(async {
        let cluster = testbed::cluster().start().await?;
        let url = cluster.primary().url();
        let engine = Engine::builder(&url)
            .pool_size(CONNECTIONS)
            .max_overflow(0)
            .pool_timeout(WAIT)
            .build()?;
        let sessions = SessionFactory::new(engine.clone());
        let peer = deadpool(&url)?;
        let sqlx = sqlx(&url).await?;
        let mut figures = Rounds::default();
        for _ in 0..rounds {
            figures.note(OURS, round(&engine, with_ours).await?.rate);
            figures.note(PEER, round(&peer, with_peer).await?.rate);
            figures.note(SQLX, round(&sqlx, with_sqlx).await?.rate);
            figures.note(SESSION, round(&sessions, with_session).await?.rate);
            figures.note(PEER_TRANSACTION, round(&peer, with_transaction).await?.rate);
        }
        engine.close().await;
        anyhow::Ok(figures)
    })?;
    let ratio = figures.median(OURS) / figures.median(PEER);
    let against_sqlx = figures.median(OURS) / figures.median(SQLX);
    let transactions = figures.median(SESSION) / figures.median(PEER_TRANSACTION);
    Ok(Report {
        workload: "PostgreSQL, 64 tasks, 8 connections, SELECT $1::int + 1",
        measures: vec![figures.measure("statements a second")],
        verdicts: vec![
            Verdict::new("ours / deadpool-postgres", ratio, Target::AtLeast(1.0)),
            Verdict::new("ours / sqlx", against_sqlx, Target::AtLeast(1.9)),
            Verdict::new(
                "transactions: ours / deadpool-postgres",
                transactions,
                Target::AtLeast(0.95),
            ),
        ],
    })
}

pub(crate) fn deadpool(url: &str) -> Result<deadpool_postgres::Pool> {
    let manager = deadpool_postgres::Manager::new(url.parse()?, tokio_postgres::NoTls);
    let pool = deadpool_postgres::Pool::builder(manager)
        .max_size(CONNECTIONS)
        .wait_timeout(Some(WAIT))
        .runtime(deadpool_postgres::Runtime::Tokio1)
        .build()?;
    Ok(pool)
}

async fn sqlx(url: &str) -> Result<sqlx::PgPool> {
    let connections = u32::try_from(CONNECTIONS)?;
    let options = sqlx::postgres::PgPoolOptions::new().max_connections(connections);
    Ok(options.acquire_timeout(WAIT).connect(url).await?)
}

async fn with_sqlx(pool: sqlx::PgPool, number: i32) -> Result<i32> {
    let query = sqlx::query_scalar(SQL).bind(number);
    Ok(query.fetch_one(&pool).await?)
}

pub(crate) async fn with_ours(engine: Engine, number: i32) -> Result<i32> {
    Ok(engine.query_one(SQL, &[&number]).await?.get(0))
}

pub(crate) async fn with_peer(pool: deadpool_postgres::Pool, number: i32) -> Result<i32> {
    let client = pool.get().await.map_err(|error| anyhow!("{error}"))?;
    let statement = client.prepare_cached(SQL).await?;
    Ok(client.query_one(&statement, &[&number]).await?.get(0))
}

async fn with_session(sessions: SessionFactory, number: i32) -> Result<i32> {
    let mut session = sessions.session();
    let answer = session.query_one(SQL, &[&number]).await?.get(0);
    let _ = session.commit().await?;
    Ok(answer)
}

async fn with_transaction(pool: deadpool_postgres::Pool, number: i32) -> Result<i32> {
    let mut client = pool.get().await.map_err(|error| anyhow!("{error}"))?;
    let transaction = client.transaction().await?;
    let statement = transaction.prepare_cached(SQL).await?;
    let answer = transaction.query_one(&statement, &[&number]).await?.get(0);
    transaction.commit().await?;
    Ok(answer)
}

/// Has all tasks run statements until the round is over; each answer is looked at.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) async fn round<P, F>(
    pool: &P,
    statement: impl Fn(P, i32) -> F + Copy + Send + 'static,
) -> Result<Found>
where
    P: Clone + Send + Sync + 'static,
    F: Future<Output = Result<i32>> + Send,
{
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let pool = pool.clone();
        tasks.spawn(async move {
            let mut waits = Histogram::<u64>::new(3)?;
            let mut done = 0_i32;
            let mut last = begun.elapsed();
            while last < ROUND {
                if statement(pool.clone(), done).await? != done + 1 {
                    return Err(anyhow!("a wrong answer"));
                }
                done += 1;
                let now = begun.elapsed();
                waits.record(micros(now.saturating_sub(last)))?;
                last = now;
            }
            Ok(waits)
        });
    }
    let mut waits = Histogram::<u64>::new(3)?;
    while let Some(task) = tasks.join_next().await {
        waits.add(task??)?;
    }
    Ok(Found {
        rate: waits.len() as f64 / begun.elapsed().as_secs_f64(),
        p99: waits.value_at_quantile(0.99) as f64,
    })
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
