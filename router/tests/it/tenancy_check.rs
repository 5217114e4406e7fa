//! The audit of shared tables: each way round the policies provoked, found, put right by its remedy; none found where
//! everything is right.

use pool_router::tenancy::{FindingKind, FoundBy, Level, Report, SharedTables, check};
use pool_router::{Engine, ErrorKind};

use crate::shop::{Shop, batch};
use FindingKind as K;

/// A fault, made by the superuser, and what is found. `ROLE_APP` is the application's role.
struct Fault {
    what: &'static str,
    make: &'static str,
    kind: FindingKind,
    object: &'static str,
    /// What is left to do after the remedy.
    undo: &'static str,
}

const fn fault(
    what: &'static str,
    make: &'static str,
    kind: FindingKind,
    object: &'static str,
    undo: &'static str,
) -> Fault {
    Fault {
        what,
        make,
        kind,
        object,
        undo,
    }
}

/// Stands for `TENANT` in statements.
const TENANT: &str = "(SELECT NULLIF(current_setting('app.tenant_id', true), '') AS tenant)";

const FAULTS: &[Fault] = &[
    fault(
        "row security switched off",
        "ALTER TABLE orders DISABLE ROW LEVEL SECURITY",
        K::RowSecurityOff,
        "public.orders",
        "",
    ),
    fault(
        "FORCE forgotten",
        "ALTER TABLE orders NO FORCE ROW LEVEL SECURITY",
        K::NotForced,
        "public.orders",
        "",
    ),
    fault(
        "the restrictive policy dropped",
        "DROP POLICY tenant_isolation ON orders",
        K::NoTenantPolicy,
        "public.orders",
        "",
    ),
    fault(
        "a policy by tenant that is permissive",
        "DROP POLICY tenant_isolation ON orders; CREATE POLICY mine ON orders USING (tenant_id = TENANT)",
        K::TenantPolicyPermissive,
        "public.orders",
        "DROP POLICY mine ON orders",
    ),
    fault(
        "a policy by tenant with an OR",
        "ALTER POLICY tenant_isolation ON orders USING (tenant_id = TENANT OR current_setting('app.admin', true) = 'on')",
        K::TenantPolicyDiffers,
        "public.orders",
        "",
    ),
    fault(
        "a policy by tenant for reading only",
        "DROP POLICY tenant_isolation ON orders; \
         CREATE POLICY tenant_isolation ON orders AS RESTRICTIVE FOR SELECT USING (tenant_id = TENANT)",
        K::TenantPolicyDiffers,
        "public.orders",
        "",
    ),
    fault(
        "a policy by tenant for one role only",
        "DROP POLICY tenant_isolation ON orders; \
         CREATE POLICY tenant_isolation ON orders AS RESTRICTIVE TO ROLE_APP USING (tenant_id = TENANT)",
        K::TenantPolicyDiffers,
        "public.orders",
        "",
    ),
    fault(
        "a policy that does not check what is written",
        "ALTER POLICY tenant_isolation ON orders WITH CHECK (true)",
        K::WritesNotChecked,
        "public.orders",
        "",
    ),
    fault(
        "a permissive policy OR-ed in",
        "CREATE POLICY public_rows ON orders USING (item = 'tea')",
        K::PermissivePolicyAdded,
        "public.orders.public_rows",
        "",
    ),
    fault(
        "a column that takes NULL",
        "ALTER TABLE events ALTER COLUMN tenant_id DROP NOT NULL",
        K::TenantColumnNullable,
        "public.events",
        "",
    ),
    fault(
        "a column without the tenant as its default",
        "ALTER TABLE orders ALTER COLUMN tenant_id DROP DEFAULT",
        K::NoTenantDefault,
        "public.orders",
        "",
    ),
    fault(
        "a table without an index by tenant",
        "CREATE TABLE logs (tenant_id text NOT NULL DEFAULT NULLIF(current_setting('app.tenant_id', true), '')); \
         ALTER TABLE logs ENABLE ROW LEVEL SECURITY; ALTER TABLE logs FORCE ROW LEVEL SECURITY; \
         CREATE POLICY a ON logs TO ROLE_APP USING (true); \
         CREATE POLICY b ON logs AS RESTRICTIVE USING (tenant_id = TENANT)",
        K::NoTenantIndex,
        "public.logs",
        "DROP TABLE logs",
    ),
    fault(
        "a role that is a superuser",
        "ALTER ROLE ROLE_APP SUPERUSER",
        K::RoleIsSuperuser,
        "ROLE_APP",
        "",
    ),
    fault(
        "a role with BYPASSRLS",
        "ALTER ROLE ROLE_APP BYPASSRLS",
        K::RoleBypassesRowSecurity,
        "ROLE_APP",
        "",
    ),
    fault(
        "a member of a role with BYPASSRLS",
        "CREATE ROLE ROLE_APP_boss BYPASSRLS; GRANT ROLE_APP_boss TO ROLE_APP",
        K::RoleBypassesRowSecurity,
        "ROLE_APP_boss",
        "DROP ROLE ROLE_APP_boss",
    ),
    fault(
        "a member of a member of the superuser",
        "CREATE ROLE ROLE_APP_aide; GRANT postgres TO ROLE_APP_aide; GRANT ROLE_APP_aide TO ROLE_APP",
        K::RoleIsSuperuser,
        "postgres",
        "DROP ROLE ROLE_APP_aide",
    ),
    fault(
        "a role that owns a table",
        "ALTER TABLE orders OWNER TO ROLE_APP; REVOKE TRUNCATE, REFERENCES, TRIGGER ON orders FROM ROLE_APP",
        K::RoleOwnsTable,
        "public.orders",
        "ALTER TABLE orders OWNER TO app; GRANT ALL ON orders TO app; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO ROLE_APP",
    ),
    fault(
        "a member of the tables' owner",
        "GRANT app TO ROLE_APP",
        K::RoleOwnsTable,
        "public.customers",
        "REVOKE app FROM ROLE_APP",
    ),
    fault(
        "a role that replicates",
        "ALTER ROLE ROLE_APP REPLICATION",
        K::RoleReplicates,
        "ROLE_APP",
        "",
    ),
    fault(
        "a role that makes roles",
        "ALTER ROLE ROLE_APP CREATEROLE",
        K::RoleMakesRoles,
        "ROLE_APP",
        "",
    ),
    fault(
        "a role that reads the server's files",
        "GRANT pg_read_server_files TO ROLE_APP",
        K::RoleReachesFiles,
        "pg_read_server_files",
        "",
    ),
    fault(
        "a tenant set for the role",
        "ALTER ROLE ROLE_APP SET app.tenant_id = 'acme'",
        K::TenantSetByDefault,
        "app.tenant_id",
        "",
    ),
    fault(
        "a view with its owner's rights",
        "CREATE VIEW teas AS SELECT * FROM orders; GRANT SELECT ON teas TO ROLE_APP",
        K::ViewIsNotInvoker,
        "public.teas",
        "DROP VIEW teas",
    ),
    fault(
        "a view with its owner's rights over one with the asker's",
        "CREATE VIEW inner_teas WITH (security_invoker = true) AS SELECT * FROM orders; \
         CREATE VIEW teas AS SELECT * FROM inner_teas; GRANT SELECT ON teas TO ROLE_APP",
        K::ViewIsNotInvoker,
        "public.teas",
        "DROP VIEW teas; DROP VIEW inner_teas",
    ),
    fault(
        "a materialised view",
        "CREATE MATERIALIZED VIEW totals AS SELECT tenant_id, count(*) FROM orders GROUP BY 1; \
         GRANT SELECT ON totals TO ROLE_APP",
        K::MaterializedView,
        "public.totals",
        "DROP MATERIALIZED VIEW totals",
    ),
    fault(
        "a function with its owner's rights",
        "CREATE FUNCTION all_orders() RETURNS SETOF orders LANGUAGE sql STABLE SECURITY DEFINER \
         AS 'SELECT * FROM public.orders'",
        K::DefinerFunction,
        "public.all_orders()",
        "DROP FUNCTION all_orders()",
    ),
    fault(
        "a function with its owner's rights and a parsed body",
        "CREATE FUNCTION how_many() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER \
         RETURN (SELECT count(*) FROM public.orders)",
        K::DefinerFunction,
        "public.how_many()",
        "DROP FUNCTION how_many()",
    ),
    fault(
        "a function that puts its statement together",
        "CREATE FUNCTION any_rows(t text) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER \
         AS $$ DECLARE n bigint; BEGIN EXECUTE 'SELECT count(*) FROM ' || t INTO n; RETURN n; END $$",
        K::DefinerFunctionUnclear,
        "public.any_rows(text)",
        "DROP FUNCTION any_rows(text)",
    ),
    fault(
        "a new partition that can be read directly",
        "CREATE TABLE events_next PARTITION OF events FOR VALUES FROM (200) TO (300); \
         GRANT SELECT ON events_next TO ROLE_APP",
        K::PartitionOpen,
        "public.events_next",
        "DROP TABLE events_next",
    ),
    fault(
        "an heir that can be read directly",
        "CREATE TABLE big_orders () INHERITS (orders); GRANT SELECT (id) ON big_orders TO ROLE_APP",
        K::PartitionOpen,
        "public.big_orders",
        "DROP TABLE big_orders",
    ),
    fault(
        "a unique name",
        "ALTER TABLE customers ADD CONSTRAINT one_name UNIQUE (name)",
        K::UniqueAcrossTenants,
        "public.customers.one_name",
        "ALTER TABLE customers DROP CONSTRAINT one_name",
    ),
    fault(
        "a unique index on an expression",
        "CREATE UNIQUE INDEX one_lower ON customers (lower(name))",
        K::UniqueAcrossTenants,
        "public.customers.one_lower",
        "DROP INDEX one_lower",
    ),
    fault(
        "a number that the server counts",
        "ALTER TABLE orders ADD COLUMN serial bigserial UNIQUE",
        K::SurrogateKeyAcrossTenants,
        "public.orders.orders_serial_key",
        "ALTER TABLE orders DROP COLUMN serial",
    ),
    fault(
        "a foreign key without the tenant",
        "ALTER TABLE customers ADD COLUMN no bigserial UNIQUE; \
         ALTER TABLE orders ADD COLUMN by_no bigint CONSTRAINT of_no REFERENCES customers (no)",
        K::ForeignKeyAcrossTenants,
        "public.orders.of_no",
        "ALTER TABLE orders DROP COLUMN by_no; ALTER TABLE customers DROP COLUMN no",
    ),
    fault(
        "TRUNCATE",
        "GRANT TRUNCATE ON orders TO ROLE_APP",
        K::MayTruncate,
        "public.orders",
        "REVOKE TRUNCATE ON orders FROM ROLE_APP",
    ),
    fault(
        "TRUNCATE for everybody",
        "GRANT TRUNCATE ON orders TO PUBLIC",
        K::MayTruncate,
        "public.orders",
        "REVOKE TRUNCATE ON orders FROM PUBLIC",
    ),
    fault(
        "REFERENCES",
        "GRANT REFERENCES (id) ON orders TO ROLE_APP",
        K::MayReference,
        "public.orders",
        "REVOKE REFERENCES (id) ON orders FROM ROLE_APP",
    ),
    fault(
        "a new table with a grant and no policy",
        "CREATE TABLE invoices (tenant_id text, total int); GRANT SELECT ON invoices TO ROLE_APP",
        K::UnlistedTable,
        "public.invoices",
        "DROP TABLE invoices",
    ),
    fault(
        "a new table with a right on one column and a policy that is not enough",
        "CREATE TABLE invoices (tenant_id text, total int); GRANT SELECT (total) ON invoices TO ROLE_APP; \
         ALTER TABLE invoices ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON invoices USING (tenant_id = TENANT)",
        K::UnlistedTable,
        "public.invoices",
        "DROP TABLE invoices",
    ),
    fault(
        "a global table with a tenant's column",
        "ALTER TABLE countries ADD COLUMN tenant_id text",
        K::GlobalTableOfTenants,
        "public.countries",
        "ALTER TABLE countries DROP COLUMN tenant_id",
    ),
    fault(
        "rights on every table to come",
        "ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA public GRANT SELECT ON TABLES TO ROLE_APP",
        K::DefaultPrivileges,
        "app",
        "",
    ),
    fault(
        "a role that may make objects beside the tables",
        "GRANT CREATE ON SCHEMA public TO ROLE_APP",
        K::MayCreateInSchema,
        "public",
        "",
    ),
    fault(
        "a table whose only permissive policy is gone",
        "DROP POLICY tenant_access ON orders",
        K::NoAccess,
        "public.orders",
        "CREATE POLICY tenant_access ON orders TO ROLE_APP USING (true) WITH CHECK (true)",
    ),
];

