//! Getting in, and every way of not getting in.

use std::error::Error as _;
use std::time::Duration;

use pool_postgres::{Engine, Error, ErrorKind, SslMode};

use crate::support::{builder, database};

async fn refused(engine: &Engine) -> Error {
    engine
        .query_one("SELECT 1", &[])
        .await
        .expect_err("no way in")
}

#[tokio::test]
async fn a_wrong_password_is_told_at_once_to_everybody() {
    let database = database().await;
    let engine = builder(&database.url())
        .password("wrong")
        .build()
        .expect("good settings");
    let (one, two) = tokio::join!(refused(&engine), refused(&engine));
    for error in [one, two] {
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
        assert_eq!(error.sqlstate(), Some("28P01"));
        assert!(!format!("{error} {error:?}").contains("wrong"), "{error}");
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn a_missing_password_is_told_with_the_remedy() {
    let url = database().await.url().replace(":secret@", "@");
    let engine = builder(&url).build().expect("good settings");
    let error = refused(&engine).await;
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    assert!(error.to_string().contains("PGPASSWORD"), "{error}");
}

#[tokio::test]
async fn a_missing_database_is_named() {
    let node = testbed::shared().await.cluster().primary();
    let engine = builder(&node.url_for("nowhere"))
        .build()
        .expect("good settings");
    let error = refused(&engine).await;
    assert_eq!(error.kind(), ErrorKind::NoSuchDatabase);
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[tokio::test]
async fn a_refused_port_names_the_place_and_the_cause_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let engine = builder(&format!("postgresql://u@127.0.0.1:{port}/db"))
        .build()
        .expect("good settings");
    let error = refused(&engine).await;
    assert_eq!(error.kind(), ErrorKind::Connect);
    let message = error.to_string();
    assert!(message.contains(&format!("127.0.0.1:{port}")), "{message}");
    let cause = error.source().expect("a cause").to_string();
    assert!(cause.contains("refused"), "{cause}");
    assert!(!message.contains(&cause), "{message}");
}

#[tokio::test]
async fn a_host_that_does_not_exist_is_named() {
    let engine = builder("postgresql://u@no-such-host.invalid/db")
        .build()
        .expect("good settings");
    let error = refused(&engine).await;
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(
        error.to_string().contains("no-such-host.invalid"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_after_the_connect_timeout() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let port = silent.local_addr().expect("bound").port();
    let engine = builder(&format!("postgresql://u@127.0.0.1:{port}/db"))
        .connect_timeout(Duration::from_millis(100))
        .build()
        .expect("good settings");
    let error = refused(&engine).await;
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains("100ms"), "{error}");
}

#[tokio::test]
async fn a_silent_host_leaves_time_for_the_next() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let node = testbed::shared().await.cluster().primary();
    let hosts = format!(
        "127.0.0.1:{},127.0.0.1:{}",
        silent.local_addr().expect("bound").port(),
        node.port()
    );
    let engine = builder(&format!("postgresql://app:secret@{hosts}/app"))
        .connect_timeout(Duration::from_secs(2))
        .build()
        .expect("good settings");
    let row = engine
        .query_one("SELECT 1", &[])
        .await
        .expect("the second host answers");
    assert_eq!(row.get::<_, i32>(0), 1);
}

#[tokio::test]
async fn something_that_is_no_postgresql_server_is_recognised() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let port = server.local_addr().expect("bound").port();
    let answer = tokio::spawn(async move {
        let (mut stream, _) = server.accept().await.expect("a caller");
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .expect("answered");
        stream
    });
    let engine = builder(&format!("postgresql://u@127.0.0.1:{port}/db"))
        .build()
        .expect("good settings");
    let error = refused(&engine).await;
    assert!(error.to_string().contains("PostgreSQL server"), "{error}");
    drop(answer.await);
}

#[tokio::test]
async fn a_server_without_room_says_so_and_trying_again_may_help() {
    let cluster = testbed::cluster()
        .max_connections(4)
        .setting("superuser_reserved_connections", "1")
        .start()
        .await
        .expect("a cluster");
    let engine = builder(&cluster.primary().url())
        .pool_size(10)
        .build()
        .expect("good settings");
    let mut held = Vec::new();
    let error = loop {
        match engine.connect().await {
            Ok(connection) => held.push(connection),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::TooManyConnections, "{error}");
    assert_eq!(error.sqlstate(), Some("53300"));
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_password_with_special_characters_gets_in() {
    let node = testbed::shared().await.cluster().primary();
    let password = "p@s:s/w%r'd \\?&#";
    let literal = password.replace('\'', "''");
    node.sql(&format!("CREATE ROLE odd LOGIN PASSWORD '{literal}'"))
        .await
        .expect("a role");
    let encoded = "p%40s%3As%2Fw%25r%27d%20%5C%3F%26%23";
    let url = format!("postgresql://odd:{encoded}@127.0.0.1:{}/app", node.port());
    let engine = builder(&url).build().expect("good settings");
    let row = engine
        .query_one("SELECT current_user::text", &[])
        .await
        .expect("in");
    assert_eq!(row.get::<_, &str>(0), "odd");
}

#[tokio::test]
async fn a_unix_socket_is_a_way_in() {
    let node = testbed::shared().await.cluster().primary();
    let engine = builder(&node.socket_url()).build().expect("good settings");
    let row = engine
        .query_one("SELECT inet_server_addr() IS NULL", &[])
        .await
        .expect("in");
    assert!(row.get::<_, bool>(0), "a socket has no address");
}

#[tokio::test]
async fn of_several_hosts_the_first_of_the_wanted_kind_is_used() {
    let cluster = testbed::shared_with_replicas().await.cluster();
    let (primary, replica) = (cluster.primary(), cluster.replica(0));
    let url = |attrs: &str| {
        format!(
            "postgresql://app:secret@127.0.0.1:1,127.0.0.1:{},127.0.0.1:{}/app?target_session_attrs={attrs}",
            replica.port(),
            primary.port()
        )
    };
    for (attrs, in_recovery) in [
        ("any", true),
        ("standby", true),
        ("read-only", true),
        ("prefer-standby", true),
        ("primary", false),
        ("read-write", false),
    ] {
        let engine = builder(&url(attrs)).build().expect("good settings");
        let row = engine
            .query_one("SELECT pg_is_in_recovery()", &[])
            .await
            .unwrap_or_else(|error| panic!("{attrs}: {error}"));
        assert_eq!(row.get::<_, bool>(0), in_recovery, "{attrs}");
    }
}

#[tokio::test]
async fn tls_that_is_demanded_and_not_offered_is_told_with_the_remedy() {
    let database = database().await;
    let engine = builder(&database.url())
        .sslmode(SslMode::Require)
        .build()
        .expect("good settings");
    let error = refused(&engine).await;
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(error.to_string().contains("sslmode=prefer"), "{error}");
}

#[tokio::test]
async fn closing_waits_until_the_server_has_let_go() {
    let database = database().await;
    let engine = builder(&database.url())
        .application_name("leaving")
        .build()
        .expect("good settings");
    let watcher = builder(&database.superuser_url())
        .build()
        .expect("good settings");
    for _ in 0..20 {
        let connection = engine.connect().await.expect("in");
        connection.invalidate();
        // The next one needs a slot of its own or that one's; either way the old is gone soon.
        drop(engine.connect().await.expect("in"));
    }
    assert!(engine.close().await.is_clean());
    let left = watcher
        .query_one(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leaving'",
            &[],
        )
        .await
        .expect("a count");
    assert_eq!(
        left.get::<_, i64>(0),
        0,
        "a closed connection is gone from the server"
    );
}
