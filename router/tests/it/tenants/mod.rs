//! Tenants on a real server: all three placements in one service.

mod confined;
mod mixed;
mod resolving;
mod rollout;
#[cfg(feature = "tower")]
mod web;

use std::time::Duration;

use pool_router::tenancy::{Placement, TenantMap, TenantRecord, Tenants};
use pool_router::{Database, Engine, Session};
use testbed::TestDatabase;

/// A server's database `db` with tenants of all placements; `acme` and `beta` share tables, `cairo` and `delhi` have
/// schemas, `essen` a database.
pub(crate) struct Town {
    pub(crate) db: TestDatabase,
    /// The shared database, with one connection.
    pub(crate) shared: Engine,
    pub(crate) map: TenantMap,
    pub(crate) tenants: Tenants,
}

/// The tenants of a [`Town`].
pub(crate) const ALL: [&str; 5] = ["acme", "beta", "cairo", "delhi", "essen"];

/// A table whose rows are told apart by tenant, with row-level security.
const ROWS: &str = "
    CREATE TABLE orders (
        tenant_id text NOT NULL DEFAULT NULLIF(current_setting('app.tenant_id', true), ''),
        item text NOT NULL
    );
    CREATE INDEX ON orders (tenant_id);
    ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
    ALTER TABLE orders FORCE ROW LEVEL SECURITY;
    CREATE POLICY app ON orders USING (true) WITH CHECK (true);
    CREATE POLICY tenant ON orders AS RESTRICTIVE
        USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')))
        WITH CHECK (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')))";

pub(crate) async fn town() -> Town {
    let db = testbed::shared().await.database().await;
    let url = db.url();
    town_at(db, &url).await
}

/// The same, with the service behind this URL.
pub(crate) async fn town_at(db: TestDatabase, url: &str) -> Town {
    let node = db.node();
    let own = format!("{}_essen", db.name());
    node.create_database(&own).await.expect("a database");
    let made = engine(&db.url());
    made.batch(ROWS).await.expect("shared tables");
    for schema in ["t_cairo", "t_delhi"] {
        let sql =
            format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.orders (item text NOT NULL)");
        made.batch(&sql).await.expect("a schema");
    }
    made.close().await;
    let made = engine(&node.url_for(&own));
    made.batch("CREATE TABLE orders (item text NOT NULL)")
        .await
        .expect("a table");
    made.close().await;
    let map = TenantMap::new();
    for name in ["acme", "beta"] {
        map.insert(id(name), Placement::rows("shared"));
    }
    for name in ["cairo", "delhi"] {
        map.insert(
            id(name),
            Placement::schema("shared", id(name).object_name("t_")),
        );
    }
    let essen = url.replace(db.name(), &own);
    let nodes = Database::builder()
        .primary(essen)
        .pool_size(1)
        .max_overflow(0);
    map.insert(id("essen"), TenantRecord::new(Placement::database(nodes)));
    let shared = engine(url);
    let tenants = Tenants::builder()
        .resolver(map.clone())
        .engine("shared", shared.clone())
        .build();
    Town {
        db,
        shared,
        map,
        tenants,
    }
}

/// An engine of one connection.
pub(crate) fn engine(url: &str) -> Engine {
    Engine::builder(url)
        .pool_size(1)
        .max_overflow(0)
        .pool_timeout(Duration::from_secs(20))
        .build()
        .expect("good settings")
}

pub(crate) fn id(name: &str) -> pool_router::tenancy::TenantId {
    name.parse().expect("an id")
}

/// Writes a row that says whose it is.
pub(crate) async fn order(tenants: &Tenants, tenant: &str) {
    let mut session = tenants.write(tenant).await.expect("a session");
    session
        .execute("INSERT INTO orders (item) VALUES ($1)", &[&tenant])
        .await
        .unwrap_or_else(|error| panic!("{tenant}: {error}"));
    let _ = session.commit().await.expect("committed");
}

/// What a session sees.
pub(crate) async fn items(session: &mut Session) -> Vec<String> {
    let rows = session.query_as::<(String,)>("SELECT item FROM orders ORDER BY item", &[]);
    let rows = rows.await.expect("rows");
    rows.into_iter().map(|(item,)| item).collect()
}
