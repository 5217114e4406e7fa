//! The wait queue's limits, deadlines, shedding, and the order in which connections are used again.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use pool_core::{GetError, GetOptions, QueueDiscipline, Reuse, Shed};
use tokio::time::{Instant, advance, sleep, timeout};
use tokio_test::{assert_pending, assert_ready, task};

use crate::scripted::{Call, Fixture, ScriptedBackend, Step, all_wait, tasks_run, timed_out};

const MS: Duration = Duration::from_millis(1);

// ---- deadlines ----

#[tokio::test(start_paused = true)]
async fn timeouts_of_any_length_in_one_queue_each_end_on_time() {
    let pool = ScriptedBackend::new().pool(1, 0);
    let _held = pool.get().await.unwrap();
    let limits = [
        500, 40, 333, 41, 7, 1_000, 90, 8, 501, 15, 999, 2, 700, 1, 333,
    ];
    let begun = Instant::now();
    join_all(limits.map(|limit| {
        let limit = Duration::from_millis(limit);
        let pool = &pool;
        async move {
            let options = GetOptions::new().timeout(limit);
            let error = timed_out(pool.get_with(options).await.unwrap_err());
            let took = begun.elapsed();
            assert!(
                (limit..limit + 3 * MS).contains(&took),
                "{limit:?} took {took:?}"
            );
            assert!(error.waited >= limit);
        }
    }))
    .await;
    assert_eq!(pool.stats().timeouts, 15);
}

