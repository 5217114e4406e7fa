//! Something that is done once for each tenant: a migration, a backfill, a provisioning.
//!
//! # What always holds
//! What was done for a tenant is in the ledger, and is not done again under the same name. Two runs at the same time
//! never work on one tenant: each holds a lock of the ledger's database for as long as it does. A run that dies leaves
//! its tenants as if they had not been begun, and the next one takes them up.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::StreamExt;
use futures_util::stream;
use pool_postgres::{Engine, Error, Session, SessionFactory};

use super::id::TenantId;
use crate::monitor::chain;

/// Where it is noted what was done.
const LEDGER: &str = "CREATE TABLE IF NOT EXISTS tenant_rollouts (
    rollout text NOT NULL,
    tenant text NOT NULL,
    done_at timestamptz,
    failure text,
    tries bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (rollout, tenant)
)";

/// Runs something once for each of many tenants: bounded, resumable, the canaries first.
///
/// The ledger is the table `tenant_rollouts` where its engine leads to, one row for each tenant and rollout; who is
/// behind is one query. While a tenant is worked on, one connection of that engine holds its lock, so the engine's pool
/// should have room for [`concurrency`](Self::concurrency).
///
/// ```no_run
/// use pool_router::tenancy::{Catalogue, Rollout, Tenants};
/// use pool_router::{Engine, Error};
///
/// # async fn example(ledger: Engine, catalogue: Catalogue, tenants: Tenants) -> Result<(), Error> {
/// let all: Vec<_> = catalogue.tenants().await?.iter().filter_map(|it| it.parse().ok()).collect();
/// let report = Rollout::new("2026-05 orders.note", ledger)
///     .canaries(["acme".parse().expect("an id")])
///     .run(&all, |tenant| {
///         let tenants = tenants.clone();
///         async move {
///             let mut session = tenants.write(&tenant).await?;
///             session.batch("ALTER TABLE orders ADD COLUMN IF NOT EXISTS note text").await?;
///             session.commit().await.map(drop)
///         }
///     })
///     .await?;
/// println!("{report}");
/// # Ok(()) }
/// ```
#[must_use = "nothing is done until `run`"]
pub struct Rollout {
    name: Arc<str>,
    ledger: Engine,
    concurrency: usize,
    canaries: Vec<TenantId>,
    most_failures: usize,
    progress: Arc<Progress>,
}

type Progress = dyn Fn(&TenantId, usize, usize) + Send + Sync;

impl Rollout {
    /// Under this name it is done once for each tenant.
    pub fn new(name: impl Into<Arc<str>>, ledger: Engine) -> Self {
        Self {
            name: name.into(),
            ledger,
            concurrency: 4,
            canaries: Vec::new(),
            most_failures: 0,
            progress: Arc::new(|_, _, _| {}),
        }
    }

    /// How many tenants are worked on at a time. Default 4, at least 1.
    pub fn concurrency(mut self, tenants: usize) -> Self {
        self.concurrency = tenants.max(1);
        self
    }

    /// Who goes first, one after another. If it fails for one of them, nobody else is begun.
    pub fn canaries(mut self, tenants: impl IntoIterator<Item = TenantId>) -> Self {
        self.canaries.extend(tenants);
        self
    }

    /// How many failures are borne; at one more no other tenant is begun. Default 0.
    pub fn most_failures(mut self, failures: usize) -> Self {
        self.most_failures = failures;
        self
    }

    /// Is told of each tenant that is through: which, how many are, of how many. For a progress bar.
    pub fn on_progress(
        mut self,
        tell: impl Fn(&TenantId, usize, usize) + Send + Sync + 'static,
    ) -> Self {
        self.progress = Arc::new(tell);
        self
    }

    /// Does it for each of these tenants for whom it is not done yet.
    ///
    /// `work` decides what is one transaction; if it fails, what it had committed stays, and the next run begins it
    /// anew, so it should be idempotent.
    ///
    /// # Cancel safety
    /// Dropped, what is under way is dropped too, and the next run takes it up.
    ///
    /// # Errors
    /// The ledger's. What `work` fails with is in the report.
    pub async fn run<W, F>(&self, tenants: &[TenantId], work: W) -> Result<RolloutReport, Error>
    where
        W: Fn(TenantId) -> F,
        F: Future<Output = Result<(), Error>>,
    {
        self.ledger.batch(LEDGER).await?;
        let done: Vec<(String,)> = self
            .ledger
            .query_as(
                "SELECT tenant FROM tenant_rollouts WHERE rollout = $1 AND done_at IS NOT NULL",
                &[&&*self.name],
            )
            .await?;
        let mut seen: HashSet<&str> = done.iter().map(|(tenant,)| &**tenant).collect();
        let mut report = RolloutReport::default();
        let mut due = Vec::new();
        for tenant in self.canaries.iter().chain(tenants) {
            if seen.insert(tenant.as_str()) {
                due.push(tenant.clone());
            }
        }
        report.done_before = done.len();
        let is_canary = |tenant: &TenantId| self.canaries.contains(tenant);
        let canaries = due.iter().take_while(|tenant| is_canary(tenant)).count();
        let (first, others) = due.split_at(canaries);
        let progress = (AtomicUsize::new(0), due.len());
        self.some(first, 1, 0, &work, &progress, &mut report)
            .await?;
        if report.failed.is_empty() {
            let (concurrency, most) = (self.concurrency, self.most_failures);
            self.some(others, concurrency, most, &work, &progress, &mut report)
                .await?;
        } else {
            report.not_begun += others.len();
        }
        Ok(report)
    }

