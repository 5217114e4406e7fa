//! The layer: what is committed, what is rolled back, and what the client gets.

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use axum::routing::{get, post};
use axum::{Router, response::Response};
use futures_util::{FutureExt, StreamExt};
use pool_postgres::web::{CommitFailed, NoSession, RequestSession, SessionLayer};
use pool_postgres::{Engine, ErrorKind, SessionFactory};
use testbed::TestDatabase;
use tower::{Layer, Service, ServiceExt};

use crate::support::{
    Lending, assert_next_borrower_is_at_ease, builder, count, database, one_connection,
    poll_then_drop,
};

const INSERT: &str = "INSERT INTO t VALUES (1)";

/// Inserts a row and answers with the status that the path names.
async fn insert(mut session: RequestSession, status: u16) -> StatusCode {
    session.execute(INSERT, &[]).await.expect("inserted");
    StatusCode::from_u16(status).expect("a status")
}

fn router(sessions: impl Into<SessionFactory>) -> Router {
    Router::new()
        .route("/ok", post(|s: RequestSession| insert(s, 200)))
        .route("/moved", post(|s: RequestSession| insert(s, 303)))
        .route("/bad", post(|s: RequestSession| insert(s, 422)))
        .route("/broken", post(|s: RequestSession| insert(s, 500)))
        .route(
            "/panic",
            post(|mut session: RequestSession| async move {
                let done = session.execute(INSERT, &[]).await.expect("inserted");
                assert_eq!(done, 7, "the handler panics");
            }),
        )
        .route(
            "/swallowed",
            post(|mut session: RequestSession| async move {
                let failed = session.execute("SELECT 1 / 0", &[]).await;
                assert!(failed.is_err());
                "all is well"
            }),
        )
        .route("/nothing", get(|| async { "no statement" }))
        .layer(SessionLayer::new(sessions))
}

async fn ask(router: &Router, method: Method, path: &str) -> Response {
    let request = Request::builder().method(method).uri(path);
    let request = request.body(Body::empty()).expect("a request");
    router.clone().oneshot(request).await.expect("infallible")
}

async fn post_to(router: &Router, path: &str) -> Response {
    ask(router, Method::POST, path).await
}

async fn text(response: Response) -> String {
    let body = to_bytes(response.into_body(), 100_000).await;
    String::from_utf8(body.expect("a body").to_vec()).expect("text")
}

#[tokio::test]
async fn the_status_of_the_answer_decides_between_commit_and_rollback() {
    let db = database().await;
    let engine = one_connection(&db);
    let router = router(engine.clone());
    let mut expected = 0;
    for (path, status, kept) in [
        ("/ok", 200, true),
        ("/moved", 303, true),
        ("/bad", 422, false),
        ("/broken", 500, false),
    ] {
        let response = post_to(&router, path).await;
        assert_eq!(response.status(), status, "{path}");
        expected += i64::from(kept);
        assert_eq!(count(&engine).await, expected, "{path}");
    }
    assert_eq!(
        engine.counts().dropped_with_work,
        0,
        "each was ended by the layer"
    );
}

#[tokio::test]
async fn a_panic_rolls_back() {
    let db = database().await;
    let engine = one_connection(&db);
    let panicked = std::panic::AssertUnwindSafe(post_to(&router(engine.clone()), "/panic"))
        .catch_unwind()
        .await;
    assert!(panicked.is_err());
    assert_next_borrower_is_at_ease(&engine, "a panic").await;
    assert_eq!(count(&engine).await, 0);
}

#[tokio::test]
async fn a_request_that_asks_nothing_borrows_nothing() {
    let db = database().await;
    let engine = one_connection(&db);
    let response = ask(&router(engine.clone()), Method::GET, "/nothing").await;
    assert_eq!(text(response).await, "no statement");
    assert_eq!(engine.status().open, 0);
}

#[tokio::test]
async fn an_answer_over_a_failed_transaction_becomes_500_and_tells_why() {
    let db = database().await;
    let response = post_to(&router(one_connection(&db)), "/swallowed").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let CommitFailed(error) = response.extensions().get().expect("the reason");
    assert_eq!(error.kind(), ErrorKind::TransactionFailed, "{error}");
    assert_eq!(text(response).await, "");
}

/// A router whose only route violates a constraint that is looked at in the commit.
async fn deferred(db: &TestDatabase, engine: &Engine) -> Router {
    builder(&db.url())
        .build()
        .expect("good settings")
        .batch("ALTER TABLE t ADD CONSTRAINT once UNIQUE (n) DEFERRABLE INITIALLY DEFERRED")
        .await
        .expect("a constraint");
    router(engine.clone())
}