/// The lists, with a table that one of the faults makes.
fn shared(shop: &Shop, fault: &Fault) -> SharedTables {
    let shared = shop.shared();
    if fault.object == "public.logs" {
        shared.table("logs")
    } else {
        shared
    }
}

async fn clean(shop: &Shop, after: &str) {
    let report = check(&shop.app, &shop.shared()).await.expect("checked");
    assert!(report.findings.is_empty(), "{after}: {report}");
}

/// Runs what a report proposes: as it stands, or in a transaction where it is several statements.
async fn run_remedy(engine: &Engine, sql: &str) {
    if sql.contains("; ") {
        batch(engine, sql).await;
    } else {
        engine
            .execute(sql, &[])
            .await
            .unwrap_or_else(|error| panic!("the remedy fails: {error}: {sql}"));
    }
}

fn finds(report: &Report, fault: &Fault, object: &str) -> bool {
    let mut findings = report.findings.iter();
    findings.any(|finding| finding.kind == fault.kind && finding.object == object)
}

#[tokio::test]
async fn each_way_round_the_policies_is_found_and_its_remedy_closes_it() {
    let shop = Shop::installed().await;
    clean(&shop, "installed").await;
    for fault in FAULTS {
        let what = fault.what;
        shop.superuser(&fault.make.replace("TENANT", TENANT)).await;
        let object = fault.object.replace("ROLE_APP", &shop.role);
        let report = check(&shop.app, &shared(&shop, fault))
            .await
            .expect("checked");
        assert!(finds(&report, fault, &object), "{what}: {report}");
        let finding = report
            .findings
            .iter()
            .find(|finding| finding.kind == fault.kind);
        let finding = finding.expect("found");
        assert_eq!(finding.level, fault.kind.default_level());
        assert_eq!(finding.found_by, FoundBy::Audit);
        let refuses = report.clone().or_refuse().is_err();
        assert_eq!(refuses, report.refusals().next().is_some(), "{what}");
        assert!(
            refuses || fault.kind.default_level() == Level::Warn,
            "{what}"
        );

        let complete = finding
            .remedy
            .sql
            .as_deref()
            .filter(|sql| !sql.contains('…'));
        // A constraint within the tenant comes beside the old one; a foreign key to it needs it first.
        let beside = [
            K::UniqueAcrossTenants,
            K::SurrogateKeyAcrossTenants,
            K::ForeignKeyAcrossTenants,
        ];
        if let Some(sql) = complete
            && fault.kind != K::ForeignKeyAcrossTenants
        {
            run_remedy(&shop.superuser, sql).await;
            let after = check(&shop.app, &shared(&shop, fault))
                .await
                .expect("checked");
            let gone = !finds(&after, fault, &object);
            assert!(
                gone || beside.contains(&fault.kind),
                "{what}: {sql}: {after}"
            );
        }
        if !fault.undo.is_empty() {
            shop.superuser(fault.undo).await;
        }
        clean(&shop, what).await;
    }
    let provoked = |kind: &FindingKind| FAULTS.iter().any(|fault| fault.kind == *kind);
    let unprovoked: Vec<_> = FindingKind::ALL
        .iter()
        .filter(|kind| !provoked(kind))
        .collect();
    // The tables of these two can't be made wrong and right again in place; the rest is an attack's.
    assert_eq!(
        unprovoked,
        [
            &K::NoSuchTable,
            &K::NoTenantColumn,
            &K::ForeignRowsRead,
            &K::RowsWithoutTenant,
            &K::ForeignRowsWritten,
            &K::ForeignRowsChanged
        ]
    );
}

