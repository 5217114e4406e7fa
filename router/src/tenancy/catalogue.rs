//! A table that says where tenants live, and tells when that changes.
//!
//! # What always holds
//! A tenant whose place changes gets a greater generation, by a trigger, whoever changes it. Every change of a row is
//! notified with its commit, so caches that listen forget the tenant; one that may have missed something
//! forgets all.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::Either;
use futures_util::stream::{self, BoxStream};
use pool_postgres::{Engine, Error, ErrorKind, ListenEvent, quote_identifier, quote_literal};

use super::id::TenantId;
use super::placement::{Placement, PlacementKind, TenantRecord, TenantState};
use super::resolver::{Changed, ResolveFuture, Resolver};
use crate::builder::Builder;

/// How long to wait before listening is tried again.
const PAUSE: Duration = Duration::from_secs(1);

type MakeNodes = dyn Fn(&str) -> Builder + Send + Sync;

/// A [`Resolver`] that reads a table, and hears by `LISTEN` of its changes. Cheap to clone.
///
/// The table is `tenants` in the search path, with `tenant`, `state` (`active`, `suspended`, `moving`), `kind`
/// (`database`, `schema`, `rows`), `place` (the name of the database), `schema`, `role` and `generation`;
/// [`install`](Self::install) makes it. Rows may be changed by [`put`](Self::put) and
/// [`set_state`](Self::set_state), or by any SQL.
///
/// The engine should lead to the primary, by a user whom tenants' sessions don't use. Listening takes one connection
/// beside its pool.
#[derive(Clone)]
pub struct Catalogue {
    engine: Engine,
    table: Arc<str>,
    nodes: Option<Arc<MakeNodes>>,
}

