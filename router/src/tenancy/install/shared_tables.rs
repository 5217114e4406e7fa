//! Which tables tenants share, and how a row's tenant is told from the session that asks.
//!
//! One description for all three tools: what is installed, what is audited and what is attacked is the same thing.
//! Nothing is looked up or refused here; [`SharedTables::validated`] does that before any of them begins.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use pool_postgres::{Error, ErrorKind, quote_identifier};

use crate::tenancy::SETTING;
use crate::tenancy::findings::{Finding, FindingKind, Level};
use crate::tenancy::id::LONGEST_NAME;

/// How long a prefix of logins may be, so that a UUID fits behind it.
const LONGEST_PREFIX: usize = 24;

/// A table's schema and name, each as it is, without quotes.
///
/// Made of a text it is split at the first dot; without one the schema is `public`. A name with a dot in it is made of
/// a pair: `("sales", "orders.old")`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    schema: String,
    name: String,
}

impl TableName {
    /// The schema.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The name within the schema.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As SQL takes it, whatever is in it.
    pub(crate) fn sql(&self) -> String {
        format!(
            "{}.{}",
            quote_identifier(&self.schema),
            quote_identifier(&self.name)
        )
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

impl From<&str> for TableName {
    fn from(text: &str) -> Self {
        match text.split_once('.') {
            Some((schema, name)) => (schema, name).into(),
            None => ("public", text).into(),
        }
    }
}

impl From<String> for TableName {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<(&str, &str)> for TableName {
    fn from((schema, name): (&str, &str)) -> Self {
        Self {
            schema: schema.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// What tells a policy whose rows may be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TenantKey {
    /// A setting that each transaction makes; all tenants share a login. Protects from what is *forgotten*: whoever can
    /// send SQL of their own can make the setting anew.
    Setting(String),
    /// The login: `tenant_acme` is of the tenant `acme`. Protects from *hostile* SQL too, because nothing that a login
    /// may say changes who has logged in.
    Login {
        /// What stands before the tenant in the login's name.
        prefix: String,
    },
}

/// Tables that tenants share: which ones, by which column, and who the application is.
///
/// ```
/// use pool_router::tenancy::SharedTables;
///
/// let shared = SharedTables::new("shop_app")
///     .tables(["orders", "sales.invoices"])
///     .global("countries", "the same for every tenant");
/// # let _ = shared;
/// ```
#[derive(Clone, Debug)]
#[must_use = "it describes, and does nothing until it is installed or checked"]
pub struct SharedTables {
    pub(crate) role: String,
    pub(crate) tables: Vec<TableName>,
    pub(crate) global: BTreeMap<TableName, String>,
    pub(crate) column: String,
    pub(crate) key: TenantKey,
    pub(crate) lock_timeout: Duration,
    levels: BTreeMap<FindingKind, Level>,
    accepted: Vec<(FindingKind, String, String)>,
}

impl SharedTables {
    /// For an application that logs in as this role, or as a member of it.
    ///
    /// The role must own none of the tables, and be neither superuser nor `BYPASSRLS`.
    pub fn new(role: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            tables: Vec::new(),
            global: BTreeMap::new(),
            column: "tenant_id".to_owned(),
            key: TenantKey::Setting(SETTING.to_owned()),
            lock_timeout: Duration::from_secs(5),
            levels: BTreeMap::new(),
            accepted: Vec::new(),
        }
    }

    /// Adds a table whose rows belong to tenants. Its partitions and what inherits from it go along.
    pub fn table(mut self, table: impl Into<TableName>) -> Self {
        let table = table.into();
        if !self.tables.contains(&table) {
            self.tables.push(table);
        }
        self
    }

    /// Adds several; see [`table`](Self::table).
    pub fn tables<T: Into<TableName>>(self, tables: impl IntoIterator<Item = T>) -> Self {
        tables.into_iter().fold(self, Self::table)
    }

    /// Names a table that is everybody's, with the reason: the audit passes it over, and lists it.
    pub fn global(mut self, table: impl Into<TableName>, reason: impl Into<String>) -> Self {
        self.global.insert(table.into(), reason.into());
        self
    }

    /// The column that holds a row's tenant, the same in all tables. Default `tenant_id`.
    ///
    /// Of type text, varchar, uuid, bigint, integer or smallint.
    pub fn column(mut self, column: impl Into<String>) -> Self {
        self.column = column.into();
        self
    }

    /// The setting that names the tenant within a transaction. Default `app.tenant_id`.
    ///
    /// A name of two parts or more, of letters, digits and `_`: others are the server's own.
    pub fn setting(mut self, setting: impl Into<String>) -> Self {
        self.key = TenantKey::Setting(setting.into());
        self
    }

    /// A login for each tenant, whose name is this prefix and the tenant's id, in place of a setting.
    ///
    /// Each of them is a member of the application's role. The prefix is of `a` to `z`, `0` to `9` and `_`, at most 24
    /// bytes. See [`TenantKey::Login`].
    pub fn login_per_tenant(mut self, prefix: impl Into<String>) -> Self {
        self.key = TenantKey::Login {
            prefix: prefix.into(),
        };
        self
    }

    /// How long an installation, or an attack's statement, waits for a lock that others hold. Default 5 seconds.
    ///
    /// While one waits for a table, everybody who comes after it waits too.
    pub fn lock_timeout(mut self, limit: Duration) -> Self {
        self.lock_timeout = limit;
        self
    }

    /// Makes a kind of finding a reason to refuse, or only a warning. Each kind has a
    /// [default](FindingKind::default_level).
    pub fn level(mut self, kind: FindingKind, level: Level) -> Self {
        self.levels.insert(kind, level);
        self
    }

    /// Accepts a kind of finding for one object, as the report names it, with the reason.
    ///
    /// It is listed as accepted and neither refuses nor warns.
    pub fn accept(
        mut self,
        kind: FindingKind,
        object: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        self.accepted.push((kind, object.into(), reason.into()));
        self
    }

    /// What tells whose rows may be seen.
    pub fn key(&self) -> &TenantKey {
        &self.key
    }

    /// The login of a tenant, where each has one.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the tenants share a login, and for an id that makes no name: empty, with a NUL, or
    /// longer than the 63 bytes of a name leave room for.
    pub fn login_of(&self, tenant: &str) -> Result<String, Error> {
        let TenantKey::Login { prefix } = &self.key else {
            return Err(config(
                "tenants share a login here, and are told apart by a setting: call login_per_tenant(prefix)",
            ));
        };
        if tenant.is_empty() {
            return Err(config("the tenant's id is empty"));
        }
        let login = format!("{prefix}{tenant}");
        name(&login, "a tenant's login")?;
        Ok(login)
    }

    /// The level of a kind.
    pub(crate) fn level_of(&self, kind: FindingKind) -> Level {
        let by_itself = match (kind, &self.key) {
            // Who may send any SQL, and owns the table, takes the policies off it.
            (FindingKind::RoleOwnsTable, TenantKey::Login { .. }) => Level::Refuse,
            _ => kind.default_level(),
        };
        self.levels.get(&kind).copied().unwrap_or(by_itself)
    }

    /// Why a finding is accepted, if it is.
    pub(crate) fn acceptance_of(&self, finding: &Finding) -> Option<&str> {
        let accepted = self.accepted.iter().find(|(kind, object, _)| {
            *kind == finding.kind && (*object == finding.object || object == "*")
        });
        accepted.map(|(_, _, reason)| reason.as_str())
    }

    /// The error of an application's role that is not there.
    pub(crate) fn no_role(&self) -> Error {
        config(format!(
            "there is no role {:?} for the application: CREATE ROLE {} LOGIN",
            self.role,
            quote_identifier(&self.role)
        ))
    }

    /// Whether all that was given makes sense.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming what does not, and the remedy.
    pub(crate) fn validated(&self) -> Result<&Self, Error> {
        name(&self.role, "the application's role")?;
        name(&self.column, "the tenant's column")?;
        if self.tables.is_empty() {
            return Err(config(
                "no table of tenants is listed: call table(\"orders\")",
            ));
        }
        for table in self.tables.iter().chain(self.global.keys()) {
            name(&table.schema, "a table's schema")?;
            name(&table.name, "a table")?;
        }
        for table in &self.tables {
            if self.global.contains_key(table) {
                return Err(config(format!(
                    "{table} is listed as a tenants' table and as a global one: leave one out"
                )));
            }
        }
        let reasons = self
            .global
            .iter()
            .map(|(table, reason)| (table.to_string(), reason));
        let accepted = self
            .accepted
            .iter()
            .map(|(_, object, reason)| (object.clone(), reason));
        for (object, reason) in reasons.chain(accepted) {
            if reason.trim().is_empty() {
                return Err(config(format!(
                    "{object} is excepted without a reason: give one, for whoever reads the report"
                )));
            }
        }
        match &self.key {
            TenantKey::Setting(setting) if !is_setting(setting) => Err(config(format!(
                "{setting:?} can't be the tenant's setting: it takes two parts or more, of letters, digits and _, \
                 joined by dots, as in app.tenant_id"
            ))),
            TenantKey::Login { prefix } if !is_prefix(prefix) => Err(config(format!(
                "{prefix:?} can't be the prefix of the tenants' logins: it takes a letter, then letters, digits and _, \
                 all small, at most {LONGEST_PREFIX} bytes, as in tenant_"
            ))),
            _ => Ok(self),
        }
    }
}

pub(crate) fn config(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}

fn name(name: &str, what: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(config(format!("{what} has an empty name")));
    }
    if name.contains('\0') {
        return Err(config(format!(
            "{name:?} can't name {what}: it holds a NUL, which PostgreSQL takes nowhere"
        )));
    }
    if name.len() > LONGEST_NAME {
        return Err(config(format!(
            "{name:?} can't name {what}: it has {} bytes, and the server keeps {LONGEST_NAME}",
            name.len()
        )));
    }
    Ok(())
}

fn is_setting(setting: &str) -> bool {
    setting.len() <= LONGEST_NAME && is_setting_name(setting)
}

/// Whether a name is made of two parts or more, as those of settings are that are not the server's own.
pub(crate) fn is_setting_name(setting: &str) -> bool {
    let part = |part: &str| {
        let mut letters = part.chars();
        letters
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    setting.contains('.') && setting.split('.').all(part)
}

fn is_prefix(prefix: &str) -> bool {
    prefix.len() <= LONGEST_PREFIX
        && prefix.starts_with(|c: char| c.is_ascii_lowercase())
        && prefix
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(shared: &SharedTables) -> String {
        shared.validated().expect_err("refused").to_string()
    }

    fn good() -> SharedTables {
        SharedTables::new("app").table("orders")
    }

    #[test]
    fn a_table_is_of_public_unless_it_says_otherwise() {
        assert_eq!(TableName::from("orders"), ("public", "orders").into());
        assert_eq!(TableName::from("sales.orders"), ("sales", "orders").into());
        assert_eq!(TableName::from(("a\"b", "c.d")).sql(), "\"a\"\"b\".\"c.d\"");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        assert!(good().validated().is_ok());
        let hostile = "'; DROP";
        let cases = [
            (SharedTables::new("app"), "no table"),
            (SharedTables::new("").table("t"), "the application's role"),
            (good().column("a\0b"), "NUL"),
            (good().column("x".repeat(64)), "64 bytes"),
            (good().global("orders", "why"), "public.orders"),
            (good().global("other", " "), "without a reason"),
            (good().setting("work_mem"), "work_mem"),
            (good().setting(hostile), "'; DROP"),
            (good().setting("app."), "app."),
            (good().login_per_tenant("Tenant-"), "Tenant-"),
            (good().login_per_tenant(""), "prefix"),
        ];
        for (shared, named) in cases {
            let text = refusal(&shared);
            assert!(text.contains(named), "{text:?} does not name {named:?}");
        }
    }

    #[test]
    fn a_login_is_the_prefix_and_the_tenant() {
        let shared = good().login_per_tenant("tenant_");
        assert_eq!(shared.login_of("acme").expect("a login"), "tenant_acme");
        for bad in ["", "a\0", &"x".repeat(57)] {
            assert!(shared.login_of(bad).is_err(), "{bad:?} makes no login");
        }
        assert!(good().login_of("acme").is_err(), "they share a login");
    }
}
