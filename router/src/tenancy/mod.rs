//! Many customers, one service, no foreign row.
//!
//! The tenant is known *before* a session exists. It is a value that is passed, never something that a thread, a task
//! or a connection remembers; the server enforces what this module sets up; and what has no tenant sees nothing.
//!
//! # Tables that tenants share
//! [`SharedTables`] says which tables, by which column and for which role. [`install`] puts row-level security on them,
//! [`check`] looks in the catalogue for what goes round it, and [`attack`] tries.

mod attack;
mod check;
mod findings;
mod install;
mod report;

pub use attack::{Party, attack};
pub use check::check;
pub use findings::{Finding, FindingKind, FoundBy, Level, Remedy};
pub use install::{
    Change, ColumnType, Installation, SharedTables, TableName, TenantKey, install, install_plan,
};
pub use report::{Accepted, Global, Refused, Report, Untried};
