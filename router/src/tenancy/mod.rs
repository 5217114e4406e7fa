//! Many customers, one service, no foreign row.
//!
//! The tenant is known *before* a session exists. It is a value that is passed, never something that a thread, a task
//! or a connection remembers; the server enforces what this module sets up; and what has no tenant sees nothing.
//!
//! # From a name to a session
//! [`Tenants`] checks the name ([`TenantId`], [`IdRules`]), asks a [`Resolver`] where the tenant lives (a
//! [`Placement`]; cached), and gives a session there that is confined to the tenant:
//!
//! | placement | what confines a transaction | what proves it |
//! |---|---|---|
//! | [`Placement::Database`] | pools of the tenant's own, made on first use | the setting, the role |
//! | [`Placement::Schema`] | `search_path`: its schema, then `pg_temp` | `current_schema()`, the setting, the role |
//! | [`Placement::Rows`] | the setting `app.tenant_id`, which row-level security reads | the setting, the role |
//!
//! All of that is local to the transaction and travels with `BEGIN` and the first statement in one round trip. The
//! proof raises where it fails, so the server skips the statement behind it ([`ErrorKind::Scope`](crate::ErrorKind)).
//! There are no sessions in autocommit and no `shared()`: without a transaction nothing would confine them.
//!
//! # What it protects from
//! From forgetting: a query without a filter, a pool's connection that remembers, a job that runs as the one before, a
//! schema that is not there. Not from hostile SQL in a tenant's session: what may run any statement may set the setting
//! and the search path. Where tenants' own SQL runs, give each a login of its own, by [`Placement::Database`].
//!
//! # Tables that tenants share
//! [`SharedTables`] says which tables, by which column and for which role. [`install`] puts row-level security on them,
//! [`check`] looks in the catalogue for what goes round it, and [`attack`] tries.

mod attack;
mod cache;
mod catalogue;
mod check;
mod context;
mod database;
mod error;
mod findings;
mod homes;
mod id;
mod install;
mod load;
mod placement;
mod report;
mod resolver;
mod rollout;
mod tenant;
mod tenants;
#[cfg(feature = "tower")]
pub mod web;

pub use attack::{Party, attack};
pub use catalogue::Catalogue;
pub use check::check;
pub use context::TenantContext;
pub use database::{OfTenant, TenantDatabase, TenantSessions};
pub use error::TenantError;
pub use findings::{Finding, FindingKind, FoundBy, Level, Remedy};
pub use id::{AsTenant, BadTenantId, IdRules, TenantId};
pub use install::{
    Change, ColumnType, Installation, SharedTables, TableName, TenantKey, install, install_plan,
};
pub use load::{Limits, TenantCounts};
pub use placement::{Placement, PlacementKind, TenantRecord, TenantState};
pub use report::{Accepted, Global, Refused, Report, Untried};
pub use resolver::{Changed, ResolveFuture, Resolver, TenantMap, resolver_fn};
pub use rollout::{Rollout, RolloutReport};
pub use tenants::{Builder, Tenants, TenantsStats};

/// The setting that holds the tenant's id, unless [`Builder::setting`] says otherwise.
pub const SETTING: &str = "app.tenant_id";

/// The scope of sessions across tenants: no tenant's id, by whatever rules.
const SYSTEM: &str = "(system)";
