//! The handle that a service keeps: from a tenant's name to a session that is confined to it.

use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::BoxStream;
use pool_core::Budget;
use pool_postgres::{Engine, Scope, Session, SessionFactory, SessionOptions};
use tokio::sync::watch;

use super::cache::{Answer, Cache};
use super::database::TenantDatabase;
use super::error::TenantError;
use super::homes::{Home, Homes, Use};
use super::id::{AsTenant, IdRules, TenantId};
use super::install::is_setting_name;
use super::load::{Limits, Load, TenantCounts};
use super::placement::{TenantRecord, TenantState};
use super::resolver::{Changed, Resolver, TenantMap};
use super::tenant::{Tenant, shows};
use crate::database::{AsToken, Database};

/// All tenants of a service, wherever they live.
///
/// Cheap to clone; all clones are one. A tenant is resolved before there is a session, and its sessions are confined to
/// it on the server; see the [module](super).
///
/// ```no_run
/// use pool_router::Database;
/// use pool_router::tenancy::{Placement, TenantError, TenantMap, Tenants};
///
/// # async fn example(shared: Database) -> Result<(), Box<dyn std::error::Error>> {
/// let map = TenantMap::new();
/// map.insert("acme".parse()?, Placement::rows("shared"));
/// map.insert("beta".parse()?, Placement::schema("shared", "tenant_beta"));
/// let own = Database::builder().primary("postgresql://app:secret@db7/gamma").pool_size(2);
/// map.insert("gamma".parse()?, Placement::database(own));
///
/// let tenants = Tenants::builder().resolver(map).database("shared", shared).build();
/// let mut writing = tenants.write("acme").await?;
/// writing.execute("INSERT INTO orders (item) VALUES ($1)", &[&"tea"]).await?;
/// let token = writing.commit().await?.token;
/// let mut reading = tenants.read_after("acme", &token).await?;
/// let orders: i64 = reading.query_one("SELECT count(*) FROM orders", &[]).await?.get(0); // acme's.
/// assert!(matches!(tenants.read("nobody").await, Err(TenantError::Unknown { .. })));
/// # let _ = orders; Ok(()) }
/// ```
#[derive(Clone)]
pub struct Tenants {
    inner: Arc<Inner>,
    /// Its sender goes with the last handle, and with it the task that hears of changes.
    _watching: Arc<watch::Sender<()>>,
}

/// What handles and sessions share.
pub(crate) struct Inner {
    resolver: Box<dyn Resolver>,
    cache: Cache,
    pub(crate) homes: Homes,
    rules: IdRules,
    setting: Arc<str>,
    limits: Limits,
    system: Scope,
}

/// Settings of [`Tenants`]; made by [`Tenants::builder`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct Builder {
    resolver: Box<dyn Resolver>,
    named: HashMap<Arc<str>, Home>,
    budget: Option<Budget>,
    rules: IdRules,
    setting: String,
    system_role: Option<String>,
    limits: Limits,
    cache_size: usize,
    max_age: Duration,
    negative_age: Duration,
    max_databases: usize,
}

impl Builder {
    /// Who knows where tenants live. Default: nobody, and there are no tenants.
    pub fn resolver(mut self, resolver: impl Resolver) -> Self {
        self.resolver = Box::new(resolver);
        self
    }

    /// A database that several tenants live in, by schema or by rows, under the name that their placements have.
    pub fn database(mut self, name: impl Into<Arc<str>>, database: Database) -> Self {
        self.named.insert(name.into(), Home::Routed(database));
        self
    }

    /// The same for a database of one server, without a router.
    pub fn engine(mut self, name: impl Into<Arc<str>>, engine: Engine) -> Self {
        self.named.insert(name.into(), Home::Single(engine));
        self
    }

