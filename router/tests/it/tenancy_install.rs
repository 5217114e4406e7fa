//! Installing row security by tenant: what it does, that it does it once, and what it refuses.

use std::time::Duration;

use pool_router::tenancy::{ColumnType, SharedTables, install, install_plan};
use pool_router::{Engine, ErrorKind};

use crate::shop::{Shop, TABLES, batch, cell, count};

/// Everything that row security consists of, as one text.
const STATE: &str = "SELECT string_agg(t, E'\\n' ORDER BY t) FROM (
    SELECT format('%s %s %s %s', oid::regclass, relrowsecurity, relforcerowsecurity, relacl) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
    UNION ALL SELECT format('%s %s %s %s %s %s %s', polrelid::regclass, polname, polpermissive, polcmd, polroles,
        pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) FROM pg_policy
    UNION ALL SELECT format('%s %s %s', attrelid::regclass, attname, attnotnull) FROM pg_attribute
        WHERE attname = 'tenant_id'
    UNION ALL SELECT format('%s %s', adrelid::regclass, pg_get_expr(adbin, adrelid)) FROM pg_attrdef
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public') AS s(t)";

async fn state(engine: &Engine) -> String {
    cell(engine, STATE).await
}

#[tokio::test]
async fn each_tenant_sees_its_own_rows_and_no_tenant_sees_none() {
    let shop = Shop::installed().await;
    for (table, acme, zeta) in [
        ("customers", 2, 1),
        ("orders", 2, 1),
        ("events", 2, 2),
        ("events_old", 1, 1),
    ] {
        if table == "events_old" {
            shop.owner("GRANT SELECT ON events_old TO ROLE_APP").await;
        }
        assert_eq!(shop.seen_by("acme", table).await, acme, "{table}");
        assert_eq!(shop.seen_by("zeta", table).await, zeta, "{table}");
        assert_eq!(shop.seen_by("nobody", table).await, 0, "{table}");
        assert_eq!(shop.seen_by("", table).await, 0, "{table}");
        // On a connection on which the setting has been made before.
        let mut without = shop.app.session();
        assert_eq!(count(&mut without, table).await.expect("counted"), 0);
        let refused = without
            .execute(&format!("INSERT INTO {table} DEFAULT VALUES"), &[])
            .await
            .expect_err("nobody's row");
        assert!(
            matches!(refused.sqlstate(), Some("42501" | "23502" | "23514")),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn rows_are_written_for_the_tenant_of_the_session_and_for_no_other() {
    let shop = Shop::installed().await;
    let mut acme = shop.tenant("acme").await;
    acme.execute("INSERT INTO customers (id, name) VALUES (3, 'Alice')", &[])
        .await
        .expect("its own, by the default");
    let _ = acme.commit().await.expect("committed");
    assert_eq!(shop.seen_by("acme", "customers").await, 3);

    for sql in [
        "INSERT INTO customers VALUES ('zeta', 9, 'planted')",
        "UPDATE customers SET tenant_id = 'zeta' WHERE id = 3",
    ] {
        let mut acme = shop.tenant("acme").await;
        let refused = acme.execute(sql, &[]).await.expect_err(sql);
        assert_eq!(refused.sqlstate(), Some("42501"), "{sql}: {refused}");
    }
    let mut acme = shop.tenant("acme").await;
    for sql in [
        "UPDATE customers SET name = 'taken' WHERE tenant_id = 'zeta'",
        "DELETE FROM orders WHERE tenant_id = 'zeta'",
    ] {
        assert_eq!(acme.execute(sql, &[]).await.expect(sql), 0, "{sql}");
    }
}

#[tokio::test]
async fn a_second_installation_changes_nothing() {
    let shop = Shop::bare(TABLES).await;
    let planned = install_plan(&shop.owner, &shop.shared())
        .await
        .expect("a plan");
    assert!(!planned.is_empty());
    let before = state(&shop.owner).await;
    let first = install(&shop.owner, &shop.shared())
        .await
        .expect("installed");
    assert_eq!(planned.changes(), first.changes());
    let after = state(&shop.owner).await;
    assert_ne!(before, after);

    let second = install(&shop.owner, &shop.shared())
        .await
        .expect("installed");
    assert!(second.is_empty(), "{second}\n{}", second.to_sql());
    assert_eq!(second.to_string(), "nothing to change");
    assert_eq!(state(&shop.owner).await, after);
    let told = first.to_string();
    assert!(
        told.contains("public.orders: the restrictive policy of tenants"),
        "{told}"
    );
}

#[tokio::test]
async fn a_plan_can_be_run_as_text_and_so_can_a_script_made_without_a_server() {
    let shop = Shop::bare(TABLES).await;
    let planned = install_plan(&shop.owner, &shop.shared())
        .await
        .expect("a plan");
    let script = shop.shared().to_sql(ColumnType::Text).expect("a script");
    batch(&shop.owner, &planned.to_sql()).await;
    let by_plan = state(&shop.owner).await;
    for round in 0..2 {
        batch(&shop.owner, &script).await;
        assert_eq!(state(&shop.owner).await, by_plan, "in round {round}");
    }

    let other = Shop::bare(TABLES).await;
    let script = other.shared().to_sql(ColumnType::Text).expect("a script");
    batch(&other.owner, &script).await;
    let left = install(&other.owner, &other.shared())
        .await
        .expect("installed");
    // But for the columns' defaults on partitions, which the parent's statement reaches.
    assert!(left.is_empty(), "{left}\n{}", left.to_sql());
}

#[tokio::test]
async fn the_tenants_column_may_be_text_uuid_or_a_number_and_its_index_is_used() {
    const UUID: &str = "6f2c0a52-5a0b-4d8a-9f0e-1f1f6f0a0001";
    let uuids = format!("CASE WHEN n % 100 = 0 THEN '{UUID}'::uuid ELSE gen_random_uuid() END");
    let kinds = [
        ("texts", "text", "7", "(n % 100)::text"),
        ("varchars", "varchar(40)", "7", "(n % 100)::text"),
        ("uuids", "uuid", UUID, &*uuids),
        ("bigints", "bigint", "7", "n % 100"),
        ("integers", "integer", "7", "n % 100"),
    ];
    let tables = kinds.map(|(table, kind, _, make)| {
        format!(
            "CREATE TABLE {table} (\"the tenant\" {kind}, n bigint); \
             INSERT INTO {table} SELECT {make}, n FROM generate_series(1, 5000) n;"
        )
    });
    let shop = Shop::bare(&tables.concat()).await;
    let shared = SharedTables::new(&shop.role)
        .tables(kinds.map(|(table, ..)| table))
        .column("the tenant")
        .setting("shop.current_tenant");
    install(&shop.owner, &shared).await.expect("installed");
    shop.superuser("ANALYZE").await;

    for (table, _, id, _) in kinds {
        let mut session = shop.app.session();
        session
            .set_local("shop.current_tenant", id)
            .await
            .expect("a tenant");
        let seen = count(&mut session, table).await.expect("counted");
        assert_eq!(seen, 50, "{table}");
        session
            .execute(&format!("INSERT INTO {table} (n) VALUES (0)"), &[])
            .await
            .expect("its own");
        for sql in [
            format!("SELECT * FROM {table}"),
            format!("UPDATE {table} SET n = n WHERE n > 5"),
        ] {
            let plan = session.query(&format!("EXPLAIN {sql}"), &[]).await;
            let plan: Vec<String> = plan.expect("a plan").iter().map(|row| row.get(0)).collect();
            let plan = plan.join("\n");
            assert!(plan.contains("Index"), "{sql}:\n{plan}");
            assert!(!plan.contains("Seq Scan"), "{sql}:\n{plan}");
        }
    }
}

#[tokio::test]
async fn a_policy_of_our_name_that_differs_is_made_anew_and_others_are_left_alone() {
    let shop = Shop::installed().await;
    shop.owner(
        "DROP POLICY tenant_isolation ON orders; \
         CREATE POLICY tenant_isolation ON orders AS RESTRICTIVE USING (true); \
         CREATE POLICY cheap ON orders AS RESTRICTIVE FOR SELECT USING (id < 100)",
    )
    .await;
    assert_eq!(shop.seen_by("zeta", "orders").await, 3, "it is open");
    let changed = install(&shop.owner, &shop.shared())
        .await
        .expect("installed");
    assert_eq!(changed.changes().len(), 2, "{changed}");
    assert_eq!(shop.seen_by("zeta", "orders").await, 1);
    let cheap = cell(
        &shop.owner,
        "SELECT polname::text FROM pg_policy WHERE polname = 'cheap'",
    );
    assert_eq!(cheap.await, "cheap");
}

#[tokio::test]
async fn a_second_role_of_the_application_is_let_in_beside_the_first() {
    let shop = Shop::installed().await;
    let reader = format!("reader_{}", shop.name());
    shop.superuser(&format!(
        "DROP ROLE IF EXISTS {reader}; CREATE ROLE {reader} LOGIN PASSWORD 'secret'; GRANT SELECT ON orders TO {reader}"
    ))
    .await;
    let shared = SharedTables::new(&reader).table("orders");
    let changed = install(&shop.owner, &shared).await.expect("installed");
    assert_eq!(changed.changes().len(), 1, "{changed}");
    assert_eq!(shop.seen_by("acme", "orders").await, 2);
    let mut session = shop.login(&reader).session();
    session
        .set_local("app.tenant_id", "zeta")
        .await
        .expect("set");
    assert_eq!(count(&mut session, "orders").await.expect("counted"), 1);
}

#[tokio::test]
async fn names_with_quotes_in_them_are_names() {
    let shop = Shop::bare(
        "CREATE SCHEMA \"a'b\"; CREATE TABLE \"a'b\".\"x\"\"; DROP TABLE y; $tenancy$\" (\"t'; --\" uuid, n int)",
    )
    .await;
    let odd = ("a'b", "x\"; DROP TABLE y; $tenancy$");
    let shared = SharedTables::new(&shop.role).table(odd).column("t'; --");
    install(&shop.owner, &shared).await.expect("installed");
    let again = install(&shop.owner, &shared).await.expect("installed");
    assert!(again.is_empty(), "{again}");
    batch(
        &shop.owner,
        &shared.to_sql(ColumnType::Uuid).expect("a script"),
    )
    .await;
}

#[tokio::test]
async fn what_cannot_be_installed_names_the_table_and_the_remedy_and_changes_nothing() {
    let shop = Shop::bare(
        "CREATE TABLE plain (n int); CREATE TABLE moods (tenant_id json); \
         CREATE TABLE good (tenant_id text); CREATE TABLE holes (tenant_id text, n int); \
         INSERT INTO holes VALUES (NULL, 1)",
    )
    .await;
    let before = state(&shop.owner).await;
    let shared = || SharedTables::new(&shop.role).table("good");
    let cases = [
        (
            shared().table("missing"),
            "there is no table public.missing",
        ),
        (
            shared().table("plain"),
            "ALTER TABLE \"public\".\"plain\" ADD COLUMN",
        ),
        (shared().table("moods"), "of type json"),
        (
            SharedTables::new("nobody at all").table("good"),
            "CREATE ROLE \"nobody at all\" LOGIN",
        ),
        (
            shared().table("holes"),
            "public.holes could not be given a tenant in every row",
        ),
    ];
    for (shared, told) in cases {
        let error = install(&shop.owner, &shared).await.expect_err(told);
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(state(&shop.owner).await, before, "{told}");
    }
    let error = install(&shop.app, &shared())
        .await
        .expect_err("not the owner");
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
}

#[tokio::test]
async fn an_installation_does_not_wait_long_for_a_table_that_others_hold() {
    let shop = Shop::bare(TABLES).await;
    let mut reader = shop.app.session();
    count(&mut reader, "orders").await.expect("held");
    let shared = shop.shared().lock_timeout(Duration::from_millis(100));
    let error = install(&shop.owner, &shared).await.expect_err("held");
    assert_eq!(error.sqlstate(), Some("55P03"), "{error}");
    drop(reader);
    install(&shop.owner, &shared).await.expect("installed");
}
