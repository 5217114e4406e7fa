//! Returning and detaching: what is checked and reset, and what leaves the pool.

use std::time::Duration;

use pool_core::{Failure, Health, PooledConnection};
use tokio::time::sleep;
use tokio_test::{assert_pending, task};

use crate::scripted::{Call, ScriptedBackend, Step, at_rest, tasks_run};

#[tokio::test(start_paused = true)]
async fn a_reset_that_fails_terminates_the_connection_unseen_by_the_caller() {
    let backend = ScriptedBackend::resetting();
    let pool = backend.pool(1, 0);
    backend.next(Call::Reset, [Step::Err(Failure::Transient)]);
    drop(pool.get().await.unwrap());
    at_rest(&pool).await;
    assert_eq!(backend.log(), ["open C1", "reset C1", "terminate C1"]);
    assert_eq!(pool.numbers(), (1, 0, 0, 0));
    assert_eq!(pool.get().await.unwrap().id, 2);
}

#[tokio::test(start_paused = true)]
async fn a_reset_that_does_not_end_is_given_up_and_frees_the_slot() {
    let backend = ScriptedBackend::resetting();
    let pool = backend.pool_with(1, 0, |b| b.reset_timeout(Duration::from_secs(3)));
    backend.next(Call::Reset, [Step::Never]);
    drop(pool.get().await.unwrap());
    tasks_run().await;
    assert_eq!((pool.status().resetting, pool.status().idle), (1, 0));
    sleep(Duration::from_millis(3100)).await;
    assert_eq!(backend.log(), ["open C1", "reset C1", "terminate C1"]);
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_a_connection_before_its_reset_is_done() {
    let backend = ScriptedBackend::resetting();
    let pool = backend.pool(1, 0);
    backend.next(Call::Reset, [Step::after(500, Step::Ok)]);
    drop(pool.get().await.unwrap());
    assert!(pool.try_get().is_none());
    let mut waiter = task::spawn(pool.get());
    assert_pending!(waiter.poll());
    sleep(Duration::from_millis(400)).await;
    assert_pending!(waiter.poll());
    assert_eq!(
        waiter.await.unwrap().id,
        1,
        "it is handed over once it is clean"
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_found_broken_at_its_return_is_discarded() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    backend.next(Call::Back, [Step::Say(Health::Broken)]);
    drop(pool.get().await.unwrap());
    assert_eq!(pool.numbers(), (1, 0, 0, 0), "its room is free at once");
    assert_eq!(backend.log(), ["open C1", "terminate C1"]);
    assert_eq!(pool.get().await.unwrap().id, 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_found_broken_at_its_checkout_is_replaced() {
    for health in [Health::Broken, Health::NeedsReset, Health::Generation] {
        let backend = ScriptedBackend::new();
        let pool = backend.pool(1, 0);
        drop(pool.get().await.unwrap());
        backend.next(Call::Look, [Step::Say(health)]);
        assert_eq!(pool.get().await.unwrap().id, 2, "{health:?}");
        assert_eq!(
            backend.log(),
            ["open C1", "terminate C1", "open C2"],
            "{health:?}"
        );
        pool.assert_whole().await;
    }
}

#[tokio::test(start_paused = true)]
async fn try_get_leaves_a_broken_connection_and_takes_the_next() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(2, 0);
    let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop((one, two));
    backend.next(Call::Look, [Step::Say(Health::Broken)]);
    assert_eq!(pool.try_get().unwrap().id, 2);
    assert_eq!(pool.numbers(), (2, 1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_suspect_generation_at_a_return_has_the_idle_ones_checked() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(2, 0);
    let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop(one);
    backend.log();
    backend.next(Call::Back, [Step::Say(Health::Generation)]);
    drop(two);
    at_rest(&pool).await;
    assert_eq!(backend.log(), ["terminate C2", "ping C1"]);
    assert_eq!(pool.numbers(), (2, 1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_goes_out_of_scope_returns_its_connection() {
    let backend = ScriptedBackend::resetting();
    let pool = backend.pool(1, 0);
    {
        let _conn = pool.get().await.unwrap();
    }
    at_rest(&pool).await;
    assert_eq!(pool.numbers(), (1, 1, 0, 0));
    assert_eq!(backend.log(), ["open C1", "reset C1"]);
}

#[tokio::test(start_paused = true)]
async fn a_scope_left_by_an_error_returns_its_connection_and_passes_the_error_on() {
    let backend = ScriptedBackend::resetting();
    let pool = backend.pool(1, 0);
    let work = async {
        let _conn = pool.get().await.unwrap();
        Err::<(), _>("no such order")?;
        Ok::<(), &str>(())
    };
    assert_eq!(work.await, Err("no such order"));
    at_rest(&pool).await;
    assert_eq!(pool.numbers(), (1, 1, 0, 0));
    assert_eq!(backend.calls("reset"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_in_one_thread_may_be_returned_in_another() {
    fn is_send<T: Send>(_: &T) {}
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    let borrowed: PooledConnection<'_, _> = pool.get().await.unwrap();
    is_send(&borrowed);
    std::thread::scope(|scope| {
        scope.spawn(move || drop(borrowed));
    });
    let owned = pool.get_owned().await.unwrap();
    std::thread::spawn(move || drop(owned)).join().unwrap();
    assert_eq!(pool.get().await.unwrap().id, 1);
}

#[tokio::test(start_paused = true)]
async fn detaching_frees_the_room_at_once_and_leaves_the_connection_working() {
    let backend = ScriptedBackend::resetting();
    let pool = backend.pool(1, 0);
    let detached = pool.get().await.unwrap().detach(); // Consumes the guard: no detaching twice.
    assert_eq!((pool.numbers(), pool.status().detached), ((1, 0, 0, 0), 1));
    let next = pool.get().await.unwrap();
    assert_eq!((detached.id, next.id, backend.live()), (1, 2, 2));
    drop(detached);
    assert_eq!((pool.numbers(), backend.live()), ((1, 0, 0, 1), 1));
    assert_eq!(
        backend.log(),
        ["open C1", "open C2"],
        "nothing is reset or closed by the pool"
    );
}

#[tokio::test(start_paused = true)]
async fn five_detached_in_a_row_are_counted() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    let mut detached = Vec::new();
    for _ in 0..5 {
        detached.push(pool.get().await.unwrap().detach());
    }
    assert_eq!((pool.numbers(), pool.status().detached), ((1, 0, 0, 0), 5));
    assert_eq!(backend.live(), 5);
}

#[tokio::test(start_paused = true)]
async fn detaching_lets_the_first_waiter_open_at_once() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool_with(1, 0, |b| b.pool_timeout(Duration::from_secs(5)));
    let held = pool.get().await.unwrap();
    let mut waiter = task::spawn(pool.get());
    assert_pending!(waiter.poll());
    let _detached = held.detach();
    assert!(waiter.is_woken());
    assert_eq!(waiter.await.unwrap().id, 2);
    assert_eq!(backend.opens(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_detached_connection_ends_when_its_owner_drops_it() {
    let backend = ScriptedBackend::new();
    let pool = backend.pool(1, 0);
    let owned = pool.get_owned().await.unwrap();
    drop(owned.detach());
    assert_eq!(backend.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn overflow_and_invalidated_connections_are_closed_politely_and_dead_ones_terminated() {
    let backend = ScriptedBackend::resetting();
    let pool = backend.pool(1, 2);
    let (c1, c2) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let c3 = pool.get().await.unwrap();
    backend.log();
    drop(c1);
    at_rest(&pool).await;
    drop(c2); // One too many.
    at_rest(&pool).await;
    c3.invalidate();
    at_rest(&pool).await;
    backend.next(Call::Reset, [Step::Err(Failure::Transient)]);
    drop(pool.get().await.unwrap());
    at_rest(&pool).await;
    assert_eq!(
        backend.log(),
        [
            "reset C1",
            "reset C2",
            "close C2",
            "close C3",
            "reset C1",
            "terminate C1"
        ]
    );
}
