//! What tenants do, at random, and what is counted of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pool_router::{Error, ErrorKind, Session};

use crate::tour::lock;

/// What all workers count together.
#[derive(Default)]
pub(crate) struct Ledger {
    turns: AtomicU64,
    statements: AtomicU64,
    rows: AtomicU64,
    cut_short: AtomicU64,
    foreign_read: AtomicU64,
    foreign_written: AtomicU64,
    /// Errors that killed connections don't explain.
    unexpected: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
    /// What the first foreign row came from.
    first: Mutex<Option<String>>,
}

impl Ledger {
    pub(crate) fn foreign(&self) -> u64 {
        self.foreign_read.load(Relaxed) + self.foreign_written.load(Relaxed)
    }

    /// How many errors there were that killed connections don't explain.
    pub(crate) fn unexpected(&self) -> u64 {
        self.unexpected.load(Relaxed)
    }

    pub(crate) fn first(&self) -> Option<String> {
        lock(&self.first).clone()
    }

    fn found(&self, how: &AtomicU64, what: String) {
        how.fetch_add(1, Relaxed);
        lock(&self.first).get_or_insert(what);
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} sessions, {} statements, {} rows looked at, {} sessions dropped half-way",
            self.turns.load(Relaxed),
            self.statements.load(Relaxed),
            self.rows.load(Relaxed),
            self.cut_short.load(Relaxed)
        )?;
        for (what, times) in &*lock(&self.errors) {
            writeln!(f, "  {times} times {what}")?;
        }
        if let Some(first) = self.first() {
            writeln!(f, "  first foreign row: {first}")?;
        }
        write!(
            f,
            "foreign rows: {} read, {} written",
            self.foreign_read.load(Relaxed),
            self.foreign_written.load(Relaxed)
        )
    }
}

/// One task's work.
pub(crate) struct Worker {
    names: Vec<String>,
    ledger: Arc<Ledger>,
    random: fastrand::Rng,
}

impl Worker {
    pub(crate) fn new(names: Vec<String>, ledger: Arc<Ledger>, seed: u64, number: usize) -> Self {
        let random = fastrand::Rng::with_seed(seed.wrapping_add(number as u64));
        Self {
            names,
            ledger,
            random,
        }
    }

    /// Whose turn it is, and whether it only reads.
    pub(crate) fn next(&mut self) -> (String, bool) {
        let name = self.names[self.random.usize(..self.names.len())].clone();
        (name, self.random.u8(..3) == 0)
    }

    pub(crate) fn chance(&mut self, one_in: u8) -> bool {
        self.random.u8(..one_in) == 0
    }

    pub(crate) fn failed(&self, error: &Error) {
        let shown = match error.kind() {
            // What killing connections is expected to do, and tasks of one tenant that want its rows in opposite orders.
            ErrorKind::Serialization
            | ErrorKind::ConnectionLost
            | ErrorKind::OutcomeUnknown
            | ErrorKind::Connect
            | ErrorKind::TransactionFailed => format!("{:?}", error.kind()),
            kind => {
                self.ledger.unexpected.fetch_add(1, Relaxed);
                format!("{kind:?}: {error}")
            }
        };
        *lock(&self.ledger.errors).entry(shown).or_default() += 1;
    }

