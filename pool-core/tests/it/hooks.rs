//! The hooks: every outcome that their table names, and what a panic in each does.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use pool_core::{CloseReason, ConnectError, GetError, OnCheckout, OnReturn};
use tokio::time::sleep;

use crate::scripted::{Call, ScriptedBackend, Step, at_rest};

const SECOND: Duration = Duration::from_secs(1);

/// What a hook does, call by call; `Keep` when nothing is left.
fn script<T: Send + 'static>(steps: Vec<T>) -> impl Fn() -> Option<T> + Send + Sync + 'static {
    let steps = Mutex::new(steps.into_iter());
    move || steps.lock().next()
}

type Told = Arc<Mutex<Vec<String>>>;

fn told(told: &Told) -> Vec<String> {
    std::mem::take(&mut *told.lock())
}

// ---- on_connect ----

#[tokio::test(start_paused = true)]
async fn on_connect_runs_once_for_each_connection_before_anybody_has_it() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let pool = ScriptedBackend::new().pool_with(2, 0, move |b| {
        b.on_connect(move |conn| {
            let counted = Arc::clone(&counted);
            Box::pin(async move {
                sleep(SECOND / 10).await;
                counted.fetch_add(conn.id, Ordering::Relaxed);
                Ok(())
            })
        })
    });
    for _ in 0..3 {
        let held = pool.get().await.unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        drop(held);
    }
    pool.warm_up(2).await.unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 1 + 2);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_on_connect_closes_the_connection_and_is_the_callers() {
    let backend = ScriptedBackend::new();
    let step = script(vec!["no such schema"]);
    let pool = backend.pool_with(1, 0, |b| {
        b.on_connect(move |_| {
            let step = step();
            Box::pin(async move { step.map_or(Ok(()), |text| Err(text.into())) })
        })
    });
    let error = pool.get().await.unwrap_err();
    assert!(
        matches!(error, GetError::Connect(ConnectError::Hook(_))),
        "{error:?}"
    );
    assert_eq!(error.to_string(), "the on_connect hook failed");
    assert_eq!(error.source().unwrap().to_string(), "no such schema");
    assert_eq!(backend.calls("terminate"), 1);
    assert_eq!(pool.get().await.unwrap().id, 2);
    assert_eq!((pool.stats().opened, pool.stats().closed.total()), (1, 0));
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_on_connect_is_a_failed_attempt() {
    let backend = ScriptedBackend::new();
    let step = script(vec![(), ()]);
    let pool = backend.pool_with(1, 0, |b| {
        b.on_connect(move |_| {
            let begin = step();
            let later = begin.is_none().then(&step).flatten();
            Box::pin(async move {
                assert!(begin.is_none() && later.is_none(), "in the hook");
                Ok(())
            })
        })
    });
    for _ in 0..2 {
        let error = pool.get().await.unwrap_err();
        assert!(matches!(error, GetError::Connect(ConnectError::Panicked)));
    }
    assert_eq!((backend.live(), pool.stats().connect_failures), (0, 2));
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn an_on_connect_that_hangs_ends_with_connect_timeout() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| {
        b.connect_timeout(SECOND)
            .on_connect(|_| Box::pin(std::future::pending()))
    });
    let error = pool.get().await.unwrap_err();
    assert!(matches!(
        error,
        GetError::Connect(ConnectError::TimedOut(_))
    ));
    at_rest(&pool).await;
    assert_eq!((backend.live(), backend.calls("terminate")), (0, 1));
}

// ---- on_checkout ----

