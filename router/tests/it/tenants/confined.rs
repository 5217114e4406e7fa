//! What a session is confined to, whatever came before it on its connection.

use std::time::Duration;

use pool_router::tenancy::{Limits, OfTenant, Placement, TenantError, TenantRecord, Tenants};
use pool_router::{Budget, Database, ErrorKind};

use super::{ALL, engine, id, items, order, town, town_at};
use crate::support::one;

#[tokio::test]
async fn each_tenant_sees_its_own_rows_wherever_it_lives() {
    let town = town().await;
    for _ in 0..2 {
        for tenant in ALL {
            order(&town.tenants, tenant).await;
        }
    }
    for tenant in ALL {
        let mut session = town.tenants.read(tenant).await.expect("a session");
        assert_eq!(items(&mut session).await, [tenant, tenant]);
        assert_eq!(session.tenant(), Some(tenant));
        session.must_be_of(&id(tenant)).expect("its own");
        let error = session.must_be_of(&id("other")).expect_err("another's");
        assert!(
            matches!(&error, TenantError::Foreign { found: Some(found), .. } if found == tenant)
        );
    }
    let stats = town.tenants.stats(2);
    assert_eq!(stats.tenants.len(), 2);
    let all = stats
        .tenants
        .iter()
        .map(|(_, it)| it.transactions)
        .sum::<u64>();
    assert_eq!((all, stats.rest.transactions, stats.databases), (6, 9, 1));
    town.tenants.shutdown().await;
}

#[tokio::test]
async fn the_tenants_scope_costs_no_round_trip_and_a_cold_tenant_a_connect() {
    let db = testbed::shared().await.database().await;
    let proxy = db.node().proxy().await.expect("a proxy");
    proxy.set_delay(Duration::from_millis(5));
    let url = proxy.url_for(db.name());
    let town = town_at(db, &url).await;
    let (read, before) = ("SELECT count(*) FROM orders", proxy.round_trips());
    let plain = engine(&url);
    let row = plain.query_one("SELECT 1", &[]).await;
    row.expect("a row");
    let connect_and_one = proxy.round_trips() - before;
    for tenant in ALL {
        let before = proxy.round_trips();
        let mut session = town.tenants.write(tenant).await.expect("a session");
        session.query_one("SELECT 1", &[]).await.expect("a row");
        let cold = proxy.round_trips() - before;
        assert!(
            cold <= connect_and_one,
            "{tenant}: {cold} and not {connect_and_one}"
        );
        session.query_one(read, &[]).await.expect("prepared");
        session.rollback().await.expect("rolled back");
        let before = proxy.round_trips();
        let mut session = town.tenants.write(tenant).await.expect("a session");
        session.query_one(read, &[]).await.expect("a row");
        let warm = proxy.round_trips() - before;
        assert_eq!(
            warm, 1,
            "{tenant}: BEGIN, the settings, the proof and the statement"
        );
        session.rollback().await.expect("rolled back");
    }
    town.tenants.shutdown().await;
}

#[tokio::test]
async fn without_a_tenant_there_are_no_rows_and_no_writes_on_a_connection_that_has_served_one() {
    let town = town().await;
    for tenant in ["acme", "cairo"] {
        order(&town.tenants, tenant).await;
        // Past the tenants, on the same connection.
        let rows = town.shared.query("SELECT item FROM orders", &[]).await;
        assert!(rows.expect("rows").is_empty());
        let write = "INSERT INTO orders VALUES (DEFAULT, 'x')";
        let error = town.shared.execute(write, &[]).await.expect_err("refused");
        assert!(
            matches!(error.sqlstate(), Some("42501" | "23502")),
            "{error}"
        );
        let mut system = town
            .tenants
            .system("shared", "to look around")
            .expect("a session");
        assert!(items(&mut system).await.is_empty());
        system.execute(write, &[]).await.expect_err("refused");
        assert_eq!(system.tenant(), None);
        system.must_be_of(&id(tenant)).expect_err("nobody's");
    }
    let error = town.tenants.system("elsewhere", "x").expect_err("unknown");
    assert!(error.to_string().contains("shared"), "{error}");
    assert_eq!(town.shared.status().open, 1);
}

