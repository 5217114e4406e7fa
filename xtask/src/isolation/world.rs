//! The tenants, and the tables that their rows are in.

use std::time::Duration;

use anyhow::{Context, Result};
use pool_router::tenancy::{Placement, TenantMap, Tenants};
use pool_router::{Budget, Database, Engine};
use testbed::{Cluster, Node};

/// Shared tables as they should be, with a view and a function on them.
const SHARED: &str = "
    CREATE TABLE orders (
        id bigserial,
        tenant_id text NOT NULL DEFAULT NULLIF(current_setting('app.tenant_id', true), ''),
        item text NOT NULL
    );
    CREATE INDEX ON orders (tenant_id);
    ALTER TABLE orders OWNER TO app;
    ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
    ALTER TABLE orders FORCE ROW LEVEL SECURITY;
    CREATE POLICY app ON orders USING (true) WITH CHECK (true);
    CREATE POLICY tenant ON orders AS RESTRICTIVE
        USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')))
        WITH CHECK (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')));
    CREATE VIEW shown WITH (security_invoker) AS SELECT item FROM orders;
    GRANT SELECT ON shown TO app;
    CREATE FUNCTION found() RETURNS SETOF text LANGUAGE sql AS 'SELECT item FROM orders LIMIT 20';";

/// A tenant's own tables, in its schema or its database.
const OWN: &str = "
    CREATE TABLE orders (id bigserial, item text NOT NULL);
    ALTER TABLE orders OWNER TO app;
    CREATE VIEW shown AS SELECT item FROM orders;
    GRANT SELECT ON shown TO app;
    CREATE FUNCTION found() RETURNS SETOF text LANGUAGE plpgsql AS
        'BEGIN RETURN QUERY SELECT item FROM orders LIMIT 20; END';";

pub(crate) struct World<'a> {
    node: &'a Node,
    /// The shared database's name.
    name: String,
    pub(crate) names: Vec<String>,
    pub(crate) schemas: Vec<String>,
    own: Vec<String>,
    pub(crate) shared: Database,
    pub(crate) tenants: Tenants,
}

impl<'a> World<'a> {
    /// Of eight tenants four share tables, three have schemas, and one a database where they are wanted.
    pub(crate) async fn begin(
        cluster: &'a Cluster,
        name: &str,
        tenants: usize,
        databases: bool,
    ) -> Result<Self> {
        let node = cluster.primary();
        node.create_database(name).await?;
        let superuser = engine(&node.superuser_url_for(name))?;
        superuser.batch(SHARED).await.context("shared tables")?;
        let (map, mut own, mut names, mut schemas) =
            (TenantMap::new(), Vec::new(), Vec::new(), Vec::new());
        for number in 0..tenants {
            let id: pool_router::tenancy::TenantId = format!("tenant-{number}").parse()?;
            let placement = match number % 8 {
                0..4 => Placement::rows("shared"),
                7 if databases => {
                    let database = format!("{name}_{number}");
                    node.create_database(&database).await?;
                    let made = engine(&node.superuser_url_for(&database))?;
                    made.batch(OWN).await.context("a database")?;
                    made.close().await;
                    let nodes = Database::builder()
                        .primary(node.url_for(&database))
                        .pool_size(1)
                        .max_overflow(1);
                    own.push(database);
                    Placement::database(nodes)
                }
                _ => {
                    let schema = id.object_name("t_");
                    let make = format!(
                        "CREATE SCHEMA \"{schema}\"; GRANT ALL ON SCHEMA \"{schema}\" TO app;
                         SET search_path = \"{schema}\"; {OWN} SET search_path = public"
                    );
                    superuser.batch(&make).await.context("a schema")?;
                    schemas.push(schema.clone());
                    Placement::schema("shared", schema)
                }
            };
            names.push(id.to_string());
            map.insert(id, placement);
        }
        let grants = "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app";
        superuser.batch(grants).await?;
        superuser.close().await;
        let replica = cluster.replica(0);
        replica.wait_until_caught_up(node).await?;
        let shared = Database::builder()
            .primary(node.url_for(name))
            .replica(replica.url_for(name))
            .pool_size(4)
            .max_overflow(0)
            .connect()
            .await?;
        let tenants = Tenants::builder()
            .resolver(map)
            .database("shared", shared.clone())
            .budget(&Budget::new(8))
            .build();
        Ok(Self {
            node,
            name: name.to_owned(),
            names,
            schemas,
            own,
            shared,
            tenants,
        })
    }

    /// An engine of one connection as a superuser.
    pub(crate) fn superuser(&self) -> Result<Engine> {
        engine(&self.node.superuser_url_for(&self.name))
    }

    /// An engine of the application's user, of so many connections.
    pub(crate) fn plain(&self, connections: usize) -> Result<Engine> {
        let engine = Engine::builder(self.node.url_for(&self.name))
            .pool_size(connections)
            .max_overflow(0);
        Ok(engine.build()?)
    }

    /// How many rows lie where those of another tenant belong.
    pub(crate) async fn foreign_rows(&self) -> Result<i64> {
        let superuser = self.superuser()?;
        let count = "SELECT count(*) FROM orders WHERE item <> tenant_id";
        let mut foreign: i64 = superuser.query_scalar(count, &[]).await?;
        for schema in &self.schemas {
            let count = format!(
                "SELECT count(*) FROM \"{schema}\".orders WHERE 't_' || item <> '{schema}'"
            );
            foreign += superuser.query_scalar::<i64>(&count, &[]).await?;
        }
        superuser.close().await;
        for database in &self.own {
            let made = engine(&self.node.superuser_url_for(database))?;
            let end = database.rsplit('_').next().unwrap_or_default();
            let count = format!("SELECT count(*) FROM orders WHERE item <> 'tenant-{end}'");
            foreign += made.query_scalar::<i64>(&count, &[]).await?;
            made.close().await;
        }
        Ok(foreign)
    }

    pub(crate) async fn end(self) {
        self.tenants.shutdown().await;
        self.shared.shutdown().await;
    }
}

fn engine(url: &str) -> Result<Engine> {
    let engine = Engine::builder(url)
        .pool_size(1)
        .max_overflow(0)
        .statement_cache(16)
        .connect_timeout(Duration::from_secs(20));
    Ok(engine.build()?)
}
