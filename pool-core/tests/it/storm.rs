//! Thousands of tasks, aborted anywhere, over a backend that fails and panics everywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pool_core::{
    Backend, Budget, Builder as Settings, Failure, GetError, GetOptions, Health, OnCheckout,
    OnReturn, Pool, PooledConnection, PrePing, QueueDiscipline, Reuse, Shed, When,
};
use tokio::runtime::Builder;
use tokio::task::{JoinSet, yield_now};

/// How many are aborted in one test: `POOL_STORM_TASKS`, where that is set.
fn tasks() -> usize {
    let told = std::env::var("POOL_STORM_TASKS").ok();
    told.and_then(|tasks| tasks.parse().ok()).unwrap_or(20_000)
}

/// At a time.
const WAVE: usize = 200;

/// How long to wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken")
    }
}

impl std::error::Error for Broken {}

#[derive(Default)]
struct Counts {
    live: AtomicUsize,
    most: AtomicUsize,
    opened: AtomicUsize,
    /// Above zero while everything may fail.
    stormy: AtomicUsize,
}

struct Storm(Arc<Counts>);

/// Counts as live until it is dropped.
struct Live(Arc<Counts>);

impl Live {
    fn new(counts: &Arc<Counts>) -> Self {
        let live = counts.live.fetch_add(1, Ordering::SeqCst) + 1;
        counts.most.fetch_max(live, Ordering::SeqCst);
        Self(Arc::clone(counts))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Counts {
    /// Whether the weather is bad for a call that meets it one time in `odds`.
    fn bad(&self, odds: u32) -> bool {
        self.stormy.load(Ordering::SeqCst) > 0 && fastrand::u32(..odds) == 0
    }

    /// Panics now and then, past the panic hook, which would only fill the log.
    fn panic_at_times(&self) {
        if self.bad(100) {
            std::panic::resume_unwind(Box::new("storm"));
        }
    }
}

impl Storm {
    fn bad(&self, odds: u32) -> bool {
        self.0.bad(odds)
    }

    fn panic_at_times(&self) {
        self.0.panic_at_times();
    }

    async fn work(&self) -> Result<(), Broken> {
        for _ in 0..fastrand::u32(..4) {
            yield_now().await;
        }
        self.panic_at_times();
        if self.bad(5) { Err(Broken) } else { Ok(()) }
    }
}

impl Backend for Storm {
    type Connection = Live;
    type Error = Broken;

    async fn connect(&self) -> Result<Live, Broken> {
        let live = Live::new(&self.0);
        self.work().await?;
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        Ok(live)
    }

    fn check(&self, _: &mut Live, when: When) -> Health {
        self.panic_at_times();
        match fastrand::u32(..20) {
            0 if self.bad(1) => Health::Broken,
            1 if self.bad(5) => Health::Generation,
            2..=6 if when == When::Return => Health::NeedsReset,
            _ => Health::Good,
        }
    }

    async fn ping(&self, _: &mut Live) -> Result<(), Broken> {
        self.work().await
    }

    async fn reset(&self, _: &mut Live) -> Result<(), Broken> {
        self.work().await
    }

    async fn close(&self, conn: Live) {
        drop(self.work().await);
        drop(conn);
    }

    fn terminate(&self, conn: Live) {
        self.panic_at_times();
        drop(conn);
    }

    fn classify(&self, _: &Broken) -> Failure {
        match fastrand::u32(..10) {
            0 => Failure::Permanent,
            1 => Failure::Generation,
            _ => Failure::Transient,
        }
    }
}

async fn use_once(pool: Pool<Storm>) {
    match fastrand::u32(..5) {
        0 => drop(pool.try_get()),
        4 => drop(
            pool.get_with(GetOptions::new().timeout(Duration::ZERO))
                .await,
        ),
        1 => {
            if let Ok(mut conn) = pool.get_owned().await {
                yield_now().await;
                if fastrand::u32(..4) == 0 {
                    conn.report(&Broken);
                }
            }
        }
        _ => {
            if let Ok(conn) = pool.get().await {
                for _ in 0..fastrand::u32(..3) {
                    yield_now().await;
                }
                if fastrand::u32(..8) == 0 {
                    conn.invalidate();
                }
            }
        }
    }
}

/// Waits until nothing goes on in the pool.
async fn calm(pool: &Pool<Storm>) {
    let begun = Instant::now();
    loop {
        let status = pool.status();
        if status.connecting + status.resetting + status.closing + status.waiting + status.in_use
            == 0
        {
            return;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "no rest: {status}"
        );
        yield_now().await;
    }
}

fn stormy_pool(size: usize, overflow: usize) -> (Pool<Storm>, Arc<Counts>) {
    let counts = sky();
    let pool = settings(&counts, size, overflow).build().unwrap();
    (pool, counts)
}

fn sky() -> Arc<Counts> {
    let counts = Arc::new(Counts::default());
    counts.stormy.store(1, Ordering::SeqCst);
    counts
}

fn settings(counts: &Arc<Counts>, size: usize, overflow: usize) -> Settings<Storm> {
    Pool::builder(Storm(Arc::clone(counts)))
        .pool_size(size)
        .max_overflow(overflow)
        .pool_timeout(Duration::from_millis(20))
        .backoff(Duration::from_millis(1), Duration::from_millis(2))
        .pre_ping(PrePing::Always)
}

/// Hooks that fail and panic too.
fn hooked(counts: &Arc<Counts>, settings: Settings<Storm>) -> Settings<Storm> {
    let [connect, checkout, give_back, close] = [(); 4].map(|()| Arc::clone(counts));
    settings
        .on_connect(move |_| {
            let sky = Arc::clone(&connect);
            Box::pin(async move {
                yield_now().await;
                sky.panic_at_times();
                if sky.bad(20) {
                    Err(Broken.into())
                } else {
                    Ok(())
                }
            })
        })
        .on_checkout(move |_| {
            checkout.panic_at_times();
            match fastrand::u32(..2) {
                0 if checkout.bad(10) => OnCheckout::Close,
                1 if checkout.bad(10) => OnCheckout::Refuse(Broken.into()),
                _ => OnCheckout::Keep,
            }
        })
        .on_return(move |_| {
            give_back.panic_at_times();
            if give_back.bad(10) {
                OnReturn::Close
            } else {
                OnReturn::Keep
            }
        })
        .on_close(move |_, _| close.panic_at_times())
}

/// Starts `WAVE` tasks, and aborts the others once a random number of them has ended.
async fn wave(pool: &Pool<Storm>) {
    let mut wave = JoinSet::new();
    for _ in 0..WAVE {
        wave.spawn(use_once(pool.clone()));
    }
    for _ in 0..fastrand::usize(..WAVE / 2) {
        wave.join_next().await;
    }
    wave.abort_all();
    while wave.join_next().await.is_some() {}
}

/// Checks out, for as long as it takes on a busy machine: the storm's `pool_timeout` is short.
async fn get_surely(pool: &Pool<Storm>) -> PooledConnection<'_, Storm> {
    let begun = Instant::now();
    loop {
        match pool.get().await {
            Ok(conn) => return conn,
            Err(GetError::TimedOut(_)) if begun.elapsed() < PATIENCE => {}
            Err(error) => panic!("the whole capacity is not there: {error}"),
        }
    }
}

/// The sky clears: nothing was lost, and nothing was ever too much.
async fn assert_whole(pool: &Pool<Storm>, counts: &Counts) {
    counts.stormy.store(0, Ordering::SeqCst);
    let opened = counts.opened.load(Ordering::SeqCst);
    assert!(
        opened > 100,
        "the storm went past the pool: {opened} opened"
    );
    calm(pool).await;
    let status = pool.status();
    let most = counts.most.load(Ordering::SeqCst);
    assert!(
        most <= status.capacity,
        "{most} were live at once: {status}"
    );
    let mut all = Vec::new();
    for _ in 0..status.capacity {
        all.push(get_surely(pool).await);
    }
    assert_eq!(counts.live.load(Ordering::SeqCst), status.capacity);
    drop(all);
    calm(pool).await;
    let status = pool.status();
    assert_eq!(
        (status.idle, status.open),
        (status.size, status.size),
        "{status}"
    );
    assert!(pool.close().await.is_clean());
    assert_eq!(counts.live.load(Ordering::SeqCst), 0);
}

async fn abort_storm(size: usize, overflow: usize) {
    let (pool, counts) = stormy_pool(size, overflow);
    for _ in 0..tasks() / WAVE {
        wave(&pool).await;
    }
    assert_whole(&pool, &counts).await;
}

/// Does to the pool as a whole whatever can be done to it, until it is told to stop; then it is as it was.
async fn disturb(pool: Pool<Storm>, (size, overflow): (usize, usize), counts: Arc<Counts>) {
    while counts.stormy.load(Ordering::SeqCst) > 0 {
        match fastrand::u32(..8) {
            0 => {
                let smaller = pool.resize(fastrand::usize(1..=size), fastrand::usize(..=overflow));
                smaller.unwrap();
            }
            1 => pool.resize(size, overflow).unwrap(),
            2 => {
                pool.suspend();
                yield_now().await;
                pool.resume();
            }
            3 => pool.invalidate_all(),
            4 => pool.renew_all(Duration::from_millis(fastrand::u64(..3))),
            5 => drop(pool.warm_up(size).await),
            6 => {
                // It looks at each, and a check may panic when it goes back.
                let retained =
                    std::panic::AssertUnwindSafe(|| pool.retain(|_, _| fastrand::bool()));
                drop(std::panic::catch_unwind(retained));
            }
            _ => drop((pool.status(), pool.stats(), pool.holders())),
        }
        for _ in 0..fastrand::u32(..40) {
            yield_now().await;
        }
    }
    pool.resize(size, overflow).unwrap();
    pool.invalidate_all(); // What was still to be renewed is gone.
}

/// A storm while all else happens too; the disturber's own calls may be aborted as well.
async fn disturbed_storm(
    (size, overflow): (usize, usize),
    more: impl FnOnce(Settings<Storm>) -> Settings<Storm>,
) {
    let counts = sky();
    let pool = more(hooked(&counts, settings(&counts, size, overflow)));
    let pool = pool.build().unwrap();
    let disturber = tokio::spawn(disturb(pool.clone(), (size, overflow), Arc::clone(&counts)));
    for _ in 0..tasks() / WAVE {
        wave(&pool).await;
    }
    counts.stormy.store(0, Ordering::SeqCst);
    disturber
        .await
        .expect("nothing of this panics in the caller's task");
    assert_whole(&pool, &counts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_with_failing_hooks_while_the_pool_is_resized_suspended_and_renewed_loses_nothing()
{
    disturbed_storm((3, 2), |builder| builder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn such_a_storm_over_an_ordered_pool_with_a_bounded_queue_that_sheds_loses_nothing() {
    disturbed_storm((4, 4), |builder| {
        let shed = Shed::new(Duration::from_millis(2)).interval(Duration::from_millis(4));
        builder
            .reuse(Reuse::Lifo)
            .max_waiting(100)
            .queue(QueueDiscipline::Shed(shed))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_over_two_pools_under_one_budget_leaves_the_whole_budget_to_each() {
    const TOTAL: usize = 5;
    let (counts, budget) = (sky(), Budget::new(TOTAL));
    let [one, two] = [Reuse::Packed, Reuse::Fifo].map(|order| {
        let builder = hooked(&counts, settings(&counts, 3, 2));
        builder.reuse(order).budget(&budget).build().unwrap()
    });
    for _ in 0..tasks() / WAVE / 2 {
        tokio::join!(wave(&one), wave(&two));
    }
    counts.stormy.store(0, Ordering::SeqCst);
    let most = counts.most.load(Ordering::SeqCst);
    assert!(most <= TOTAL, "{most} were live at once: {budget:?}");
    for pool in [&one, &two] {
        calm(&one).await;
        calm(&two).await;
        let mut all = Vec::new();
        for _ in 0..TOTAL {
            all.push(get_surely(pool).await);
        }
        assert_eq!(counts.live.load(Ordering::SeqCst), TOTAL);
        assert_eq!((budget.status().free, pool.status().in_use), (0, TOTAL));
    }
    for pool in [&one, &two] {
        assert!(pool.close().await.is_clean());
    }
    assert_eq!(counts.live.load(Ordering::SeqCst), 0);
    assert_eq!(budget.status().free, TOTAL);
}

#[test]
fn runtimes_that_end_in_the_middle_of_the_storm_leave_the_pool_whole() {
    let runtime = || {
        Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let (pool, counts) = stormy_pool(4, 3);
    let lasting = runtime();
    for _ in 0..30 {
        let ending = runtime();
        for _ in 0..WAVE {
            ending.spawn(use_once(pool.clone()));
        }
        lasting.block_on(wave(&pool));
        drop(ending);
    }
    lasting.block_on(assert_whole(&pool, &counts));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_aborted_tasks_leave_a_small_pool_whole() {
    abort_storm(3, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_aborted_tasks_leave_a_pool_of_several_words_whole() {
    abort_storm(80, 60).await;
}
