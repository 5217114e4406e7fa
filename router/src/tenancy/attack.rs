//! The attack: one tenant tries, on a real server, to reach what is another's.
//!
//! What always holds: all of it happens in transactions that are rolled back, each try in a savepoint of its own. A try
//! that the server refuses is what should happen; one that it lets through is a finding; one that could not be made (no
//! rows to try it on, or an error that says nothing) is listed as untried, never counted as held.

mod attempt;
mod keys;
mod rows;
mod target;
mod ways;

use std::time::Duration;

use pool_postgres::{Engine, Error, Session};

use super::findings::Finding;
use super::install::{PLAIN_PATH, SharedTables, TenantKey, config};
use super::report::{Report, Untried};
use attempt::Raid;
use target::{Plan, Target};

/// How long one try may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A tenant that takes part in an [`attack`], and the engine by which it comes.
///
/// Where tenants share a login, both parties have the same engine; where each has its own, each has its own.
#[derive(Clone, Debug)]
pub struct Party {
    engine: Engine,
    tenant: String,
}

impl Party {
    /// A tenant, by its id as it stands in the column.
    pub fn new(engine: &Engine, tenant: impl Into<String>) -> Self {
        Self {
            engine: engine.clone(),
            tenant: tenant.into(),
        }
    }

    /// A session within a transaction, as this tenant or as none.
    async fn session(&self, shared: &SharedTables, tenant: Option<&str>) -> Result<Session, Error> {
        let mut session = self.engine.session();
        let options = session
            .options()
            .statement_timeout(LIMIT)
            .lock_timeout(shared.lock_timeout);
        session.set_options(options)?;
        if let (TenantKey::Setting(setting), Some(tenant)) = (&shared.key, tenant) {
            session.set_local(setting, tenant).await?;
        }
        Ok(session)
    }
}

/// Tries as one tenant to reach another's rows, in every way that [`check`](super::check) looks for, and rolls all of it
/// back.
///
/// On each table and each of its parts: to read, also by `COPY`, with `row_security` off and as each role that it can
/// take on; to write for the victim and to give rows away; to change and delete, also without naming a column; to learn
/// of keys and to link to rows; to `TRUNCATE`; to read through views, materialised views and functions. Where tenants
/// share a login, also as nobody. The victim needs a row in each table, or there is nothing to take; the attacker needs
/// one to give away.
///
/// Meant for a test or a staging server, with two tenants made for it: until it is rolled back, a try that gets through
/// holds locks, and every try on the attacker's own rows does; triggers fire; of the functions, those that say that they
/// change nothing (`STABLE`, `IMMUTABLE`) and need no arguments are called.
///
/// ```no_run
/// use pool_router::tenancy::{self, Party, SharedTables};
/// # async fn example(engine: pool_router::Engine, shared: SharedTables) -> Result<(), Box<dyn std::error::Error>> {
/// let report = tenancy::check(&engine, &shared).await?;
/// let (attacker, victim) = (Party::new(&engine, "mallory"), Party::new(&engine, "acme"));
/// let report = report.and(tenancy::attack(&shared, &attacker, &victim).await?);
/// println!("{}", report.or_refuse()?);
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// Dropped, everything is rolled back.
///
/// # Errors
/// [`ErrorKind::Config`](pool_postgres::ErrorKind::Config) for what makes no sense; the pool's, and a lost connection. A
/// statement that the server refuses is no error.
pub async fn attack(
    shared: &SharedTables,
    attacker: &Party,
    victim: &Party,
) -> Result<Report, Error> {
    shared.validated()?;
    if attacker.tenant == victim.tenant {
        return Err(config(format!(
            "{:?} can't attack itself: name two tenants",
            victim.tenant
        )));
    }
    for tenant in [&attacker.tenant, &victim.tenant] {
        if tenant.is_empty() || tenant.contains('\0') {
            return Err(config(format!(
                "{tenant:?} is no tenant: its id is empty or holds a NUL"
            )));
        }
    }
    let mut session = attacker.engine.session();
    session.batch(PLAIN_PATH).await?;
    let mut plan = target::plan(&mut session, shared).await?;
    session.rollback().await?;

    // What there is to take, and how the ways look from the victim's side.
    let session = victim.session(shared, Some(&victim.tenant)).await?;
    let mut there = Raid::new(session);
    target::sample(&mut there, &mut plan, &victim.tenant).await?;
    let as_victim = ways::look(&mut there, &plan, shared, &victim.tenant).await?;
    there.end().await?;

    let mut as_nobody = None;
    let mut spoils = Spoils::default();
    if matches!(shared.key, TenantKey::Setting(_)) {
        let session = attacker.session(shared, None).await?;
        let mut raid = Raid::new(session);
        rows::as_nobody(&mut raid, &plan, &mut spoils).await?;
        as_nobody = Some(ways::look(&mut raid, &plan, shared, &attacker.tenant).await?);
        spoils.tries += raid.end().await?;
    }

    let session = attacker.session(shared, Some(&attacker.tenant)).await?;
    let mut raid = Raid::new(session);
    let case = Case {
        shared,
        plan: &plan,
        attacker: &attacker.tenant,
        victim: &victim.tenant,
    };
    for target in &plan.targets {
        rows::attack(&mut raid, &case, target, &mut spoils).await?;
        keys::probe(&mut raid, &case, target, &mut spoils).await?;
    }
    keys::link(&mut raid, &case, &mut spoils).await?;
    let as_attacker = ways::look(&mut raid, &plan, shared, &attacker.tenant).await?;
    spoils.tries += raid.end().await?;
    for target in &plan.targets {
        rows::copy(attacker, &case, target, &mut spoils).await?;
    }
    ways::compare(
        &plan,
        &as_attacker,
        &as_victim,
        as_nobody.as_deref(),
        &mut spoils,
    );

    let findings = spoils.findings.into_iter().map(Finding::by_attack);
    let mut report = Report::of(findings.collect(), shared, plan.targets.len());
    report.untried = spoils.untried;
    report.tries = spoils.tries;
    Ok(report)
}

/// Who attacks whom, and what there is.
struct Case<'a> {
    shared: &'a SharedTables,
    plan: &'a Plan,
    attacker: &'a str,
    victim: &'a str,
}

impl Case<'_> {
    fn target_of(&self, oid: u32) -> Option<&Target> {
        self.plan
            .targets
            .iter()
            .find(|target| target.facts.oid == oid)
    }
}

/// What came of it.
#[derive(Default)]
struct Spoils {
    findings: Vec<Finding>,
    untried: Vec<Untried>,
    tries: usize,
}

impl Spoils {
    fn untried(&mut self, object: &impl ToString, why: impl Into<String>) {
        self.untried.push(Untried {
            object: object.to_string(),
            why: why.into(),
        });
    }
}
