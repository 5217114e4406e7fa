//! What a routed read costs before it has a connection: making the session, reading the clock and deciding.
//!
//! The decision is the router's own `plan` over a primary and two fresh replicas, as `Database::read` runs
//! it for its default promise.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use pool_router::evidence::Evidence;
use pool_router::plan::plan;
use pool_router::request::Request;
use pool_router::view::View;
use pool_router::{Consistency, Database, Load, Lsn, Replay, Role, Sample};

use crate::report::{Report, Rounds, Target, Verdict};

const COUNT: u32 = 200_000;
const DECISION: &str = "decision and session";

/// Runs it against a real database's handle.
///
/// # Errors
/// Where the cluster could not be started.
pub fn compare(rounds: usize) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let figures = runtime.block_on(async {
        let cluster = testbed::cluster().replicas(2).start().await?;
        let mut builder = Database::builder().primary(cluster.primary().url());
        for replica in cluster.replicas() {
            builder = builder.replica(replica.url());
        }
        let db = builder.connect().await?;
        let view = fresh_view();
        let mut figures = Rounds::default();
        for _ in 0..rounds {
            let begun = Instant::now();
            for _ in 0..COUNT {
                let session = black_box(db.read());
                let request = Request::new(Consistency::BoundedStaleness(Duration::from_hours(1)));
                let plan = plan(&view, &request, Instant::now(), fastrand::u64(..));
                assert!(black_box(plan).is_ok_and(|plan| plan.candidates.len() == 3));
                drop(session);
            }
            figures.note(
                DECISION,
                begun.elapsed().as_secs_f64() * 1e9 / f64::from(COUNT),
            );
            let begun = Instant::now();
            for _ in 0..COUNT {
                black_box(Instant::now());
            }
            figures.note(
                "Instant::now()",
                begun.elapsed().as_secs_f64() * 1e9 / f64::from(COUNT),
            );
        }
        db.shutdown().await;
        anyhow::Ok(figures)
    })?;
    let verdict = Verdict::new(
        "a routing decision, in ns",
        figures.median(DECISION),
        Target::AtMost(300.0),
    );
    Ok(Report {
        workload: "a routed read up to the checkout",
        measures: vec![figures.measure("ns")],
        verdicts: vec![verdict],
    })
}

/// A primary and two replicas that have replayed all of its log.
fn fresh_view() -> View {
    let nodes = (0..3).map(|index| (format!("node {index}").into(), Arc::<Load>::default()));
    let mut evidence = Evidence::new(1, nodes);
    for node in 0..3 {
        let role = if node == 0 {
            Role::Primary
        } else {
            Role::Replica
        };
        let mut sample = Sample::bare(role, Instant::now());
        sample.system_identifier = Some(1);
        sample.timeline = Some(1);
        sample.position = Some(Lsn(0x100_0000));
        sample.replay = (role == Role::Replica).then_some(Replay::Running);
        evidence.answered(node, sample);
    }
    evidence.view()
}