    /// One number of connections for all databases that tenants have of their own. Default: none, each pool is bounded
    /// by itself. Give it to the shared databases too to have one for all.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = Some(budget.clone());
        self
    }

    /// Which texts are tenants' ids. Default: see [`IdRules`].
    pub fn id_rules(mut self, rules: IdRules) -> Self {
        self.rules = rules;
        self
    }

    /// The setting that holds the tenant's id for the length of a transaction, which row-level security reads. Default
    /// `app.tenant_id`.
    ///
    /// # Panics
    /// If it is not two or more names of lower-case letters, digits and `_` with dots between them: the server takes no
    /// other.
    pub fn setting(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        assert!(
            is_custom_setting(&name),
            "{name:?} can't be a setting of the application's own: it takes names of a-z, 0-9 and _ with dots between, \
             as in app.tenant_id"
        );
        self.setting = name;
        self
    }

    /// The role that [`Tenants::system`]'s sessions take on: one that row-level security lets see all tenants, and that
    /// the pools' user is a member of. Default: the pools' user, which sees no tenant's rows.
    pub fn system_role(mut self, role: impl Into<String>) -> Self {
        self.system_role = Some(role.into());
        self
    }

    /// What one tenant may take. Default: no limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How many tenants' places are remembered, the ones that were asked for longest ago going first. Default 10,000.
    pub fn cache_size(mut self, tenants: usize) -> Self {
        self.cache_size = tenants;
        self
    }

    /// For how long a tenant's place is taken for true without asking again. Default 1 minute; zero asks each time.
    ///
    /// [`Tenants::forget`] and a resolver that tells of changes are faster. This is what a moved tenant has to wait for
    /// where neither is to be had.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// For how long it is remembered that there is no such tenant, or that it is suspended or moving. Default 5 seconds.
    pub fn negative_age(mut self, age: Duration) -> Self {
        self.negative_age = age;
        self
    }

    /// How many of the tenants' own databases have pools at a time, the ones that were used longest ago going first.
    /// Default 10,000; at least 1. A pool without connections takes a few kilobytes and no task.
    pub fn max_databases(mut self, databases: usize) -> Self {
        self.max_databases = databases;
        self
    }

    /// Begins to serve tenants. Asks nobody, and opens nothing.
    ///
    /// # Panics
    /// Outside a Tokio runtime, if the resolver tells of changes: a task hears of them.
    pub fn build(self) -> Tenants {
        let mut system = Scope::new(super::SYSTEM);
        if let Some(role) = &self.system_role {
            system = system.set("role", role).expect("current_user", role);
        }
        // Whatever was left behind by whomever is nobody's tenant here.
        system = system
            .set(&self.setting, "")
            .expect(&shows(&self.setting), "");
        let changes = self.resolver.changes();
        let inner = Arc::new(Inner {
            resolver: self.resolver,
            cache: Cache::new(self.cache_size, self.max_age, self.negative_age),
            homes: Homes::new(self.named, self.max_databases, self.budget),
            rules: self.rules,
            setting: self.setting.into(),
            limits: self.limits,
            system,
        });
        let (watching, gone) = watch::channel(());
        if let Some(changes) = changes {
            tokio::spawn(hear(changes, Arc::downgrade(&inner), gone));
        }
        Tenants {
            inner,
            _watching: Arc::new(watching),
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("databases", &self.named.keys())
            .field("setting", &self.setting)
            .finish_non_exhaustive()
    }
}

