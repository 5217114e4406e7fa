//! Deliberate faults, each of which other people's services have had. What does not notice them proves nothing.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::Result;
use pool_postgres::{Error, Scope, Session, SessionFactory};
use pool_router::Engine;

use super::work::{Ledger, Worker};
use super::world::World;
use super::{PATIENCE, WORKERS};
use crate::tour::lock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    SessionSetting,
    TenantRemembered,
    NoForce,
    NoRowSecurity,
    NoCheck,
    OredPolicy,
    EmptyMeansAll,
    ViewOfOwner,
    DefinerFunction,
    Superuser,
    NoProof,
    NamesMeet,
    TemporaryFirst,
}

impl Fault {
    pub(crate) const ALL: [Self; 13] = [
        Self::SessionSetting,
        Self::TenantRemembered,
        Self::NoForce,
        Self::NoRowSecurity,
        Self::NoCheck,
        Self::OredPolicy,
        Self::EmptyMeansAll,
        Self::ViewOfOwner,
        Self::DefinerFunction,
        Self::Superuser,
        Self::NoProof,
        Self::NamesMeet,
        Self::TemporaryFirst,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SessionSetting => "SET instead of SET LOCAL, no reset",
            Self::TenantRemembered => "the tenant kept beside the session",
            Self::NoForce => "the owner's pool, and no FORCE",
            Self::NoRowSecurity => "a table without row-level security",
            Self::NoCheck => "a policy without WITH CHECK",
            Self::OredPolicy => "a permissive tenant policy beside another",
            Self::EmptyMeansAll => "a policy that shows all without a tenant",
            Self::ViewOfOwner => "a view without security_invoker",
            Self::DefinerFunction => "a SECURITY DEFINER function",
            Self::Superuser => "a superuser's pool",
            Self::NoProof => "a schema that is missing, and no proof",
            Self::NamesMeet => "schemas' names cut off until two meet",
            Self::TemporaryFirst => "temporary tables left behind and found first",
        }
    }

    /// What is wrong with the tables.
    fn sql(self) -> Option<&'static str> {
        Some(match self {
            Self::NoForce => "ALTER TABLE orders NO FORCE ROW LEVEL SECURITY",
            Self::NoRowSecurity => "ALTER TABLE orders DISABLE ROW LEVEL SECURITY",
            Self::NoCheck => "ALTER POLICY tenant ON orders WITH CHECK (true)",
            Self::OredPolicy => {
                "DROP POLICY tenant ON orders; CREATE POLICY tenant ON orders
                 USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')))"
            }
            Self::EmptyMeansAll => {
                "ALTER POLICY tenant ON orders USING (tenant_id = current_setting('app.tenant_id', true)
                 OR coalesce(current_setting('app.tenant_id', true), '') = '')"
            }
            Self::ViewOfOwner => "ALTER VIEW shown RESET (security_invoker)",
            Self::DefinerFunction => "ALTER FUNCTION found() SECURITY DEFINER",
            Self::NoProof => {
                "DROP SCHEMA \"t_tenant-4\" CASCADE; ALTER TABLE orders DISABLE ROW LEVEL SECURITY"
            }
            _ => return None,
        })
    }

    /// Whether the fault concerns those who have schemas.
    fn is_of_schemas(self) -> bool {
        matches!(self, Self::NoProof | Self::NamesMeet | Self::TemporaryFirst)
    }
}

/// Has tenants work with a fault until it is noticed; says what noticed it.
pub(crate) async fn noticed(fault: Fault, world: &World<'_>, seed: u64) -> Result<Option<String>> {
    if let Some(sql) = fault.sql() {
        let superuser = world.superuser()?;
        superuser.batch(sql).await?;
        superuser.close().await;
    }
    let engine = if fault == Fault::Superuser {
        world.superuser()?
    } else {
        world.plain(2)?
    };
    // Those whose placement the fault is about; they share an eighth pattern with the others.
    let names = world.names.iter().enumerate().filter(|(number, _)| {
        let schemas = number % 8 >= 4;
        schemas == fault.is_of_schemas()
    });
    let mut names: Vec<_> = names.map(|(_, name)| name.clone()).collect();
    if fault == Fault::NoProof {
        // The rows that are found instead are somebody's.
        names.push(world.names[0].clone());
    }
    let ledger = Arc::new(Ledger::default());
    let wrong = Arc::new(Wrong {
        fault,
        engine: engine.clone(),
        remembered: Mutex::default(),
    });
    let until = Instant::now() + PATIENCE;
    let mut tasks = Vec::new();
    for number in 0..WORKERS {
        let mut worker = Worker::new(names.clone(), Arc::clone(&ledger), seed, number);
        let (wrong, ledger) = (Arc::clone(&wrong), Arc::clone(&ledger));
        tasks.push(tokio::spawn(async move {
            while Instant::now() < until && ledger.foreign() == 0 {
                let (tenant, _) = worker.next();
                let forgets = worker.chance(4);
                if let Ok(session) = wrong.session(&tenant, forgets).await {
                    worker.turn(session, &tenant, false).await;
                }
            }
        }));
    }
    for task in tasks {
        task.await?;
    }
    engine.close().await;
    Ok(ledger.first())
}

/// Makes sessions wrongly.
struct Wrong {
    fault: Fault,
    engine: Engine,
    /// Whose turn it is, as a service remembers that passes no tenant.
    remembered: Mutex<String>,
}

impl Wrong {
    async fn session(&self, tenant: &str, forgets: bool) -> Result<Session, Error> {
        let plain = SessionFactory::new(self.engine.clone());
        let rows = |tenant: &str| plain.with_local("app.tenant_id", tenant).session();
        Ok(match self.fault {
            Fault::SessionSetting => {
                let mut session = plain.session();
                if !forgets {
                    let set = format!("SET app.tenant_id = '{tenant}'");
                    session.batch(&set).await?;
                    let _ = session.commit().await?;
                }
                session
            }
            Fault::TenantRemembered => {
                tenant.clone_into(&mut lock(&self.remembered));
                tokio::task::yield_now().await; // As while it waits for anything.
                let remembered = lock(&self.remembered).clone();
                rows(&remembered)
            }
            Fault::EmptyMeansAll if forgets => plain.session(),
            Fault::NoProof if tenant == "tenant-0" => rows(tenant),
            Fault::NoProof => {
                let path = format!("\"t_{tenant}\", public, pg_temp");
                let sessions = plain.with_local("search_path", &path);
                sessions.with_local("app.tenant_id", tenant).session()
            }
            Fault::NamesMeet => {
                // `tenant-4` and `tenant-14` have one schema.
                let end = &tenant[tenant.len() - 1..];
                let schema = format!(
                    "t_tenant-{}",
                    if ("4"..="7").contains(&end) { end } else { "4" }
                );
                let scope =
                    Scope::new(tenant).set("search_path", &format!("\"{schema}\", pg_temp"));
                plain.with_scope(&scope).session()
            }
            Fault::TemporaryFirst => plain
                .with_local("search_path", &format!("\"t_{tenant}\""))
                .session(),
            _ => rows(tenant),
        })
    }
}