impl Catalogue {
    /// The table `tenants` there.
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            table: "tenants".into(),
            nodes: None,
        }
    }

    /// Another table, by its bare name.
    pub fn table(mut self, name: impl Into<Arc<str>>) -> Self {
        self.table = name.into();
        self
    }

    /// How to reach a database that a tenant has of its own, by the table's `place`. Without it such tenants can't be
    /// served.
    pub fn databases(mut self, nodes: impl Fn(&str) -> Builder + Send + Sync + 'static) -> Self {
        self.nodes = Some(Arc::new(nodes));
        self
    }

    /// Creates the table and its triggers, unless they are there. Safe to run at each start.
    ///
    /// # Errors
    /// The server's.
    pub async fn install(&self) -> Result<(), Error> {
        self.engine.batch(&self.install_sql()).await
    }

    /// What [`install`](Self::install) runs.
    pub fn install_sql(&self) -> String {
        let table = quote_identifier(&self.table);
        let before = quote_identifier(&format!("{}_before", self.table));
        let after = quote_identifier(&format!("{}_after", self.table));
        let channel = quote_literal(&self.channel());
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (
                tenant text PRIMARY KEY CHECK (tenant <> ''),
                state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended', 'moving')),
                kind text NOT NULL CHECK (kind IN ('database', 'schema', 'rows')),
                place text NOT NULL,
                schema text CHECK ((kind = 'schema') = (schema IS NOT NULL)),
                role text,
                generation bigint NOT NULL DEFAULT 0 CHECK (generation >= 0)
             );
             CREATE UNIQUE INDEX IF NOT EXISTS {one_each} ON {table} (place, coalesce(schema, ''))
                WHERE kind <> 'rows';
             CREATE OR REPLACE FUNCTION {before}() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                IF (NEW.kind, NEW.place, NEW.schema, NEW.role)
                    IS DISTINCT FROM (OLD.kind, OLD.place, OLD.schema, OLD.role) THEN
                    NEW.generation := greatest(NEW.generation, OLD.generation + 1);
                END IF;
                RETURN NEW;
             END $$;
             CREATE OR REPLACE FUNCTION {after}() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                IF TG_OP <> 'INSERT' THEN PERFORM pg_notify({channel}, OLD.tenant); END IF;
                IF TG_OP <> 'DELETE' THEN PERFORM pg_notify({channel}, NEW.tenant); END IF;
                RETURN NULL;
             END $$;
             CREATE OR REPLACE TRIGGER moved BEFORE UPDATE ON {table}
                FOR EACH ROW EXECUTE FUNCTION {before}();
             CREATE OR REPLACE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON {table}
                FOR EACH ROW EXECUTE FUNCTION {after}()",
            one_each = quote_identifier(&format!("{}_one_each", self.table)),
        )
    }

    /// The channel on which changes are notified.
    fn channel(&self) -> String {
        // Cut off as the server would, which refuses to be notified by a longer one.
        let name = format!("{}_changed", self.table);
        name.chars().take(60).collect()
    }

    /// Writes a tenant's place; for one that is there its state stays. `place` is the name of a shared database, or
    /// what [`databases`](Self::databases) makes nodes of; `schema` is for [`PlacementKind::Schema`] alone.
    ///
    /// # Errors
    /// The server's: a schema or a database that is another tenant's is 23505.
    pub async fn put(
        &self,
        tenant: &TenantId,
        kind: PlacementKind,
        place: &str,
        schema: Option<&str>,
    ) -> Result<(), Error> {
        let sql = format!(
            "INSERT INTO {} (tenant, kind, place, schema) VALUES ($1, $2, $3, $4)
             ON CONFLICT (tenant) DO UPDATE SET (kind, place, schema) = ROW (excluded.kind, excluded.place, excluded.schema)",
            quote_identifier(&self.table)
        );
        let (tenant, kind) = (tenant.as_str(), kind.to_string());
        let params: [&(dyn pool_postgres::types::ToSql + Sync); 4] =
            [&tenant, &kind, &place, &schema];
        self.engine.execute(&sql, &params).await.map(drop)
    }

    /// Suspends a tenant, resumes it, or says that it is being moved; false if there is no such tenant.
    ///
    /// # Errors
    /// The server's.
    pub async fn set_state(&self, tenant: &TenantId, state: TenantState) -> Result<bool, Error> {
        let sql = format!(
            "UPDATE {} SET state = $2 WHERE tenant = $1",
            quote_identifier(&self.table)
        );
        let (tenant, state) = (tenant.as_str(), state.to_string());
        Ok(self.engine.execute(&sql, &[&tenant, &state]).await? == 1)
    }

    /// All tenants, in order.
    ///
    /// # Errors
    /// The server's.
    pub async fn tenants(&self) -> Result<Vec<String>, Error> {
        let sql = format!(
            "SELECT tenant FROM {} ORDER BY tenant",
            quote_identifier(&self.table)
        );
        let rows = self.engine.query_as::<(String,)>(&sql, &[]).await?;
        Ok(rows.into_iter().map(|(tenant,)| tenant).collect())
    }

    async fn read(&self, tenant: &TenantId) -> Result<Option<TenantRecord>, Error> {
        let sql = format!(
            "SELECT state, kind, place, schema, role, generation FROM {} WHERE tenant = $1",
            quote_identifier(&self.table)
        );
        let id = tenant.as_str();
        let row: Option<Row> = self.engine.query_opt_as(&sql, &[&id]).await?;
        row.map(|row| self.record(tenant, row)).transpose()
    }

    fn record(&self, tenant: &TenantId, row: Row) -> Result<TenantRecord, Error> {
        let (state, kind, place, schema, role, generation) = row;
        let wrong = |what: &str| {
            Error::new(
                ErrorKind::Config,
                format!(
                    "the table {} has no use for the tenant {tenant}: {what}",
                    self.table
                ),
            )
        };
        let state = match &*state {
            "active" => TenantState::Active,
            "suspended" => TenantState::Suspended,
            "moving" => TenantState::Moving,
            other => return Err(wrong(&format!("its state is {other:?}"))),
        };
        let placement = match (&*kind, schema) {
            ("rows", _) => Placement::rows(place),
            ("schema", Some(schema)) => Placement::schema(place, schema),
            ("schema", None) => return Err(wrong("it has no schema")),
            ("database", _) => {
                let nodes = self.nodes.as_ref().ok_or_else(|| {
                    wrong("it has a database of its own, and Catalogue::databases does not say how to reach it")
                })?;
                Placement::database(nodes(&place))
            }
            (other, _) => return Err(wrong(&format!("its kind is {other:?}"))),
        };
        let generation =
            u64::try_from(generation).map_err(|_| wrong("its generation is negative"))?;
        let record = TenantRecord::new(placement)
            .state(state)
            .generation(generation);
        Ok(match role {
            Some(role) => record.role(role),
            None => record,
        })
    }
}

type Row = (String, String, String, Option<String>, Option<String>, i64);

impl Resolver for Catalogue {
    fn resolve<'a>(&'a self, tenant: &'a TenantId) -> ResolveFuture<'a> {
        Box::pin(self.read(tenant))
    }

    fn changes(&self) -> Option<BoxStream<'static, Changed>> {
        let (engine, channel) = (self.engine.clone(), self.channel());
        // Begun anew for as long as somebody listens; what came in between is unknown.
        let rounds = stream::unfold((engine, channel), |(engine, channel)| async move {
            let events = match engine.listen(&[&channel]).await {
                Ok(listener) => Either::Left(listener.map(|event| match event {
                    Ok(ListenEvent::Notification(it)) => Changed::Of(it.payload),
                    // Something may have been missed.
                    Ok(_) | Err(_) => Changed::Any,
                })),
                Err(error) if error.kind() == ErrorKind::PoolClosed => return None,
                Err(error) => {
                    tracing::warn!(%error, "changes of tenants are not heard of: trying again");
                    tokio::time::sleep(PAUSE).await;
                    Either::Right(stream::empty())
                }
            };
            let events = stream::once(async { Changed::Any }).chain(events);
            Some((events, (engine, channel)))
        });
        Some(rounds.flatten().boxed())
    }
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}
