//! Constraints that tell of rows that can't be seen: the server checks them past every policy.

use pool_postgres::{Error, Session, quote_identifier};

use super::{Findings, listed, oids};
use crate::tenancy::findings::{Finding, FindingKind};
use crate::tenancy::install::{SharedTables, TableFacts, TableName};

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

/// Unique and exclusion constraints without the tenant.
pub(super) async fn unique(
    session: &mut Session,
    shared: &SharedTables,
    tables: &[TableFacts],
) -> Result<Findings, Error> {
    let rows = session
        .query(UNIQUE, &[&oids(tables), &shared.column])
        .await?;
    Ok(rows
        .iter()
        .map(|row| {
            let table = TableName::from((row.get::<_, &str>(0), row.get::<_, &str>(1)));
            let (index, constraint): (String, Option<String>) = (row.get(2), row.get(3));
            let columns: Vec<String> = row.get(4);
            let (is_plain, is_surrogate): (bool, bool) = (row.get(5), row.get(6));
            let kind = if is_surrogate {
                FindingKind::SurrogateKeyAcrossTenants
            } else {
                FindingKind::UniqueAcrossTenants
            };
            let name = constraint.as_deref().unwrap_or(&index);
            let keyed = listed(columns.iter().map(String::as_str));
            let finding = Finding::new(
                kind,
                format!("{table}.{name}"),
                format!(
                    "it is unique by {keyed} across tenants: whoever writes a value learns whether another tenant has it"
                ),
                "make it unique within the tenant, and drop this one",
            );
            if !is_plain {
                return finding;
            }
            let mut all = vec![quote_identifier(&shared.column)];
            all.extend(columns.iter().map(|column| quote_identifier(column)));
            finding.sql(format!("CREATE UNIQUE INDEX ON {} ({})", table.sql(), all.join(", ")))
        })
        .collect())
}

const FOREIGN: &str = "
SELECT n.nspname::text, c.relname::text, con.conname::text, pn.nspname::text, p.relname::text,
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

/// Foreign keys to tables of tenants, by which the tenants of both rows need not be one.
pub(super) async fn foreign(
    session: &mut Session,
    shared: &SharedTables,
    tables: &[TableFacts],
) -> Result<Findings, Error> {
    let mut findings = Vec::new();
    for row in session.query(FOREIGN, &[&oids(tables)]).await? {
        let child = TableName::from((row.get::<_, &str>(0), row.get::<_, &str>(1)));
        let parent = TableName::from((row.get::<_, &str>(3), row.get::<_, &str>(4)));
        let (name, columns): (String, Vec<String>) = (row.get(2), row.get(5));
        let keys: Vec<String> = row.get(6);
        let mut pairs = columns.iter().zip(&keys);
        if pairs.any(|(from, to)| *from == shared.column && *to == shared.column) {
            continue;
        }
        let with = |columns: &[String]| {
            let mut all = vec![quote_identifier(&shared.column)];
            all.extend(columns.iter().map(|column| quote_identifier(column)));
            all.join(", ")
        };
        findings.push(
            Finding::new(
                FindingKind::ForeignKeyAcrossTenants,
                format!("{child}.{name}"),
                format!(
                    "it links rows to {parent} without looking at the tenant: a row of another tenant can be linked to, \
                     found by trying, and deleted along"
                ),
                "put the tenant first on both sides; the other table needs it in its key",
            )
            .sql(format!(
                "ALTER TABLE {} DROP CONSTRAINT {}, ADD FOREIGN KEY ({}) REFERENCES {} ({})",
                child.sql(),
                quote_identifier(&name),
                with(&columns),
                parent.sql(),
                with(&keys)
            )),
        );
    }
    Ok(findings)
}
