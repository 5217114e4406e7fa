//! Criterion's view of get and return: ours, borrowed and owned, beside the peers and two bare exchanges.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use benches::contender::{Contender, Ours, OursOwned};
use benches::cycle::{BARE, CONNECTIONS, exchanges};
use benches::peers::{Bb8, Deadpool, FastPool, Mobc, R2d2};
use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use tokio::runtime::Runtime;

fn cycle(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs nothing but memory");
    let mut group = criterion.benchmark_group("get + return");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    let word = AtomicU64::new(0);
    group.bench_function(BARE, |bencher| bencher.iter(|| exchanges(&word, 1)));
    contender::<Ours>(&mut group, &runtime);
    contender::<OursOwned>(&mut group, &runtime);
    contender::<Deadpool>(&mut group, &runtime);
    contender::<Bb8>(&mut group, &runtime);
    contender::<R2d2>(&mut group, &runtime);
    contender::<FastPool>(&mut group, &runtime);
    contender::<Mobc>(&mut group, &runtime);
    group.finish();
}

fn contender<C: Contender>(group: &mut BenchmarkGroup<'_, WallTime>, runtime: &Runtime) {
    let pool = runtime.block_on(async {
        let pool = C::of(CONNECTIONS).await?;
        pool.warm(CONNECTIONS).await?;
        anyhow::Ok(pool)
    });
    let pool = pool.expect("a pool over numbers cannot fail");
    group.bench_function(C::NAME, |bencher| {
        bencher.iter_custom(|count| {
            // All of them in one entry of the runtime, whose cost would drown what is measured.
            let count = u32::try_from(count).expect("criterion asks for fewer in two seconds");
            runtime.block_on(async {
                let begun = Instant::now();
                pool.cycles(count)
                    .await
                    .expect("a pool over numbers cannot fail");
                begun.elapsed()
            })
        });
    });
}

criterion_group!(benches, cycle);
criterion_main!(benches);
