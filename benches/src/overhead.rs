//! What the engine adds to the driver, where the network is not free: a connection taken from the pool, used for one
//! statement and returned, beside a bare client of tokio-postgres. Both through a proxy that delays what it passes by a
//! millisecond each way.
//!
//! And how often a transaction of three statements waits for the network, counted by the same proxy.

use std::time::{Duration, Instant};

use anyhow::Result;
use pool_postgres::{Engine, Session, SessionFactory};
use testbed::Proxy;
use tokio_postgres::NoTls;

use crate::contender::WAIT;
use crate::report::{Report, Rounds, Target, Verdict};
use crate::two_threads;

const DELAY: Duration = Duration::from_millis(1);
/// Statements in one figure.
const STATEMENTS: u32 = 100;
const SQL: &str = "SELECT $1::int + 1";

const BARE: &str = "tokio-postgres, one client";
const TAKEN: &str = "ours, connection taken and returned";
const ENGINE: &str = "ours, engine";
const THREE: &str = "three statements";
const PIPELINE: &str = "three statements in a pipeline";
const COMMIT: &str = "commit";

/// Compares times to the first row.
///
/// # Errors
/// Where the server could not be started or a statement failed.
pub fn compare(rounds: usize) -> Result<Report> {
    let figures = two_threads()?.block_on(async {
        let cluster = testbed::cluster().start().await?;
        let proxy = cluster.primary().proxy().await?;
        let engine = through(&proxy)?;
        let (client, connection) = tokio_postgres::connect(&proxy.url(), NoTls).await?;
        let driving = tokio::spawn(connection);
        let statement = client.prepare(SQL).await?;
        engine.query_one(SQL, &[&1]).await?;
        let prepared = engine.connect().await?.client().prepare(SQL).await?;
        proxy.set_delay(DELAY);
        let mut figures = Rounds::default();
        for _ in 0..rounds {
            let begun = Instant::now();
            for number in 0..STATEMENTS {
                client
                    .query_one(&statement, &[&i32::try_from(number)?])
                    .await?;
            }
            figures.note(BARE, each(begun));
            let begun = Instant::now();
            for number in 0..STATEMENTS {
                let connection = engine.connect().await?;
                connection
                    .client()
                    .query_one(&prepared, &[&i32::try_from(number)?])
                    .await?;
            }
            figures.note(TAKEN, each(begun));
            let begun = Instant::now();
            for number in 0..STATEMENTS {
                engine.query_one(SQL, &[&i32::try_from(number)?]).await?;
            }
            figures.note(ENGINE, each(begun));
        }
        driving.abort();
        engine.close().await;
        anyhow::Ok(figures)
    })?;
    let over = |name: &'static str| {
        let percent = (figures.median(name) / figures.median(BARE) - 1.0) * 100.0;
        Verdict::new(
            format!("{name}, % above the bare client"),
            percent,
            Target::AtMost(3.0),
        )
    };
    Ok(Report {
        workload: "one statement after another, 1 ms each way",
        verdicts: vec![over(TAKEN), over(ENGINE)],
        measures: vec![figures.measure("µs a statement")],
    })
}

fn through(proxy: &Proxy) -> Result<Engine> {
    let engine = Engine::builder(proxy.url())
        .pool_size(1)
        .max_overflow(0)
        .pool_timeout(WAIT)
        .build()?;
    Ok(engine)
}

fn each(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(STATEMENTS)
}

/// Counts the round trips of a transaction of three statements, all prepared before.
///
/// # Errors
/// Where the server could not be started or a statement failed.
pub fn transactions(rounds: usize) -> Result<Report> {
    let figures = two_threads()?.block_on(async {
        let cluster = testbed::cluster().start().await?;
        let proxy = cluster.primary().proxy().await?;
        let engine = through(&proxy)?;
        let sessions = SessionFactory::new(engine.clone());
        let mut figures = Rounds::default();
        transact(&mut sessions.session(), &proxy, &mut Rounds::default()).await?;
        for _ in 0..rounds {
            transact(&mut sessions.session(), &proxy, &mut figures).await?;
        }
        engine.close().await;
        anyhow::Ok(figures)
    })?;
    let most = |name, most| Verdict::new(name, figures.median(name), Target::AtMost(most));
    Ok(Report {
        workload: "round trips of a transaction of three statements",
        verdicts: vec![most(THREE, 3.0), most(PIPELINE, 1.0), most(COMMIT, 1.0)],
        measures: vec![figures.measure("round trips")],
    })
}

async fn transact(session: &mut Session, proxy: &Proxy, figures: &mut Rounds) -> Result<()> {
    let begun = proxy.round_trips();
    for number in 0..3 {
        session.query_one(SQL, &[&number]).await?;
    }
    let done = proxy.round_trips();
    let _ = session.commit().await?;
    figures.note(THREE, count(begun, done));
    figures.note(COMMIT, count(done, proxy.round_trips()));
    let begun = proxy.round_trips();
    let numbers = [1, 2, 3];
    let mut pipeline = session.pipeline();
    for number in &numbers {
        pipeline = pipeline.statement(SQL, &[number]);
    }
    pipeline.run().await?;
    figures.note(PIPELINE, count(begun, proxy.round_trips()));
    let _ = session.commit().await?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn count(from: u64, to: u64) -> f64 {
    (to - from) as f64
}
