//! From a name to a place: what there is not, what was moved, and who tells.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pool_router::tenancy::{
    Catalogue, Placement, PlacementKind, TenantContext, TenantError, TenantRecord, TenantState,
    Tenants, resolver_fn,
};
use pool_router::{Error, ErrorKind};

use super::{engine, id, items, order, town};

#[tokio::test]
async fn what_keeps_a_tenant_from_being_served_is_said_apart() {
    let town = town().await;
    town.map.insert(
        id("gone"),
        TenantRecord::new(Placement::rows("shared")).state(TenantState::Suspended),
    );
    town.map.insert(
        id("going"),
        TenantRecord::new(Placement::rows("shared")).state(TenantState::Moving),
    );
    town.map.insert(id("lost"), Placement::rows("nowhere"));
    for (tenant, status) in [
        ("'; DROP TABLE orders; --", 400),
        ("", 400),
        ("nobody", 404),
        ("gone", 403),
        ("going", 503),
    ] {
        let error = town.tenants.write(tenant).await.expect_err(tenant);
        assert_eq!(error.http_status(), status, "{error}");
        let error = Error::from(error);
        assert!(TenantError::behind(&error).is_some());
    }
    // A job's payload is text like any other.
    let job = TenantContext::from_text("acme\" --");
    assert_eq!(
        town.tenants
            .write(&job)
            .await
            .expect_err("forged")
            .http_status(),
        400
    );
    let _session = town
        .tenants
        .write(TenantContext::new(&id("acme")))
        .await
        .expect("a session");
    let mut session = town.tenants.write("lost").await.expect("a session");
    let error = session
        .query("SELECT 1", &[])
        .await
        .expect_err("no such database");
    let cause = TenantError::behind(&error)
        .expect("the tenancy's")
        .to_string();
    assert!(
        cause.contains("nowhere") && cause.contains("shared"),
        "{cause}"
    );
}

#[tokio::test]
async fn a_resolver_is_asked_once_by_many_and_its_failure_is_nobodys_answer() {
    let asked = Arc::new(AtomicUsize::new(0));
    let resolver = resolver_fn({
        let asked = Arc::clone(&asked);
        move |tenant| {
            let number = asked.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::task::yield_now().await;
                if tenant.as_str() == "nobody" {
                    return Ok(None);
                }
                if number == 0 {
                    return Err(Error::new(ErrorKind::Connect, "the catalogue is down"));
                }
                Ok(Some(Placement::rows("shared").into()))
            }
        }
    });
    let tenants = Tenants::builder().resolver(resolver).build();
    let error = tenants.read("acme").await.expect_err("down");
    assert!(matches!(error, TenantError::Resolver { .. }) && error.is_retryable());
    for expected in [2, 2] {
        let many = futures_util::future::join_all((0..10).map(|_| tenants.read("acme"))).await;
        assert!(many.iter().all(Result::is_ok));
        assert_eq!(asked.load(Ordering::Relaxed), expected);
    }
    for _ in 0..3 {
        tenants.read("nobody").await.expect_err("unknown");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    tenants.forget(&id("nobody"));
    tenants.read("nobody").await.expect_err("unknown");
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_session_of_a_tenants_former_place_is_refused() {
    let town = town().await;
    let before = town.tenants.for_tenant("cairo").await.expect("a tenant");
    let mut old = before.write();
    old.execute("INSERT INTO orders VALUES ('before')", &[])
        .await
        .expect("there");
    let _ = old.commit().await.expect("committed");
    town.map.set_state(&id("cairo"), TenantState::Moving);
    town.tenants.forget(&id("cairo"));
    let error = old.query("SELECT 1", &[]).await.expect_err("moving");
    assert!(
        matches!(
            TenantError::behind(&error),
            Some(TenantError::Moving { .. })
        ),
        "{error:?}"
    );
    let moved = TenantRecord::new(Placement::schema("shared", "t_delhi")).generation(1);
    town.map.insert(id("cairo"), moved);
    town.tenants.forget(&id("cairo"));
    for mut old in [old, before.write(), before.read()] {
        let error = old
            .execute("INSERT INTO orders VALUES ('late')", &[])
            .await
            .expect_err("moved");
        assert!(
            matches!(TenantError::behind(&error), Some(TenantError::Moved { .. })),
            "{error:?}"
        );
    }
    let mut new = town.tenants.read("cairo").await.expect("a session");
    assert!(items(&mut new).await.is_empty());
    drop(new);
    // Found where it was, it goes on.
    let there = town.tenants.for_tenant("acme").await.expect("a tenant");
    town.tenants.forget_all();
    there.read().query("SELECT 1", &[]).await.expect("served");
}

#[tokio::test]
async fn a_catalogue_tells_of_its_changes() {
    let town = town().await;
    let catalogue = Catalogue::new(engine(&town.db.url())).table("who is where");
    for _ in 0..2 {
        catalogue.install().await.expect("installed");
    }
    catalogue
        .put(&id("acme"), PlacementKind::Rows, "shared", None)
        .await
        .expect("put");
    catalogue
        .put(
            &id("cairo"),
            PlacementKind::Schema,
            "shared",
            Some("t_cairo"),
        )
        .await
        .expect("put");
    let taken = catalogue
        .put(
            &id("delhi"),
            PlacementKind::Schema,
            "shared",
            Some("t_cairo"),
        )
        .await;
    assert_eq!(taken.expect_err("another's").sqlstate(), Some("23505"));
    let tenants = Tenants::builder()
        .resolver(catalogue.clone())
        .engine("shared", town.shared.clone())
        .max_age(Duration::from_hours(1))
        .negative_age(Duration::from_hours(1))
        .build();
    for tenant in ["acme", "cairo"] {
        order(&tenants, tenant).await;
    }
    let database = tenants.for_tenant("cairo").await.expect("a tenant");
    assert_eq!(
        (database.kind(), database.generation()),
        (PlacementKind::Schema, 0)
    );
    assert_eq!(
        catalogue.tenants().await.expect("a list"),
        ["acme", "cairo"]
    );
    // Nothing is to be noticed by age.
    catalogue
        .set_state(&id("cairo"), TenantState::Suspended)
        .await
        .expect("set");
    until_read(&tenants, "cairo", |it| {
        matches!(it, Err(TenantError::Suspended { .. }))
    })
    .await;
    catalogue
        .set_state(&id("cairo"), TenantState::Active)
        .await
        .expect("set");
    catalogue
        .put(
            &id("cairo"),
            PlacementKind::Schema,
            "shared",
            Some("t_delhi"),
        )
        .await
        .expect("put");
    until_read(&tenants, "cairo", |it| matches!(it, Ok(1))).await;
    tenants.read("newcomer").await.expect_err("unknown");
    catalogue
        .put(&id("newcomer"), PlacementKind::Rows, "shared", None)
        .await
        .expect("put");
    until_read(&tenants, "newcomer", |it| matches!(it, Ok(0))).await;
    assert!(
        !catalogue
            .set_state(&id("nobody"), TenantState::Active)
            .await
            .expect("set")
    );
}

/// Waits until a look at a tenant gives this: its generation, or why it is not served.
async fn until_read(
    tenants: &Tenants,
    tenant: &str,
    expected: impl Fn(&Result<u64, TenantError>) -> bool,
) {
    let start = Instant::now();
    loop {
        let found = tenants.for_tenant(tenant).await.map(|it| it.generation());
        if expected(&found) {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "waited in vain: {found:?}"
        );
        tokio::task::yield_now().await;
    }
}
