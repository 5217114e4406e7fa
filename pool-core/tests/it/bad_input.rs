//! Settings that contradict each other, clocks that jump, and uses that nobody should make but somebody will.

use std::panic::catch_unwind;
use std::time::Duration;

use futures::future::join_all;
use pool_core::{
    Budget, BuildError, Builder, GetError, GetOptions, Pool, PrePing, QueueDiscipline, Shed,
};
use tokio::time::{advance, timeout};

use crate::scripted::{ScriptedBackend, at_rest, tasks_run};

const SECOND: Duration = Duration::from_secs(1);

type Settings = Builder<ScriptedBackend>;

fn builder() -> Settings {
    Pool::builder(ScriptedBackend::new())
}

fn refused(settings: impl FnOnce(Settings) -> Settings) -> BuildError {
    settings(builder())
        .build()
        .expect_err("these settings are refused")
}

#[test]
fn min_idle_above_pool_size_is_refused_by_both_names() {
    let error = refused(|b| b.pool_size(3).min_idle(4));
    let expected = BuildError::MinIdle {
        min_idle: 4,
        pool_size: 3,
    };
    assert_eq!(error, expected);
    let text = error.to_string();
    assert!(
        text.starts_with("min_idle 4 is above pool_size 3"),
        "{text}"
    );
    assert!(
        text.ends_with("lower min_idle or raise pool_size"),
        "{text}"
    );
    assert!(builder().pool_size(3).min_idle(3).build().is_ok());
}

#[test]
fn a_keepalive_that_comes_after_idle_timeout_is_refused_by_both_names() {
    for keepalive in [60, 61] {
        let every = Duration::from_secs(keepalive);
        let error = refused(|b| b.keepalive(every).idle_timeout(60 * SECOND));
        let expected = BuildError::Contradiction {
            setting: ("keepalive", every),
            other: ("idle_timeout", 60 * SECOND),
        };
        assert_eq!(error, expected);
        let text = error.to_string();
        let begin = format!("keepalive {every:?} is not below idle_timeout 60s");
        assert!(
            text.starts_with(&begin) && text.ends_with("lower the one or raise the other"),
            "{text}"
        );
    }
    let every = 61 * SECOND;
    assert!(
        builder()
            .keepalive(every)
            .idle_timeout(None)
            .build()
            .is_ok()
    );
}

#[test]
fn a_jitter_that_is_no_part_is_refused() {
    for jitter in [-0.1, 1.1, f64::INFINITY, f64::NAN] {
        let error = refused(|b| b.recycle_jitter(jitter));
        assert!(matches!(error, BuildError::Jitter(_)));
        let text = error.to_string();
        assert!(
            text.starts_with("recycle_jitter ") && text.ends_with("from 0.0 to 1.0"),
            "{text}"
        );
    }
    assert!(builder().recycle_jitter(1.0).build().is_ok());
}

#[test]
fn a_share_of_nothing_and_a_budget_of_nothing_are_refused() {
    let error = refused(|b| b.budget_weight(0));
    assert_eq!(error, BuildError::NoWeight);
    assert_eq!(error.to_string(), "budget_weight is 0: set at least 1");
    assert!(catch_unwind(|| Budget::new(0)).is_err());
}

