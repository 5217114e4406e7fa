//! The audit: what in the server's catalogue goes round the policies of shared tables.
//!
//! All is read in one read-only transaction of one snapshot, and judged by plain functions of what was read. Nothing is
//! locked and no row of a table is touched, so it fits into a service's start.
//!
//! What it judges is *who could*, not who does: the roles are the one that was named, the one that has logged in, and
//! whatever they are members of, because `SET ROLE` is one statement away.

mod keys;
mod rights;
mod roles;
mod tables;
mod ways;

use pool_postgres::{Engine, Error, IsolationLevel, Session};

use super::findings::Finding;
use super::install::{PLAIN_PATH, SharedTables, read};
use super::report::Report;
pub(super) use keys::{ForeignKey, UniqueKey, foreign_keys, unique_keys};
pub(super) use roles::Judged;

/// Looks for what lets a tenant at another's rows, for a service to do before it starts.
///
/// The engine logs in as the application does: its login is judged too. Each finding has its remedy, as SQL where a
/// statement can do it.
///
/// ```no_run
/// use pool_router::tenancy::{self, SharedTables};
/// # async fn example(engine: pool_router::Engine) -> Result<(), Box<dyn std::error::Error>> {
/// let shared = SharedTables::new("shop_app").tables(["customers", "orders"]);
/// let report = tenancy::check(&engine, &shared).await?.or_refuse()?;
/// for warning in report.warnings() {
///     println!("{warning}");
/// }
/// # Ok(()) }
/// ```
///
/// What it can't see: what a function's text does by statements put together at run time, what other programs do with
/// other logins, and whether a setting is made where it should be. [`attack`](super::attack) tries the rest.
///
/// # Cancel safety
/// May be dropped at any point.
///
/// # Errors
/// [`ErrorKind::Config`](pool_postgres::ErrorKind::Config) for what makes no sense, and for a role that is not there;
/// the server's.
pub async fn check(engine: &Engine, shared: &SharedTables) -> Result<Report, Error> {
    shared.validated()?;
    let mut session = engine.session();
    let options = session
        .options()
        .read_only()
        .isolation(IsolationLevel::RepeatableRead);
    session.set_options(options)?;
    session.batch(PLAIN_PATH).await?;
    let report = audit(&mut session, shared).await?;
    session.rollback().await?;
    Ok(report)
}

async fn audit(session: &mut Session, shared: &SharedTables) -> Result<Report, Error> {
    let judged = Judged::read(session, shared).await?;
    if !judged.has(&shared.role) {
        return Err(shared.no_role());
    }
    let tables = read(session, shared).await?;
    let rights = rights::read(session, shared, &judged).await?;

    let mut findings = roles::judge(&judged, &tables);
    findings.extend(tables::missing(shared, &tables));
    for table in &tables {
        findings.extend(tables::judge(table, shared, &judged, &rights));
    }
    findings.extend(rights::judge(&rights, &tables));
    findings.extend(rights::unlisted(session, shared, &tables, &rights).await?);
    findings.extend(rights::to_come(session, shared, &tables, &judged).await?);
    findings.extend(roles::preset(session, shared, &judged).await?);
    let unique = unique_keys(session, shared, &tables).await?;
    findings.extend(unique.iter().map(|key| keys::unique(key, shared)));
    let foreign = foreign_keys(session, shared, &tables).await?;
    findings.extend(foreign.iter().map(|key| keys::foreign(key, shared)));
    findings.extend(ways::views(session, &tables, &judged).await?);
    findings.extend(ways::functions(session, &tables, &judged).await?);
    Ok(Report::of(findings, shared, tables.len()))
}

/// A list of names for a sentence.
fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}

type Findings = Vec<Finding>;
