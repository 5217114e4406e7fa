//! Callers by the hundred and by the hundred thousand, waiting for one connection: what joining and leaving the queue
//! costs, and how much memory a place in it takes.
//!
//! *Join* is the first poll of a future that was made before; *leave* is dropping it. Memory is what the heap holds more
//! after all of them have been polled, beyond the futures themselves, whose size is shown beside it.

use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Instant;

use anyhow::Result;

use crate::contender::{Contender, Ours};
use crate::cycle::each;
use crate::peers::Deadpool;
use crate::report::{Report, Rounds, Target, Verdict};

const FEW: u32 = 100;
const MANY: u32 = 100_000;

/// The names of what is measured with few and with many waiters.
type Names = [[&'static str; 2]; 3];

const OURS: Names = [
    ["ours, join beside 100", "ours, join beside 100,000"],
    ["ours, leave in order, 100", "ours, leave in order, 100,000"],
    [
        "ours, leave at random, 100",
        "ours, leave at random, 100,000",
    ],
];
const DEADPOOL: Names = [
    ["deadpool, join beside 100", "deadpool, join beside 100,000"],
    [
        "deadpool, leave in order, 100",
        "deadpool, leave in order, 100,000",
    ],
    [
        "deadpool, leave at random, 100",
        "deadpool, leave at random, 100,000",
    ],
];

/// The order in which waiters leave.
#[derive(Clone, Copy)]
enum Order {
    OfJoining,
    Random,
}

/// Nanoseconds that joining and leaving take each, with so many in the queue at the end of joining.
async fn join_and_leave<C: Contender>(pool: &C, waiters: u32, order: Order) -> Result<(f64, f64)> {
    let held = pool.get().await?;
    let (mut join, mut leave) = (0.0, 0.0);
    let batches = MANY / waiters;
    let cx = &mut Context::from_waker(Waker::noop());
    for _ in 0..batches {
        let mut waiting: Vec<_> = (0..waiters).map(|_| Box::pin(pool.get())).collect();
        let begun = Instant::now();
        join_all(&mut waiting, cx);
        join += each(begun, waiters);
        if let Order::Random = order {
            fastrand::shuffle(&mut waiting);
        }
        let begun = Instant::now();
        drop(waiting);
        leave += each(begun, waiters);
    }
    drop(held);
    let batches = f64::from(batches);
    Ok((join / batches, leave / batches))
}

fn join_all<F: Future>(waiting: &mut [Pin<Box<F>>], cx: &mut Context<'_>) {
    for future in waiting {
        let pending = future.as_mut().poll(cx).is_pending();
        assert!(pending, "the only connection is held");
    }
}

async fn measure<C: Contender>(pool: &C, names: Names, figures: &mut Rounds) -> Result<()> {
    let [joins, in_order, at_random] = names;
    for (size, waiters) in [FEW, MANY].into_iter().enumerate() {
        let (join, leave) = join_and_leave(pool, waiters, Order::OfJoining).await?;
        figures.note(joins[size], join);
        figures.note(in_order[size], leave);
        let (join, leave) = join_and_leave(pool, waiters, Order::Random).await?;
        figures.note(joins[size], join);
        figures.note(at_random[size], leave);
    }
    Ok(())
}

/// Compares the cost of joining and leaving.
///
/// # Errors
/// Where a pool could not be made.
pub fn compare(rounds: usize) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let figures = runtime.block_on(async {
        let (ours, deadpool) = (Ours::of(1).await?, Deadpool::of(1).await?);
        let mut figures = Rounds::default();
        for _ in 0..rounds {
            measure(&ours, OURS, &mut figures).await?;
            measure(&deadpool, DEADPOOL, &mut figures).await?;
        }
        anyhow::Ok(figures)
    })?;
    let verdicts = OURS.map(|[few, many]| {
        let ratio = figures.median(many) / figures.median(few);
        Verdict::new(format!("{many} / 100"), ratio, Target::AtMost(4.0))
    });
    Ok(Report {
        workload: "waiting for one connection",
        measures: vec![figures.measure("ns")],
        verdicts: verdicts.into(),
    })
}

/// Compares the memory of a waiter. `allocated` tells how many bytes the heap holds at this moment.
///
/// # Errors
/// Where a pool could not be made.
pub fn memory(allocated: impl Fn() -> usize) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut beyond, mut itself) = (Rounds::default(), Rounds::default());
    runtime.block_on(async {
        let (ours, deadpool) = (Ours::of(1).await?, Deadpool::of(1).await?);
        weigh(&ours, &allocated, &mut beyond, &mut itself).await?;
        weigh(&deadpool, &allocated, &mut beyond, &mut itself).await
    })?;
    let mine = beyond.median(Ours::NAME);
    Ok(Report {
        workload: "100,000 waiters",
        measures: vec![
            itself.measure("bytes of the future"),
            beyond.measure("bytes on the heap beyond the future"),
        ],
        verdicts: vec![Verdict::new(
            "ours, beyond the future",
            mine,
            Target::AtMost(200.0),
        )],
    })
}

async fn weigh<C: Contender>(
    pool: &C,
    allocated: impl Fn() -> usize,
    beyond: &mut Rounds,
    itself: &mut Rounds,
) -> Result<()> {
    let held = pool.get().await?;
    let mut waiting: Vec<_> = (0..MANY).map(|_| Box::pin(pool.get())).collect();
    let before = allocated();
    join_all(&mut waiting, &mut Context::from_waker(Waker::noop()));
    let more = u32::try_from(allocated() - before)?;
    beyond.note(C::NAME, f64::from(more) / f64::from(MANY));
    let size = size_of_val(&*waiting[0]);
    itself.note(C::NAME, f64::from(u32::try_from(size)?));
    drop(black_box(waiting));
    drop(held);
    Ok(())
}
