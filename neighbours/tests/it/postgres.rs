//! What people use beside a PostgreSQL pool: migrations, builders of queries, checked queries, and other drivers.

use diesel::{ExpressionMethods, QueryDsl};
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use pool_core::compat::Bb8;
use pool_core::{Backend, Pool};
use pool_postgres::{Engine, SessionFactory};
use sea_query::{Expr, ExprTrait, Iden, PostgresQueryBuilder, Query};
use sea_query_postgres::PostgresBinder;
use sqlx::{Connection, Row};
use testbed::TestDatabase;

mod migrations {
    refinery::embed_migrations!("tests/it/migrations");
}

/// A database of the test's own, migrated, and an engine of one connection on it.
async fn migrated() -> (TestDatabase, Engine) {
    let database = testbed::shared().await.database().await;
    let engine = Engine::builder(database.url())
        .pool_size(1)
        .max_overflow(0)
        .build()
        .expect("good settings");
    let mut connection = engine.connect().await.expect("a connection");
    let report = migrations::migrations::runner()
        .run_async(connection.client_mut())
        .await
        .expect("migrated");
    assert_eq!(report.applied_migrations().len(), 2);
    drop(connection);
    (database, engine)
}

#[tokio::test]
async fn refinery_migrates_on_a_connection_and_leaves_the_pool_whole() {
    let (_database, engine) = migrated().await;
    let users = engine.query("SELECT id FROM users", &[]).await;
    assert_eq!(users.expect("the table is there").len(), 2);
    let mut connection = engine.connect().await.expect("a connection");
    let again = migrations::migrations::runner()
        .run_async(connection.client_mut())
        .await
        .expect("nothing to do");
    assert!(again.applied_migrations().is_empty());
}

#[derive(Iden)]
enum Users {
    Table,
    Id,
    Name,
    Email,
}

#[tokio::test]
async fn sea_querys_statements_and_values_run_in_a_session() {
    let (_database, engine) = migrated().await;
    let mut session = SessionFactory::new(engine).session();
    let (sql, values) = Query::insert()
        .into_table(Users::Table)
        .columns([Users::Id, Users::Name, Users::Email])
        .values_panic([3_i64.into(), "Edsger".into(), Option::<String>::None.into()])
        .build_postgres(PostgresQueryBuilder);
    let written = session.execute(&sql, &values.as_params()).await;
    assert_eq!(written.expect("written"), 1);
    let (sql, values) = Query::select()
        .column(Users::Name)
        .from(Users::Table)
        .and_where(Expr::col(Users::Id).gt(1_i64))
        .and_where(Expr::col(Users::Email).is_null())
        .order_by(Users::Id, sea_query::Order::Asc)
        .build_postgres(PostgresQueryBuilder);
    let rows = session.query(&sql, &values.as_params()).await;
    let names: Vec<String> = rows.expect("rows").iter().map(|row| row.get(0)).collect();
    assert_eq!(names, ["Grace", "Edsger"]);
    let _ = session.commit().await.expect("committed");
}

#[tokio::test]
async fn what_clorinde_wrote_runs_on_a_connection() {
    let (_database, engine) = migrated().await;
    let connection = engine.connect().await.expect("a connection");
    let found = clorinde::queries::users::users_with_email()
        .bind(connection.client(), &1)
        .all()
        .await
        .expect("rows");
    let found: Vec<_> = found.iter().map(|user| (user.id, &*user.name)).collect();
    assert_eq!(found, [(1, "Ada")]);
}

diesel::table! {
    users (id) {
        id -> Int8,
        name -> Text,
        email -> Nullable<Text>,
    }
}

#[tokio::test]
async fn diesel_asyncs_connections_live_in_the_pool_by_the_adapter_for_bb8() {
    use diesel_async::RunQueryDsl as _; // Here alone: it gives an `execute` to everything.

    let (database, _engine) = migrated().await;
    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(database.url());
    let pool = Pool::builder(Bb8(manager))
        .pool_size(1)
        .max_overflow(0)
        .build()
        .expect("good settings");
    for _ in 0..2 {
        let mut conn = pool.get().await.expect("a connection");
        let names: Vec<String> = users::table
            .filter(users::email.is_not_null())
            .select(users::name)
            .load(&mut *conn)
            .await
            .expect("rows");
        assert_eq!(names, ["Ada"]);
    }
    assert_eq!(pool.stats().opened, 1);
}

/// An sqlx connection as a backend: what it takes to pool a driver that has a pool of its own.
struct Sqlx {
    url: String,
}

impl Backend for Sqlx {
    type Connection = sqlx::PgConnection;
    type Error = sqlx::Error;

    async fn connect(&self) -> Result<sqlx::PgConnection, sqlx::Error> {
        sqlx::PgConnection::connect(&self.url).await
    }

    async fn ping(&self, conn: &mut sqlx::PgConnection) -> Result<(), sqlx::Error> {
        conn.ping().await
    }

    async fn close(&self, conn: sqlx::PgConnection) {
        drop(conn.close().await);
    }
}

#[tokio::test]
async fn an_sqlx_connection_is_a_backends_connection_like_any_other() {
    let (database, _engine) = migrated().await;
    let backend = Sqlx {
        url: database.url(),
    };
    let pool = Pool::builder(backend)
        .pool_size(1)
        .max_overflow(0)
        .build()
        .expect("good settings");
    for _ in 0..2 {
        let mut conn = pool.get().await.expect("a connection");
        let row = sqlx::query("SELECT name FROM users WHERE id = $1")
            .bind(2_i64)
            .fetch_one(&mut *conn)
            .await
            .expect("a row");
        assert_eq!(row.get::<String, _>(0), "Grace");
    }
    assert_eq!(pool.stats().opened, 1);
    assert!(pool.close().await.is_clean());
}
