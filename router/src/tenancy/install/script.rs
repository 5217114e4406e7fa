//! An installation as text for a migration, written without a look at any server.
//!
//! It says the same as [`install`](super::install) does. What it can't know it lets the server find out: the partitions,
//! by a block that walks over them. It can be run again; then it makes the policies anew.

use std::fmt::Write as _;

use pool_postgres::{Error, quote_identifier, quote_literal};

use super::policy;
use super::shared_tables::{SharedTables, TableName};

/// The type of the tenant's column, where no server is asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColumnType {
    /// `text` and `varchar`.
    Text,
    /// `uuid`.
    Uuid,
    /// `bigint`.
    Bigint,
    /// `integer`.
    Integer,
}

impl ColumnType {
    fn cast(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Uuid => "uuid",
            Self::Bigint => "bigint",
            Self::Integer => "integer",
        }
    }
}

impl SharedTables {
    /// The installation as SQL for a migration: for a tool that keeps its own history and brings its own transaction.
    ///
    /// It may be run again. Where a server can be asked, [`install_plan`](super::install_plan) gives only what is
    /// missing there.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](pool_postgres::ErrorKind::Config) for what makes no sense.
    pub fn to_sql(&self, column: ColumnType) -> Result<String, Error> {
        self.validated()?;
        let mut sql = "-- Rows by tenant, kept apart by the server. To be run in one transaction, by the tables' owner.\n\
                       SET LOCAL search_path = pg_catalog, pg_temp;\n"
            .to_owned();
        for table in &self.tables {
            self.write_table(&mut sql, table, column.cast());
        }
        Ok(sql)
    }

    fn write_table(&self, sql: &mut String, table: &TableName, cast: &str) {
        let (name, column) = (table.sql(), quote_identifier(&self.column));
        let role = quote_identifier(&self.role);
        let default = policy::tenant(&self.key, cast);
        let _ = write!(
            sql,
            "\n-- {table}\n\
             ALTER TABLE {name} ALTER COLUMN {column} SET DEFAULT {default};\n\
             ALTER TABLE {name} ALTER COLUMN {column} SET NOT NULL;\n"
        );
        let (walked, named) = (quote_literal(&name), quote_literal(&self.column));
        sql.push_str(&block(&format!(
            "BEGIN\n    IF NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid \
             AND a.attnum = i.indkey[0]\n        WHERE i.indrelid = {walked}::regclass AND i.indisvalid \
             AND i.indpred IS NULL AND a.attname = {named}) THEN\n        \
             CREATE INDEX ON {name} ({column});\n    END IF;\nEND"
        )));
        for statement in self.guards(&name, cast) {
            let _ = writeln!(sql, "{statement};");
        }
        // `%s` stands where a partition's name belongs; none of ours has such a character.
        let mut each = String::new();
        for statement in self.guards("\u{1}", cast) {
            let text = statement.replace('%', "%%").replace('\u{1}', "%s");
            let _ = writeln!(
                each,
                "        EXECUTE format({}, part);",
                quote_literal(&text)
            );
        }
        sql.push_str(&block(&format!(
            "DECLARE part regclass;\nBEGIN\n    \
             FOR part IN SELECT relid FROM pg_partition_tree({walked}) WHERE level > 0 LOOP\n\
             {each}    END LOOP;\nEND"
        )));
        let _ = writeln!(
            sql,
            "REVOKE TRUNCATE, REFERENCES, TRIGGER ON {name} FROM {role};"
        );
    }

    /// What a table and each of its partitions gets. Row security comes before what opens the table.
    fn guards(&self, table: &str, cast: &str) -> [String; 6] {
        [
            format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"),
            format!("ALTER TABLE {table} FORCE ROW LEVEL SECURITY"),
            format!("DROP POLICY IF EXISTS {} ON {table}", policy::ISOLATION),
            policy::create_isolation(self, table, cast),
            format!("DROP POLICY IF EXISTS {} ON {table}", policy::ACCESS),
            policy::create_access(self, table),
        ]
    }
}

/// A block whose end is where it should be, whatever a name in it holds.
fn block(body: &str) -> String {
    let mut tag = "$tenancy$".to_owned();
    while body.contains(&tag) {
        tag.insert(1, 'x');
    }
    format!("DO {tag}\n{body}\n{tag};\n")
}
