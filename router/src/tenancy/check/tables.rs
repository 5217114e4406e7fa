//! One table's row security: whether it is on, and whether its policies say what they should.

use pool_postgres::quote_identifier;

use super::Findings;
use super::rights::Rights;
use super::roles::Judged;
use crate::tenancy::findings::{Finding, FindingKind};
use crate::tenancy::install::{
    ACCESS, ISOLATION, PolicyFacts, SharedTables, TableFacts, TableName, condition,
    create_isolation, is_same, tenant,
};

/// Tables that were listed and are not there.
pub(super) fn missing(shared: &SharedTables, tables: &[TableFacts]) -> Findings {
    let there = |listed: &TableName| tables.iter().any(|table| table.name == *listed);
    let missing = shared.tables.iter().filter(|listed| !there(listed));
    missing
        .map(|name| {
            let remedy = "create it, or take it off the list";
            Finding::new(
                FindingKind::NoSuchTable,
                name,
                "there is no such table",
                remedy,
            )
        })
        .collect()
}

pub(super) fn judge(
    table: &TableFacts,
    shared: &SharedTables,
    judged: &Judged,
    rights: &Rights,
) -> Findings {
    let Some(cast) = table.cast() else {
        let what = match &table.column {
            None => format!("it has no column {}", shared.column),
            Some(column) => format!(
                "its column {} is of type {}, which names no tenant",
                shared.column, column.type_name
            ),
        };
        let remedy = "give each row its tenant, as text, uuid, bigint, integer or smallint";
        return vec![Finding::new(
            FindingKind::NoTenantColumn,
            &table.name,
            what,
            remedy,
        )];
    };
    if !table.listed {
        return part(table, shared, cast, rights);
    }
    let mut findings = guards(table, shared, cast);
    findings.extend(columns(table, shared, cast));
    findings.extend(permissive(table, judged));
    findings
}

/// Whether a table keeps everybody to the tenant's rows.
pub(super) fn is_guarded(table: &TableFacts, shared: &SharedTables) -> bool {
    let cast = table.cast();
    cast.is_some_and(|cast| guards(table, shared, cast).is_empty())
}

/// A partition or an heir, which its parent's policies protect only from those who name the parent.
fn part(table: &TableFacts, shared: &SharedTables, cast: &str, rights: &Rights) -> Findings {
    let faults = guards(table, shared, cast);
    if !rights.is_open(table.oid) || faults.is_empty() {
        return Vec::new();
    }
    let why = faults.first().map_or("", |fault| &fault.what);
    vec![
        Finding::new(
            FindingKind::PartitionOpen,
            &table.name,
            format!("it can be reached by its own name, past its parent's policies: {why}"),
            "install tenancy again after making a partition, or take the role's rights on it away",
        )
        .sql(format!(
            "REVOKE ALL ON {} FROM {}",
            table.name.sql(),
            quote_identifier(&shared.role)
        )),
    ]
}

fn guards(table: &TableFacts, shared: &SharedTables, cast: &str) -> Findings {
    let (mut findings, name) = (Vec::new(), table.name.sql());
    if !table.row_security {
        findings.push(
            Finding::new(
                FindingKind::RowSecurityOff,
                &table.name,
                "row-level security is off, so its policies do nothing",
                "switch it on",
            )
            .sql(format!("ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")),
        );
    }
    if !table.forced {
        findings.push(
            Finding::new(
                FindingKind::NotForced,
                &table.name,
                format!(
                    "row-level security is not forced: its owner {} sees everything, and so do the owner's views and \
                     functions",
                    table.owner_name
                ),
                "force it",
            )
            .sql(format!("ALTER TABLE {name} FORCE ROW LEVEL SECURITY")),
        );
    }
    let wanted = condition(shared, cast);
    if !table.policies.iter().any(|policy| policy.isolates(&wanted)) {
        findings.push(no_isolation(table, shared, cast, &wanted));
    }
    findings
}

