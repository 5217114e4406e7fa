//! What an audit or an attack can find: each kind with its code, its weight and, in a report, its remedy.
//!
//! A kind is a way round the policies, or something without which they do not hold. What it weighs by default is said
//! here, in one place; [`SharedTables::level`](super::SharedTables::level) changes it.

use std::fmt;

/// What a finding does to [`Report::or_refuse`](super::Report::or_refuse).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Level {
    /// It is only told.
    Warn,
    /// The service should not start.
    Refuse,
}

/// Whether a finding was read in the catalogue or done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum FoundBy {
    /// [`check`](super::check).
    Audit,
    /// [`attack`](super::attack).
    Attack,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $code:literal, $level:ident;)*) => {
        /// What kind of thing was found.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        #[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
        #[non_exhaustive]
        pub enum FindingKind {
            $($(#[$doc])* $kind,)*
        }

        impl FindingKind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its name in reports.
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$kind => $code,)*
                }
            }

            /// What it weighs unless [`SharedTables::level`](super::SharedTables::level) says otherwise.
            pub fn default_level(self) -> Level {
                match self {
                    $(Self::$kind => Level::$level,)*
                }
            }
        }
    };
}

kinds! {
    /// A table that was listed does not exist.
    NoSuchTable = "no_such_table", Refuse;
    /// A table of tenants has no column that names them, or one of a type that can't.
    NoTenantColumn = "no_tenant_column", Refuse;
    /// The tenant's column takes NULL: such a row is nobody's.
    TenantColumnNullable = "tenant_column_nullable", Warn;
    /// The tenant's column is not filled by itself, so each `INSERT` must name the tenant.
    NoTenantDefault = "no_tenant_default", Warn;
    /// No index begins with the tenant: every statement reads the whole table.
    NoTenantIndex = "no_tenant_index", Warn;
    /// Row-level security is off: policies do nothing.
    RowSecurityOff = "row_security_off", Refuse;
    /// The table's owner, and views and functions of its owner, see everything.
    NotForced = "not_forced", Refuse;
    /// There is no restrictive policy by tenant.
    NoTenantPolicy = "no_tenant_policy", Refuse;
    /// The tenant's policy is permissive: any other permissive one is OR-ed to it.
    TenantPolicyPermissive = "tenant_policy_permissive", Refuse;
    /// The restrictive policy does not say what the tenant's should.
    TenantPolicyDiffers = "tenant_policy_differs", Refuse;
    /// The restrictive policy lets rows of other tenants be written.
    WritesNotChecked = "writes_not_checked", Refuse;
    /// A permissive policy beside ours: harmless while the restrictive one is there, and open without it.
    PermissivePolicyAdded = "permissive_policy_added", Warn;
    /// No permissive policy lets the application at the table: it sees nothing.
    NoAccess = "no_access", Warn;
    /// The role, or one that it is a member of, is a superuser.
    RoleIsSuperuser = "role_is_superuser", Refuse;
    /// The role, or one that it is a member of, has `BYPASSRLS`.
    RoleBypassesRowSecurity = "role_bypasses_row_security", Refuse;
    /// The role, or one that it is a member of, owns a table of tenants: forced policies concern it too, but it can take
    /// them off. Refuses where each tenant has a [login](super::TenantKey::Login).
    RoleOwnsTable = "role_owns_table", Warn;
    /// The role may stream or copy the whole server.
    RoleReplicates = "role_replicates", Refuse;
    /// The role may read or write the server's files, or run programs there.
    RoleReachesFiles = "role_reaches_files", Refuse;
    /// The role may make roles, and so become what it may not be.
    RoleMakesRoles = "role_makes_roles", Refuse;
    /// The tenant's setting has a value before anybody has said which tenant.
    TenantSetByDefault = "tenant_set_by_default", Refuse;
    /// A view reads a table of tenants with its owner's rights.
    ViewIsNotInvoker = "view_is_not_invoker", Refuse;
    /// A materialised view holds rows of all tenants.
    MaterializedView = "materialized_view", Refuse;
    /// A function that runs as its owner reads a table of tenants.
    DefinerFunction = "definer_function", Refuse;
    /// A function that runs as its owner, and what it reads can't be told.
    DefinerFunctionUnclear = "definer_function_unclear", Warn;
    /// A part of a table can be reached by its own name, past the table's policies.
    PartitionOpen = "partition_open", Refuse;
    /// A unique or exclusion constraint without the tenant tells of rows that can't be seen.
    UniqueAcrossTenants = "unique_across_tenants", Refuse;
    /// The same, by a number or UUID that the server makes up: it tells little more than that there are others.
    SurrogateKeyAcrossTenants = "surrogate_key_across_tenants", Warn;
    /// A foreign key without the tenant links a row to another tenant's.
    ForeignKeyAcrossTenants = "foreign_key_across_tenants", Refuse;
    /// The role may `TRUNCATE`, which no policy holds up.
    MayTruncate = "may_truncate", Refuse;
    /// The role may refer to the table by foreign keys, or put triggers on it.
    MayReference = "may_reference", Warn;
    /// A table that is in neither list is open to the role, and has no policy by tenant.
    UnlistedTable = "unlisted_table", Refuse;
    /// A global table has a tenant's column.
    GlobalTableOfTenants = "global_table_of_tenants", Warn;
    /// Every table made from now on is open to the role, before anybody gives it a policy.
    DefaultPrivileges = "default_privileges", Warn;
    /// The role may make objects where the tables are, which others may take for the real ones.
    MayCreateInSchema = "may_create_in_schema", Warn;
    /// Another tenant's rows were read.
    ForeignRowsRead = "foreign_rows_read", Refuse;
    /// Rows were seen without any tenant.
    RowsWithoutTenant = "rows_without_tenant", Refuse;
    /// A row was written for another tenant.
    ForeignRowsWritten = "foreign_rows_written", Refuse;
    /// Another tenant's rows were changed or deleted.
    ForeignRowsChanged = "foreign_rows_changed", Refuse;
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// What puts a finding right.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Remedy {
    /// In words.
    pub text: String,
    /// As SQL, without a semicolon, where a statement can do it.
    pub sql: Option<String>,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// How heavy.
    pub level: Level,
    /// How it was found.
    pub found_by: FoundBy,
    /// What it is about: a table as `schema.name`, a constraint or policy as `schema.table.name`, a role, a function.
    pub object: String,
    /// What was found, in one sentence.
    pub what: String,
    /// What puts it right.
    pub remedy: Remedy,
}

impl Finding {
    /// One of the catalogue's; its level is set by the report.
    pub(crate) fn new(
        kind: FindingKind,
        object: impl fmt::Display,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            level: kind.default_level(),
            found_by: FoundBy::Audit,
            object: object.to_string(),
            what: what.into(),
            remedy: Remedy {
                text: remedy.into(),
                sql: None,
            },
        }
    }

    pub(crate) fn sql(mut self, sql: impl Into<String>) -> Self {
        self.remedy.sql = Some(sql.into());
        self
    }

    pub(crate) fn by_attack(mut self) -> Self {
        self.found_by = FoundBy::Attack;
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Refuse => "refuse",
            Level::Warn => "warn",
        };
        write!(f, "{level} {} [{}] {}", self.object, self.kind, self.what)?;
        write!(f, "\n    remedy: {}", self.remedy.text)?;
        match &self.remedy.sql {
            Some(sql) => write!(f, "\n    {sql};"),
            None => Ok(()),
        }
    }
}
