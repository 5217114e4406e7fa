//! Row-level security by tenant, installed on a list of tables.
//!
//! What is missing is worked out from the catalogue ([`missing`], a plain function of facts) and run in one transaction:
//! all of it or nothing, and the second time nothing. Nothing that an application wrote is taken away, but for a policy
//! of one of our two names, which is made anew where it differs.
//!
//! What always holds: between two statements of an installation no table is more open than before. Row security is on
//! and forced before the policy that opens the table to the application's role is made.

mod facts;
mod policy;
mod script;
mod shared_tables;

use std::fmt;

use pool_postgres::{Engine, Error, Session, quote_identifier};

pub(crate) use facts::{PLAIN_PATH, PolicyFacts, TableFacts, oids, read};
pub(crate) use policy::{ACCESS, ISOLATION, condition, create_isolation, is_same, tenant};
pub use script::ColumnType;
pub use shared_tables::{SharedTables, TableName, TenantKey};
pub(crate) use shared_tables::{config, is_setting_name};

/// What an installation changed, or would change.
#[derive(Clone, Debug, Default)]
pub struct Installation {
    changes: Vec<Change>,
}

/// One statement of an [`Installation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The table that it is about.
    pub table: TableName,
    /// What was missing, in words.
    pub what: &'static str,
    /// What puts it right, without a semicolon.
    pub sql: String,
}

impl Installation {
    /// What was changed, in order. Empty where everything was there already.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Whether there was nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The statements, for a migration; it brings its own transaction.
    pub fn to_sql(&self) -> String {
        let mut sql = String::new();
        for change in &self.changes {
            sql.push_str(&change.sql);
            sql.push_str(";\n");
        }
        sql
    }
}

/// A line for each change, or one that says that there was none.
impl fmt::Display for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() {
            return f.write_str("nothing to change");
        }
        for (index, change) in self.changes.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{}: {}", change.table, change.what)?;
        }
        Ok(())
    }
}

/// Installs tenancy on shared tables, in one transaction, and tells what it changed.
///
/// For each table, its partitions and its heirs: the tenant as the column's default, `NOT NULL`, an index that begins
/// with the tenant, row security enabled and forced, one permissive policy for the application's role, one restrictive
/// policy for everybody, and neither `TRUNCATE` nor `REFERENCES` nor `TRIGGER` for that role. What is there already is
/// left alone, so that a second run changes nothing; two at a time wait for each other.
///
/// The engine logs in as the tables' owner or as a superuser, never as the application. Rights to read and write are
/// granted by whoever makes the tables. The column must be there, with a tenant in every row.
///
/// Each table is locked until the end. An index on a large table is better made before, by `CREATE INDEX
/// CONCURRENTLY`: it is found and used.
///
/// # Cancel safety
/// Dropped, nothing is changed, unless the commit was on its way.
///
/// # Errors
/// [`ErrorKind::Config`](pool_postgres::ErrorKind::Config) for what makes no sense, a table, column or role that is not there, or a column that can't name
/// a tenant. Else the server's, with the statement; nothing is changed then.
pub async fn install(engine: &Engine, shared: &SharedTables) -> Result<Installation, Error> {
    let mut session = engine.session();
    let installation = plan(&mut session, shared).await?;
    for change in &installation.changes {
        session.batch(&change.sql).await.map_err(|error| {
            let message = format!("{} could not be given {}", change.table, change.what);
            Error::from_source(error.kind(), message, error)
        })?;
    }
    let _ = session.commit().await?;
    Ok(installation)
}

/// What [`install`] would change, without changing it: for a look before, or as SQL for a migration.
///
/// # Cancel safety
/// May be dropped at any point.
///
/// # Errors
/// As [`install`].
pub async fn install_plan(engine: &Engine, shared: &SharedTables) -> Result<Installation, Error> {
    let mut session = engine.session();
    let installation = plan(&mut session, shared).await?;
    session.rollback().await?;
    Ok(installation)
}

async fn plan(session: &mut Session, shared: &SharedTables) -> Result<Installation, Error> {
    shared.validated()?;
    let limit = format!(
        "SET LOCAL lock_timeout = {}",
        shared.lock_timeout.as_millis()
    );
    session.batch(&format!("{PLAIN_PATH}; {limit}")).await?;
    // One at a time: the second finds what the first did.
    session
        .execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('pool-router: install tenancy', 0))",
            &[],
        )
        .await?;
    let role = role(session, shared).await?;
    let tables = read(session, shared).await?;
    let mut installation = Installation::default();
    for listed in &shared.tables {
        if !tables.iter().any(|table| table.name == *listed) {
            return Err(config(format!(
                "there is no table {listed}: create it first, or leave it out"
            )));
        }
    }
    for table in &tables {
        installation.changes.extend(missing(table, shared, role)?);
    }
    Ok(installation)
}

