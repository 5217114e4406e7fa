//! A page that shows a database live: the feature `console`.
//!
//! Mount it where only your own people come: it shows addresses, errors and where reads go (never passwords, rows or
//! statements), and changes nothing. The page is one file, asks nobody but the service that it came from, and is fed by
//! server-sent events.
//!
//! ```no_run
//! # async fn example(db: pool_router::Database) -> std::io::Result<()> {
//! let app = axum::Router::new().nest("/console/", pool_router::console::routes(&db));
//! axum::serve(tokio::net::TcpListener::bind("127.0.0.1:8080").await?, app).await?;
//! # Ok(()) }
//! ```

use std::convert::Infallible;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use axum::response::sse::{Event as Message, Sse};
use axum::response::{Html, IntoResponse, Json};
use axum::routing::get;
use futures_util::future::ready;
use futures_util::stream::{self, Stream, StreamExt};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use crate::database::Database;
use crate::events::{Event, Events};

const PAGE: &str = include_str!("console/page.html");
/// The page runs what is in it and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";
/// How often the page learns how the nodes are.
const PACE: Duration = Duration::from_millis(500);

/// The page at `/`, its feed at `/feed`, and one snapshot as JSON at `/status`.
///
/// The feed sends a `status` twice a second and each of the database's [events](crate::Events) as it happens, and ends
/// when the database shuts down, so that no open page holds up a service that stops. Nested under a path, that path
/// must end in a slash for the page to find its feed.
pub fn routes(db: &Database) -> Router {
    let (feeding, asked) = (db.clone(), db.clone());
    Router::new()
        .route("/", get(page))
        .route("/feed", get(move || ready(Sse::new(feed(&feeding)))))
        .route(
            "/status",
            get(move || ready(([(CACHE_CONTROL, "no-store")], Json(asked.status())))),
        )
}

async fn page() -> impl IntoResponse {
    let headers = [
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, Html(PAGE))
}

/// What the page is told of an event.
#[derive(Serialize)]
struct Told<'a> {
    kind: &'static str,
    node: Option<&'a str>,
    text: String,
    /// Milliseconds since 1970.
    at: u64,
}

/// What happens first: the next moment to tell the status, or an event.
enum Next {
    Tick,
    Event(Event),
    End,
}

/// Statuses and events until the database shuts down.
fn feed(db: &Database) -> impl Stream<Item = Result<Message, Infallible>> + use<> {
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ticks = stream::unfold(ticks, |mut ticks| async move {
        ticks.tick().await;
        Some((Next::Tick, ticks))
    });
    let events = Events::map(db.events(), Next::Event).chain(stream::once(ready(Next::End)));
    let db = db.clone();
    stream::select(ticks.boxed(), events.boxed())
        .take_while(|next| ready(!matches!(next, Next::End)))
        .filter_map(move |next| {
            ready(match next {
                Next::Tick => message("status", &db.status()),
                Next::Event(event) => message("event", &told(&event)),
                Next::End => None,
            })
        })
        .map(Ok)
}

fn told(event: &Event) -> Told<'_> {
    let ago = Instant::now().saturating_duration_since(event.at);
    let at = SystemTime::now().checked_sub(ago);
    let since = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    Told {
        kind: event.kind.name(),
        node: event.kind.node(),
        text: event.kind.to_string(),
        at: since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        }),
    }
}

/// None if it cannot be written as JSON, which values of these types always can.
fn message(name: &str, value: &impl Serialize) -> Option<Message> {
    Message::default().event(name).json_data(value).ok()
}
