//! The attack on shared tables: nothing gets through where tenancy is installed; each deliberate fault is caught, by the
//! audit, the attack or both; and what a tenant can do who sends SQL of its own, with either key.

use pool_router::tenancy::{
    FindingKind, FoundBy, Party, Report, SharedTables, attack, check, install,
};
use pool_router::{Engine, ErrorKind, Session};

use crate::shop::{Shop, TABLES, count};
use FindingKind as K;

async fn attacked(shop: &Shop) -> Report {
    let (zeta, acme) = (Party::new(&shop.app, "zeta"), Party::new(&shop.app, "acme"));
    attack(&shop.shared(), &zeta, &acme)
        .await
        .expect("attacked")
}

#[tokio::test]
async fn nothing_gets_through_a_right_installation_and_nothing_is_changed() {
    let shop = Shop::installed().await;
    shop.owner(
        "CREATE VIEW mine WITH (security_invoker = true) AS SELECT * FROM orders; \
         CREATE VIEW how_many WITH (security_invoker = true) AS SELECT count(*) FROM orders; \
         GRANT SELECT ON mine, how_many TO ROLE_APP",
    )
    .await;
    let rows = "SELECT string_agg(t::text, ',' ORDER BY t::text) FROM (SELECT o::text FROM orders o \
                UNION ALL SELECT c::text FROM customers c UNION ALL SELECT e::text FROM events e) AS s(t)";
    let before = crate::shop::cell(&shop.superuser, rows).await;
    let report = attacked(&shop).await;
    assert!(report.findings.is_empty(), "{report}");
    assert_eq!(report.tables, 5);
    assert!(report.tries > 60, "only {} tries", report.tries);
    assert_eq!(untried(&report), ["public.customers"], "{report}");
    assert_eq!(crate::shop::cell(&shop.superuser, rows).await, before);
}

/// What was not tried. That customers are deleted without looking is: their own orders stand before it.
fn untried(report: &Report) -> Vec<&str> {
    let untried = report.untried.iter();
    untried.map(|untried| &*untried.object).collect()
}

/// A deliberate fault, and who catches it.
struct Fault {
    what: &'static str,
    /// The table to attack.
    table: &'static str,
    make: &'static str,
    audit: Option<FindingKind>,
    attack: Option<FindingKind>,
    undo: &'static str,
}

const fn fault(
    what: &'static str,
    table: &'static str,
    make: &'static str,
    audit: Option<FindingKind>,
    attack: Option<FindingKind>,
    undo: &'static str,
) -> Fault {
    Fault {
        what,
        table,
        make,
        audit,
        attack,
        undo,
    }
}

/// Puts the usual policy back, whatever was made of it.
const REPAIR: &str = "DROP POLICY tenant_isolation ON orders; \
    CREATE POLICY tenant_isolation ON orders AS RESTRICTIVE USING (tenant_id = TENANT)";