#[test]
fn every_duration_that_must_not_be_zero_is_refused_by_its_name() {
    let zero = Duration::ZERO;
    let shed = |shed: Shed| QueueDiscipline::Shed(shed);
    let settings: [(&str, BuildError); 6] = [
        ("idle_timeout", refused(|b| b.idle_timeout(zero))),
        ("keepalive", refused(|b| b.keepalive(zero))),
        ("max_hold", refused(|b| b.max_hold(zero))),
        ("leak_threshold", refused(|b| b.leak_threshold(zero))),
        (
            "Shed::target",
            refused(|b| b.queue(shed(Shed::new(zero).interval(SECOND)))),
        ),
        (
            "Shed::interval",
            refused(|b| b.queue(shed(Shed::new(SECOND).interval(zero)))),
        ),
    ];
    for (name, error) in settings {
        assert_eq!(error, BuildError::ZeroDuration(name));
        assert_eq!(
            error.to_string(),
            format!("{name} is zero: set a positive duration")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_and_the_largest_of_everything_work() {
    let longest = Duration::MAX;
    let shed = Shed::new(longest).interval(longest).floor(usize::MAX);
    let pool = ScriptedBackend::new().pool_with(2, 0, |b| {
        b.idle_timeout(longest)
            .overflow_linger(longest)
            .max_hold(longest)
            .leak_threshold(longest)
            .recycle(longest)
            .pre_ping(PrePing::IdleFor(longest))
            .max_waiting(usize::MAX)
            .max_connecting(usize::MAX)
            .min_idle(2)
            .budget(&Budget::new(usize::MAX))
            .budget_weight(u32::MAX)
            .queue(QueueDiscipline::Shed(shed))
    });
    let held = pool
        .get_with(GetOptions::new().timeout(longest))
        .await
        .unwrap();
    pool.renew_all(longest);
    let returned = async {
        tokio::time::sleep(5 * SECOND).await;
        drop(held);
    };
    let (all, ()) = futures::future::join(
        join_all((0..3).map(|_| async { drop(pool.get().await) })),
        returned,
    )
    .await;
    assert_eq!(all.len(), 3);
    assert_eq!(pool.stats().leaks_suspected, 0);
    pool.assert_whole().await;
    assert!(pool.close().await.is_clean());
}

#[test]
fn a_keepalive_of_all_time_contradicts_no_idle_timeout_at_all() {
    let longest = Duration::MAX;
    assert!(
        builder()
            .keepalive(longest)
            .idle_timeout(None)
            .build()
            .is_ok()
    );
    assert!(matches!(
        refused(|b| b.keepalive(longest).idle_timeout(longest)),
        BuildError::Contradiction { .. }
    ));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_by_years_closes_what_is_old_and_serves_on() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(3, 0, |b| {
        b.recycle(3600 * SECOND).min_idle(1).keepalive(60 * SECOND)
    });
    pool.warm_up(3).await.unwrap();
    let held = pool.get().await.unwrap();
    for _ in 0..3 {
        advance(Duration::from_hours(24 * 365)).await;
        drop(timeout(SECOND, pool.get()).await.unwrap().unwrap());
    }
    drop(held);
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn closing_twice_from_many_tasks_and_now_ends_for_all_alike() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(4, 0);
    pool.warm_up(4).await.unwrap();
    let held = pool.get_owned().await.unwrap();
    let mut closers: Vec<_> = (0..20)
        .map(|_| {
            let pool = pool.pool.clone();
            tokio::spawn(async move { pool.close().await })
        })
        .collect();
    tasks_run().await;
    assert_eq!(pool.close_now().still_held.len(), 1);
    assert!(closers.iter().all(|closer| !closer.is_finished()));
    drop(held);
    for closer in closers.drain(..) {
        assert!(closer.await.unwrap().is_clean());
    }
    assert!(pool.close().await.is_clean());
    assert_eq!(backend.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_closed_pool_takes_everything_in_its_stride() {
    let pool = ScriptedBackend::new().pool(2, 0);
    drop(pool.get().await.unwrap());
    pool.close().await;
    pool.suspend();
    pool.resume();
    pool.resize(3, 3).unwrap();
    pool.invalidate_all();
    pool.renew_all(SECOND);
    assert_eq!(pool.retain(|_, _| false), 0);
    assert!(matches!(pool.warm_up(1).await, Err(GetError::Closed)));
    assert!(matches!(pool.get().await, Err(GetError::Closed)));
    tokio::time::sleep(10 * SECOND).await;
    at_rest(&pool).await;
    assert_eq!(pool.status().open, 0);
    assert!(pool.stats().maintenance_age.is_none());
}
