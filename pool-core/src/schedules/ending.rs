//! Pools that end while they are used.

use super::{Dice, all, calm, customers, cut, dawdle, dice, explore, pool};

/// Fails if a connection that comes back to a closed pool is kept.
#[test]
fn a_pool_closed_at_any_step_leaves_nothing() {
    explore(|| async {
        let backend = if dice(2) == 0 {
            Dice::default()
        } else {
            Dice::fickle()
        };
        let pool = pool(&backend, 1 + dice(2), dice(2)).build();
        let pool = pool.expect("the settings are in order");
        let tasks = customers(&pool);
        dawdle(16).await;
        match dice(3) {
            0 => drop(pool.close_now()),
            _ => drop(cut(pool.close()).await),
        }
        all(tasks).await;
        drop(pool.close().await);
        let seen = calm(&pool).await;
        assert_eq!((seen.open, backend.live()), (0, 0), "all is closed: {seen}");
        assert!(pool.get().await.is_err(), "closed for ever");
    });
}

/// Fails if a task of the pool's keeps it alive for ever.
#[test]
fn a_pool_whose_last_handle_goes_at_any_step_closes_its_connections() {
    explore(|| async {
        let backend = Dice::default();
        let pool = pool(&backend, 1 + dice(2), dice(2)).build();
        let tasks = customers(&pool.expect("the settings are in order"));
        all(tasks).await;
        while backend.live() > 0 {
            shuttle::future::yield_now().await;
        }
    });
}
