//! Every future is dropped after its k-th poll, for all k that it takes: afterwards the pool is at rest
//! and serves its full capacity.

use std::task::Poll;

use futures::future::poll_fn;
use pool_core::{Failure, Health, PrePing};

use crate::scripted::{Call, Fixture, ScriptedBackend, Step, at_rest, tasks_run};

/// Polls a future up to `polls` times, with all other tasks running in between, then drops it. True if it
/// came to its end.
async fn poll_then_drop<F: Future>(polls: usize, future: F) -> bool {
    let mut future = std::pin::pin!(future);
    for _ in 0..polls {
        let ended = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
        if ended {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(40)).await;
        tasks_run().await;
    }
    false
}

/// Cancels what `begin` starts after each number of polls, until one run comes to its end.
async fn after_every_poll(
    fixture: impl Fn() -> Fixture,
    begin: impl AsyncFn(&Fixture, usize) -> bool,
) {
    for polls in 0..100 {
        let pool = fixture();
        let ended = begin(&pool, polls).await;
        at_rest(&pool).await;
        pool.backend.forget_next();
        pool.assert_whole().await;
        if ended {
            assert!(polls > 0);
            return;
        }
    }
    panic!("no number of polls is enough");
}

fn slow() -> ScriptedBackend {
    [Call::Open, Call::Ping, Call::Reset, Call::Close]
        .into_iter()
        .fold(ScriptedBackend::new(), |backend, call| {
            backend.always(call, Step::after(100, Step::Ok))
        })
}

#[tokio::test(start_paused = true)]
async fn a_get_of_an_idle_connection() {
    after_every_poll(
        || slow().pool(2, 1),
        async |pool, polls| {
            drop(pool.get().await.unwrap());
            poll_then_drop(polls, pool.get()).await
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_get_that_opens() {
    after_every_poll(
        || slow().pool(2, 1),
        async |pool, polls| poll_then_drop(polls, pool.get()).await,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_get_whose_opening_fails() {
    after_every_poll(
        || {
            let backend = slow();
            backend.next(
                Call::Open,
                [Step::after(100, Step::Err(Failure::Transient))],
            );
            backend.pool(2, 1)
        },
        async |pool, polls| poll_then_drop(polls, pool.get_owned()).await,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_get_that_waits_and_is_handed_a_connection_between_any_two_polls() {
    for returned_after in 0..4 {
        after_every_poll(
            || ScriptedBackend::new().pool(1, 0),
            async |pool, polls| {
                let mut held = Some(pool.get().await.unwrap());
                let mut count = 0;
                let mut get = std::pin::pin!(pool.get());
                let watched = poll_fn(|cx| {
                    if count == returned_after {
                        held = None;
                    }
                    count += 1;
                    get.as_mut().poll(cx)
                });
                poll_then_drop(polls, watched).await
            },
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_get_that_waits_for_a_reset_and_for_a_close() {
    for invalidate in [false, true] {
        after_every_poll(
            || {
                slow()
                    .always(Call::Back, Step::Say(Health::NeedsReset))
                    .pool(1, 0)
            },
            async |pool, polls| {
                let conn = pool.get().await.unwrap();
                if invalidate {
                    conn.invalidate();
                } else {
                    drop(conn);
                }
                poll_then_drop(polls, pool.get()).await
            },
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_get_that_pings_and_finds_the_connection_good_dead_or_unusable() {
    for answer in [
        Step::Ok,
        Step::Err(Failure::Transient),
        Step::Err(Failure::Permanent),
        Step::Panic,
    ] {
        after_every_poll(
            || {
                let backend = slow();
                backend.next(Call::Ping, [Step::after(100, answer.clone())]);
                backend.pool_with(2, 1, |b| b.pre_ping(PrePing::Always))
            },
            async |pool, polls| {
                let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
                drop((one, two));
                poll_then_drop(polls, pool.get()).await
            },
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_leaves_the_pool_closed_and_closing() {
    for polls in 0..100 {
        let backend = slow().always(Call::Back, Step::Say(Health::NeedsReset));
        let pool = backend.pool(3, 0);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(pool.get().await.unwrap());
        }
        drop(held.pop());
        let mut count = 0;
        let mut close = std::pin::pin!(pool.close());
        let returning = poll_fn(|cx| {
            if count == 1 {
                held.pop(); // One comes back, and one never does before the future is dropped or the end.
            }
            if count == 3 {
                held.clear();
            }
            count += 1;
            close.as_mut().poll(cx)
        });
        let ended = poll_then_drop(polls, returning).await;
        held.clear();
        assert_eq!(pool.status().closed, polls > 0);
        assert!(pool.close().await.is_clean());
        assert_eq!(
            (pool.status().open, backend.live()),
            (0, 0),
            "after {polls} polls"
        );
        if ended {
            return;
        }
    }
    panic!("no number of polls is enough");
}
