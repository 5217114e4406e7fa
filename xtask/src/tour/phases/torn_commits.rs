//! Phase 6, second half: connections that are torn while a commit is under way, at a chosen byte of what either
//! side says. Whatever the shop is told about the order has to be so.

use anyhow::Result;
use pool_router::ErrorKind;
use testbed::Side;

use crate::tour::ledger::Fate;
use crate::tour::scene::{Scene, Torn};
use crate::tour::shop;

const PHASE: &str = "6 torn commits";
/// Both sides say less than this around a commit.
const LONGEST: u64 = 280;
const STEP: usize = 13;

pub(super) async fn run(scene: &Scene) -> Result<()> {
    scene.view.say("  and commits are torn half-way");
    let mut told = [0_usize; 3];
    for side in [Side::Client, Side::Server] {
        for bytes in (1..LONGEST).step_by(STEP) {
            let fate = tear(scene, side, bytes).await?;
            told[match fate {
                Fate::Acknowledged => 0,
                Fate::NotWritten => 1,
                _ => 2,
            }] += 1;
        }
    }
    let report = scene.torn.db.shutdown().await;
    let clean = scene
        .checks
        .named(format!("{PHASE}: the pool closes cleanly after it"));
    clean.that(report.is_clean(), || format!("{report:?}"));
    let [acknowledged, failed, unknown] = told;
    scene
        .figures
        .count("6: torn commits acknowledged", acknowledged);
    scene
        .figures
        .count("6: torn commits failed for certain", failed);
    scene
        .figures
        .count("6: torn commits of unknown outcome", unknown);
    scene.audit(PHASE).await
}

/// Writes an order whose commit loses its connection after so many bytes from one side.
async fn tear(scene: &Scene, side: Side, bytes: u64) -> Result<Fate> {
    let Torn { db, proxy } = &scene.torn;
    let order = scene.ledger.open();
    let mut session = db.write();
    shop::write_order(&mut session, order).await?;
    proxy.cut_after(side, bytes);
    let fate = match session.commit().await {
        Ok(_) => Fate::Acknowledged,
        Err(error) => {
            let honest = scene
                .checks
                .named(format!("{PHASE}: a lost answer is an unknown outcome"));
            honest.equal(
                "the kind of error",
                &error.kind(),
                &ErrorKind::OutcomeUnknown,
            );
            Fate::of_commit(&error)
        }
    };
    scene.ledger.settle(order, fate);
    // What was not used up must not tear the next connection's start.
    proxy.cut_after(side, u64::MAX);
    Ok(fate)
}
