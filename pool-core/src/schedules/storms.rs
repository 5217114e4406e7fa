//! Many customers at once, on few connections.

use std::time::Duration;

use super::{Dice, all, calm, customers, cut, dawdle, dice, explore, pool, whole};
use crate::{PrePing, Reuse};

/// Fails if room that comes free wakes nobody, or if a waiter that leaves keeps what it was handed.
#[test]
fn customers_that_leave_at_any_step_leave_the_pool_whole() {
    explore(|| async {
        let backend = Dice::default();
        let reuse = [Reuse::Packed, Reuse::Packed, Reuse::Lifo, Reuse::Fifo][dice(4)];
        let pool = pool(&backend, 1 + dice(2), dice(2)).reuse(reuse);
        let pool = pool.build().expect("the settings are in order");
        all(customers(&pool)).await;
        whole(&pool, &backend).await;
    });
}

/// Fails as the one above, and if an attempt that fails does not pass its room on.
#[test]
fn whatever_fails_at_any_step_the_pool_is_whole() {
    explore(|| async {
        let backend = Dice::fickle();
        let pool = pool(&backend, 1 + dice(2), dice(2)).pre_ping(PrePing::Always);
        let pool = pool
            .down_after(2)
            .build()
            .expect("the settings are in order");
        all(customers(&pool)).await;
        whole(&pool, &backend).await;
    });
}

/// Fails if what is opened or comes back with an old generation keeps its slot.
#[test]
fn connections_made_unfit_at_any_step_are_closed() {
    explore(|| async {
        let backend = Dice::default();
        let pool = pool(&backend, 1 + dice(2), dice(2)).build();
        let pool = pool.expect("the settings are in order");
        let tasks = customers(&pool);
        for _ in 0..=dice(3) {
            dawdle(12).await;
            match dice(4) {
                0 => pool.invalidate_all(),
                1 => pool.renew_all(Duration::from_secs(1)),
                2 => drop(pool.retain(|_, _| dice(2) == 0)),
                _ => drop(cut(pool.warm_up(1)).await),
            }
        }
        all(tasks).await;
        whole(&pool, &backend).await;
    });
}

/// Fails if a pool made smaller keeps what comes back.
#[test]
fn a_pool_resized_at_any_step_ends_with_the_size_it_was_given_last() {
    explore(|| async {
        let backend = Dice::default();
        let pool = pool(&backend, 1 + dice(3), 1).build();
        let pool = pool.expect("the settings are in order");
        let tasks = customers(&pool);
        for _ in 0..=dice(2) {
            dawdle(12).await;
            drop(pool.resize(1 + dice(3), dice(2)));
        }
        all(tasks).await;
        // The most that were live is of a larger pool.
        let seen = calm(&pool).await;
        assert!(seen.open <= seen.capacity, "no more exist than may: {seen}");
        backend.forget();
        whole(&pool, &backend).await;
    });
}

/// Fails if what was parked is not offered to those who wait, or if a wait that ends resumes the pool.
#[test]
fn a_pool_suspended_at_any_step_hands_out_nothing_until_it_resumes() {
    explore(|| async {
        let backend = Dice::default();
        let pool = pool(&backend, 1 + dice(2), dice(2)).build();
        let pool = pool.expect("the settings are in order");
        let tasks = customers(&pool);
        for _ in 0..=dice(2) {
            dawdle(12).await;
            pool.suspend();
            for _ in 0..dice(3) {
                assert!(pool.try_get().is_none(), "suspended");
                dawdle(3).await;
            }
            pool.resume();
        }
        all(tasks).await;
        whole(&pool, &backend).await;
    });
}