#[tokio::test]
async fn what_a_tenant_leaves_behind_reaches_no_other() {
    let town = town().await;
    for tenant in ALL {
        order(&town.tenants, tenant).await;
    }
    for left in [
        "SET app.tenant_id = 'acme'",
        "SET search_path = t_cairo",
        "SELECT set_config('app.tenant_id', 'acme', false)",
        "CREATE TEMP TABLE orders AS SELECT 'foreign' AS item",
        "COMMIT; SET app.tenant_id = 'acme'",
        "DECLARE left_open CURSOR WITH HOLD FOR SELECT * FROM orders",
    ] {
        for tenant in ["acme", "cairo"] {
            let mut session = town.tenants.write(tenant).await.expect("a session");
            let _ = session.batch(left).await;
            let _ = session.commit().await;
            drop(session);
            for (other, expected) in [("beta", 1), ("delhi", 1)] {
                let mut session = town.tenants.read(other).await.expect("a session");
                assert_eq!(items(&mut session).await, vec![other; expected], "{left}");
                session
                    .query("FETCH ALL FROM left_open", &[])
                    .await
                    .expect_err("no cursor");
            }
            let rows = town.shared.query("SELECT item FROM orders", &[]).await;
            assert!(rows.expect("rows").is_empty(), "{left}");
        }
    }
}

#[tokio::test]
async fn a_temporary_table_does_not_stand_before_the_tenants_own() {
    let town = town().await;
    order(&town.tenants, "cairo").await;
    let mut session = town.tenants.write("cairo").await.expect("a session");
    session
        .batch("CREATE TEMP TABLE orders AS SELECT 'shadow' AS item")
        .await
        .expect("made");
    assert_eq!(items(&mut session).await, ["cairo"]);
}

#[tokio::test]
async fn a_schema_that_is_not_there_falls_through_to_nobody() {
    let town = town().await;
    town.shared
        .batch(
            "CREATE TABLE public.decoys (item text); INSERT INTO public.decoys VALUES ('foreign')",
        )
        .await
        .expect("made");
    let missing = Placement::schema("shared", "t_missing").also_schemas(["public"]);
    town.map.insert(id("fargo"), missing);
    let mut session = town.tenants.write("fargo").await.expect("a session");
    let error = session
        .query("SELECT * FROM decoys", &[])
        .await
        .expect_err("not there");
    assert_eq!(error.kind(), ErrorKind::Scope);
    let text = error.to_string();
    assert!(
        text.contains("public and not t_missing") && text.contains("fargo"),
        "{text}"
    );
    drop(session);
    // The same schema in the path of one that is there shows what was asked for.
    let there = Placement::schema("shared", "t_cairo").also_schemas(["public"]);
    town.map
        .insert(id("cairo"), TenantRecord::new(there).generation(1));
    let mut session = town.tenants.write("cairo").await.expect("a session");
    session
        .query_one("SELECT * FROM decoys", &[])
        .await
        .expect("asked for");
}

#[tokio::test]
async fn a_tenants_calls_can_not_leave_its_scope() {
    let town = town().await;
    order(&town.tenants, "beta").await;
    for tenant in ALL {
        let database = town.tenants.for_tenant(tenant).await.expect("a tenant");
        let mut session = database.write();
        for error in [
            session
                .set_local("app.tenant_id", "beta")
                .await
                .expect_err("held"),
            database
                .sessions()
                .write()
                .autocommit()
                .session()
                .query("SELECT 1", &[])
                .await
                .expect_err("no transaction"),
        ] {
            assert_eq!(error.kind(), ErrorKind::Usage, "{tenant}: {error}");
            assert!(error.to_string().contains(tenant), "{error}");
        }
    }
    // What belongs to somebody else is refused by the server.
    let mut session = town.tenants.write("acme").await.expect("a session");
    let foreign = "INSERT INTO orders VALUES ('beta', 'forged')";
    let error = session.execute(foreign, &[]).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
}

