//! Constraints that tell of rows that can't be seen: the server checks them past every policy.

use pool_postgres::{Error, Row, Session, quote_identifier};

use super::listed;
use crate::tenancy::findings::{Finding, FindingKind};
use crate::tenancy::install::{SharedTables, TableFacts, TableName, oids};

const UNIQUE: &str = "
SELECT n.nspname::text, c.relname::text, x.relname::text, con.conname::text,
    ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.indexrelid AND a.attnum <= i.indnkeyatts
        ORDER BY a.attnum),
    i.indexprs IS NULL AND i.indpred IS NULL AND NOT i.indisexclusion,
    i.indnkeyatts = 1 AND EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND t.typname IN ('uuid', 'int2', 'int4', 'int8')
        AND (a.attidentity <> '' OR a.atthasdef))
FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class x ON x.oid = i.indexrelid
LEFT JOIN pg_constraint con ON con.conindid = i.indexrelid AND con.contype IN ('p', 'u', 'x')
WHERE i.indrelid = ANY($1) AND (i.indisunique OR i.indisexclusion) AND NOT x.relispartition
    AND NOT EXISTS (SELECT FROM generate_series(0, i.indnkeyatts - 1) k
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k] WHERE a.attname = $2)
ORDER BY n.nspname, c.relname, x.relname";

/// A unique or exclusion constraint without the tenant.
pub(in crate::tenancy) struct UniqueKey {
    pub(in crate::tenancy) table: TableName,
    /// The constraint's name, or the index's where there is no constraint.
    pub(in crate::tenancy) name: String,
    /// Of what kind it is as a finding.
    pub(in crate::tenancy) kind: FindingKind,
    pub(in crate::tenancy) columns: Vec<String>,
    /// It is nothing but these columns, so that one with the tenant before them can take its place.
    is_plain: bool,
}

pub(in crate::tenancy) async fn unique_keys(
    session: &mut Session,
    shared: &SharedTables,
    tables: &[TableFacts],
) -> Result<Vec<UniqueKey>, Error> {
    let rows = session
        .query(UNIQUE, &[&oids(tables), &shared.column])
        .await?;
    let key = |row: &Row| UniqueKey {
        table: (row.get::<_, &str>(0), row.get::<_, &str>(1)).into(),
        name: row.get::<_, Option<_>>(3).unwrap_or_else(|| row.get(2)),
        kind: if row.get(6) {
            FindingKind::SurrogateKeyAcrossTenants
        } else {
            FindingKind::UniqueAcrossTenants
        },
        columns: row.get(4),
        is_plain: row.get(5),
    };
    Ok(rows.iter().map(key).collect())
}

/// What a unique constraint without the tenant tells.
pub(super) fn unique(key: &UniqueKey, shared: &SharedTables) -> Finding {
    let keyed = listed(key.columns.iter().map(String::as_str));
    let finding = Finding::new(
        key.kind,
        format!("{}.{}", key.table, key.name),
        format!(
            "it is unique by {keyed} across tenants: whoever writes a value learns whether another tenant has it"
        ),
        "make it unique within the tenant, and drop this one",
    );
    if !key.is_plain {
        return finding;
    }
    finding.sql(format!(
        "CREATE UNIQUE INDEX ON {} ({})",
        key.table.sql(),
        with_tenant(shared, &key.columns)
    ))
}

/// Columns as SQL takes them, behind the tenant's.
fn with_tenant(shared: &SharedTables, columns: &[String]) -> String {
    let mut all = vec![quote_identifier(&shared.column)];
    all.extend(columns.iter().map(|column| quote_identifier(column)));
    all.join(", ")
}

const FOREIGN: &str = "
SELECT n.nspname::text, c.relname::text, con.conname::text, pn.nspname::text, p.relname::text, c.oid, p.oid,
    ARRAY(SELECT a.attname::text FROM unnest(con.conkey) WITH ORDINALITY k(num, at)
        JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.num ORDER BY k.at),
    ARRAY(SELECT a.attname::text FROM unnest(con.confkey) WITH ORDINALITY k(num, at)
        JOIN pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.num ORDER BY k.at)
FROM pg_constraint con
JOIN pg_class c ON c.oid = con.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class p ON p.oid = con.confrelid
JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE con.contype = 'f' AND con.conparentid = 0 AND con.confrelid = ANY($1)
ORDER BY n.nspname, c.relname, con.conname";

/// A foreign key to a table of tenants, by which the tenants of both rows need not be one.
pub(in crate::tenancy) struct ForeignKey {
    pub(in crate::tenancy) child: TableName,
    pub(in crate::tenancy) child_oid: u32,
    pub(in crate::tenancy) parent: TableName,
    pub(in crate::tenancy) parent_oid: u32,
    pub(in crate::tenancy) name: String,
    /// The columns on the child's side, and those on the parent's that they are compared with.
    pub(in crate::tenancy) columns: Vec<String>,
    pub(in crate::tenancy) keys: Vec<String>,
}

pub(in crate::tenancy) async fn foreign_keys(
    session: &mut Session,
    shared: &SharedTables,
    tables: &[TableFacts],
) -> Result<Vec<ForeignKey>, Error> {
    let rows = session.query(FOREIGN, &[&oids(tables)]).await?;
    let key = |row: &Row| ForeignKey {
        child: (row.get::<_, &str>(0), row.get::<_, &str>(1)).into(),
        name: row.get(2),
        parent: (row.get::<_, &str>(3), row.get::<_, &str>(4)).into(),
        child_oid: row.get(5),
        parent_oid: row.get(6),
        columns: row.get(7),
        keys: row.get(8),
    };
    let by_tenant = |key: &ForeignKey| {
        let mut pairs = key.columns.iter().zip(&key.keys);
        pairs.any(|(from, to)| *from == shared.column && *to == shared.column)
    };
    let keys = rows.iter().map(key);
    Ok(keys.filter(|key| !by_tenant(key)).collect())
}

/// What a foreign key without the tenant lets through.
pub(super) fn foreign(key: &ForeignKey, shared: &SharedTables) -> Finding {
    let (child, parent) = (&key.child, &key.parent);
    Finding::new(
        FindingKind::ForeignKeyAcrossTenants,
        format!("{child}.{}", key.name),
        format!(
            "it links rows to {parent} without looking at the tenant: a row of another tenant can be linked to, found \
             by trying, and deleted along"
        ),
        "put the tenant first on both sides; the other table needs it in its key",
    )
    .sql(format!(
        "ALTER TABLE {} DROP CONSTRAINT {}, ADD FOREIGN KEY ({}) REFERENCES {} ({})",
        child.sql(),
        quote_identifier(&key.name),
        with_tenant(shared, &key.columns),
        parent.sql(),
        with_tenant(shared, &key.keys)
    ))
}
