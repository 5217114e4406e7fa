//! Something done once for each tenant.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use pool_router::tenancy::Rollout;
use pool_router::{Engine, Error, ErrorKind};

use super::{ALL, id, order, town};

#[tokio::test]
async fn a_rollout_reaches_each_tenant_once_and_is_taken_up_where_it_stopped() {
    let town = town().await;
    let ledger = Engine::builder(town.db.url())
        .pool_size(3)
        .build()
        .expect("settings");
    let all: Vec<_> = ALL.iter().map(|name| id(name)).collect();
    let (begun, broken) = (
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(AtomicBool::new(true)),
    );
    let work = |tenant: pool_router::tenancy::TenantId| {
        let (tenants, begun, broken) = (
            town.tenants.clone(),
            Arc::clone(&begun),
            Arc::clone(&broken),
        );
        async move {
            begun.lock().push(tenant.to_string());
            if tenant.as_str() == "cairo" && broken.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::Usage, "broken for cairo"));
            }
            order(&tenants, tenant.as_str()).await;
            Ok(())
        }
    };
    let told = Arc::new(AtomicUsize::new(0));
    let rollout = Rollout::new("first orders", ledger)
        .concurrency(1)
        .canaries([id("delhi"), id("cairo")])
        .on_progress({
            let told = Arc::clone(&told);
            move |_, through, all| {
                assert!(through <= all);
                told.fetch_add(1, Ordering::Relaxed);
            }
        });
    let report = rollout.run(&all, work).await.expect("a ledger");
    assert_eq!(
        *begun.lock(),
        ["delhi", "cairo"],
        "nobody after a canary that failed"
    );
    assert_eq!(
        (report.done, report.not_begun, report.is_complete()),
        (1, 3, false)
    );
    let text = report.to_string();
    assert!(text.contains("cairo: broken for cairo"), "{text}");
    broken.store(false, Ordering::Relaxed);
    begun.lock().clear();
    let report = rollout.run(&all, work).await.expect("a ledger");
    assert_eq!(*begun.lock(), ["cairo", "acme", "beta", "essen"]);
    assert!(report.is_complete(), "{report}");
    assert_eq!((report.done, report.done_before), (4, 1));
    assert_eq!(told.load(Ordering::Relaxed), 6);
    let report = rollout.run(&all, work).await.expect("a ledger");
    assert_eq!((report.done, report.done_before), (0, 5));
}

#[tokio::test]
async fn two_runs_at_the_same_time_share_the_tenants_and_too_many_failures_stop_one() {
    let town = town().await;
    let ledger = || {
        Engine::builder(town.db.url())
            .pool_size(5)
            .build()
            .expect("settings")
    };
    let all: Vec<_> = (0..20).map(|number| id(&format!("t{number}"))).collect();
    let counts: Arc<Vec<AtomicUsize>> = Arc::new((0..20).map(|_| AtomicUsize::new(0)).collect());
    let count = |tenant: pool_router::tenancy::TenantId| {
        let counts = Arc::clone(&counts);
        async move {
            let number: usize = tenant.as_str()[1..].parse().expect("a number");
            counts[number].fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(())
        }
    };
    let (one, two) = (
        Rollout::new("count", ledger()),
        Rollout::new("count", ledger()),
    );
    // The table is made by one of them alone: `IF NOT EXISTS` of two at a time may collide.
    one.run(&[], count).await.expect("a ledger");
    let (one, two) = tokio::join!(one.run(&all, count), two.run(&all, count));
    let (one, two) = (one.expect("a ledger"), two.expect("a ledger"));
    assert_eq!(one.done + two.done, 20, "{one} / {two}");
    assert!(counts.iter().all(|it| it.load(Ordering::Relaxed) == 1));
    let failing = Rollout::new("fails", ledger())
        .concurrency(1)
        .most_failures(2);
    let failed = failing
        .run(&all, |_| async { Err(Error::new(ErrorKind::Usage, "no")) })
        .await;
    let failed = failed.expect("a ledger");
    assert_eq!((failed.failed.len(), failed.not_begun), (3, 17));
}