#[tokio::test]
async fn a_finding_can_be_weighed_otherwise_or_accepted_with_a_reason() {
    let shop = Shop::installed().await;
    shop.superuser(
        "GRANT TRUNCATE ON orders TO ROLE_APP; CREATE TABLE plain (n int); CREATE TABLE odd (tenant_id json)",
    )
    .await;
    let shared = || shop.shared().tables(["plain", "odd", "missing"]);
    let report = check(&shop.app, &shared()).await.expect("checked");
    let refused: Vec<_> = report
        .refusals()
        .map(|f| (f.object.as_str(), f.kind))
        .collect();
    assert_eq!(
        refused,
        [
            ("public.missing", K::NoSuchTable),
            ("public.odd", K::NoTenantColumn),
            ("public.orders", K::MayTruncate),
            ("public.plain", K::NoTenantColumn),
        ]
    );

    let shared = shared()
        .level(K::NoSuchTable, Level::Warn)
        .accept(K::NoTenantColumn, "*", "taken over next month")
        .accept(
            K::MayTruncate,
            "public.orders",
            "the nightly job, until it deletes",
        );
    let report = check(&shop.app, &shared).await.expect("checked");
    assert_eq!(report.refusals().count(), 0, "{report}");
    assert_eq!(report.accepted.len(), 3, "{report}");
    let report = report.or_refuse().expect("nothing refuses");
    let text = report.to_string();
    for part in [
        "tenancy: 0 to refuse, 1 to warn of, 3 accepted, 1 global",
        "warn public.missing [no_such_table]",
        "accepted public.orders [may_truncate] the nightly job, until it deletes",
        "global public.countries the same for all",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[tokio::test]
async fn a_refusal_lists_what_it_refuses_with_the_remedy() {
    let shop = Shop::installed().await;
    shop.superuser("ALTER TABLE orders NO FORCE ROW LEVEL SECURITY")
        .await;
    let report = check(&shop.app, &shop.shared()).await.expect("checked");
    let refused = report.or_refuse().expect_err("refused");
    let text = refused.to_string();
    assert!(text.contains("1 to refuse"), "{text}");
    assert!(text.contains("refuse public.orders [not_forced]"), "{text}");
    assert!(
        text.contains("ALTER TABLE \"public\".\"orders\" FORCE ROW LEVEL SECURITY;"),
        "{text}"
    );
    assert_eq!(refused.report().findings.len(), 1);
}

#[tokio::test]
async fn a_superusers_login_is_refused_whatever_role_is_named() {
    let shop = Shop::installed().await;
    let report = check(&shop.superuser, &shop.shared())
        .await
        .expect("checked");
    let kinds: Vec<_> = report.refusals().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [K::RoleIsSuperuser], "{report}");
    let error = check(&shop.app, &SharedTables::new("nobody").table("orders")).await;
    let error = error.expect_err("no such role");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains("CREATE ROLE \"nobody\""),
        "{error}"
    );
}

