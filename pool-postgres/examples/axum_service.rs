//! A service on axum, with all that it needs in earnest: a transaction for each request, errors by `?`, settings from
//! the environment, `/live` and `/ready`, Prometheus's numbers, and an orderly end on SIGTERM.
//!
//! `DATABASE_URL=postgresql://user:pass@localhost/db cargo run --example axum_service --features axum,metrics`

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use pool_postgres::web::{RequestSession, SessionLayer};
use pool_postgres::{Engine, Error, ErrorKind, SessionFactory};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

/// What the environment says.
pub(crate) struct Settings {
    /// `DATABASE_URL`
    pub(crate) database: String,
    /// `LISTEN`, by default `127.0.0.1:3000`
    pub(crate) listen: SocketAddr,
    /// `DRAIN_SECONDS`, by default 20: how long requests may take to end after SIGTERM. Below the orchestrator's grace period.
    pub(crate) drain: Duration,
}

impl Settings {
    fn from_env() -> anyhow::Result<Self> {
        let or = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
        Ok(Self {
            database: std::env::var("DATABASE_URL").context("DATABASE_URL is not set")?,
            listen: or("LISTEN", "127.0.0.1:3000").parse().context("LISTEN")?,
            drain: Duration::from_secs(or("DRAIN_SECONDS", "20").parse().context("DRAIN_SECONDS")?),
        })
    }
}

/// What the handlers share.
#[derive(Clone)]
struct App {
    engine: Engine,
    sessions: SessionFactory,
    metrics: PrometheusHandle,
    /// Whether the service is going to end.
    ending: watch::Receiver<bool>,
}

/// What a handler fails with.
enum ApiError {
    NotFound,
    Database(Error),
}

/// Makes `?` work on everything that a session does.
impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = match self {
            Self::NotFound => return StatusCode::NOT_FOUND.into_response(),
            Self::Database(error) => error,
        };
        // Facts go to the log, not to the client.
        let status = match error.sqlstate() {
            Some("23505") => StatusCode::CONFLICT,
            _ if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        eprintln!("{status}: {error:#}");
        status.into_response()
    }
}

#[derive(Deserialize)]
struct NewUser {
    name: String,
}

#[derive(Serialize)]
struct User {
    id: i64,
    name: String,
}

/// Committed before the client sees 201; a commit that fails makes it 503 or 500.
async fn create(
    mut session: RequestSession,
    Json(new): Json<NewUser>,
) -> Result<(StatusCode, Json<User>), ApiError> {
    let sql = "INSERT INTO users (name) VALUES ($1) RETURNING id";
    let id = session.query_scalar(sql, &[&new.name]).await?;
    let name = new.name;
    Ok((StatusCode::CREATED, Json(User { id, name })))
}

async fn show(mut session: RequestSession, Path(id): Path<i64>) -> Result<Json<User>, ApiError> {
    let sql = "SELECT name FROM users WHERE id = $1";
    let row = session.query_opt(sql, &[&id]).await?;
    let name = row.ok_or(ApiError::NotFound)?.get(0);
    Ok(Json(User { id, name }))
}

/// Rows go out as they arrive: the body owns its session, which ends with it.
async fn names(session: RequestSession) -> Result<Response, ApiError> {
    let session = session.into_session();
    let rows = session
        .into_stream("SELECT name FROM users ORDER BY name", &[])
        .await?;
    let lines = rows.map(|row| Ok::<_, Error>(format!("{}\n", row?.get::<_, &str>(0))));
    Ok(Body::from_stream(lines).into_response())
}

/// What must be carried through once begun has a task and a session of its own: a client that leaves stops neither.
async fn archive(State(app): State<App>) -> Result<StatusCode, ApiError> {
    let work = tokio::spawn(async move {
        app.sessions
            .begin::<Error, _>(async |s| {
                s.execute("INSERT INTO archive SELECT * FROM users", &[])
                    .await?;
                s.execute("DELETE FROM users", &[]).await
            })
            .await
    });
    work.await
        .map_err(|error| Error::from_source(ErrorKind::Usage, "the task ended", error))??;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether the process works. Never asks the database: a restart would not cure that.
async fn live() -> &'static str {
    "live"
}

/// Whether to send requests here.
async fn ready(State(app): State<App>) -> StatusCode {
    let patience = Duration::from_secs(1);
    let answers = matches!(timeout(patience, app.engine.ping()).await, Ok(Ok(())));
    if answers && !*app.ending.borrow() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn numbers(State(app): State<App>) -> String {
    app.metrics.render()
}

fn router(app: App) -> Router {
    let reads = app.sessions.read_only();
    let writes = app.sessions.clone();
    let sessions = SessionLayer::choosing(move |request| {
        if request.method.is_safe() {
            reads.clone()
        } else {
            writes.clone()
        }
    });
    Router::new()
        .route("/users", post(create))
        .route("/users/{id}", get(show))
        .route("/names", get(names))
        .layer(sessions)
        .route("/archive", post(archive))
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/metrics", get(numbers))
        .with_state(app)
}

/// Serves until `stop` is ready; then lets requests end, and closes the engine.
pub(crate) async fn serve(
    settings: Settings,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    // Once in a process; the pools' numbers go to whatever recorder is installed.
    let metrics = PrometheusBuilder::new().install_recorder()?;
    let engine = Engine::builder(&settings.database)
        .application_name("users")
        .pool_with(|pool| pool.name("users"))
        .close_deadline(settings.drain)
        .build()?;
    let tables =
        "CREATE TABLE IF NOT EXISTS users (id bigserial PRIMARY KEY, name text UNIQUE NOT NULL);
                  CREATE TABLE IF NOT EXISTS archive (id bigint, name text)";
    engine.batch(tables).await?;
    let (end, ending) = watch::channel(false);
    let app = App {
        engine: engine.clone(),
        sessions: SessionFactory::new(engine.clone()),
        metrics,
        ending: ending.clone(),
    };
    let told = async move {
        let mut ending = ending;
        let _ = ending.wait_for(|ending| *ending).await;
    };
    let server = axum::serve(listener, router(app)).with_graceful_shutdown(told);
    let mut server = tokio::spawn(server.into_future());
    tokio::select! {
        ended = &mut server => ended??,
        () = stop => {
            end.send_replace(true); // `/ready` says no; nobody new is let in.
            match timeout(settings.drain, &mut server).await {
                Ok(ended) => ended??,
                Err(_) => server.abort(), // Their transactions are rolled back.
            }
        }
    }
    let report = engine.close().await;
    for holder in report.still_held {
        eprintln!("still held at the end: {holder}");
    }
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::from_env()?;
    let listener = TcpListener::bind(settings.listen).await?;
    println!("listening on {}", listener.local_addr()?);
    let stop = async {
        let term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        match term {
            Ok(mut term) => drop(term.recv().await),
            Err(error) => eprintln!("SIGTERM can't be heard: {error}"),
        }
    };
    serve(settings, listener, stop).await
}