#[tokio::test(start_paused = true)]
async fn an_early_deadline_behind_late_ones_ends_on_time_wherever_those_before_it_go() {
    let pool = ScriptedBackend::new().pool(1, 0);
    let held = pool.get().await.unwrap();
    let options = |millis| GetOptions::new().timeout(Duration::from_millis(millis));
    let mut late: Vec<_> = (0..4)
        .map(|_| task::spawn(pool.get_with(options(10_000))))
        .collect();
    all_wait(&mut late);
    let mut early = task::spawn(pool.get_with(options(100)));
    assert_pending!(early.poll());
    drop(late.remove(1));
    sleep(50 * MS).await;
    drop(held); // One is served, another leaves.
    let first = assert_ready!(late[0].poll()).unwrap();
    drop(late.remove(1));
    sleep(49 * MS).await;
    assert_pending!(early.poll());
    sleep(4 * MS).await;
    assert!(early.is_woken());
    timed_out(assert_ready!(early.poll()).unwrap_err());
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_holds_over_several_attempts() {
    let pool = ScriptedBackend::new().pool(1, 0);
    let _held = pool.get().await.unwrap();
    let begun = Instant::now();
    let deadline = begun.into_std() + 100 * MS;
    let first = GetOptions::new().timeout(70 * MS);
    timed_out(pool.get_with(first).await.unwrap_err());
    let second = GetOptions::new().deadline(deadline);
    timed_out(pool.get_with(second).await.unwrap_err());
    assert!(
        (100 * MS..104 * MS).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    timed_out(pool.get_with(second).await.unwrap_err());
    assert!(
        begun.elapsed() < 105 * MS,
        "a deadline that is past does not wait"
    );
}

#[tokio::test(start_paused = true)]
async fn with_a_deadline_that_is_past_what_is_idle_is_still_handed_out() {
    let pool = ScriptedBackend::new().pool(1, 0);
    drop(pool.get().await.unwrap());
    let past = Instant::now().into_std();
    advance(100 * MS).await;
    let options = GetOptions::new().deadline(past);
    assert_eq!(pool.get_with(options).await.unwrap().id, 1);
    assert_eq!(pool.get_owned_with(options).await.unwrap().id, 1);
}

#[tokio::test(start_paused = true)]
async fn the_line_that_made_the_options_is_the_one_that_holds_the_connection() {
    let pool = ScriptedBackend::new().pool(2, 0);
    let (options, line) = (GetOptions::new(), line!());
    let _first = pool.get_with(options).await.unwrap();
    let place = std::panic::Location::caller();
    let _second = pool.get_owned_with(options.place(place)).await.unwrap();
    let mut lines: Vec<_> = pool
        .holders()
        .iter()
        .map(|holder| holder.place.line())
        .collect();
    lines.sort_unstable();
    assert_eq!(lines, [line, place.line()]);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_handed_a_connection_after_their_deadline() {
    let pool = ScriptedBackend::new().pool_with(1, 0, |b| b.pool_timeout(100 * MS));
    let held = pool.get().await.unwrap();
    let mut late = task::spawn(pool.get());
    assert_pending!(late.poll());
    let mut patient = task::spawn(pool.get_with(GetOptions::new().timeout(None)));
    assert_pending!(patient.poll());
    // The return comes after the deadline, and before any timer has run.
    tokio::task::unconstrained(advance(101 * MS)).await;
    drop(held);
    timed_out(assert_ready!(late.poll()).unwrap_err());
    assert_eq!(assert_ready!(patient.poll()).unwrap().id, 1);
}

// ---- max_waiting ----

#[tokio::test(start_paused = true)]
async fn one_more_than_max_waiting_is_refused_at_once() {
    let pool = ScriptedBackend::new().pool_with(1, 0, |b| b.max_waiting(2));
    let held = pool.get().await.unwrap();
    let mut waiters = [task::spawn(pool.get()), task::spawn(pool.get())];
    all_wait(&mut waiters);
    let error = timeout(MS, pool.get()).await.unwrap().unwrap_err();
    assert!(matches!(error, GetError::QueueFull { waiting: 2 }) && error.is_retryable());
    let text = "the wait queue is full: 2 callers wait already (max_waiting)";
    assert_eq!(error.to_string(), text);
    assert_eq!(pool.stats().queue_full, 1);
    let [one, two] = waiters;
    drop(one);
    let mut third = task::spawn(pool.get());
    assert_pending!(third.poll());
    drop(held);
    drop(timeout(MS, two).await.unwrap().unwrap());
    drop(timeout(MS, third).await.unwrap().unwrap());
}

#[tokio::test(start_paused = true)]
async fn with_max_waiting_zero_only_those_wait_for_whom_a_connection_is_opened() {
    let backend = ScriptedBackend::new().always(Call::Open, Step::after(100, Step::Ok));
    let pool = backend.pool_with(2, 0, |b| b.max_waiting(0));
    let mut opening = [task::spawn(pool.get()), task::spawn(pool.get())];
    all_wait(&mut opening);
    let refused = timeout(MS, pool.get()).await.unwrap();
    assert!(matches!(refused, Err(GetError::QueueFull { waiting: 2 })));
    let [one, two] = opening;
    let held = (one.await.unwrap(), two.await.unwrap());
    let refused = timeout(MS, pool.get()).await.unwrap();
    assert!(matches!(refused, Err(GetError::QueueFull { waiting: 0 })));
    drop(held);
    assert!(pool.get().await.is_ok(), "what is idle is never refused");
}

// ---- shedding ----

/// A full pool that sheds, and who was sent away, in order.
struct Shedding {
    pool: Fixture,
    gone: Arc<Mutex<Vec<(usize, Duration)>>>,
    begun: Instant,
}

impl Shedding {
    fn new(shed: Shed) -> Self {
        let pool = ScriptedBackend::new().pool_with(1, 0, |b| {
            b.queue(QueueDiscipline::Shed(shed)).pool_timeout(None)
        });
        Self {
            pool,
            gone: Arc::default(),
            begun: Instant::now(),
        }
    }

    /// Lets so many callers wait.
    fn join(&self, callers: std::ops::Range<usize>) {
        for caller in callers {
            let (pool, gone, begun) = (self.pool.pool.clone(), Arc::clone(&self.gone), self.begun);
            tokio::spawn(async move {
                match pool.get().await {
                    Ok(conn) => drop(conn),
                    Err(GetError::Shed { .. }) => gone.lock().push((caller, begun.elapsed())),
                    Err(other) => panic!("{other}"),
                }
            });
        }
    }

    fn gone(&self) -> Vec<usize> {
        self.gone.lock().iter().map(|(caller, _)| *caller).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_sent_away_before_the_queue_has_stood_for_an_interval_and_then_the_oldest_first()
{
    let shedding = Shedding::new(Shed::new(80 * MS).interval(800 * MS));
    let _held = shedding.pool.get().await.unwrap();
    shedding.join(0..16);
    sleep(799 * MS).await;
    assert!(
        shedding.gone().is_empty(),
        "although they wait ten times the target"
    );
    shedding.join(16..18);
    sleep(5 * MS).await;
    assert_eq!(
        shedding.gone(),
        (0..8).collect::<Vec<_>>(),
        "half of those who are due"
    );
    sleep(3 * MS).await;
    assert_eq!(shedding.gone().len(), 8, "paced by an eighth of the target");
    sleep(8 * MS).await;
    assert_eq!(shedding.gone(), (0..12).collect::<Vec<_>>());
    sleep(50 * MS).await;
    assert_eq!(shedding.gone(), (0..16).collect::<Vec<_>>());
    sleep(100 * MS).await;
    assert_eq!(
        shedding.gone().len(),
        18,
        "whoever has waited longer than the target"
    );
    assert_eq!(shedding.pool.stats().shed, 18);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_empties_in_between_has_not_stood() {
    let shedding = Shedding::new(Shed::new(50 * MS).interval(400 * MS));
    for _ in 0..4 {
        let held = shedding.pool.get().await.unwrap();
        shedding.join(0..3);
        sleep(300 * MS).await;
        drop(held);
        tasks_run().await;
        assert_eq!(shedding.pool.status().waiting, 0);
    }
    assert_eq!((shedding.gone().len(), shedding.pool.stats().shed), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn never_so_many_are_sent_away_that_fewer_than_the_floor_wait() {
    let shedding = Shedding::new(Shed::new(50 * MS).interval(100 * MS).floor(5));
    let _held = shedding.pool.get().await.unwrap();
    shedding.join(0..20);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(shedding.gone(), (0..15).collect::<Vec<_>>());
    assert_eq!(shedding.pool.status().waiting, 5);
}

#[tokio::test(start_paused = true)]
async fn in_the_shadow_they_are_counted_once_each_and_stay() {
    let shedding = Shedding::new(Shed::new(50 * MS).interval(100 * MS).shadow());
    let held = shedding.pool.get().await.unwrap();
    shedding.join(0..20);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(
        (shedding.gone().len(), shedding.pool.status().waiting),
        (0, 20)
    );
    assert_eq!(shedding.pool.stats().shed, 20);
    drop(held);
    tasks_run().await;
    assert_eq!(shedding.pool.status().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_pool_in_which_nothing_comes_back_sheds_within_two_intervals() {
    let shedding = Shedding::new(Shed::new(20 * MS).interval(200 * MS));
    let _held = shedding.pool.get().await.unwrap();
    shedding.join(0..50);
    sleep(400 * MS).await;
    assert_eq!(shedding.gone().len(), 50, "by the timer alone");
}

#[tokio::test(start_paused = true)]
async fn who_was_sent_away_learns_how_long_it_had_waited() {
    let shed = Shed::new(20 * MS).interval(50 * MS);
    let pool = ScriptedBackend::new().pool_with(1, 0, |b| b.queue(QueueDiscipline::Shed(shed)));
    let _held = pool.get().await.unwrap();
    let error = pool.get().await.unwrap_err();
    let GetError::Shed { waited } = error else {
        panic!("{error}")
    };
    assert!((50 * MS..60 * MS).contains(&waited), "{waited:?}");
    assert!(error.is_retryable());
    let text = error.to_string();
    assert!(
        text.starts_with("sent away after 5") && text.contains("more than it can serve"),
        "{text}"
    );
    assert_eq!(pool.stats().wait.count, 2, "timed like any other wait");
}

#[tokio::test(start_paused = true)]
async fn under_twice_the_load_those_who_are_served_have_waited_little() {
    let shed = Shed::new(50 * MS).interval(200 * MS);
    let pool = ScriptedBackend::new().pool_with(4, 0, |b| b.queue(QueueDiscipline::Shed(shed)));
    pool.warm_up(4).await.unwrap();
    let served = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..8_000 {
        // One a millisecond; each holds for 8 ms, and there are four.
        sleep(MS).await;
        let (pool, served) = (pool.pool.clone(), Arc::clone(&served));
        tokio::spawn(async move {
            let begun = Instant::now();
            if let Ok(conn) = pool.get().await {
                let waited = begun.elapsed();
                sleep(8 * MS).await;
                drop(conn);
                served.lock().push(waited);
            }
        });
    }
    let mut served = std::mem::take(&mut *served.lock());
    served.sort_unstable();
    let timely = served.iter().filter(|waited| **waited <= 250 * MS).count();
    // A sleep of 8 ms takes 9 by tokio's wheel: at most 3,555.
    assert!(timely >= 3_300, "{timely} of {}", served.len());
    let p99 = served[served.len() * 99 / 100];
    assert!(p99 <= 250 * MS, "{p99:?}");
}

// ---- the order of reuse ----

async fn three(order: Reuse) -> Fixture {
    let pool = ScriptedBackend::new().pool_with(3, 0, |b| b.reuse(order));
    let (c1, c2, c3) = (
        pool.get().await.unwrap(),
        pool.get().await.unwrap(),
        pool.get().await.unwrap(),
    );
    drop(c1);
    drop(c2);
    drop(c3);
    pool
}

async fn rounds(pool: &Fixture) -> Vec<u32> {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(pool.get().await.unwrap().id);
    }
    let (a, b, c) = (
        pool.get().await.unwrap(),
        pool.try_get().unwrap(),
        pool.get().await.unwrap(),
    );
    ids.extend([a.id, b.id, c.id]);
    ids
}

#[tokio::test(start_paused = true)]
async fn first_in_first_out_uses_all_in_turn() {
    let pool = three(Reuse::Fifo).await;
    assert_eq!(rounds(&pool).await, [1, 2, 3, 1, 2, 3, 1, 2]);
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn last_in_first_out_uses_the_last_again_and_again() {
    let pool = three(Reuse::Lifo).await;
    assert_eq!(rounds(&pool).await, [3, 3, 3, 3, 3, 3, 2, 1]);
    pool.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn packed_uses_the_lowest() {
    let pool = three(Reuse::Packed).await;
    assert_eq!(rounds(&pool).await, [1, 1, 1, 1, 1, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn in_an_order_waiters_are_served_first_come_first_served_and_overflow_is_closed() {
    for order in [Reuse::Fifo, Reuse::Lifo] {
        let backend = ScriptedBackend::new();
        let pool = backend.pool_with(1, 1, |b| b.reuse(order));
        let (c1, c2) = (pool.get().await.unwrap(), pool.get().await.unwrap());
        let mut waiters = [task::spawn(pool.get()), task::spawn(pool.get())];
        all_wait(&mut waiters);
        drop((c2, c1));
        let [mut one, mut two] = waiters;
        let first = assert_ready!(one.poll()).unwrap();
        let second = assert_ready!(two.poll()).unwrap();
        assert_eq!((first.id, second.id), (2, 1), "{order:?}");
        drop((first, second));
        tasks_run().await;
        assert_eq!(pool.numbers(), (1, 1, 0, 0), "{order:?}");
        pool.assert_whole().await;
    }
}
