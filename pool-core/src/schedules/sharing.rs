//! Two pools under one budget.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Dice, all, calm, customers, dice, explore, pool, surely};
use crate::Budget;

/// Fails if a freed permit is offered to nobody, or if a pool that was asked to give way keeps what comes back.
#[test]
fn two_pools_never_hold_more_than_their_budget_and_neither_starves() {
    explore(|| async {
        let total = 1 + dice(2);
        let budget = Budget::new(total);
        // One count for both: that is what the budget bounds.
        let backend = Dice::default();
        let pools = [(); 2].map(|()| {
            let pool = pool(&Dice(Arc::clone(&backend.0)), 1 + dice(2), 0).budget(&budget);
            pool.build().expect("the settings are in order")
        });
        let mut tasks = customers(&pools[0]);
        tasks.extend(customers(&pools[1]));
        all(tasks).await;
        for pool in &pools {
            calm(pool).await;
            drop(surely(pool).await); // The other gives way.
        }
        let most = backend.0.most.load(Ordering::Relaxed);
        assert!(most <= total, "{most} were live under a budget of {total}");
        drop(pools);
        while backend.live() > 0 || budget.status().free < total {
            shuttle::future::yield_now().await;
        }
    });
}
