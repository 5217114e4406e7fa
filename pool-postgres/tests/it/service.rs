//! The example service, run as its readers would run it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::support::{SOON, builder, database};

#[expect(dead_code, reason = "the example's own `main` is not called here")]
#[path = "../../examples/axum_service.rs"]
mod axum_service;

use axum_service::{Settings, serve};

/// Sends a request and gives the whole answer.
async fn ask(address: std::net::SocketAddr, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nhost: here\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test]
async fn the_example_service_serves_tells_how_it_is_and_ends_when_told() {
    let db = database().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let settings = Settings {
        database: db.url(),
        listen: address,
        drain: Duration::from_secs(5),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let service = tokio::spawn(serve(settings, listener, async {
        let _ = stopped.await;
    }));
    let created = ask(address, "POST /users", r#"{"name":"Ada"}"#).await;
    assert!(created.starts_with("HTTP/1.1 201"), "{created}");
    assert!(created.ends_with(r#"{"id":1,"name":"Ada"}"#), "{created}");
    let twice = ask(address, "POST /users", r#"{"name":"Ada"}"#).await;
    assert!(twice.starts_with("HTTP/1.1 409"), "{twice}");
    let shown = ask(address, "GET /users/1", "").await;
    assert!(shown.ends_with(r#"{"id":1,"name":"Ada"}"#), "{shown}");
    let missing = ask(address, "GET /users/7", "").await;
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    let names = ask(address, "GET /names", "").await;
    assert!(names.contains("Ada\n"), "{names}");
    for path in ["/live", "/ready"] {
        let answer = ask(address, &format!("GET {path}"), "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let numbers = ask(address, "GET /metrics", "").await;
    assert!(numbers.contains("db_client_connection"), "{numbers}");
    let archived = ask(address, "POST /archive", "").await;
    assert!(archived.starts_with("HTTP/1.1 204"), "{archived}");
    let engine = builder(&db.url()).build().expect("good settings");
    let archived: i64 = engine
        .query_scalar("SELECT count(*) FROM archive", &[])
        .await
        .expect("a count");
    assert_eq!(archived, 1);
    stop.send(()).expect("it runs");
    let ended = timeout(SOON, service).await.expect("it goes on");
    ended.expect("no panic").expect("an orderly end");
}