#[tokio::test]
async fn a_table_that_keeps_tenants_apart_need_not_be_listed() {
    let shop = Shop::installed().await;
    let without = SharedTables::new(&shop.role)
        .tables(["customers", "events"])
        .global("countries", "the same for all");
    let report = check(&shop.app, &without).await.expect("checked");
    assert!(report.findings.is_empty(), "{report}");
}

#[cfg(feature = "serde")]
#[tokio::test]
async fn a_report_is_json_for_tools() {
    let shop = Shop::installed().await;
    shop.superuser("ALTER TABLE orders NO FORCE ROW LEVEL SECURITY")
        .await;
    let report = check(&shop.app, &shop.shared()).await.expect("checked");
    let json = serde_json::to_value(&report).expect("JSON");
    let finding = &json["findings"][0];
    assert_eq!(finding["kind"], "not_forced");
    assert_eq!(finding["level"], "refuse");
    assert_eq!(finding["found_by"], "audit");
    assert_eq!(finding["object"], "public.orders");
    assert_eq!(
        finding["remedy"]["sql"],
        "ALTER TABLE \"public\".\"orders\" FORCE ROW LEVEL SECURITY"
    );
    assert_eq!(json["global"][0]["reason"], "the same for all");
    for kind in FindingKind::ALL {
        assert_eq!(serde_json::to_value(kind).expect("JSON"), kind.code());
    }
}