#[tokio::test]
async fn a_commit_that_is_refused_is_never_answered_as_a_success() {
    let db = database().await;
    let engine = one_connection(&db);
    let router = deferred(&db, &engine).await;
    assert_eq!(post_to(&router, "/ok").await.status(), StatusCode::OK);
    let response = post_to(&router, "/ok").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let CommitFailed(error) = response.extensions().get().expect("the reason");
    assert_eq!(error.sqlstate(), Some("23505"), "{error}");
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn a_commit_that_lost_against_another_one_becomes_503() {
    let db = database().await;
    let engine = builder(&db.url()).build().expect("good settings");
    let serializable = pool_postgres::IsolationLevel::Serializable;
    let sessions = SessionFactory::new(engine.clone()).isolation(serializable);
    let other = sessions.clone();
    let router = Router::new()
        .route(
            "/",
            post(|mut session: RequestSession| async move {
                let sql = "INSERT INTO t SELECT count(*) FROM t";
                session.execute(sql, &[]).await.expect("inserted");
                let mut other = other.session();
                other.execute(sql, &[]).await.expect("inserted");
                let _ = other.commit().await.expect("the first to commit wins");
            }),
        )
        .layer(SessionLayer::new(sessions));
    let response = post_to(&router, "/").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn rows_stream_into_a_body_that_owns_its_session() {
    let db = database().await;
    let engine = one_connection(&db);
    engine
        .execute("INSERT INTO t SELECT generate_series(1, 3000)", &[])
        .await
        .expect("inserted");
    let router = Router::new()
        .route(
            "/",
            get(|session: RequestSession| async move {
                let rows = session
                    .into_session()
                    .into_stream("SELECT n FROM t", &[])
                    .await;
                let rows = rows.expect("rows");
                Body::from_stream(
                    rows.map(|row| row.map(|row| format!("{}\n", row.get::<_, i64>(0)))),
                )
            }),
        )
        .layer(SessionLayer::new(
            SessionFactory::new(engine.clone()).read_only(),
        ));
    let response = ask(&router, Method::GET, "/").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(engine.status().in_use, 1, "the body holds it");
    assert_eq!(text(response).await.lines().count(), 3000);
    assert_eq!(engine.status().in_use, 0, "the body's end gives it back");
}

#[tokio::test]
async fn a_session_left_in_the_body_is_answered_with_500() {
    let db = database().await;
    let engine = one_connection(&db);
    let router = Router::new()
        .route(
            "/",
            post(|mut session: RequestSession| async move {
                session.execute(INSERT, &[]).await.expect("inserted");
                let lines = futures_util::stream::once(async move {
                    let _kept = &session;
                    Ok::<_, std::io::Error>("too late")
                });
                Body::from_stream(lines)
            }),
        )
        .layer(SessionLayer::new(engine.clone()));
    let response = post_to(&router, "/").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let CommitFailed(error) = response.extensions().get().expect("the reason");
    assert!(error.to_string().contains("into_session"), "{error}");
    assert_eq!(count(&engine).await, 0);
}

#[tokio::test]
async fn a_client_that_leaves_leaves_nothing_behind() {
    let db = database().await;
    let engine = one_connection(&db);
    let router = router(engine.clone());
    for polls in 0.. {
        let before = count(&engine).await;
        let done = poll_then_drop(polls, post_to(&router, "/ok")).await;
        let after = format!("left after {polls} polls");
        assert_next_borrower_is_at_ease(&engine, &after).await;
        let status = engine.status();
        assert_eq!((status.in_use, status.waiting), (0, 0), "{after}");
        if done.is_some() {
            assert_eq!(count(&engine).await, before + 1);
            assert!(polls >= 2, "only {polls} awaits");
            return;
        }
        // Whole or not at all: a client that left during the commit may have committed.
        assert!(count(&engine).await - before <= 1, "{after}");
    }
}

#[tokio::test]
async fn each_request_can_have_a_factory_of_its_own() {
    let db = database().await;
    let engine = one_connection(&db);
    let (writes, reads) = {
        let sessions = SessionFactory::new(engine.clone());
        (sessions.clone(), sessions.read_only())
    };
    let layer = SessionLayer::choosing(move |request| {
        if request.method.is_safe() {
            reads.clone()
        } else {
            writes.clone()
        }
    });
    let handler = |mut session: RequestSession| async move {
        match session.execute(INSERT, &[]).await {
            Ok(_) => StatusCode::OK,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
                StatusCode::FORBIDDEN
            }
        }
    };
    let router = Router::new()
        .route("/", get(handler).post(handler))
        .layer(layer);
    assert_eq!(
        ask(&router, Method::GET, "/").await.status(),
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        ask(&router, Method::POST, "/").await.status(),
        StatusCode::OK
    );
    assert_eq!(count(&engine).await, 1);
}

#[tokio::test]
async fn what_a_commit_tells_can_go_into_the_answers_head() {
    let db = database().await;
    let sessions = Lending::with_tokens(one_connection(&db), 7);
    let layer = SessionLayer::new(sessions).on_commit(|committed, head| {
        let token = committed.token.expect("something was written");
        let system = token.system_identifier.to_string();
        head.headers
            .insert("x-written", system.parse().expect("a number"));
    });
    let router = Router::new()
        .route("/", post(|s: RequestSession| insert(s, 200)))
        .layer(layer);
    let response = post_to(&router, "/").await;
    assert_eq!(response.headers()["x-written"], "7");
}

#[tokio::test]
async fn a_handler_without_a_layer_is_answered_with_500() {
    let router = Router::new().route("/", post(|s: RequestSession| insert(s, 200)));
    let response = post_to(&router, "/").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn a_request_has_one_session_for_one_at_a_time() {
    let db = database().await;
    let engine = one_connection(&db);
    // Without axum: any service of http's types.
    let service = tower::service_fn(|request: Request<()>| async move {
        let first = RequestSession::from_extensions(request.extensions()).expect("a session");
        let second = RequestSession::from_extensions(request.extensions());
        assert_eq!(second.expect_err("in use"), NoSession::InUse);
        drop(first);
        let mut again = RequestSession::from_extensions(request.extensions()).expect("a session");
        again.execute(INSERT, &[]).await.expect("inserted");
        drop(again);
        Ok::<_, std::convert::Infallible>(axum::http::Response::new(String::new()))
    });
    let mut service = SessionLayer::new(engine.clone()).layer(service);
    let request = Request::new(());
    let response = service.ready().await.expect("ready").call(request).await;
    assert_eq!(response.expect("infallible").status(), StatusCode::OK);
    assert_eq!(count(&engine).await, 1);
}