const FAULTS: &[Fault] = &[
    fault(
        "row security never switched on",
        "orders",
        "ALTER TABLE orders DISABLE ROW LEVEL SECURITY",
        Some(K::RowSecurityOff),
        Some(K::ForeignRowsRead),
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
    ),
    fault(
        "FORCE forgotten, and the application is the owner",
        "orders",
        "ALTER TABLE orders NO FORCE ROW LEVEL SECURITY; ALTER TABLE orders OWNER TO ROLE_APP",
        Some(K::NotForced),
        Some(K::ForeignRowsChanged),
        "ALTER TABLE orders FORCE ROW LEVEL SECURITY; ALTER TABLE orders OWNER TO app; \
         REVOKE ALL ON orders FROM ROLE_APP; GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO ROLE_APP; \
         GRANT ALL ON orders TO app",
    ),
    fault(
        "the restrictive policy left out",
        "orders",
        "DROP POLICY tenant_isolation ON orders",
        Some(K::NoTenantPolicy),
        Some(K::ForeignRowsRead),
        "CREATE POLICY tenant_isolation ON orders AS RESTRICTIVE USING (tenant_id = TENANT)",
    ),
    fault(
        "a policy without WITH CHECK",
        "orders",
        "ALTER POLICY tenant_isolation ON orders WITH CHECK (true)",
        Some(K::WritesNotChecked),
        Some(K::ForeignRowsWritten),
        REPAIR,
    ),
    fault(
        "a policy for reading only",
        "orders",
        "DROP POLICY tenant_isolation ON orders; \
         CREATE POLICY tenant_isolation ON orders AS RESTRICTIVE FOR SELECT USING (tenant_id = TENANT)",
        Some(K::TenantPolicyDiffers),
        Some(K::ForeignRowsChanged),
        REPAIR,
    ),
    fault(
        "a permissive policy OR-ed to a permissive one by tenant",
        "orders",
        "DROP POLICY tenant_isolation ON orders; DROP POLICY tenant_access ON orders; \
         CREATE POLICY mine ON orders USING (tenant_id = TENANT); CREATE POLICY tea ON orders USING (item = 'tea')",
        Some(K::TenantPolicyPermissive),
        Some(K::ForeignRowsRead),
        "DROP POLICY mine ON orders; DROP POLICY tea ON orders; \
         CREATE POLICY tenant_access ON orders TO ROLE_APP USING (true) WITH CHECK (true); \
         CREATE POLICY tenant_isolation ON orders AS RESTRICTIVE USING (tenant_id = TENANT)",
    ),
    fault(
        "no tenant taken for every tenant",
        "orders",
        "ALTER POLICY tenant_isolation ON orders USING (tenant_id = TENANT OR TENANT IS NULL)",
        Some(K::TenantPolicyDiffers),
        Some(K::RowsWithoutTenant),
        REPAIR,
    ),
    fault(
        "a role that bypasses policies",
        "orders",
        "ALTER ROLE ROLE_APP BYPASSRLS",
        Some(K::RoleBypassesRowSecurity),
        Some(K::ForeignRowsRead),
        "ALTER ROLE ROLE_APP NOBYPASSRLS",
    ),
    fault(
        "a role that may become one that bypasses policies",
        "orders",
        "CREATE ROLE ROLE_APP_boss BYPASSRLS; GRANT ROLE_APP_boss TO ROLE_APP; \
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO ROLE_APP_boss",
        Some(K::RoleBypassesRowSecurity),
        Some(K::ForeignRowsRead),
        "DROP OWNED BY ROLE_APP_boss; DROP ROLE ROLE_APP_boss",
    ),
    fault(
        "a view with its owner's rights",
        "orders",
        "CREATE VIEW teas AS SELECT * FROM orders; GRANT SELECT ON teas TO ROLE_APP",
        Some(K::ViewIsNotInvoker),
        Some(K::ViewIsNotInvoker),
        "DROP VIEW teas",
    ),
    fault(
        "a view with its owner's rights that names no tenant",
        "orders",
        "CREATE VIEW total AS SELECT count(*) FROM orders; GRANT SELECT ON total TO ROLE_APP",
        Some(K::ViewIsNotInvoker),
        Some(K::ViewIsNotInvoker),
        "DROP VIEW total",
    ),
    fault(
        "a materialised view",
        "orders",
        "CREATE MATERIALIZED VIEW kept AS SELECT * FROM orders; GRANT SELECT ON kept TO ROLE_APP",
        Some(K::MaterializedView),
        Some(K::MaterializedView),
        "DROP MATERIALIZED VIEW kept",
    ),
    fault(
        "a function with its owner's rights",
        "orders",
        "CREATE FUNCTION all_orders() RETURNS SETOF orders LANGUAGE sql STABLE SECURITY DEFINER \
         AS 'SELECT * FROM public.orders'",
        Some(K::DefinerFunction),
        Some(K::DefinerFunction),
        "DROP FUNCTION all_orders()",
    ),
    fault(
        "a function that hides what it reads",
        "orders",
        "CREATE FUNCTION hidden() RETURNS bigint LANGUAGE plpgsql STABLE SECURITY DEFINER \
         AS $$ DECLARE n bigint; BEGIN EXECUTE 'SELECT count(*) FROM public.ord' || 'ers' INTO n; RETURN n; END $$",
        Some(K::DefinerFunctionUnclear),
        Some(K::DefinerFunction),
        "DROP FUNCTION hidden()",
    ),
    fault(
        "a partition made later",
        "events",
        "CREATE TABLE events_next PARTITION OF events FOR VALUES FROM (200) TO (300); \
         GRANT SELECT ON events_next TO ROLE_APP; \
         INSERT INTO events VALUES ('acme', 201, 'n')",
        Some(K::PartitionOpen),
        Some(K::ForeignRowsRead),
        "DROP TABLE events_next",
    ),
    fault(
        "a unique name",
        "customers",
        "ALTER TABLE customers ADD CONSTRAINT one_name UNIQUE (name)",
        Some(K::UniqueAcrossTenants),
        Some(K::UniqueAcrossTenants),
        "ALTER TABLE customers DROP CONSTRAINT one_name",
    ),
    fault(
        "a foreign key without the tenant",
        "customers",
        "ALTER TABLE customers ADD COLUMN no bigserial UNIQUE; \
         ALTER TABLE orders ADD COLUMN by_no bigint CONSTRAINT of_no REFERENCES customers (no)",
        Some(K::ForeignKeyAcrossTenants),
        Some(K::ForeignKeyAcrossTenants),
        "ALTER TABLE orders DROP COLUMN by_no; ALTER TABLE customers DROP COLUMN no",
    ),
    fault(
        "TRUNCATE granted",
        "orders",
        "GRANT TRUNCATE ON orders TO ROLE_APP",
        Some(K::MayTruncate),
        Some(K::MayTruncate),
        "REVOKE TRUNCATE ON orders FROM ROLE_APP",
    ),
    fault(
        "a tenant set for the role",
        "orders",
        "ALTER ROLE ROLE_APP SET app.tenant_id = 'acme'",
        Some(K::TenantSetByDefault),
        Some(K::RowsWithoutTenant),
        "ALTER ROLE ROLE_APP RESET app.tenant_id",
    ),
    fault(
        "a new table that nobody listed",
        "orders",
        "CREATE TABLE invoices (tenant_id text, total int); GRANT SELECT ON invoices TO ROLE_APP",
        Some(K::UnlistedTable),
        // It attacks what is listed.
        None,
        "DROP TABLE invoices",
    ),
];