/// Why no policy keeps everybody to the tenant's rows.
fn no_isolation(table: &TableFacts, shared: &SharedTables, cast: &str, wanted: &str) -> Finding {
    let mentions = |policy: &&PolicyFacts| {
        policy.name == ISOLATION
            || [&policy.using, &policy.check].iter().any(|expression| {
                expression
                    .as_deref()
                    .is_some_and(|text| text.contains(&shared.column))
            })
    };
    let with = |permissive: bool| {
        let mut policies = table.policies.iter();
        policies.find(|policy| policy.permissive == permissive && mentions(policy))
    };
    let (kind, what) = match (with(false), with(true)) {
        (Some(policy), _) => differs(policy, wanted),
        (None, Some(policy)) => (
            FindingKind::TenantPolicyPermissive,
            format!(
                "its policy {} by tenant is permissive: what any other permissive policy allows is allowed too",
                policy.name
            ),
        ),
        (None, None) => (
            FindingKind::NoTenantPolicy,
            "it has no restrictive policy by tenant".to_owned(),
        ),
    };
    let name = table.name.sql();
    let create = create_isolation(shared, &name, cast);
    let sql = if table.policies.iter().any(|policy| policy.name == ISOLATION) {
        format!("DROP POLICY {ISOLATION} ON {name}; {create}")
    } else {
        create
    };
    Finding::new(
        kind,
        &table.name,
        what,
        "install tenancy, which makes the policy",
    )
    .sql(sql)
}

fn differs(policy: &PolicyFacts, wanted: &str) -> (FindingKind, String) {
    let is = |expression: &Option<String>| is_same(expression.as_deref(), wanted);
    let differs = FindingKind::TenantPolicyDiffers;
    let name = &policy.name;
    if !is(&policy.using) {
        let using = policy.using.as_deref().unwrap_or("nothing");
        (
            differs,
            format!("its policy {name} is by {using}, and should be by {wanted}"),
        )
    } else if policy.command != "*" {
        (
            differs,
            format!("its policy {name} is for some commands only"),
        )
    } else if !policy.roles.contains(&0) {
        (differs, format!("its policy {name} is for some roles only"))
    } else {
        let check = policy.check.as_deref().unwrap_or("nothing");
        (
            FindingKind::WritesNotChecked,
            format!("its policy {name} checks rows that are written by {check}"),
        )
    }
}

fn columns(table: &TableFacts, shared: &SharedTables, cast: &str) -> Findings {
    let Some(column) = &table.column else {
        return Vec::new();
    };
    let (mut findings, name) = (Vec::new(), table.name.sql());
    let quoted = quote_identifier(&shared.column);
    let mut found = |kind, what: &str, remedy: &str, sql: String| {
        findings.push(Finding::new(kind, &table.name, what, remedy).sql(sql));
    };
    if !column.not_null {
        found(
            FindingKind::TenantColumnNullable,
            "its rows may be without a tenant, and are nobody's then",
            "give each row its tenant",
            format!("ALTER TABLE {name} ALTER COLUMN {quoted} SET NOT NULL"),
        );
    }
    let default = tenant(&shared.key, cast);
    if !is_same(column.default.as_deref(), &default) {
        found(
            FindingKind::NoTenantDefault,
            "an INSERT that does not name the tenant is refused",
            "let the column fill itself",
            format!("ALTER TABLE {name} ALTER COLUMN {quoted} SET DEFAULT {default}"),
        );
    }
    if !table.indexed {
        found(
            FindingKind::NoTenantIndex,
            "no index begins with the tenant: every statement reads all tenants' rows",
            "make an index",
            format!("CREATE INDEX CONCURRENTLY ON {name} ({quoted})"),
        );
    }
    findings
}

/// Whether the application is let in, and by how many policies.
fn permissive(table: &TableFacts, judged: &Judged) -> Findings {
    let permissive = table.policies.iter().filter(|policy| policy.permissive);
    let concerning: Vec<_> = permissive
        .filter(|policy| judged.any(|role| policy.concerns(role)))
        .collect();
    if concerning.is_empty() {
        let remedy = "install tenancy, which makes the policy";
        let what = "no permissive policy lets the application's role in: it sees no row";
        return vec![Finding::new(
            FindingKind::NoAccess,
            &table.name,
            what,
            remedy,
        )];
    }
    if concerning.len() == 1 {
        return Vec::new();
    }
    let added = concerning.iter().filter(|policy| policy.name != ACCESS);
    added
        .map(|policy| {
            Finding::new(
                FindingKind::PermissivePolicyAdded,
                format!("{}.{}", table.name, policy.name),
                "a permissive policy that is OR-ed to ours: it allows nothing more while the restrictive one is there, \
                 and everything it says without it",
                "make it restrictive, or drop it",
            )
            .sql(format!(
                "DROP POLICY {} ON {}",
                quote_identifier(&policy.name),
                table.name.sql()
            ))
        })
        .collect()
}
