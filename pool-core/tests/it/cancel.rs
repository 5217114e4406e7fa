//! Every future is dropped after its k-th poll, for all k that it takes: afterwards the pool is at rest
//! and serves its full capacity.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures::future::poll_fn;
use futures::{FutureExt, StreamExt};
use pool_core::{
    Budget, Failure, GetError, GetOptions, Health, OnCheckout, OnReturn, PrePing, QueueDiscipline,
    Reuse, Shed,
};

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
        tokio::time::sleep(Duration::from_millis(40)).await;
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

const ORDERS: [Reuse; 3] = [Reuse::Packed, Reuse::Lifo, Reuse::Fifo];

#[tokio::test(start_paused = true)]
async fn a_get_of_any_kind_that_waits_in_a_pool_of_any_order() {
    for (order, kind, returned_after) in
        every_kind().flat_map(|(order, kind)| (0..3).map(move |k| (order, kind, k)))
    {
        after_every_poll(
            || ScriptedBackend::new().pool_with(2, 0, |b| b.reuse(order)),
            async |pool, polls| {
                let mut held = vec![pool.get().await.unwrap(), pool.get().await.unwrap()];
                let options = GetOptions::new().timeout(Duration::from_secs(5));
                let mut get = match kind {
                    0 => pool.get().map(|got| drop(got.unwrap())).boxed(),
                    1 => pool.get_owned().map(|got| drop(got.unwrap())).boxed(),
                    2 => pool.get_with(options).map(|got| drop(got.unwrap())).boxed(),
                    _ => {
                        let get = pool.get_owned_with(options);
                        get.map(|got| drop(got.unwrap())).boxed()
                    }
                };
                let mut count = 0;
                let watched = poll_fn(|cx| {
                    if count == returned_after {
                        held.pop();
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

/// Each order with each of four ways to ask.
fn every_kind() -> impl Iterator<Item = (Reuse, u32)> {
    let kinds = |order| (0..4).map(move |kind| (order, kind));
    ORDERS.into_iter().flat_map(kinds)
}

#[tokio::test(start_paused = true)]
async fn a_get_that_waits_in_a_suspended_pool() {
    for order in ORDERS {
        for (resumed_after, warm) in [(1, true), (1, false), (3, true), (3, false)] {
            after_every_poll(
                || slow().pool_with(2, 1, |b| b.reuse(order)),
                async |pool, polls| {
                    if warm {
                        pool.warm_up(1).await.unwrap();
                    }
                    pool.suspend();
                    let mut count = 0;
                    let mut get = pool.get().boxed();
                    let watched = poll_fn(move |cx| {
                        if count == resumed_after {
                            pool.resume();
                        }
                        count += 1;
                        get.as_mut().poll(cx)
                    });
                    let ended = poll_then_drop(polls, watched).await; // `get` goes with it.
                    pool.resume();
                    ended
                },
            )
            .await;
        }
    }
}

/// The other pool has all that the budget holds, and gives it back at some time.
#[tokio::test(start_paused = true)]
async fn a_get_that_waits_for_room_in_a_budget() {
    for returned_after in 0..4 {
        let shared = RefCell::new(Budget::new(2));
        after_every_poll(
            || {
                *shared.borrow_mut() = Budget::new(2);
                slow().pool_with(1, 1, |b| b.budget(&shared.borrow()))
            },
            async |pool, polls| {
                let budget = shared.borrow().clone();
                let other = slow().pool_with(2, 0, |b| b.budget(&budget));
                let mut held = Some((other.get().await.unwrap(), other.get().await.unwrap()));
                let mut count = 0;
                let mut get = pool.get().boxed();
                let watched = poll_fn(move |cx| {
                    if count == returned_after {
                        held.take();
                    }
                    count += 1;
                    get.as_mut().poll(cx)
                });
                let ended = poll_then_drop(polls, watched).await; // `get` goes with it.
                at_rest(pool).await;
                other.assert_whole().await;
                assert!(other.close().await.is_clean());
                at_rest(pool).await;
                let open = pool.status().open;
                assert_eq!(
                    (budget.status().free, budget.status().starving),
                    (2 - open, 0)
                );
                ended
            },
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_get_past_hooks_that_take_their_time_fail_and_send_away() {
    after_every_poll(
        || {
            let (opened, shown, returned) =
                (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
            slow().pool_with(2, 1, |b| {
                b.on_connect(move |_| {
                    let nth = opened.fetch_add(1, Ordering::Relaxed);
                    Box::pin(async move {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        if nth == 1 {
                            Err("the second fails".into())
                        } else {
                            Ok(())
                        }
                    })
                })
                .on_checkout(move |_| match shown.fetch_add(1, Ordering::Relaxed) {
                    1 => OnCheckout::Close,
                    3 => OnCheckout::Refuse("the fourth is refused".into()),
                    _ => OnCheckout::Keep,
                })
                .on_return(move |_| {
                    match returned.fetch_add(1, Ordering::Relaxed) {
                        2 => OnReturn::Close,
                        _ => OnReturn::Keep,
                    }
                })
            })
        },
        async |pool, polls| {
            let several = async {
                for _ in 0..5 {
                    drop(pool.get().await);
                }
            };
            let ended = poll_then_drop(polls, several).await;
            // What is left of the hooks' bad answers is used up.
            for _ in 0..8 {
                drop(pool.get().await);
            }
            ended
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_get_in_a_bounded_queue_and_one_that_is_sent_away() {
    for (most, sent_away) in [(Some(1), false), (Some(0), false), (None, true)] {
        after_every_poll(
            || {
                let shed =
                    Shed::new(Duration::from_millis(100)).interval(Duration::from_millis(200));
                slow().pool_with(1, 0, |b| {
                    b.max_waiting(most).queue(if sent_away {
                        QueueDiscipline::Shed(shed)
                    } else {
                        QueueDiscipline::Fifo
                    })
                })
            },
            async |pool, polls| {
                let held = pool.get().await.unwrap();
                let options = GetOptions::new().timeout(Duration::from_secs(2));
                let ended = poll_then_drop(
                    polls,
                    pool.get_with(options).map(|got| match got.map(drop) {
                        Err(GetError::QueueFull { .. }) => assert_eq!(most, Some(0)),
                        Err(GetError::Shed { .. }) => assert!(sent_away),
                        Err(GetError::TimedOut(_)) => assert_eq!(most, Some(1)),
                        other => panic!("it is held all the time: {other:?}"),
                    }),
                );
                let ended = ended.await;
                drop(held);
                ended
            },
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn warming_up() {
    for fails in [false, true] {
        after_every_poll(
            || {
                let backend = slow();
                let failure = fails.then(|| Step::after(100, Step::Err(Failure::Transient)));
                backend.next(
                    Call::Open,
                    [Step::after(100, Step::Ok)].into_iter().chain(failure),
                );
                backend.pool_with(3, 1, |b| b.max_connecting(1))
            },
            async |pool, polls| poll_then_drop(polls, pool.warm_up(3)).await,
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_next_event() {
    after_every_poll(
        || slow().pool(2, 1),
        async |pool, polls| {
            let mut events = pool.events();
            let user = pool.pool.clone();
            let user = tokio::spawn(async move {
                for _ in 0..3 {
                    drop(user.get_owned().await.unwrap());
                }
            });
            let ended = poll_then_drop(polls, events.by_ref().skip(5).next()).await;
            user.await.unwrap();
            // The stream itself lost nothing but what was read, and may go with events unread.
            assert!(events.next().await.is_some());
            assert_eq!(events.dropped(), 0);
            ended
        },
    )
    .await;
}