const TENANT: &str = "(SELECT NULLIF(current_setting('app.tenant_id', true), '') AS tenant)";

#[tokio::test]
async fn each_deliberate_fault_is_caught() {
    let shop = Shop::installed().await;
    let has = |report: &Report, kind: FindingKind, by: FoundBy| {
        let mut findings = report.findings.iter();
        findings.any(|finding| finding.kind == kind && finding.found_by == by)
    };
    let (zeta, acme) = (Party::new(&shop.app, "zeta"), Party::new(&shop.app, "acme"));
    for fault in FAULTS {
        let what = fault.what;
        shop.superuser(&fault.make.replace("TENANT", TENANT)).await;
        // What a role is by itself is part of plans that a connection has made, and stays so there.
        shop.app.dispose();
        let report = check(&shop.app, &shop.shared()).await.expect("checked");
        let shared = SharedTables::new(&shop.role).table(fault.table);
        let report = report.and(attack(&shared, &zeta, &acme).await.expect("attacked"));
        for (kind, by) in [
            (fault.audit, FoundBy::Audit),
            (fault.attack, FoundBy::Attack),
        ] {
            let Some(kind) = kind else { continue };
            assert!(
                has(&report, kind, by),
                "{what}: no {kind} by {by:?} in {report}"
            );
        }
        shop.superuser(&fault.undo.replace("TENANT", TENANT)).await;
        let report = check(&shop.app, &shop.shared()).await.expect("checked");
        assert!(report.findings.is_empty(), "after {what}: {report}");
    }
    let report = attacked(&shop).await;
    assert!(report.findings.is_empty(), "in the end: {report}");
}

