//! What the server's catalogue says of the shared tables, their partitions and their heirs.
//!
//! Only read here; whoever asks has seen to a transaction with `search_path` set to `pg_catalog`, so that nobody's
//! function stands in for the server's and expressions are printed in one way.

use pool_postgres::{Error, Session};

use super::policy::cast_for;
use super::shared_tables::{SharedTables, TableName};

/// Keeps the names in our statements the server's own.
pub(crate) const PLAIN_PATH: &str = "SET LOCAL search_path = pg_catalog, pg_temp";

/// A table of tenants, or a part of one.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts of a catalogue, each by itself"
)]
pub(crate) struct TableFacts {
    pub(crate) oid: u32,
    pub(crate) name: TableName,
    /// It was listed itself; else a listed one is its ancestor.
    pub(crate) listed: bool,
    /// Its parent is partitioned, so that what is done to that one's columns and indexes reaches it.
    pub(crate) is_partition: bool,
    /// It is a table of another server, which has no policies here.
    pub(crate) is_foreign: bool,
    pub(crate) row_security: bool,
    pub(crate) forced: bool,
    pub(crate) owner: u32,
    pub(crate) owner_name: String,
    pub(crate) column: Option<ColumnFacts>,
    /// It has an index whose first column is the tenant.
    pub(crate) indexed: bool,
    /// Who was granted what nobody should have: the role itself, or everybody.
    pub(crate) excess: Vec<String>,
    pub(crate) policies: Vec<PolicyFacts>,
}

impl TableFacts {
    /// What a tenant is cast to here; `None` without a column that can name one.
    pub(crate) fn cast(&self) -> Option<&'static str> {
        cast_for(&self.column.as_ref()?.type_name)
    }
}

/// The tables' object identifiers, as queries of the catalogue take them.
pub(crate) fn oids(tables: &[TableFacts]) -> Vec<u32> {
    tables.iter().map(|table| table.oid).collect()
}

/// The tenant's column.
#[derive(Clone, Debug)]
pub(crate) struct ColumnFacts {
    pub(crate) type_name: String,
    pub(crate) not_null: bool,
    pub(crate) default: Option<String>,
}

/// A policy on a table.
#[derive(Clone, Debug)]
pub(crate) struct PolicyFacts {
    pub(crate) name: String,
    pub(crate) permissive: bool,
    /// `*` is for all commands; `r`, `a`, `w` and `d` for reading, inserting, updating and deleting.
    pub(crate) command: String,
    /// Zero stands for everybody.
    pub(crate) roles: Vec<u32>,
    pub(crate) role_names: Vec<String>,
    pub(crate) using: Option<String>,
    pub(crate) check: Option<String>,
}

const TABLES: &str = "
WITH RECURSIVE listed AS (
    SELECT c.oid FROM unnest($1::text[], $2::text[]) AS l(schema, name)
    JOIN pg_namespace n ON n.nspname = l.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = l.name
    WHERE c.relkind IN ('r', 'p', 'f')
), family AS (
    SELECT oid FROM listed
    UNION SELECT i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.oid
)
SELECT c.oid, n.nspname::text, c.relname::text, c.oid IN (SELECT oid FROM listed), c.relispartition,
    c.relkind = 'f', c.relrowsecurity, c.relforcerowsecurity, c.relowner, pg_get_userbyid(c.relowner)::text,
    t.typname::text, a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
    EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL
        AND i.indkey[0] = a.attnum),
    ARRAY(SELECT DISTINCT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END
        FROM aclexplode(c.relacl) x
        WHERE x.privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER')
        AND (x.grantee = 0 OR pg_get_userbyid(x.grantee) = $4))
FROM family f
JOIN pg_class c ON c.oid = f.oid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $3 AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
ORDER BY c.relispartition, n.nspname, c.relname";

const POLICIES: &str = "
SELECT p.polrelid, p.polname::text, p.polpermissive, p.polcmd::text, p.polroles,
    ARRAY(SELECT quote_ident(pg_get_userbyid(r)) FROM unnest(p.polroles) r WHERE r <> 0),
    pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)
FROM pg_policy p WHERE p.polrelid = ANY($1::oid[]) ORDER BY p.polname";

/// Reads them all: those listed, and what is part of them. One that does not exist is missing.
pub(crate) async fn read(
    session: &mut Session,
    shared: &SharedTables,
) -> Result<Vec<TableFacts>, Error> {
    let schemas: Vec<&str> = shared.tables.iter().map(TableName::schema).collect();
    let names: Vec<&str> = shared.tables.iter().map(TableName::name).collect();
    let rows = session
        .query(TABLES, &[&schemas, &names, &shared.column, &shared.role])
        .await?;
    let mut tables: Vec<TableFacts> = rows
        .iter()
        .map(|row| TableFacts {
            oid: row.get(0),
            name: (row.get::<_, &str>(1), row.get::<_, &str>(2)).into(),
            listed: row.get(3),
            is_partition: row.get(4),
            is_foreign: row.get(5),
            row_security: row.get(6),
            forced: row.get(7),
            owner: row.get(8),
            owner_name: row.get(9),
            column: row
                .get::<_, Option<String>>(10)
                .map(|type_name| ColumnFacts {
                    type_name,
                    not_null: row.get(11),
                    default: row.get(12),
                }),
            indexed: row.get(13),
            excess: row.get(14),
            policies: Vec::new(),
        })
        .collect();
    let oids = oids(&tables);
    for row in session.query(POLICIES, &[&oids]).await? {
        let oid: u32 = row.get(0);
        if let Some(table) = tables.iter_mut().find(|table| table.oid == oid) {
            table.policies.push(policy(&row));
        }
    }
    Ok(tables)
}

fn policy(row: &pool_postgres::Row) -> PolicyFacts {
    PolicyFacts {
        name: row.get(1),
        permissive: row.get(2),
        command: row.get(3),
        roles: row.get(4),
        role_names: row.get(5),
        using: row.get(6),
        check: row.get(7),
    }
}