#[tokio::test(start_paused = true)]
async fn on_checkout_may_close_a_connection_and_another_is_tried_up_to_three() {
    let backend = ScriptedBackend::new();
    let step = script((0..5).map(|_| OnCheckout::Close).collect());
    let pool = backend.pool_with(2, 0, |b| {
        b.on_checkout(move |_| step().unwrap_or(OnCheckout::Keep))
    });
    let error = pool.get().await.unwrap_err();
    assert!(matches!(error, GetError::Refused(None)) && !error.is_retryable());
    assert_eq!(
        error.to_string(),
        "a hook sent several connections away in a row"
    );
    assert_eq!(backend.opens(), 3);
    assert_eq!(
        pool.get().await.unwrap().id,
        6,
        "two more are sent away, the third is kept"
    );
    at_rest(&pool).await;
    assert_eq!(pool.stats().closed.by(CloseReason::Refused), 5);
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn on_checkout_may_refuse_and_say_why() {
    let backend = ScriptedBackend::new();
    let step = script(vec![OnCheckout::Refuse("not today".into())]);
    let pool = backend.pool_with(1, 0, |b| {
        b.on_checkout(move |_| step().unwrap_or(OnCheckout::Keep))
    });
    let error = pool.get().await.unwrap_err();
    assert!(matches!(error, GetError::Refused(Some(_))));
    assert_eq!(error.to_string(), "a hook refused the connection");
    assert_eq!(error.source().unwrap().to_string(), "not today");
    at_rest(&pool).await;
    assert_eq!(
        (backend.live(), pool.stats().closed.by(CloseReason::Refused)),
        (0, 1)
    );
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn try_get_asks_on_checkout_too_and_finds_nothing_where_that_sends_away() {
    let backend = ScriptedBackend::new();
    let step = script(vec![
        OnCheckout::Keep,
        OnCheckout::Keep,
        OnCheckout::Close,
        OnCheckout::Refuse("no".into()),
    ]);
    let pool = backend.pool_with(2, 0, |b| {
        b.on_checkout(move |_| step().unwrap_or(OnCheckout::Keep))
    });
    drop((pool.get().await.unwrap(), pool.get().await.unwrap()));
    assert!(pool.try_get().is_none());
    assert!(pool.try_get().is_none());
    at_rest(&pool).await;
    assert_eq!(backend.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_on_checkout_goes_to_the_caller_and_closes_the_connection() {
    let backend = ScriptedBackend::new();
    let step = script(vec![(), ()]);
    let pool = backend.pool_with(1, 0, |b| {
        b.on_checkout(move |_| {
            assert!(step().is_none(), "in the hook");
            OnCheckout::Keep
        })
    });
    assert!(AssertUnwindSafe(pool.get()).catch_unwind().await.is_err());
    pool.warm_up(1).await.unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| pool.try_get())).is_err());
    at_rest(&pool).await;
    assert_eq!(
        (backend.live(), pool.stats().closed.by(CloseReason::Broken)),
        (0, 2)
    );
    pool.assert_whole().await;
}

// ---- on_return ----

#[tokio::test(start_paused = true)]
async fn on_return_sees_what_comes_back_fit_before_its_reset_and_may_close_it() {
    let backend = ScriptedBackend::resetting();
    let calls = Told::default();
    let noted = Arc::clone(&calls);
    let step = script(vec![OnReturn::Keep, OnReturn::Close]);
    let pool = {
        let backend = backend.clone();
        let for_hook = backend.clone();
        backend.pool_with(1, 0, move |b| {
            b.on_return(move |conn| {
                noted.lock().push(format!(
                    "{} after {} resets",
                    conn.id,
                    for_hook.calls("reset")
                ));
                step().unwrap_or(OnReturn::Keep)
            })
        })
    };
    for _ in 0..2 {
        drop(pool.get().await.unwrap());
        at_rest(&pool).await;
    }
    assert_eq!(told(&calls), ["1 after 0 resets", "1 after 1 resets"]);
    assert_eq!(backend.log(), ["open C1", "reset C1", "close C1"]);
    backend.next(Call::Back, [Step::Say(pool_core::Health::Broken)]);
    drop(pool.get().await.unwrap());
    pool.get().await.unwrap().invalidate();
    at_rest(&pool).await;
    assert!(
        told(&calls).is_empty(),
        "neither what is broken nor what is invalidated is shown"
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_on_return_goes_to_the_returner_and_closes_the_connection() {
    let backend = ScriptedBackend::new();
    let step = script(vec![()]);
    let pool = backend.pool_with(1, 0, |b| {
        b.on_return(move |_| {
            assert!(step().is_none(), "in the hook");
            OnReturn::Keep
        })
    });
    let held = pool.get().await.unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(held))).is_err());
    at_rest(&pool).await;
    assert_eq!(
        (backend.live(), pool.stats().closed.by(CloseReason::Broken)),
        (0, 1)
    );
    pool.assert_whole().await;
}

// ---- on_close ----

#[tokio::test(start_paused = true)]
async fn on_close_is_told_of_every_close_and_why() {
    let backend = ScriptedBackend::new();
    let calls = Told::default();
    let noted = Arc::clone(&calls);
    let pool = backend.pool_with(2, 0, |b| {
        b.on_close(move |conn, reason| noted.lock().push(format!("{} {reason}", conn.id)))
    });
    pool.get().await.unwrap().invalidate();
    at_rest(&pool).await;
    backend.next(Call::Back, [Step::Say(pool_core::Health::Broken)]);
    drop(pool.get().await.unwrap());
    drop(pool.get().await.unwrap().detach());
    drop(pool.get().await.unwrap());
    pool.close().await;
    assert_eq!(told(&calls), ["1 invalidated", "2 broken", "4 pool_closed"]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_on_close_goes_no_further_and_the_room_is_free() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(2, 0, |b| b.on_close(|_, _| panic!("in the hook")));
    pool.get().await.unwrap().invalidate();
    backend.next(Call::Back, [Step::Say(pool_core::Health::Broken)]);
    drop(pool.get().await.unwrap());
    at_rest(&pool).await;
    assert_eq!(backend.live(), 0);
    pool.assert_whole().await;
    assert!(pool.close().await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn hooks_come_with_a_clone_of_their_builder() {
    let calls = Told::default();
    let noted = Arc::clone(&calls);
    let builder = pool_core::Pool::builder(ScriptedBackend::new()).on_checkout(move |conn| {
        noted.lock().push(conn.id.to_string());
        OnCheckout::Keep
    });
    let (one, two) = (builder.clone().build().unwrap(), builder.build().unwrap());
    drop((one.get().await.unwrap(), two.get().await.unwrap()));
    assert_eq!(told(&calls), ["1", "2"]);
}
