//! A handler and its tests, in two ways: in a transaction that is never committed, and on a database of its own.
//!
//! The router is built over a `SessionFactory`, so that a test can hand in another one.
//! `cargo test --example axum_tested --features axum` runs the tests.

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::put;
use pool_postgres::web::{RequestSession, SessionLayer};
use pool_postgres::{Engine, Error, SessionFactory};

/// Counts a visit and says how many there were.
async fn visit(
    mut session: RequestSession,
    Path(page): Path<String>,
) -> Result<String, StatusCode> {
    let sql = "INSERT INTO visits VALUES ($1, 1)
               ON CONFLICT (page) DO UPDATE SET visits = visits.visits + 1 RETURNING visits";
    let visits: i64 = session
        .query_scalar(sql, &[&page])
        .await
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    if page == "secret" {
        return Err(StatusCode::FORBIDDEN); // And the visit is not counted.
    }
    Ok(visits.to_string())
}

fn router(sessions: SessionFactory) -> Router {
    Router::new()
        .route("/{page}", put(visit))
        .layer(SessionLayer::new(sessions))
}

async fn set_up(engine: &Engine) -> Result<(), Error> {
    let sql = "CREATE TABLE IF NOT EXISTS visits (page text PRIMARY KEY, visits bigint NOT NULL)";
    engine.batch(sql).await
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "postgresql:///postgres".to_owned());
    let engine = Engine::builder(url).build()?;
    set_up(&engine).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, router(SessionFactory::new(engine))).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn put(router: &Router, page: &str) -> (StatusCode, String) {
        let request = Request::put(format!("/{page}"))
            .body(Body::empty())
            .expect("a request");
        let answer = router.clone().oneshot(request).await.expect("infallible");
        let status = answer.status();
        let body = to_bytes(answer.into_body(), 1000)
            .await
            .expect("a short body");
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn visits_are_counted(router: Router) {
        assert_eq!(put(&router, "home").await, (StatusCode::OK, "1".to_owned()));
        assert_eq!(put(&router, "home").await, (StatusCode::OK, "2".to_owned()));
        assert_eq!(put(&router, "secret").await.0, StatusCode::FORBIDDEN);
        assert_eq!(put(&router, "home").await, (StatusCode::OK, "3".to_owned()));
    }

    async fn count(engine: &Engine) -> i64 {
        let sql = "SELECT count(*) FROM visits";
        engine.query_scalar(sql, &[]).await.expect("a count")
    }

    /// Quick, and safe beside other tests on the same database: nothing is kept.
    #[tokio::test]
    async fn in_a_transaction_that_is_never_committed() {
        let db = testbed::shared().await.database().await; // In your project: one that all tests use.
        let engine = Engine::builder(db.url()).build().expect("good settings");
        set_up(&engine).await.expect("a table");
        visits_are_counted(router(engine.test_transaction())).await;
        assert_eq!(count(&engine).await, 0);
    }

    /// For what must be committed in earnest: several connections, deferred constraints, `NOTIFY`.
    #[tokio::test]
    async fn on_a_database_of_its_own() {
        let db = testbed::shared().await.database().await;
        let engine = Engine::builder(db.url()).build().expect("good settings");
        set_up(&engine).await.expect("a table");
        visits_are_counted(router(SessionFactory::new(engine.clone()))).await;
        assert_eq!(count(&engine).await, 1, "the forbidden visit was not kept");
    }
}
