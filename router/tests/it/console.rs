//! The page and its feed, fetched as a browser would.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use futures_util::StreamExt;
use http::{Request, StatusCode};
use pool_router::console;
use tower::ServiceExt;

use crate::support::{note, routed};

/// More than any of these pages has.
const MOST: usize = 1 << 20;

async fn get(app: &Router, path: &str) -> http::Response<Body> {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let answer = app.clone().oneshot(request).await.expect("infallible");
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_asks_nobody_else_and_its_feed_tells_statuses_and_events_until_shutdown() {
    let (_cluster, db) = routed(1).await;
    let app = Router::new().nest("/console/", console::routes(&db));
    let page = get(&app, "/console/").await;
    let policy = page.headers()["content-security-policy"]
        .to_str()
        .expect("text");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let page = to_bytes(page.into_body(), MOST).await.expect("a page");
    let page = std::str::from_utf8(&page).expect("text");
    let others = page.replace("http://www.w3.org/2000/svg", "");
    assert!(
        !others.contains("http:") && !others.contains("https:"),
        "a page that stands alone"
    );

    let _ = note(&db, "seen").await;
    let status = get(&app, "/console/status").await;
    let status = to_bytes(status.into_body(), MOST).await.expect("a status");
    let status: serde_json::Value = serde_json::from_slice(&status).expect("JSON");
    assert_eq!(status["primary"], 0);
    assert_eq!(status["nodes"][0]["counts"]["writes"], 2);
    assert_eq!(status["nodes"][1]["role"], "replica");
    // What the page reads of it is there.
    for name in [
        "answers",
        "lag",
        "lag_bytes",
        "latency",
        "last_look",
        "round_trip",
        "outstanding",
        "ejected",
        "drained",
    ] {
        assert!(
            page.contains(&format!(".{name}")),
            "the page does not show {name}"
        );
        assert!(
            status["nodes"][1].get(name).is_some(),
            "no {name} in {status}"
        );
    }

    let mut feed = get(&app, "/console/feed")
        .await
        .into_body()
        .into_data_stream();
    let mut heard = String::new();
    let listen = async {
        while !heard.contains("event: status") {
            let more = feed.next().await.expect("goes on").expect("bytes");
            heard.push_str(&String::from_utf8_lossy(&more));
        }
        db.drain("replica 1").expect("there is one");
        while !heard.contains("event: event") {
            let more = feed.next().await.expect("goes on").expect("bytes");
            heard.push_str(&String::from_utf8_lossy(&more));
        }
        db.shutdown().await;
        while feed.next().await.is_some() {}
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, listen)
        .await
        .expect("the feed ends with the database");
    assert!(heard.contains("\"kind\":\"Drained\""), "{heard}");
    assert!(heard.contains("\"node\":\"replica 1\""), "{heard}");
}

#[test]
fn the_page_has_words_for_every_reason() {
    let page = include_str!("../../src/console/page.html");
    for reason in pool_router::view::Reason::ALL {
        let name = serde_json::to_value(reason).expect("JSON");
        let name = name.as_str().expect("a name");
        assert!(page.contains(&format!("{name}: \"")), "no words for {name}");
    }
}
