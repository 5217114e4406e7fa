//! Settings that are refused, and the words of every error.

use std::error::Error;
use std::time::Duration;

use futures::future::join_all;
use pool_core::{BuildError, Builder, Failure, GetError, MAX_CONNECTIONS, Pool, PrePing};

use crate::scripted::{Call, ScriptedBackend, Step};

fn refused(
    settings: impl FnOnce(Builder<ScriptedBackend>) -> Builder<ScriptedBackend>,
) -> BuildError {
    let builder = settings(Pool::builder(ScriptedBackend::new()));
    builder.build().expect_err("these settings are refused")
}

#[test]
fn a_pool_without_any_capacity_is_refused() {
    let error = refused(|b| b.pool_size(0).max_overflow(0));
    assert_eq!(error, BuildError::NoCapacity);
    let text = error.to_string();
    assert!(
        text.starts_with("pool_size is 0 and max_overflow is 0"),
        "{text}"
    );
    assert!(text.contains("raise one of them"), "{text}");
}

#[test]
fn more_than_the_ceiling_is_refused_and_the_ceiling_is_not() {
    let error = refused(|b| b.pool_size(MAX_CONNECTIONS).max_overflow(1));
    let text = error.to_string();
    assert!(
        text.starts_with(
            "pool_size 63488 and max_overflow 1 exceed the ceiling of 63488 connections: lower one"
        ),
        "{text}"
    );
    assert!(matches!(
        refused(|b| b.pool_size(usize::MAX).max_overflow(usize::MAX)),
        BuildError::TooMany { .. }
    ));
    let text = refused(|b| b.pool_size(MAX_CONNECTIONS + 1).max_overflow(None)).to_string();
    assert!(text.starts_with("pool_size 63489 "), "{text}");
    let builder = Pool::builder(ScriptedBackend::new()).pool_size(MAX_CONNECTIONS);
    assert!(builder.clone().max_overflow(0).build().is_ok());
    let pool = builder.max_overflow(None).build().unwrap();
    assert_eq!(pool.status().capacity, MAX_CONNECTIONS);
}

#[test]
fn a_zero_duration_is_refused_by_the_name_of_its_setting() {
    type Setting = fn(Builder<ScriptedBackend>) -> Builder<ScriptedBackend>;
    let settings: [(&str, Setting); 5] = [
        ("connect_timeout", |b| b.connect_timeout(Duration::ZERO)),
        ("ping_timeout", |b| b.ping_timeout(Duration::ZERO)),
        ("reset_timeout", |b| b.reset_timeout(Duration::ZERO)),
        ("close_timeout", |b| b.close_timeout(Duration::ZERO)),
        ("recycle", |b| b.recycle(Duration::ZERO)),
    ];
    for (name, setting) in settings {
        let error = refused(setting);
        assert_eq!(error, BuildError::ZeroDuration(name));
        assert_eq!(
            error.to_string(),
            format!("{name} is zero: set a positive duration")
        );
        assert!(error.source().is_none());
    }
}

#[test]
fn opening_none_at_a_time_is_refused() {
    let error = refused(|b| b.max_connecting(0));
    assert_eq!(error, BuildError::NoConnecting);
    let text = error.to_string();
    assert!(
        text.starts_with("max_connecting is 0") && text.ends_with("set at least 1"),
        "{text}"
    );
}

#[test]
fn a_shortest_pause_above_the_longest_is_refused_by_both() {
    let (shortest, longest) = (Duration::from_secs(3), Duration::from_secs(2));
    let error = refused(|b| b.backoff(shortest, longest));
    assert_eq!(error, BuildError::Backoff { shortest, longest });
    let text = error.to_string();
    assert!(
        text.starts_with("backoff's shortest pause 3s is above its longest 2s: lower the one"),
        "{text}"
    );
}

#[test]
fn a_runtime_without_timers_is_refused_when_the_pool_is_built() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let error = runtime.block_on(async { refused(|b| b) });
    assert_eq!(error, BuildError::NoTimers);
    assert!(error.to_string().contains("call enable_time"), "{error}");
}

