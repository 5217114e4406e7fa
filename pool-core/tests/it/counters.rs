//! Lazy opening, the numbers of `status`, and which connections a return keeps.

use std::time::Duration;

use pool_core::{GetError, PrePing};
use tokio::time::{Instant, advance};

use crate::scripted::{Call, ScriptedBackend, Step, at_rest, timed_out};

#[tokio::test(start_paused = true)]
async fn building_a_pool_opens_nothing() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(2, 1);
    at_rest(&pool).await;
    assert_eq!(pool.numbers(), (2, 0, 0, 0));
    assert_eq!((pool.status().open, backend.opens()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn each_checkout_of_a_cold_pool_opens_exactly_one() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(2, 1);
    let mut held = Vec::new();
    for (number, expected) in [(1, (2, 0, 0, 1)), (2, (2, 0, 0, 2)), (3, (2, 0, 1, 3))] {
        held.push(pool.get().await.unwrap());
        assert_eq!((backend.opens(), pool.numbers()), (number, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn returns_are_reset_and_kept_until_pool_size_are_idle() {
    let backend = ScriptedBackend::resetting();
    let pool = backend.pool(2, 1);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pool.get().await.unwrap());
    }
    backend.log();
    for expected in [(2, 1, 1, 2), (2, 2, 1, 1), (2, 2, 0, 0)] {
        drop(held.remove(0));
        at_rest(&pool).await;
        assert_eq!(pool.numbers(), expected);
    }
    assert_eq!(
        backend.log(),
        ["reset C1", "reset C2", "reset C3", "close C3"]
    );
}

#[tokio::test(start_paused = true)]
async fn the_defaults_are_five_and_ten_thirty_seconds_no_recycling_and_a_ping_after_thirty() {
    let backend = ScriptedBackend::new();
    let pool = pool_core::Pool::builder(backend.clone())
        .time_source(pool_core::TimeSource::Exact)
        .build()
        .unwrap();
    let status = pool.status();
    assert_eq!((status.size, status.capacity), (5, 15));
    let mut held = Vec::new();
    for _ in 0..15 {
        held.push(pool.get().await.unwrap());
    }
    let begun = Instant::now();
    timed_out(pool.get().await.unwrap_err());
    assert_eq!(begun.elapsed().as_secs(), 30);
    held.truncate(1);
    at_rest(&pool).await;
    held.clear();
    advance(Duration::from_secs(29)).await;
    assert!(pool.get().await.is_ok());
    assert_eq!(backend.calls("ping"), 0);
    advance(Duration::from_secs(30)).await;
    assert!(pool.get().await.is_ok());
    assert_eq!(backend.calls("ping"), 1);
    advance(Duration::from_hours(8760)).await;
    let id = pool.get().await.unwrap().id;
    assert!(
        id <= 15,
        "no age is too old, but this was opened anew: C{id}"
    );
}

#[tokio::test(start_paused = true)]
async fn without_an_overflow_limit_pool_size_still_caps_what_stays_idle() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(3, None);
    let mut held = Vec::new();
    for expected in [
        (3, 0, 0, 1),
        (3, 0, 0, 2),
        (3, 0, 0, 3),
        (3, 0, 1, 4),
        (3, 0, 2, 5),
        (3, 0, 3, 6),
    ] {
        held.push(Some(pool.get().await.unwrap()));
        assert_eq!(pool.numbers(), expected);
    }
    for number in [4, 3, 2] {
        held[number - 1] = None;
    }
    assert_eq!(pool.numbers(), (3, 3, 3, 3));
    for number in [1, 5, 6] {
        held[number - 1] = None;
    }
    at_rest(&pool).await;
    assert_eq!(pool.numbers(), (3, 3, 0, 0));
    for closed in ["close C1", "close C5", "close C6"] {
        assert_eq!(backend.calls(closed), 1, "{closed}");
    }
    let (one, _two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    assert_eq!(pool.numbers(), (3, 1, 0, 2));
    drop(one);
    assert_eq!(pool.numbers(), (3, 2, 0, 1));
    assert_eq!(backend.opens(), 6);
}

#[tokio::test(start_paused = true)]
async fn overflow_is_no_property_of_a_connection_the_last_to_return_is_closed() {
    let backend = ScriptedBackend::resetting();
    let pool = backend.pool(1, 1);
    let (c1, c2) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    backend.log();
    drop(c2);
    at_rest(&pool).await;
    assert_eq!(pool.numbers(), (1, 1, 1, 1));
    drop(c1);
    at_rest(&pool).await;
    assert_eq!(pool.numbers(), (1, 1, 0, 0));
    assert_eq!(backend.log(), ["reset C2", "reset C1", "close C1"]);
    assert_eq!(pool.get().await.unwrap().id, 2);
}

#[tokio::test(start_paused = true)]
async fn five_rounds_of_four_in_a_pool_of_two_and_two_open_twelve_and_close_ten() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(2, 2);
    for _ in 0..5 {
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(pool.get().await.unwrap());
        }
        drop(held);
        at_rest(&pool).await;
    }
    assert_eq!((backend.opens(), backend.calls("close")), (12, 10));
    assert_eq!(pool.numbers(), (2, 2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_overflow_return_whose_reset_fails_is_terminated_unseen_by_the_caller() {
    let backend = ScriptedBackend::resetting();
    let pool = backend.pool(1, 1);
    let (c1, c2) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop(c1);
    at_rest(&pool).await;
    backend.log();
    backend.next(Call::Reset, [Step::Err(pool_core::Failure::Transient)]);
    drop(c2);
    at_rest(&pool).await;
    assert_eq!(pool.numbers(), (1, 1, 0, 0));
    assert_eq!(backend.log(), ["reset C2", "terminate C2"]);
}

#[tokio::test(start_paused = true)]
async fn of_sixteen_checkouts_from_five_and_ten_with_timeout_zero_the_last_fails_at_once() {
    let pool = ScriptedBackend::new().pool_with(5, 10, |b| b.pool_timeout(Duration::ZERO));
    let mut held = Vec::new();
    for _ in 0..15 {
        held.push(pool.get().await.unwrap());
    }
    let error = pool.get().await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("15 of 15 in use, 0 opening, 0 waiting"),
        "{text}"
    );
    assert!(matches!(error, GetError::TimedOut(_)));
    assert_eq!(pool.numbers(), (5, 0, 10, 15));
}

#[tokio::test(start_paused = true)]
async fn max_overflow_none_hands_out_as_many_as_are_asked_for() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, None, |b| b.pre_ping(PrePing::Never));
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(pool.get().await.unwrap());
    }
    assert_eq!(pool.numbers(), (1, 0, 199, 200));
    drop(held);
    at_rest(&pool).await;
    assert_eq!(pool.numbers(), (1, 1, 0, 0));
    assert_eq!(backend.live(), 1);
}

#[tokio::test(start_paused = true)]
async fn pool_size_zero_with_overflow_closes_each_connection_on_return() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(0, 2);
    for number in 1..=3 {
        assert_eq!(pool.get().await.unwrap().id, number);
        at_rest(&pool).await;
        assert_eq!(pool.numbers(), (0, 0, 0, 0));
    }
    assert_eq!((backend.calls("close"), backend.live()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn status_as_text_is_one_line_with_every_number() {
    let pool = ScriptedBackend::new().pool(2, 1);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pool.get().await.unwrap());
    }
    held.pop();
    assert_eq!(
        pool.status().to_string(),
        "size 2 + 1 overflow in use of 1, 1 idle, 2 in use, 0 connecting, 0 resetting, 0 closing, \
         0 waiting"
    );
    drop(held);
    pool.close().await;
    assert!(pool.status().to_string().ends_with(", closed"));
}
