//! Random work of all tenants at the same time over few connections: no row of anybody else's is seen or written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pool_router::tenancy::Tenants;
use pool_router::{Engine, Error, ErrorKind, Session};

use super::{ALL, town};
use crate::support::one;

/// How many tasks work at a time, and how much each does.
const TASKS: u64 = 12;
const TURNS: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn random_work_of_all_tenants_meets_no_foreign_row() {
    let town = town().await;
    let shared = Engine::builder(town.db.url())
        .pool_size(3)
        .max_overflow(0)
        .build();
    let tenants = Tenants::builder()
        .resolver(town.map.clone())
        .engine("shared", shared.expect("settings"))
        .build();
    let (looked, seed) = (Arc::new(AtomicU64::new(0)), 7);
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let (tenants, looked) = (tenants.clone(), Arc::clone(&looked));
        let mut random = fastrand::Rng::with_seed(seed + task);
        tasks.push(tokio::spawn(async move {
            for _ in 0..TURNS {
                let tenant = ALL[random.usize(..ALL.len())];
                let mut session = tenants.write(tenant).await.expect("a session");
                let limit = Duration::from_micros(random.u64(200..20_000));
                let cut_short = random.u8(..4) == 0;
                let work = work(&mut session, tenant, &mut random, &looked);
                if cut_short {
                    // Dropped in the middle of whatever it is at.
                    let _ = tokio::time::timeout(limit, work).await;
                } else if let Err(error) = work.await
                    // Two tasks of one tenant may want its rows in opposite orders.
                    && error.kind() != ErrorKind::Serialization
                {
                    panic!("{tenant}: {error:#}");
                }
            }
        }));
    }
    for task in tasks {
        task.await.expect("no foreign row");
    }
    assert!(looked.load(Ordering::Relaxed) > 100, "rows were looked at");
    // As the server has them.
    let foreign = "SELECT (SELECT count(*) FROM orders WHERE item <> tenant_id)
        + (SELECT count(*) FROM t_cairo.orders WHERE item <> 'cairo')
        + (SELECT count(*) FROM t_delhi.orders WHERE item <> 'delhi')";
    let superuser = super::engine(&town.db.superuser_url());
    let foreign: i64 = superuser.query_scalar(foreign, &[]).await.expect("counted");
    assert_eq!(foreign, 0);
    let alive = one(town.db.node(), "SELECT 1").await;
    assert_eq!(alive.as_deref(), Some("1"));
    tenants.shutdown().await;
}

/// A few random statements of a tenant's; each row that comes has to be its own.
async fn work(
    session: &mut Session,
    tenant: &str,
    random: &mut fastrand::Rng,
    looked: &AtomicU64,
) -> Result<(), Error> {
    for _ in 0..random.u8(1..5) {
        match random.u8(..9) {
            0 | 1 => {
                session
                    .execute("INSERT INTO orders (item) VALUES ($1)", &[&tenant])
                    .await?;
            }
            2 => check(
                session.query_as("SELECT item FROM orders", &[]).await?,
                tenant,
                looked,
            ),
            3 => {
                let sql = "WITH mine AS (UPDATE orders SET item = item RETURNING item)
                    SELECT a.item FROM mine a JOIN orders b USING (item)";
                check(session.query_as(sql, &[]).await?, tenant, looked);
            }
            4 => {
                // An error inside a savepoint; the transaction goes on.
                let failed = session
                    .nested::<Error, ()>(async |s| s.execute("SELECT 1 / 0", &[]).await.map(drop))
                    .await;
                assert!(failed.is_err());
            }
            5 => {
                let sql = "SET app.tenant_id = 'acme'; SET search_path = t_cairo; CREATE TEMP TABLE IF NOT EXISTS scratch (item text)";
                session.batch(sql).await?;
                let _ = session.commit().await?;
            }
            6 => {
                session
                    .batch("DECLARE c CURSOR FOR SELECT item FROM orders; SAVEPOINT x; RESET app.tenant_id; ROLLBACK TO x")
                    .await?;
                check(
                    session.query_as("FETCH 10 FROM c", &[]).await?,
                    tenant,
                    looked,
                );
                session.batch("CLOSE c").await?;
            }
            7 => {
                let answers = session
                    .pipeline()
                    .statement("SELECT item FROM orders LIMIT 5", &[])
                    .statement(
                        "DELETE FROM orders WHERE random() < 0.2 RETURNING item",
                        &[],
                    )
                    .run()
                    .await?;
                for answer in answers {
                    check(answer.rows_as()?, tenant, looked);
                }
            }
            _ => {
                if random.bool() {
                    let _ = session.commit().await?;
                } else {
                    session.rollback().await?;
                }
            }
        }
    }
    let _ = session.commit().await?;
    Ok(())
}

fn check(rows: Vec<(String,)>, tenant: &str, looked: &AtomicU64) {
    looked.fetch_add(rows.len() as u64, Ordering::Relaxed);
    for (item,) in rows {
        assert_eq!(item, tenant, "a foreign row");
    }
}