#[tokio::test]
async fn rows_of_all_tenants_share_one_prepared_statement_and_keep_the_index() {
    let town = town().await;
    for round in 0..8 {
        for tenant in ["acme", "beta"] {
            order(&town.tenants, tenant).await;
            let mut session = town.tenants.read(tenant).await.expect("a session");
            assert_eq!(items(&mut session).await.len(), round + 1);
        }
    }
    let mut session = town.tenants.read("acme").await.expect("a session");
    // `count(*)` is one row for the text that `items` runs, and it has a generic plan by now.
    let sql = "SELECT count(*), sum(generic_plans) > 0 FROM pg_prepared_statements WHERE statement LIKE 'SELECT item FROM%'";
    let (statements, generic): (i64, Option<bool>) =
        session.query_one_as(sql, &[]).await.expect("counted");
    assert_eq!((statements, generic), (1, Some(true)));
    session
        .set_local("enable_seqscan", "off")
        .await
        .expect("set");
    let plan = "EXPLAIN SELECT item FROM orders";
    let plan = session
        .query_as::<(String,)>(plan, &[])
        .await
        .expect("a plan");
    assert!(
        plan.iter()
            .any(|(line,)| line.contains("orders_tenant_id_idx")),
        "{plan:?}"
    );
}

#[tokio::test]
async fn a_tenants_limit_holds_it_and_nobody_else() {
    let town = town().await;
    let tenants = Tenants::builder()
        .resolver(town.map.clone())
        .engine(
            "shared",
            pool_router::Engine::builder(town.db.url())
                .pool_size(2)
                .build()
                .expect("settings"),
        )
        .limits(
            Limits::default()
                .connections(1)
                .waiting(1)
                .patience(Duration::from_secs(20)),
        )
        .build();
    let acme = tenants.for_tenant("acme").await.expect("a tenant");
    let mut first = acme.write();
    first.query("SELECT 1", &[]).await.expect("room");
    let waiting = tokio::spawn({
        let acme = acme.clone();
        async move { acme.write().query("SELECT 1", &[]).await.map(drop) }
    });
    while tenants.stats(1).tenants[0].1.waiting == 0 {
        tokio::task::yield_now().await;
    }
    let error = acme
        .write()
        .query("SELECT 1", &[])
        .await
        .expect_err("crowded");
    let cause = TenantError::behind(&error).expect("the tenancy's");
    assert!(
        matches!(cause, TenantError::Crowded { connections: 1, .. }),
        "{cause:?}"
    );
    assert_eq!(cause.http_status(), 503);
    let mut other = tenants.write("beta").await.expect("a session");
    other
        .query("SELECT 1", &[])
        .await
        .expect("not in anybody's way");
    drop(first);
    waiting.await.expect("no panic").expect("its turn");
    assert_eq!(acme.tenant().as_str(), "acme");
    let counts = tenants.stats(1).tenants[0].1.clone();
    assert_eq!((counts.refused, counts.waiting), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_databases_are_served_within_one_budget() {
    let db = testbed::shared().await.database().await;
    let (budget, map) = (Budget::new(2), super::TenantMap::new());
    let mut names = Vec::new();
    for number in 0..5 {
        let name = format!("{}_{number}", db.name());
        db.node().create_database(&name).await.expect("a database");
        let nodes = Database::builder()
            .primary(db.node().url_for(&name))
            .each_engine(|engine| engine.application_name("many_databases"));
        let tenant = id(&format!("t{number}"));
        map.insert(tenant.clone(), Placement::database(nodes));
        names.push((tenant, name));
    }
    let tenants = Tenants::builder()
        .resolver(map)
        .budget(&budget)
        .max_databases(3)
        .build();
    let mut tasks = Vec::new();
    for task in 0..20 {
        let (tenants, names) = (tenants.clone(), names.clone());
        tasks.push(tokio::spawn(async move {
            for turn in 0..5 {
                let (tenant, name) = &names[(task + turn) % names.len()];
                let mut session = tenants.write(tenant).await.expect("a session");
                let here = session.query_scalar::<String>("SELECT current_database()::text", &[]);
                assert_eq!(&here.await.expect("served"), name);
            }
        }));
    }
    for task in tasks {
        task.await.expect("served");
        let open =
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'many_databases'";
        let open = one(db.node(), open).await.expect("a count");
        assert!(
            open.parse::<usize>().expect("a number") <= 2,
            "{open} connections"
        );
    }
    assert!(tenants.stats(0).databases <= 3);
    tenants.shutdown().await;
    assert_eq!(budget.status().free, 2);
}