fn is_custom_setting(name: &str) -> bool {
    is_setting_name(name) && !name.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Forgets what changes, until the last handle is gone.
async fn hear(
    mut changes: BoxStream<'static, Changed>,
    inner: Weak<Inner>,
    mut gone: watch::Receiver<()>,
) {
    let mut gone = pin!(gone.changed());
    loop {
        let change = match select(changes.next(), &mut gone).await {
            Either::Left((change, _)) => change,
            Either::Right(_) => return,
        };
        let Some(inner) = inner.upgrade() else { return };
        match change {
            Some(Changed::Of(tenant)) => match inner.rules.parse(&tenant) {
                Ok(tenant) => inner.cache.forget(&tenant),
                Err(_) => inner.cache.forget_all(),
            },
            Some(Changed::Any) => inner.cache.forget_all(),
            None => {
                tracing::warn!(
                    "the tenants' resolver tells of no more changes: they are noticed after max_age"
                );
                inner.cache.forget_all();
                return;
            }
        }
    }
}

impl Inner {
    /// Where a tenant lives, from the cache or from the resolver.
    pub(crate) async fn look_up(&self, id: &TenantId) -> Answer {
        self.cache.get(id, |before| self.ask(id, before)).await
    }

    async fn ask(&self, id: &TenantId, before: Option<Arc<Tenant>>) -> Answer {
        let tenant = id.clone();
        let found = self.resolver.resolve(id).await;
        let record = match found {
            Ok(Some(record)) => record,
            Ok(None) => return Err(TenantError::Unknown { tenant }),
            Err(cause) => return Err(TenantError::Resolver { tenant, cause }),
        };
        match record.state {
            TenantState::Active => {}
            TenantState::Suspended => return Err(TenantError::Suspended { tenant }),
            TenantState::Moving => return Err(TenantError::Moving { tenant }),
        }
        self.enlist(tenant, record, before)
    }

    /// The tenant as it is now; the same value as before where nothing changed.
    fn enlist(&self, id: TenantId, record: TenantRecord, before: Option<Arc<Tenant>>) -> Answer {
        let limits = record.limits.unwrap_or(self.limits);
        let load = match before {
            Some(before) if before.load.limits() == limits => {
                let role = record.role.as_deref();
                if before.is_at(&record.placement, record.generation, role) {
                    return Ok(before);
                }
                Arc::clone(&before.load)
            }
            _ => Load::new(limits),
        };
        Tenant::new(id, record, &self.setting, load).map(Arc::new)
    }
}

impl Tenants {
    /// Settings to begin with.
    pub fn builder() -> Builder {
        Builder {
            resolver: Box::new(TenantMap::new()),
            named: HashMap::new(),
            budget: None,
            rules: IdRules::default(),
            setting: super::SETTING.to_owned(),
            system_role: None,
            limits: Limits::default(),
            cache_size: 10_000,
            max_age: Duration::from_mins(1),
            negative_age: Duration::from_secs(5),
            max_databases: 10_000,
        }
    }

    /// A session on the tenant's primary; see [`Database::write`](crate::Database::write).
    ///
    /// # Cancel safety
    /// May be dropped at any point.
    ///
    /// # Errors
    /// [`TenantError`] says whether it is the client's mistake, the tenant's state, or ours.
    pub async fn write(&self, tenant: impl AsTenant) -> Result<Session, TenantError> {
        Ok(self.for_tenant(tenant).await?.write())
    }

    /// A read-only session for the tenant; see [`Database::read`](crate::Database::read). Otherwise as
    /// [`write`](Self::write).
    pub async fn read(&self, tenant: impl AsTenant) -> Result<Session, TenantError> {
        Ok(self.for_tenant(tenant).await?.read())
    }

    /// A read-only session that sees everything up to a token's commit; see
    /// [`Database::read_after`](crate::Database::read_after). Otherwise as [`write`](Self::write).
    pub async fn read_after(
        &self,
        tenant: impl AsTenant,
        token: &impl AsToken,
    ) -> Result<Session, TenantError> {
        Ok(self.for_tenant(tenant).await?.read_after(token))
    }

    /// The tenant's database, for code that makes its own sessions. Otherwise as [`write`](Self::write).
    pub async fn for_tenant(&self, tenant: impl AsTenant) -> Result<TenantDatabase, TenantError> {
        let id = tenant.tenant_id(&self.inner.rules)?;
        let tenant = self.inner.look_up(&id).await?;
        Ok(TenantDatabase::new(Arc::clone(&self.inner), tenant))
    }

    /// A session of no tenant's, for work across all of them in one of the shared databases. Each is logged with the
    /// reason and the place (target `pool_router::tenancy`, level `INFO`).
    ///
    /// It sees what [`Builder::system_role`] sees; without one, nothing in tables that have row-level security.
    ///
    /// # Errors
    /// [`TenantError::NoSuchDatabase`].
    #[track_caller]
    pub fn system(&self, database: &str, reason: &str) -> Result<Session, TenantError> {
        let home = self.inner.homes.named(database)?;
        let place = Location::caller();
        tracing::info!(
            target: "pool_router::tenancy",
            database,
            reason,
            place = %place,
            "a session across tenants"
        );
        let source = home.source(Use::Write);
        let sessions = SessionFactory::from_source(source, SessionOptions::default());
        Ok(sessions.with_scope(&self.inner.system).session())
    }

    /// Which texts are tenants' ids here.
    pub fn id_rules(&self) -> &IdRules {
        &self.inner.rules
    }

    /// Has a tenant looked up anew by whoever asks next, and by the next transaction of sessions that are there.
    pub fn forget(&self, tenant: &TenantId) {
        self.inner.cache.forget(tenant);
    }

    /// The same for all tenants.
    pub fn forget_all(&self) {
        self.inner.cache.forget_all();
    }

    /// What tenants have done: the `top` busiest by name, the rest summed.
    ///
    /// Counted from when a tenant was first looked up; those that the cache has dropped are in the rest.
    pub fn stats(&self, top: usize) -> TenantsStats {
        let (known, mut rest) = self.inner.cache.known();
        let mut tenants: Vec<_> = known
            .iter()
            .map(|tenant| (tenant.id.clone(), tenant.load.counts()))
            .collect();
        tenants.sort_by(|(a_id, a), (b_id, b)| (b.transactions, a_id).cmp(&(a.transactions, b_id)));
        for (_, counts) in tenants.iter().skip(top) {
            rest.add(counts);
        }
        tenants.truncate(top);
        TenantsStats {
            tenants,
            rest,
            known: self.inner.cache.len(),
            databases: self.inner.homes.own_count(),
        }
    }

    /// Closes the pools of the databases that tenants have of their own, and forgets all places. The shared databases
    /// are closed by whoever made them.
    pub async fn shutdown(&self) {
        self.inner.cache.forget_all();
        let close = |home| async {
            match home {
                Home::Routed(database) => drop(database.shutdown().await),
                Home::Single(engine) => drop(engine.close().await),
            }
        };
        let own = self.inner.homes.take_own();
        futures_util::future::join_all(own.into_iter().map(close)).await;
    }
}

impl fmt::Debug for Tenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenants")
            .field("known", &self.inner.cache.len())
            .field("databases", &self.inner.homes.own_count())
            .finish_non_exhaustive()
    }
}

/// What tenants have done; made by [`Tenants::stats`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantsStats {
    /// The busiest, the one with the most transactions first.
    pub tenants: Vec<(TenantId, TenantCounts)>,
    /// All others together.
    pub rest: TenantCounts,
    /// How many answers the cache holds, those that say that there is no such tenant included.
    pub known: usize,
    /// How many tenants' own databases have pools.
    pub databases: usize,
}

impl fmt::Display for TenantsStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} tenants known, {} databases of their own",
            self.known, self.databases
        )?;
        for (tenant, counts) in &self.tenants {
            writeln!(f, "  {tenant}: {counts}")?;
        }
        write!(f, "  the rest: {}", self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_one_that_the_server_takes() {
        for good in ["app.tenant_id", "a.b.c", "_x.y1"] {
            assert!(is_custom_setting(good), "{good}");
        }
        for bad in [
            "tenant",
            "app.",
            ".x",
            "app.Tenant",
            "app.x'y",
            "app.1",
            "role",
            "",
        ] {
            assert!(!is_custom_setting(bad), "{bad}");
        }
    }
}