#[tokio::test]
async fn an_attack_that_makes_no_sense_or_finds_nothing_to_take_says_so() {
    let shop = Shop::installed().await;
    let party = |tenant: &str| Party::new(&shop.app, tenant);
    for (attacker, victim) in [("acme", "acme"), ("", "acme"), ("zeta", "a\0")] {
        let error = attack(&shop.shared(), &party(attacker), &party(victim)).await;
        assert_eq!(error.expect_err("refused").kind(), ErrorKind::Config);
    }
    let report = attack(&shop.shared(), &party("zeta"), &party("nobody")).await;
    let report = report.expect("attacked");
    assert!(report.findings.is_empty(), "{report}");
    let untried = report.untried.iter();
    let of_orders = untried.filter(|untried| untried.object == "public.orders");
    assert_eq!(of_orders.count(), 1, "{report}");
    assert!(
        report.to_string().contains("untried public.orders"),
        "{report}"
    );
}

/// Both tenants' logins and the policies by login.
async fn with_logins() -> (Shop, SharedTables, Engine, Engine) {
    let shop = Shop::bare(TABLES).await;
    // Databases of other tests are on the same server, and so are their logins.
    let prefix = format!("{}_", shop.name());
    let shared = shop.shared().login_per_tenant(&prefix);
    let mut engines = Vec::new();
    for tenant in ["acme", "zeta"] {
        let login = shared.login_of(tenant).expect("a login");
        shop.superuser(&format!(
            "DROP ROLE IF EXISTS {login}; CREATE ROLE {login} LOGIN PASSWORD 'secret' IN ROLE ROLE_APP"
        ))
        .await;
        engines.push(shop.login(&login));
    }
    install(&shop.owner, &shared).await.expect("installed");
    let zeta = engines.pop().expect("two");
    let acme = engines.pop().expect("one");
    (shop, shared, acme, zeta)
}

#[tokio::test]
async fn with_a_login_per_tenant_each_sees_its_own_and_no_attack_gets_through() {
    let (shop, shared, acme, zeta) = with_logins().await;
    assert_eq!(
        count(&mut acme.session(), "orders").await.expect("counted"),
        2
    );
    assert_eq!(
        count(&mut zeta.session(), "orders").await.expect("counted"),
        1
    );
    // The role itself is nobody.
    assert_eq!(
        count(&mut shop.app.session(), "orders")
            .await
            .expect("counted"),
        0
    );
    let again = install(&shop.owner, &shared).await.expect("installed");
    assert!(again.is_empty(), "{again}");

    let report = check(&zeta, &shared).await.expect("checked");
    let (attacker, victim) = (Party::new(&zeta, "zeta"), Party::new(&acme, "acme"));
    let report = report.and(attack(&shared, &attacker, &victim).await.expect("attacked"));
    assert!(report.findings.is_empty(), "{report}");
    assert_eq!(untried(&report), ["public.customers"], "{report}");

    shop.superuser("ALTER TABLE orders OWNER TO ROLE_APP").await;
    let report = check(&zeta, &shared).await.expect("checked");
    let owns = report
        .refusals()
        .any(|finding| finding.kind == K::RoleOwnsTable);
    assert!(owns, "an owner takes the policies off: {report}");
}