#[test]
fn zero_is_a_good_timeout_and_so_is_none_and_the_longest_of_all() {
    for timeout in [Some(Duration::ZERO), None, Some(Duration::MAX)] {
        let builder = Pool::builder(ScriptedBackend::new()).pool_timeout(timeout);
        assert!(builder.close_deadline(Duration::ZERO).build().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_durations_of_all_do_not_overflow() {
    let longest = Duration::MAX;
    let pool = ScriptedBackend::new().pool_with(1, 0, |b| {
        b.pool_timeout(longest)
            .connect_timeout(longest)
            .ping_timeout(longest)
            .reset_timeout(longest)
            .close_timeout(longest)
            .close_deadline(longest)
            .recycle(longest)
            .pre_ping(PrePing::IdleFor(longest))
            .backoff(longest, longest)
    });
    let held = pool.get().await.unwrap();
    let returning = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(held);
    };
    let (conn, ()) = futures::future::join(pool.get(), returning).await;
    drop(conn.unwrap());
    assert!(pool.close().await.is_clean());
}

#[test]
fn a_builder_is_cloned_with_its_settings_and_shows_them() {
    let builder = Pool::builder(ScriptedBackend::new())
        .pool_size(7)
        .max_overflow(2);
    let pool = builder.clone().build().unwrap();
    assert_eq!((pool.status().size, pool.status().capacity), (7, 9));
    let again = builder.build().unwrap();
    assert_eq!(again.status(), pool.status());
    let text = format!("{:?}", Pool::builder(ScriptedBackend::new()).pool_size(7));
    assert!(text.contains("pool_size: 7"), "{text}");
}

/// The chain of causes, from the outside in.
fn told(error: &(dyn Error + 'static)) -> Vec<String> {
    std::iter::successors(Some(error), |&error| error.source())
        .map(ToString::to_string)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_failed_opening_prints_its_cause_once() {
    let backend = ScriptedBackend::new().always(Call::Open, Step::Err(Failure::Transient));
    let pool = backend.pool(1, 0);
    let error = pool.get().await.unwrap_err();
    assert_eq!(
        told(&error),
        ["could not open a connection", "the script failed Open C1"]
    );
    assert!(error.is_retryable());
    let GetError::Connect(cause) = error else {
        panic!("{error:?}")
    };
    assert_eq!(
        told(&cause),
        ["the backend could not connect", "the script failed Open C1"]
    );
    // The third in a row: the pool is down.
    let ends = join_all([pool.get(), pool.get()]).await;
    assert!(ends.iter().all(Result::is_err));
    let error = pool.get().await.unwrap_err();
    let [outer, inner] = &told(&error)[..] else {
        panic!("{error:?}")
    };
    assert!(
        outer.starts_with("the last ") && outer.ends_with(" attempts to open a connection failed"),
        "{outer}"
    );
    assert!(inner.starts_with("the script failed Open C"), "{inner}");
    assert!(error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_hangs_or_panics_says_so_in_one_line() {
    let backend = ScriptedBackend::new();
    backend.next(Call::Open, [Step::Never, Step::Panic]);
    let pool = backend.pool_with(1, 0, |b| b.down_after(2));
    let error = pool.get().await.unwrap_err();
    assert_eq!(told(&error), ["no connection was opened within 5s"]);
    assert!(error.is_retryable());
    let backend = backend.always(Call::Open, Step::Panic);
    let error = pool.get().await.unwrap_err();
    assert_eq!(
        told(&error),
        ["the backend panicked while opening a connection"]
    );
    assert!(!error.is_retryable());
    let error = pool.get().await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.ends_with(
            "attempts to open a connection failed: the backend panicked while opening a connection"
        ),
        "{text}"
    );
    assert!(error.source().is_none());
    drop(backend);
}

#[tokio::test(start_paused = true)]
async fn the_other_errors_each_have_their_words_and_their_cause() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| {
        b.pool_timeout(Duration::from_secs(2))
            .pre_ping(PrePing::Always)
    });
    drop(pool.get().await.unwrap());
    backend.next(Call::Ping, [Step::Err(Failure::Permanent)]);
    let error = pool.get().await.unwrap_err();
    assert_eq!(
        told(&error),
        [
            "the ping before the checkout failed",
            "the script failed Ping C1"
        ]
    );
    assert!(!error.is_retryable());

    let held = pool.get().await.unwrap();
    let error = pool.get().await.unwrap_err();
    let [text] = &told(&error)[..] else {
        panic!("{error:?}")
    };
    assert!(
        text.contains("1 of 1 in use, 0 opening, 0 waiting; longest held 2.0s, taken at "),
        "{text}"
    );
    assert!(error.is_retryable());
    drop(held);

    pool.close().await;
    let error = pool.get().await.unwrap_err();
    assert_eq!(told(&error), ["the pool is closed"]);
    assert!(!error.is_retryable());
}

#[test]
fn without_a_runtime_the_error_names_the_remedy() {
    let pool = ScriptedBackend::new().pool(1, 0);
    let error = futures::executor::block_on(pool.get()).unwrap_err();
    assert!(
        error.to_string().contains("try_get") && !error.is_retryable(),
        "{error}"
    );
}
