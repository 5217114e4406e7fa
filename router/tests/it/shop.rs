//! A database whose tables tenants share: an owner, an application's role, and rows of two tenants.

use pool_router::tenancy::{SharedTables, install};
use pool_router::{Engine, Error, Session};
use testbed::TestDatabase;

/// What the owner makes before anything is installed: `name` is not unique, and keys begin with the tenant.
pub(crate) const TABLES: &str = "
CREATE TABLE customers (tenant_id text, id bigint, name text NOT NULL, PRIMARY KEY (tenant_id, id));
CREATE TABLE orders (tenant_id text, id bigint, customer bigint, item text NOT NULL, PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, customer) REFERENCES customers (tenant_id, id));
CREATE TABLE events (tenant_id text, at bigint, what text) PARTITION BY RANGE (at);
CREATE TABLE events_old PARTITION OF events FOR VALUES FROM (0) TO (100);
CREATE TABLE events_new PARTITION OF events FOR VALUES FROM (100) TO (200);
CREATE TABLE countries (code text PRIMARY KEY);
INSERT INTO countries VALUES ('de'), ('fr');
INSERT INTO customers VALUES ('acme', 1, 'Ada'), ('acme', 2, 'Alan'), ('zeta', 1, 'Zoe');
INSERT INTO orders VALUES ('acme', 1, 1, 'tea'), ('acme', 2, 1, 'milk'), ('zeta', 1, 1, 'coffee');
INSERT INTO events VALUES ('acme', 1, 'a'), ('acme', 101, 'b'), ('zeta', 1, 'z'), ('zeta', 150, 'y');";

/// A shop on a database of the test's own.
pub(crate) struct Shop {
    database: TestDatabase,
    /// The application's role.
    pub(crate) role: String,
    /// Who owns the tables, and is no superuser.
    pub(crate) owner: Engine,
    /// Who may do everything.
    pub(crate) superuser: Engine,
    /// The application.
    pub(crate) app: Engine,
}

impl Shop {
    /// With these tables, which the role may read and write; nothing is installed.
    pub(crate) async fn bare(tables: &str) -> Self {
        let database = testbed::database(tables).await;
        let role = format!("shop_{}", database.name());
        let superuser = engine(&database.superuser_url());
        batch(
            &superuser,
            &format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD 'secret'"),
        )
        .await;
        let shop = Self {
            owner: engine(&database.url()),
            app: engine(&login(&database, &role)),
            superuser,
            role,
            database,
        };
        shop.grant_all().await;
        shop
    }

    /// The usual tables, with tenancy installed.
    pub(crate) async fn installed() -> Self {
        let shop = Self::bare(TABLES).await;
        install(&shop.owner, &shop.shared())
            .await
            .expect("installed");
        shop
    }

    /// What is installed, checked and attacked.
    pub(crate) fn shared(&self) -> SharedTables {
        SharedTables::new(&self.role)
            .tables(["customers", "orders", "events"])
            .global("countries", "the same for all")
    }

    /// Lets the role at all rows of all tables but parts of others, and at nothing else of them.
    pub(crate) async fn grant_all(&self) {
        let role = &self.role;
        batch(
            &self.owner,
            &format!(
                "DO $$ DECLARE t regclass; BEGIN \
                 FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace \
                     AND relkind IN ('r', 'p') AND NOT relispartition LOOP \
                   EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO {role}', t); \
                 END LOOP; END $$"
            ),
        )
        .await;
    }

    /// An engine that logs in as another role, whose password is `secret`.
    pub(crate) fn login(&self, role: &str) -> Engine {
        engine(&login(&self.database, role))
    }

    /// The name of the database, which makes names of roles the test's own.
    pub(crate) fn name(&self) -> &str {
        self.database.name()
    }

    /// Runs statements as the superuser, with `ROLE` standing for the application's role.
    pub(crate) async fn superuser(&self, sql: &str) {
        batch(&self.superuser, &sql.replace("ROLE_APP", &self.role)).await;
    }

    /// Runs statements as the owner, with `ROLE_APP` standing for the application's role.
    pub(crate) async fn owner(&self, sql: &str) {
        batch(&self.owner, &sql.replace("ROLE_APP", &self.role)).await;
    }

    /// The application, as a tenant.
    pub(crate) async fn tenant(&self, tenant: &str) -> Session {
        let mut session = self.app.session();
        session
            .set_local("app.tenant_id", tenant)
            .await
            .expect("a tenant");
        session
    }

    /// How many rows of a table the application sees as a tenant.
    pub(crate) async fn seen_by(&self, tenant: &str, table: &str) -> i64 {
        count(&mut self.tenant(tenant).await, table)
            .await
            .expect("counted")
    }
}

pub(crate) async fn count(session: &mut Session, table: &str) -> Result<i64, Error> {
    let sql = format!("SELECT count(*) FROM {table}");
    Ok(session.query_one(&sql, &[]).await?.get(0))
}

/// The only cell that a query gives.
pub(crate) async fn cell(engine: &Engine, sql: &str) -> String {
    engine.query_one(sql, &[]).await.expect("a row").get(0)
}

pub(crate) async fn batch(engine: &Engine, sql: &str) {
    let mut session = engine.session();
    session
        .batch(sql)
        .await
        .unwrap_or_else(|error| panic!("{error}: {sql}"));
    let _ = session.commit().await.expect("committed");
}

/// One connection at most two: a test has many engines.
fn engine(url: &str) -> Engine {
    Engine::builder(url)
        .pool_size(1)
        .max_overflow(2)
        .build()
        .expect("good settings")
}

fn login(database: &TestDatabase, role: &str) -> String {
    let url = database.url();
    let (_, place) = url.split_once('@').expect("a user in the URL");
    format!("postgresql://{role}:secret@{place}")
}