/// What an injected statement may do before it counts the orders that it sees.
const INJECTIONS: &[&str] = &[
    "SELECT set_config('app.tenant_id', 'acme', true)",
    "SET app.tenant_id = 'acme'",
    "SET LOCAL row_security = off",
    "RESET ROLE",
    "SET ROLE ROLE_APP",
    "SET ROLE app",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "SET SESSION AUTHORIZATION ACME_LOGIN",
    "ALTER TABLE orders DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE orders NO FORCE ROW LEVEL SECURITY",
    "DROP POLICY tenant_isolation ON orders",
    "CREATE POLICY mine ON orders USING (true)",
    "CREATE FUNCTION current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT 'acme' $$",
    "CREATE TEMP TABLE pg_class (n int); SET search_path = pg_temp, pg_catalog, public",
];

/// Which of them let it see rows of the other tenant.
async fn injections_that_work(
    shop: &Shop,
    acme_login: &str,
    session: impl AsyncFn() -> Session,
) -> Vec<&'static str> {
    let mut working = Vec::new();
    for injection in INJECTIONS {
        let sql = injection
            .replace("ROLE_APP", &shop.role)
            .replace("ACME_LOGIN", acme_login);
        let mut session = session().await;
        // In a savepoint, so that a refused one leaves the session usable, as a hostile one would be.
        let mut attempt = session.begin_nested();
        let ended = match attempt.batch(&sql).await {
            Ok(()) => attempt.commit().await,
            Err(_) => attempt.rollback().await,
        };
        ended.expect("the transaction goes on");
        let sql = "SELECT count(*) FROM public.orders WHERE tenant_id = 'acme'";
        let seen = session.query_one(sql, &[]).await;
        // `row_security = off` makes an error of what a policy would hide.
        if seen.is_ok_and(|row| row.get::<_, i64>(0) > 0) {
            working.push(*injection);
        }
        session.rollback().await.expect("rolled back");
    }
    working
}

#[tokio::test]
async fn sql_of_a_tenants_own_changes_the_setting_but_not_the_login() {
    let shop = Shop::installed().await;
    let working = injections_that_work(&shop, "postgres", async || shop.tenant("zeta").await).await;
    assert_eq!(
        working,
        [
            "SELECT set_config('app.tenant_id', 'acme', true)",
            "SET app.tenant_id = 'acme'"
        ],
        "the setting protects from what is forgotten, and from nothing else"
    );

    let (shop, shared, acme, zeta) = with_logins().await;
    let login = shared.login_of("acme").expect("a login");
    let working = injections_that_work(&shop, &login, async || zeta.session()).await;
    assert!(working.is_empty(), "{working:?}");

    // Nor does it see what the other's sessions do, or end them.
    let mut busy = acme.session();
    let pid: i32 = busy
        .query_one("SELECT pg_backend_pid(), 'a secret of acme'", &[])
        .await
        .expect("a session")
        .get(0);
    let mut hostile = zeta.session();
    let seen: Option<String> = hostile
        .query_one("SELECT query FROM pg_stat_activity WHERE pid = $1", &[&pid])
        .await
        .expect("an activity")
        .get(0);
    assert_eq!(seen.as_deref(), Some("<insufficient privilege>"));
    let refused = hostile
        .query_one("SELECT pg_terminate_backend($1)", &[&pid])
        .await;
    assert_eq!(refused.expect_err("refused").sqlstate(), Some("42501"));
}

#[tokio::test]
async fn a_login_that_tenants_share_sees_and_ends_the_sessions_of_all() {
    let shop = Shop::installed().await;
    let mut acme = shop.tenant("acme").await;
    let pid: i32 = acme
        .query_one("SELECT pg_backend_pid(), 'a secret of acme'", &[])
        .await
        .expect("a session")
        .get(0);
    let mut zeta = shop.tenant("zeta").await;
    let seen: String = zeta
        .query_one("SELECT query FROM pg_stat_activity WHERE pid = $1", &[&pid])
        .await
        .expect("an activity")
        .get(0);
    assert!(seen.contains("a secret of acme"), "{seen}");
    let ended: bool = zeta
        .query_one("SELECT pg_terminate_backend($1)", &[&pid])
        .await
        .expect("ended")
        .get(0);
    assert!(ended);
}