async fn role(session: &mut Session, shared: &SharedTables) -> Result<u32, Error> {
    let row = session
        .query_opt(
            "SELECT oid FROM pg_roles WHERE rolname = $1",
            &[&shared.role],
        )
        .await?;
    let row = row.ok_or_else(|| shared.no_role())?;
    Ok(row.get(0))
}

/// What a table lacks. `role` is the application's.
fn missing(table: &TableFacts, shared: &SharedTables, role: u32) -> Result<Vec<Change>, Error> {
    let (name, column) = (table.name.sql(), quote_identifier(&shared.column));
    if table.is_foreign {
        return Err(config(format!(
            "{} is a table of another server, which has no policies here: leave it out, and keep the application's \
             role away from it",
            table.name
        )));
    }
    let Some(facts) = &table.column else {
        return Err(config(format!(
            "{} has no column {}: ALTER TABLE {name} ADD COLUMN {column} text, fill it, and come again",
            table.name, shared.column
        )));
    };
    let Some(cast) = table.cast() else {
        return Err(config(format!(
            "{}.{} is of type {}, which names no tenant here: make it text, uuid, bigint, integer or smallint",
            table.name, shared.column, facts.type_name
        )));
    };
    let mut changes = Vec::new();
    let mut change = |what, sql| {
        changes.push(Change {
            table: table.name.clone(),
            what,
            sql,
        });
    };
    let alter = |what: &str| format!("ALTER TABLE {name} {what}");
    let default = tenant(&shared.key, cast);
    if !is_same(facts.default.as_deref(), &default) {
        let sql = alter(&format!("ALTER COLUMN {column} SET DEFAULT {default}"));
        change("the tenant as its column's default", sql);
    }
    if !facts.not_null {
        let sql = alter(&format!("ALTER COLUMN {column} SET NOT NULL"));
        change("a tenant in every row", sql);
    }
    // A partition gets its index with its parent's.
    if !table.indexed && !table.is_partition {
        let sql = format!("CREATE INDEX ON {name} ({column})");
        change("an index that begins with the tenant", sql);
    }
    if !table.row_security {
        change("row-level security", alter("ENABLE ROW LEVEL SECURITY"));
    }
    if !table.forced {
        let sql = alter("FORCE ROW LEVEL SECURITY");
        change("row-level security for its owner too", sql);
    }
    for sql in isolation(table, shared, cast) {
        change("the restrictive policy of tenants", sql);
    }
    if let Some(sql) = access(table, shared, role) {
        change("a permissive policy for the application's role", sql);
    }
    if !table.excess.is_empty() {
        let grantees = table.excess.join(", ");
        let sql = format!("REVOKE TRUNCATE, REFERENCES, TRIGGER ON {name} FROM {grantees}");
        change("an application without TRUNCATE and REFERENCES", sql);
    }
    Ok(changes)
}

fn isolation(table: &TableFacts, shared: &SharedTables, cast: &str) -> Vec<String> {
    let wanted = condition(shared, cast);
    if table.policies.iter().any(|policy| policy.isolates(&wanted)) {
        return Vec::new();
    }
    let mut statements = Vec::new();
    if table.policies.iter().any(|policy| policy.name == ISOLATION) {
        statements.push(format!("DROP POLICY {ISOLATION} ON {}", table.name.sql()));
    }
    statements.push(create_isolation(shared, &table.name.sql(), cast));
    statements
}

/// What lets the role at the rows, unless a policy of the application's own does already.
fn access(table: &TableFacts, shared: &SharedTables, role: u32) -> Option<String> {
    let mut permissive = table.policies.iter().filter(|policy| policy.permissive);
    if permissive.any(|policy| policy.concerns(role)) {
        return None;
    }
    let ours = table.policies.iter().find(|policy| policy.name == ACCESS);
    let Some(ours) = ours else {
        return Some(policy::create_access(shared, &table.name.sql()));
    };
    // It was made for another role of the application's, which keeps it.
    let mut roles = ours.role_names.clone();
    roles.push(quote_identifier(&shared.role));
    Some(format!(
        "ALTER POLICY {} ON {} TO {}",
        ACCESS,
        table.name.sql(),
        roles.join(", ")
    ))
}

impl PolicyFacts {
    /// Whether it holds for a role, as far as the role itself is named.
    pub(crate) fn concerns(&self, role: u32) -> bool {
        self.roles.iter().any(|of| *of == 0 || *of == role)
    }

    /// Whether it keeps everybody, in everything, to what satisfies the condition.
    pub(crate) fn isolates(&self, condition: &str) -> bool {
        let is = |expression: &Option<String>| is_same(expression.as_deref(), condition);
        !self.permissive
            && self.command == "*"
            && self.roles.contains(&0)
            && is(&self.using)
            && (self.check.is_none() || is(&self.check))
    }
}