    async fn some<W, F>(
        &self,
        tenants: &[TenantId],
        concurrency: usize,
        most_failures: usize,
        work: &W,
        (through, all): &(AtomicUsize, usize),
        report: &mut RolloutReport,
    ) -> Result<(), Error>
    where
        W: Fn(TenantId) -> F,
        F: Future<Output = Result<(), Error>>,
    {
        let failures = AtomicUsize::new(0);
        let one = |tenant: &TenantId| {
            let (tenant, failures) = (tenant.clone(), &failures);
            async move {
                if failures.load(Relaxed) > most_failures {
                    return Ok((tenant, Fate::NotBegun));
                }
                let fate = self.one(&tenant, work).await?;
                if matches!(fate, Fate::Failed(_)) {
                    failures.fetch_add(1, Relaxed);
                }
                (self.progress)(&tenant, through.fetch_add(1, Relaxed) + 1, *all);
                Ok::<_, Error>((tenant, fate))
            }
        };
        let mut fates = stream::iter(tenants).map(one).buffer_unordered(concurrency);
        while let Some(fate) = fates.next().await {
            match fate? {
                (_, Fate::Done) => report.done += 1,
                (_, Fate::DoneBefore) => report.done_before += 1,
                (_, Fate::Elsewhere) => report.elsewhere += 1,
                (_, Fate::NotBegun) => report.not_begun += 1,
                (tenant, Fate::Failed(why)) => report.failed.push((tenant, why)),
            }
        }
        Ok(())
    }

    async fn one<W, F>(&self, tenant: &TenantId, work: &W) -> Result<Fate, Error>
    where
        W: Fn(TenantId) -> F,
        F: Future<Output = Result<(), Error>>,
    {
        // Held until the session ends, however it ends.
        let mut lock: Session = SessionFactory::new(self.ledger.clone()).session();
        let (rollout, id) = (&*self.name, tenant.as_str());
        let params: [&(dyn pool_postgres::types::ToSql + Sync); 2] = [&rollout, &id];
        let take = "SELECT pg_try_advisory_xact_lock(hashtextextended($1 || E'\\n' || $2, 7))";
        if !lock.query_scalar::<bool>(take, &params).await? {
            return Ok(Fate::Elsewhere);
        }
        let noted = "SELECT true FROM tenant_rollouts WHERE rollout = $1 AND tenant = $2 AND done_at IS NOT NULL";
        if lock.query_opt(noted, &params).await?.is_some() {
            return Ok(Fate::DoneBefore);
        }
        let failure = work(tenant.clone()).await.err().map(|error| chain(&error));
        let note = "INSERT INTO tenant_rollouts (rollout, tenant, done_at, failure)
            VALUES ($1, $2, CASE WHEN $3::text IS NULL THEN clock_timestamp() END, $3)
            ON CONFLICT (rollout, tenant) DO UPDATE
            SET done_at = excluded.done_at, failure = excluded.failure, tries = tenant_rollouts.tries + 1";
        lock.execute(note, &[&rollout, &id, &failure]).await?;
        let _ = lock.commit().await?;
        Ok(failure.map_or(Fate::Done, Fate::Failed))
    }
}

enum Fate {
    Done,
    DoneBefore,
    Elsewhere,
    NotBegun,
    Failed(String),
}

impl fmt::Debug for Rollout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rollout")
            .field("name", &self.name)
            .field("concurrency", &self.concurrency)
            .field("canaries", &self.canaries)
            .finish_non_exhaustive()
    }
}

/// What became of a [`Rollout`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RolloutReport {
    /// Tenants for whom it was done now.
    pub done: usize,
    /// Tenants for whom it had been done before.
    pub done_before: usize,
    /// Tenants on whom another run is at work.
    pub elsewhere: usize,
    /// Tenants for whom it failed, and why.
    pub failed: Vec<(TenantId, String)>,
    /// Tenants that were not begun, because it failed for too many.
    pub not_begun: usize,
}

impl RolloutReport {
    /// Whether it is done for all.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.not_begun == 0 && self.elsewhere == 0
    }
}

impl fmt::Display for RolloutReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} done, {} done before, {} with another run, {} failed, {} not begun",
            self.done,
            self.done_before,
            self.elsewhere,
            self.failed.len(),
            self.not_begun
        )?;
        for (tenant, why) in &self.failed {
            write!(f, "\n  {tenant}: {why}")?;
        }
        Ok(())
    }
}
