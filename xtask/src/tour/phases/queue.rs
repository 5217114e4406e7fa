//! Phase 3: more callers than connections. They are served in the order in which they came, and who waits too
//! long is told why.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use pool_router::{Engine, ErrorKind};

use crate::tour::checks::Check;
use crate::tour::sampler::QUEUE;
use crate::tour::scene::{QUEUE_OVERFLOW, QUEUE_SIZE, Scene};

const PHASE: &str = "3 queue";
const CAPACITY: usize = QUEUE_SIZE + QUEUE_OVERFLOW;
const CALLERS: usize = 40;
const LIMIT: Duration = Duration::from_millis(200);
/// A timeout that comes later than this is not the one that was asked for.
const LATE: Duration = Duration::from_secs(2);

pub(super) async fn run(scene: &Scene) -> Result<()> {
    scene.view.say(format!(
        "3 queue: {CALLERS} callers for {CAPACITY} connections"
    ));
    let until = Instant::now() + scene.share(0.04);
    let engine = engine(scene, Duration::from_secs(20))?;
    let order = scene.checks.named(format!(
        "{PHASE}: callers are served in the order they came"
    ));
    let mut rounds = 0;
    while rounds < 2 || Instant::now() < until {
        in_order(&engine, &order).await?;
        rounds += 1;
    }
    let report = engine.close().await;
    ensure!(report.is_clean(), "the pool did not close: {report:?}");
    let engine = self::engine(scene, LIMIT)?;
    timeouts(scene, &engine).await?;
    let report = engine.close().await;
    ensure!(report.is_clean(), "the pool did not close: {report:?}");
    Ok(())
}

fn engine(scene: &Scene, limit: Duration) -> Result<Engine> {
    let builder = Engine::builder(scene.cluster.primary().url()).application_name(QUEUE);
    Ok(builder
        .pool_size(QUEUE_SIZE)
        .max_overflow(QUEUE_OVERFLOW)
        .pool_timeout(limit)
        .build()?)
}

/// All connections are held; one of them goes from caller to caller, and each says when it has it.
async fn in_order(engine: &Engine, order: &Arc<Check>) -> Result<()> {
    let mut held = Vec::new();
    for _ in 0..CAPACITY {
        held.push(engine.connect().await?);
    }
    let mut queue = FuturesUnordered::new();
    for caller in 0..CALLERS {
        let mut waiting = Box::pin(async move { (caller, engine.connect().await) });
        // The first poll is what puts a caller into the queue.
        ensure!(
            futures_util::poll!(waiting.as_mut()).is_pending(),
            "caller {caller} did not have to wait"
        );
        queue.push(waiting);
    }
    order.equal("callers waiting", &engine.status().waiting, &CALLERS);
    let mut returned = held.pop();
    for expected in 0..CALLERS {
        drop(returned.take());
        let (caller, connection) = queue.next().await.context("the queue ended early")?;
        order.equal("the caller served", &caller, &expected);
        returned = Some(connection?);
    }
    Ok(())
}

/// All connections are held for longer than anybody waits.
async fn timeouts(scene: &Scene, engine: &Engine) -> Result<()> {
    let check = scene.checks.named(format!(
        "{PHASE}: a timeout says what the pool looked like and who held it"
    ));
    let mut held = Vec::new();
    for _ in 0..CAPACITY {
        held.push(engine.connect().await?);
    }
    let callers = (0..CALLERS).map(|_| async {
        let began = Instant::now();
        (engine.connect().await, began.elapsed())
    });
    let mut example = None;
    for (answer, waited) in join_all(callers).await {
        let Err(error) = answer else {
            bail!("a caller got a connection that somebody else held")
        };
        let text = error.to_string();
        check.equal("the kind of error", &error.kind(), &ErrorKind::PoolTimeout);
        check.that(error.is_retryable(), || {
            "nothing was sent, so trying again is safe".to_owned()
        });
        check.that(waited >= LIMIT && waited < LATE, || {
            format!("waited {waited:?} of {LIMIT:?}")
        });
        for part in [
            &format!("{CAPACITY} of {CAPACITY} in use"),
            " waiting",
            file!(),
        ] {
            check.that(text.contains(part), || {
                format!("{part:?} is not in: {text}")
            });
        }
        example.get_or_insert(text);
    }
    scene.view.say(format!(
        "  who waited too long was told: {}",
        example.unwrap_or_default()
    ));
    check.equal("callers still waiting", &engine.status().waiting, &0);
    drop(held);
    let mut again = Vec::new();
    for _ in 0..CAPACITY {
        again.push(engine.connect().await?);
    }
    check.equal("connections to be had afterwards", &again.len(), &CAPACITY);
    Ok(())
}
