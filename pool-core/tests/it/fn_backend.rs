//! A backend from closures: each is called where the trait says, and what was not given has its default.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use pool_core::{Failure, FnBackend, GetError, Health, Pool, PrePing, When};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio_test::{assert_pending, task};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, line: impl Into<String>) {
        self.0.lock().push(line.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

/// Numbers 1, 2, 3, ….
fn numbers() -> FnBackend<usize, io::Error> {
    let opened = AtomicUsize::new(0);
    FnBackend::new(move || {
        let number = opened.fetch_add(1, Ordering::Relaxed) + 1;
        async move { Ok(number) }
    })
}

#[tokio::test]
async fn every_closure_is_called_where_the_trait_says() {
    let log = Log::default();
    let [looked, pinged, reset, closed] = [(); 4].map(|()| log.clone());
    let backend = numbers()
        .check(move |number, when| {
            looked.note(format!("check {number} at {when:?}"));
            match when {
                When::Return => Health::NeedsReset,
                _ => Health::Good,
            }
        })
        .ping(move |number| {
            pinged.note(format!("ping {number}"));
            *number += 10;
            Box::pin(async { Ok(()) })
        })
        .reset(move |number| {
            reset.note(format!("reset {number}"));
            *number += 100;
            Box::pin(async { Ok(()) })
        })
        .close(move |number| {
            closed.note(format!("close {number}"));
            async {}
        });
    let settings = Pool::builder(backend).pre_ping(PrePing::Always);
    let pool = settings.build().unwrap();
    drop(pool.get().await.unwrap());
    while pool.status().resetting > 0 {
        yield_now().await;
    }
    assert_eq!(*pool.get().await.unwrap(), 111);
    while pool.status().resetting > 0 {
        yield_now().await;
    }
    assert!(pool.close().await.is_clean());
    let expected = [
        "check 1 at Checkout",
        "check 1 at Return",
        "reset 1",
        "check 101 at Checkout",
        "ping 101",
        "check 111 at Return",
        "reset 111",
        "close 211",
    ];
    assert_eq!(log.take(), expected);
}

#[tokio::test]
async fn nobody_gets_a_value_before_its_reset_is_done() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, goes_on) = (Arc::clone(&begun), Arc::clone(&go_on));
    let backend = numbers().reset(move |number| {
        let (begins, goes_on) = (Arc::clone(&begins), Arc::clone(&goes_on));
        Box::pin(async move {
            begins.notify_one();
            goes_on.notified().await;
            *number = 0;
            Ok(())
        })
    });
    let settings = Pool::builder(backend).pool_size(1).max_overflow(0);
    let pool = settings.build().unwrap();
    drop(pool.get().await.unwrap());
    begun.notified().await;
    let mut next = task::spawn(pool.get());
    assert_pending!(next.poll());
    go_on.notify_one();
    assert_eq!(*next.await.unwrap(), 0);
}

#[tokio::test]
async fn a_reset_on_the_spot_comes_before_the_check_and_before_the_next_caller() {
    let backend = FnBackend::values(String::new)
        .reset_now(String::clear)
        .check(|text, _| {
            if text.is_empty() && text.capacity() < 100 {
                Health::Good
            } else {
                Health::Broken
            }
        });
    let pool = Pool::builder(backend).build().unwrap();
    pool.get().await.unwrap().push_str("hello");
    let mut text = pool.try_get().expect("reset, and idle already");
    assert_eq!((text.as_str(), text.capacity() > 0), ("", true));
    text.reserve(100);
    drop(text);
    assert_eq!(pool.status().open, 0, "too large to be kept");
}

#[tokio::test]
async fn a_value_whose_user_panicked_is_not_reset_but_closed() {
    let resets = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&resets);
    let backend = FnBackend::values(Vec::<u8>::new).reset_now(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let pool = Pool::builder(backend).build().unwrap();
    let value = pool.get().await.unwrap();
    let user = AssertUnwindSafe(move || {
        let _value = value;
        panic!("the test's own");
    });
    assert!(catch_unwind(user).is_err());
    assert!(pool.close().await.is_clean());
    assert_eq!(resets.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_closure_that_panics_costs_its_value_alone() {
    let calls = AtomicUsize::new(0);
    let backend = numbers().ping(move |_| {
        let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
        Box::pin(async move {
            assert!(!first, "the test's own");
            Ok(())
        })
    });
    let settings = Pool::builder(backend).pre_ping(PrePing::Always);
    let pool = settings.pool_size(1).max_overflow(0).build().unwrap();
    for number in [1, 2, 2] {
        assert_eq!(*pool.get().await.unwrap(), number);
    }
}

#[tokio::test]
async fn errors_reach_the_caller_and_are_classified_by_the_closure() {
    let refused = || async { Err::<u8, _>(io::Error::from(io::ErrorKind::PermissionDenied)) };
    let backend = FnBackend::new(refused).classify(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::Permanent,
        _ => Failure::Transient,
    });
    let pool = Pool::builder(backend).build().unwrap();
    let error = pool.get().await.unwrap_err();
    assert!(matches!(error, GetError::Connect(_)), "{error:?}");
    let cause = error.backend_error().unwrap();
    assert_eq!(cause.kind(), io::ErrorKind::PermissionDenied);
    let failure = pool_core::Backend::classify(pool.backend(), cause);
    assert_eq!(failure, Failure::Permanent);
}

#[tokio::test]
async fn without_any_closure_values_come_back_as_they_were_left() {
    struct Nameable {
        pool: Pool<FnBackend<Vec<u8>>>,
    }
    let pool = Pool::builder(FnBackend::values(Vec::new)).build().unwrap();
    let held = Nameable { pool };
    held.pool.get().await.unwrap().push(7);
    assert_eq!(*held.pool.try_get().unwrap(), [7]);
}

#[test]
fn debug_names_what_was_given() {
    let backend = numbers().check(|_, _| Health::Good).close(|_| async {});
    assert_eq!(
        format!("{backend:?}"),
        "FnBackend with connect, check, close"
    );
}
