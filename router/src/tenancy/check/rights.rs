//! What the roles may do with tables: those of tenants, and those that nobody has listed.

use pool_postgres::{Error, Session, quote_identifier};

use super::Findings;
use super::roles::Judged;
use super::tables::is_guarded;
use crate::tenancy::findings::{Finding, FindingKind};
use crate::tenancy::install::{SharedTables, TableFacts, TableName, oids, read as read_facts};

/// What the judged roles together may do with each table.
pub(super) struct Rights(Vec<Right>);

struct Right {
    oid: u32,
    name: TableName,
    /// Of a table that was listed as global, or of a part of one.
    is_global: bool,
    /// A global table of our list has a column of tenants.
    has_column: bool,
    may: May,
}

/// What is granted, of what a policy does and does not hold up.
struct May {
    use_rows: bool,
    truncate: bool,
    refer: bool,
}

const RIGHTS: &str = "
WITH RECURSIVE global AS (
    SELECT c.oid FROM unnest($2::text[], $3::text[]) AS l(schema, name)
    JOIN pg_namespace n ON n.nspname = l.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = l.name
    UNION SELECT i.inhrelid FROM global g JOIN pg_inherits i ON i.inhparent = g.oid
)
SELECT c.oid, n.nspname::text, c.relname::text, c.oid IN (SELECT oid FROM global),
    EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = $4 AND NOT a.attisdropped),
    bool_or(has_table_privilege(r, c.oid, 'DELETE') OR has_any_column_privilege(r, c.oid, 'SELECT, INSERT, UPDATE')),
    bool_or(has_table_privilege(r, c.oid, 'TRUNCATE')),
    bool_or(has_any_column_privilege(r, c.oid, 'REFERENCES') OR has_table_privilege(r, c.oid, 'TRIGGER'))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, unnest($1::oid[]) r