    /// One session's work; now and then it is dropped in the middle of whatever it is at.
    pub(crate) async fn turn(&mut self, mut session: Session, tenant: &str, reads: bool) {
        self.ledger.turns.fetch_add(1, Relaxed);
        let cut =
            (self.random.u8(..8) == 0).then(|| Duration::from_micros(self.random.u64(100..20_000)));
        let ledger = Arc::clone(&self.ledger);
        let work = self.statements(&mut session, tenant, reads);
        let Some(limit) = cut else {
            if let Err(error) = work.await {
                self.failed(&error);
            }
            return;
        };
        match tokio::time::timeout(limit, work).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.failed(&error),
            Err(_) => drop(ledger.cut_short.fetch_add(1, Relaxed)),
        }
    }

    async fn statements(
        &mut self,
        session: &mut Session,
        tenant: &str,
        reads: bool,
    ) -> Result<(), Error> {
        for _ in 0..self.random.u8(1..6) {
            self.ledger.statements.fetch_add(1, Relaxed);
            let choice = self.random.u8(..if reads { 6 } else { 15 });
            self.one(session, tenant, choice).await?;
        }
        session.commit().await.map(drop)
    }

    async fn one(&mut self, s: &mut Session, tenant: &str, choice: u8) -> Result<(), Error> {
        match choice {
            0 => {
                self.look(
                    s,
                    tenant,
                    "SELECT item FROM orders ORDER BY id DESC LIMIT 30",
                )
                .await
            }
            1 => {
                self.look(s, tenant, "SELECT item FROM shown LIMIT 30")
                    .await
            }
            2 => self.look(s, tenant, "SELECT * FROM found() item").await,
            3 => {
                let sql = "WITH few AS (SELECT * FROM orders LIMIT 20)
                    SELECT a.item FROM few a JOIN orders b USING (id)";
                self.look(s, tenant, sql).await
            }
            4 => {
                s.batch("DECLARE c CURSOR FOR SELECT item FROM orders LIMIT 20")
                    .await?;
                self.look(s, tenant, "FETCH 10 FROM c").await?;
                s.batch("CLOSE c").await
            }
            5 => {
                let wide = self.random.u8(..).to_string();
                let sql = format!("SELECT item FROM orders WHERE length(item) > -{wide} LIMIT 10");
                self.look(s, tenant, &sql).await
            }
            6..9 => {
                let sql = "INSERT INTO orders (item) VALUES ($1) RETURNING item";
                let rows = s.query_as(sql, &[&tenant]).await?;
                self.check(rows, tenant, sql);
                Ok(())
            }
            9 => {
                let sql = "UPDATE orders SET item = item WHERE random() < 0.1 RETURNING item";
                let rows = s.query_as(sql, &[]).await?;
                self.check_written(rows, tenant, sql);
                Ok(())
            }
            10 => {
                let sql = "DELETE FROM orders WHERE random() < 0.05 RETURNING item";
                let rows = s.query_as(sql, &[]).await?;
                self.check_written(rows, tenant, sql);
                Ok(())
            }
            11 => self.forge(s, tenant).await,
            12 => {
                // An error inside a savepoint; the transaction goes on.
                let divide = async |s: &mut Session| s.execute("SELECT 1 / 0", &[]).await.map(drop);
                let _ = s.nested::<Error, ()>(divide).await;
                Ok(())
            }
            13 => {
                let sql = [
                    "SET app.tenant_id = 'tenant-0'",
                    "SET search_path = \"t_tenant-4\"",
                    "RESET ALL",
                    "DISCARD PLANS",
                    "SELECT set_config('app.tenant_id', 'tenant-1', false)",
                ];
                let sql = sql[self.random.usize(..sql.len())];
                s.batch(sql).await?;
                s.commit().await.map(drop)
            }
            _ => {
                // What one leaves behind is found by whoever comes next, if anybody.
                let left = format!(
                    "CREATE TEMP TABLE IF NOT EXISTS orders AS SELECT 1::bigint AS id, '{tenant}'::text AS item"
                );
                s.batch(&left).await?;
                s.commit().await.map(drop)
            }
        }
    }

    /// Tries to write in another's name; what the server refuses is undone.
    async fn forge(&mut self, s: &mut Session, tenant: &str) -> Result<(), Error> {
        let other = self.names[self.random.usize(..self.names.len())].clone();
        if other == tenant {
            return Ok(());
        }
        let shared = "SELECT count(*) = 1 FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'tenant_id'";
        if !s.query_scalar::<bool>(shared, &[]).await? {
            return Ok(());
        }
        let sql = "INSERT INTO orders (tenant_id, item) VALUES ($1, $1)";
        let written = s
            .nested::<Error, u64>(async |s| s.execute(sql, &[&other]).await)
            .await;
        if written.is_ok() {
            let ledger = &self.ledger;
            ledger.found(
                &ledger.foreign_written,
                format!("{tenant} wrote as {other}"),
            );
        }
        Ok(())
    }

    async fn look(&mut self, s: &mut Session, tenant: &str, sql: &str) -> Result<(), Error> {
        let rows = s.query_as(sql, &[]).await?;
        self.check(rows, tenant, sql);
        Ok(())
    }

    fn check(&self, rows: Vec<(String,)>, tenant: &str, sql: &str) {
        self.stamps(rows, tenant, sql, &self.ledger.foreign_read);
    }

    fn check_written(&self, rows: Vec<(String,)>, tenant: &str, sql: &str) {
        self.stamps(rows, tenant, sql, &self.ledger.foreign_written);
    }

    fn stamps(&self, rows: Vec<(String,)>, tenant: &str, sql: &str, how: &AtomicU64) {
        self.ledger.rows.fetch_add(rows.len() as u64, Relaxed);
        for (item,) in rows {
            if item != tenant {
                self.ledger
                    .found(how, format!("{tenant} met {item} in {sql}"));
            }
        }
    }
}
