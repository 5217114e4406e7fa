//! What a checkout allocates: nothing, unless it has to wait. A binary of its own for its allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::convert::Infallible;
use std::hint::black_box;
use std::time::Duration;

use pool_core::{Backend, Budget, Builder, GetOptions, OnCheckout, OnReturn, Pool, Reuse};
use tokio::runtime::Runtime;
use tokio_test::{assert_pending, assert_ready, task};

/// Counts allocations by thread, so that tests side by side and the clock's thread do not disturb.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    /// Bytes that this thread has taken and not given back.
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to `System` as it came; counting allocates nothing, for the thread-local is
// a constant without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        BYTES.set(BYTES.get().wrapping_add(layout.size()));
        // SAFETY: by our own contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get().wrapping_sub(layout.size()));
        // SAFETY: by our own contract; the memory came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations `f` makes in this thread.
fn allocations<R>(f: impl FnOnce() -> R) -> usize {
    let before = COUNT.get();
    black_box(f());
    COUNT.get() - before
}

struct Numbers;

impl Backend for Numbers {
    type Connection = u64;
    type Error = Infallible;
    async fn connect(&self) -> Result<u64, Infallible> {
        Ok(7)
    }
}

/// A pool with `size` idle connections, and the runtime that opened them.
fn warm(size: usize, overflow: usize) -> (Runtime, Pool<Numbers>) {
    warm_with(size, overflow, |builder| builder)
}

fn new_runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn warm_with(
    size: usize,
    overflow: usize,
    settings: impl FnOnce(Builder<Numbers>) -> Builder<Numbers>,
) -> (Runtime, Pool<Numbers>) {
    let runtime = new_runtime();
    let builder = Pool::builder(Numbers)
        .pool_size(size)
        .max_overflow(overflow);
    let pool = settings(builder).build().unwrap();
    runtime.block_on(async {
        let mut held = Vec::new();
        for _ in 0..size {
            held.push(pool.get().await.unwrap());
        }
        drop(held);
        // One checkout in 64 of each slot is timed, and the first of them makes room for all times to come.
        for _ in 0..64 * size {
            drop(pool.get().await.unwrap());
        }
    });
    assert_eq!(pool.status().idle, size);
    (runtime, pool)
}

/// Gets and returns a hundred times in each way, and counts.
fn count_each_way(runtime: &Runtime, pool: &Pool<Numbers>) -> [usize; 4] {
    let options = GetOptions::new().timeout(Duration::from_secs(1));
    runtime.block_on(async {
        let mut counts = [0; 4];
        for (kind, count) in counts.iter_mut().enumerate() {
            let before = COUNT.get();
            for _ in 0..100 {
                match kind {
                    0 => drop(black_box(pool.get().await.unwrap())),
                    1 => drop(black_box(pool.get_owned().await.unwrap())),
                    2 => drop(black_box(pool.get_with(options).await.unwrap())),
                    _ => drop(black_box(pool.get_owned_with(options).await.unwrap())),
                }
            }
            *count = COUNT.get() - before;
        }
        counts
    })
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| Box::new(7)), 1);
}

#[test]
fn a_warm_get_and_return_allocate_nothing() {
    for (size, overflow) in [(5, 10), (100, 0), (100, 50)] {
        let (runtime, pool) = warm(size, overflow);
        let counts = count_each_way(&runtime, &pool);
        assert_eq!(counts, [0; 4], "{size} + {overflow}");
    }
}

#[test]
fn a_warm_get_and_return_in_an_order_allocate_nothing() {
    for order in [Reuse::Lifo, Reuse::Fifo] {
        let (runtime, pool) = warm_with(5, 10, |b| b.reuse(order));
        assert_eq!(count_each_way(&runtime, &pool), [0; 4], "{order:?}");
    }
}

/// A checkout that is looked at goes the slow way, whose state is in a box.
#[test]
fn a_warm_get_and_return_past_hooks_allocate_the_state_of_the_get_alone() {
    let (runtime, pool) = warm_with(5, 10, |b| {
        b.on_checkout(|_| OnCheckout::Keep)
            .on_return(|_| OnReturn::Keep)
    });
    assert_eq!(count_each_way(&runtime, &pool), [100; 4]);
}

#[test]
fn try_get_allocates_nothing_with_an_idle_connection_and_without() {
    let (_runtime, pool) = warm(1, 0);
    let count = allocations(|| {
        for _ in 0..100 {
            let held = pool.try_get().unwrap();
            assert!(pool.try_get().is_none());
            drop(held);
            drop(pool.try_get_owned().unwrap());
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn a_get_that_waits_allocates_its_own_state_once() {
    let (runtime, pool) = warm(1, 0);
    runtime.block_on(async {
        let held = pool.get().await.unwrap();
        let mut first = task::spawn(pool.get());
        assert_pending!(first.poll()); // Starts the runtime's timekeeper, for all that wait.
        let mut second = task::spawn(pool.get());
        let joining = allocations(|| assert_pending!(second.poll()));
        let mut third = task::spawn(pool.get_with(GetOptions::new()));
        let joining_too = allocations(|| assert_pending!(third.poll()));
        let again = allocations(|| assert_pending!(third.poll()));
        let leaving = allocations(|| drop(third));
        let returning = allocations(|| drop(held));
        let taking = allocations(|| drop(assert_ready!(first.poll()).unwrap()));
        assert_eq!((joining, joining_too, again, leaving), (1, 1, 0, 0));
        assert_eq!((returning, taking), (0, 0));
        drop(assert_ready!(second.poll()).unwrap());
    });
}

/// The state of each; and the first on a runtime starts its timekeeper, which is a task.
#[test]
fn however_many_wait_each_allocates_its_own_state_and_one_timekeeper_serves_them_all() {
    let (_first, pool) = warm(1, 0);
    let held = pool.try_get().unwrap();
    let other = new_runtime();
    other.block_on(async {
        let mut queue = Vec::with_capacity(100);
        for _ in 0..100 {
            queue.push(task::spawn(pool.get()));
        }
        let mut counts = queue
            .iter_mut()
            .map(|waiter| allocations(|| assert_pending!(waiter.poll())));
        assert_eq!(counts.next(), Some(2));
        assert!(counts.all(|count| count == 1));
    });
    drop(held);
}

#[test]
fn an_idle_pool_costs_less_than_a_kilobyte_beside_its_backend() {
    let budget = Budget::new(50);
    let plain = || Pool::builder(Numbers).build().unwrap();
    let shared = || Pool::builder(Numbers).budget(&budget).build().unwrap();
    let builder = Pool::builder(Numbers);
    let cloned = || builder.clone().build().unwrap();
    let kinds: [(&str, &dyn Fn() -> Pool<Numbers>); 3] = [
        ("plain", &plain),
        ("under a budget", &shared),
        ("of a clone", &cloned),
    ];
    for (kind, build) in kinds {
        let mut pools = Vec::with_capacity(1_000);
        let before = BYTES.get();
        for _ in 0..1_000 {
            pools.push(build());
        }
        let each = (BYTES.get() - before) / 1_000;
        assert!(each < 1024, "{kind}: {each} bytes");
    }
}