WHERE c.relkind IN ('r', 'p', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    AND n.nspname !~ '^pg_(toast|temp)' AND has_schema_privilege(r, n.oid, 'USAGE')
GROUP BY c.oid, n.nspname, c.relname ORDER BY n.nspname, c.relname";

pub(super) async fn read(
    session: &mut Session,
    shared: &SharedTables,
    judged: &Judged,
) -> Result<Rights, Error> {
    let schemas: Vec<&str> = shared.global.keys().map(TableName::schema).collect();
    let names: Vec<&str> = shared.global.keys().map(TableName::name).collect();
    let roles = judged.ordinary();
    let rows = session
        .query(RIGHTS, &[&roles, &schemas, &names, &shared.column])
        .await?;
    let right = |row: &pool_postgres::Row| Right {
        oid: row.get(0),
        name: (row.get::<_, &str>(1), row.get::<_, &str>(2)).into(),
        is_global: row.get(3),
        has_column: row.get(4),
        may: May {
            use_rows: row.get(5),
            truncate: row.get(6),
            refer: row.get(7),
        },
    };
    Ok(Rights(rows.iter().map(right).collect()))
}

impl Rights {
    /// Whether a role may read or write rows of a table.
    pub(super) fn is_open(&self, table: u32) -> bool {
        let mut rights = self.0.iter();
        rights.any(|right| right.oid == table && right.may.use_rows)
    }
}

/// Rights on tables of tenants that no policy holds up.
pub(super) fn judge(rights: &Rights, tables: &[TableFacts]) -> Findings {
    let mut findings = Vec::new();
    let of_tenants = |right: &&Right| tables.iter().any(|table| table.oid == right.oid);
    for right in rights.0.iter().filter(of_tenants) {
        let name = right.name.sql();
        if right.may.truncate {
            findings.push(
                Finding::new(
                    FindingKind::MayTruncate,
                    &right.name,
                    "the role may TRUNCATE it: all rows of all tenants, past every policy",
                    "take the right away, from PUBLIC and from roles that it is a member of too",
                )
                .sql(format!("REVOKE TRUNCATE ON {name} FROM …")),
            );
        }
        if right.may.refer {
            findings.push(
                Finding::new(
                    FindingKind::MayReference,
                    &right.name,
                    "the role may point foreign keys at it, which tell of rows that it can't see, or put triggers on it",
                    "take the rights away",
                )
                .sql(format!("REVOKE REFERENCES, TRIGGER ON {name} FROM …")),
            );
        }
    }
    for right in rights
        .0
        .iter()
        .filter(|right| right.is_global && right.has_column)
    {
        findings.push(Finding::new(
            FindingKind::GlobalTableOfTenants,
            &right.name,
            "it is listed as everybody's, and has a column of tenants",
            "list it as a table of tenants",
        ));
    }
    findings
}

/// Tables that the roles may use, and that are in neither list: somebody made one and forgot.
///
/// One that keeps tenants apart all the same is none of them.
pub(super) async fn unlisted(
    session: &mut Session,
    shared: &SharedTables,
    tables: &[TableFacts],
    rights: &Rights,
) -> Result<Findings, Error> {
    let known = |right: &&Right| tables.iter().any(|table| table.oid == right.oid);
    let open = |right: &&Right| right.may.use_rows && !right.is_global && !known(right);
    let unlisted: Vec<&Right> = rights.0.iter().filter(open).collect();
    if unlisted.is_empty() {
        return Ok(Vec::new());
    }
    let mut others = shared.clone();
    others.tables = unlisted.iter().map(|right| right.name.clone()).collect();
    let facts = read_facts(session, &others).await?;
    let guarded = |right: &Right| {
        let mut facts = facts.iter();
        facts.any(|table| table.oid == right.oid && is_guarded(table, shared))
    };
    let mut findings = Vec::new();
    for right in unlisted.into_iter().filter(|right| !guarded(right)) {
        findings.push(
            Finding::new(
                FindingKind::UnlistedTable,
                &right.name,
                "the role may use it, and it is neither listed nor does it keep tenants apart",
                "list it as a table of tenants and install tenancy, name it as global with the reason, or take the \
                 rights away",
            )
            .sql(format!(
                "REVOKE ALL ON {} FROM {}",
                right.name.sql(),
                quote_identifier(&shared.role)
            )),
        );
    }
    Ok(findings)
}

const DEFAULTS: &str = "
SELECT DISTINCT pg_get_userbyid(d.defaclrole)::text, n.nspname::text,
    CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END
FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace, aclexplode(d.defaclacl) x
WHERE d.defaclobjtype = 'r' AND x.grantee <> d.defaclrole AND (x.grantee = 0 OR x.grantee = ANY($1))
    AND x.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')";

const CREATING: &str = "
SELECT DISTINCT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, unnest($1::oid[]) r
WHERE c.oid = ANY($2) AND has_schema_privilege(r, n.oid, 'CREATE')";

/// What the roles will have, or could make, later on.
pub(super) async fn to_come(
    session: &mut Session,
    shared: &SharedTables,
    tables: &[TableFacts],
    judged: &Judged,
) -> Result<Findings, Error> {
    let (roles, mut findings) = (judged.ordinary(), Vec::new());
    for row in session.query(DEFAULTS, &[&roles]).await? {
        let (maker, schema): (String, Option<String>) = (row.get(0), row.get(1));
        let grantee: String = row.get(2);
        let within = schema.map_or(String::new(), |schema| {
            format!(" IN SCHEMA {}", quote_identifier(&schema))
        });
        findings.push(
            Finding::new(
                FindingKind::DefaultPrivileges,
                &maker,
                format!(
                    "every table that {maker} makes is open to {grantee} before it has a policy"
                ),
                "grant rights with each table's policies instead",
            )
            .sql(format!(
                "ALTER DEFAULT PRIVILEGES FOR ROLE {}{within} REVOKE ALL ON TABLES FROM {grantee}",
                quote_identifier(&maker)
            )),
        );
    }
    for row in session.query(CREATING, &[&roles, &oids(tables)]).await? {
        let schema: String = row.get(0);
        findings.push(
            Finding::new(
                FindingKind::MayCreateInSchema,
                &schema,
                "the role may make tables, views and functions where the tenants' tables are",
                "take the right away",
            )
            .sql(format!(
                "REVOKE CREATE ON SCHEMA {} FROM {}",
                quote_identifier(&schema),
                quote_identifier(&shared.role)
            )),
        );
    }
    Ok(findings)
}
