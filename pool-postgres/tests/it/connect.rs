//! Getting in, and every way of not getting in.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use pool_postgres::pool_core::{EventKind, GetOptions};
use pool_postgres::{Engine, Error, ErrorKind, SessionOptions, SslMode};

use crate::support::{builder, database, pid};

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
async fn a_server_that_is_full_is_waited_for_only_while_one_of_ours_may_come_back() {
    let cluster = testbed::cluster()
        .max_connections(4)
        .setting("superuser_reserved_connections", "1")
        .start()
        .await
        .expect("a cluster");
    let url = cluster.primary().url();
    let engine = builder(&url).pool_size(10).build().expect("good settings");
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(engine.connect().await.expect("room for three"));
    }

    // Full of others: whoever has none would wait for nothing.
    let stranger = builder(&url).build().expect("good settings");
    let error = refused(&stranger).await;
    assert_eq!(error.kind(), ErrorKind::TooManyConnections, "{error}");
    assert_eq!(error.sqlstate(), Some("53300"));
    assert!(error.is_retryable());

    // Full of ours.
    let mut events = engine.pool().events();
    let mut waiting = Box::pin(engine.query_one("SELECT 1", &[]));
    let full = async {
        loop {
            let event = events.next().await.expect("the pool is open");
            if let EventKind::Full { open, cause } = event.kind {
                break (open, cause);
            }
        }
    };
    let (open, cause) = tokio::select! {
        full = full => full,
        answer = &mut waiting => panic!("{answer:?}"),
    };
    assert_eq!(open, 3);
    assert!(cause.contains("53300"), "{cause}");
    held.pop();
    waiting.await.expect("what came back serves");
    assert_eq!(engine.pool().stats().timeouts, 0);

    // Nothing comes back: the caller's own time ends it, and the error says why nothing was opened.
    held.push(engine.connect().await.expect("the one that is back"));
    let short = GetOptions::new().timeout(Duration::from_millis(100));
    let error = engine.pool().get_with(short).await.expect_err("full");
    let error = Error::from(error);
    assert_eq!(error.kind(), ErrorKind::PoolTimeout, "{error}");
    let cause = error.source().expect("the last failure").to_string();
    assert!(cause.contains("53300"), "{cause}");
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
async fn a_standby_that_refuses_a_write_loses_all_its_connections_and_a_refused_read_session_none()
{
    let cluster = testbed::shared_with_replicas().await.cluster();
    let replica = cluster.replica(0);
    let proxy = testbed::Proxy::before(cluster.primary().port())
        .await
        .expect("a proxy");
    proxy.refuse(true);
    let url = format!(
        "postgresql://app:secret@127.0.0.1:{},127.0.0.1:{}/app?sslmode=disable",
        proxy.port(),
        replica.port()
    );
    let engine = builder(&url).build().expect("good settings");
    let (mut first, mut second) = (engine.session(), engine.session());
    let pids = [pid(&mut first).await, pid(&mut second).await];
    first.close().await.expect("returned");
    second.close().await.expect("returned");
    // From here on the first name leads to a primary.
    proxy.refuse(false);

    let write = "CREATE TEMP TABLE t ON COMMIT DROP AS SELECT pg_current_xact_id()";
    let reads = SessionOptions::default().read_only();
    let mut reading = engine.with_options(reads).session();
    let error = reading.execute(write, &[]).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    drop(reading);
    let mut still = engine.session();
    assert!(pids.contains(&pid(&mut still).await));

    let error = still.execute(write, &[]).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    drop(still);
    let mut writing = engine.session();
    writing.execute(write, &[]).await.expect("on the primary");
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

/// A role of the test's own, whose password can change.
async fn role(name: &str, password: &str) -> String {
    let node = testbed::shared().await.cluster().primary();
    node.sql(&format!("CREATE ROLE {name} LOGIN PASSWORD '{password}'"))
        .await
        .expect("a role");
    format!("postgresql://{name}@127.0.0.1:{}/app", node.port())
}

async fn set_password(name: &str, password: &str) {
    let node = testbed::shared().await.cluster().primary();
    node.sql(&format!("ALTER ROLE {name} PASSWORD '{password}'"))
        .await
        .expect("a password");
}

/// A provider that gives one password after the other, the last for ever; and how often it was asked.
fn in_turn(
    passwords: &[&'static str],
) -> (
    Arc<AtomicUsize>,
    impl Fn() -> std::future::Ready<Result<String, Error>> + Send + Sync + use<>,
) {
    let (asked, passwords) = (Arc::new(AtomicUsize::new(0)), passwords.to_vec());
    let count = Arc::clone(&asked);
    let provider = move || {
        let turn = count.fetch_add(1, Ordering::Relaxed);
        let password = passwords[turn.min(passwords.len() - 1)];
        std::future::ready(Ok(password.to_owned()))
    };
    (asked, provider)
}

#[tokio::test]
async fn a_password_provider_is_asked_at_each_connect() {
    let url = role("rotating", "first").await;
    let (asked, provider) = in_turn(&["first", "second"]);
    let engine = builder(&url)
        .pool_size(1)
        .password_provider(provider)
        .build()
        .expect("good settings");
    engine.ping().await.expect("in by the first");
    set_password("rotating", "second").await;
    engine.ping().await.expect("who is in stays in");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    engine.dispose();
    engine.ping().await.expect("in by the second");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_password_that_was_just_rotated_is_asked_for_once_again_before_it_counts_as_wrong() {
    let url = role("rotated", "new").await;
    let (asked, provider) = in_turn(&["old", "new"]);
    let engine = builder(&url)
        .password_provider(provider)
        .build()
        .expect("good settings");
    engine.ping().await.expect("in at the second attempt");
    assert_eq!(asked.load(Ordering::Relaxed), 2);

    let (asked, provider) = in_turn(&["wrong"]);
    let engine = builder(&url)
        .password_provider(provider)
        .build()
        .expect("good settings");
    let error = refused(&engine).await;
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    assert_eq!(error.sqlstate(), Some("28P01"));
    assert_eq!(asked.load(Ordering::Relaxed), 2, "twice and no more");
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("password provider"), "{shown}");
    assert!(!shown.contains("wrong"), "{shown}");
}

#[tokio::test]
async fn a_password_provider_that_fails_is_named_with_its_cause_and_tried_again() {
    let url = role("provided", "secret").await;
    let turn = AtomicUsize::new(0);
    let engine = builder(&url)
        .password_provider(move || {
            let first = turn.fetch_add(1, Ordering::Relaxed) == 0;
            std::future::ready(if first {
                Err("the vault is sealed")
            } else {
                Ok("secret".to_owned())
            })
        })
        .build()
        .expect("good settings");
    let error = refused(&engine).await;
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(
        error.to_string().contains("password provider failed"),
        "{error}"
    );
    assert!(error.is_retryable());
    let cause = error.source().expect("a cause").to_string();
    assert_eq!(cause, "the vault is sealed");
    engine.ping().await.expect("in once it answers");
}

#[tokio::test]
async fn a_password_provider_that_hangs_is_named_before_the_connect_timeout() {
    let url = role("hanging", "secret").await;
    let engine = builder(&url)
        .connect_timeout(Duration::from_millis(500))
        .password_provider(std::future::pending::<Result<String, Error>>)
        .build()
        .expect("good settings");
    let error = refused(&engine).await;
    assert_eq!(error.kind(), ErrorKind::Connect);
    let message = error.to_string();
    assert!(
        message.contains("provider did not answer within 400ms"),
        "{message}"
    );
}

#[tokio::test]
async fn a_server_that_is_down_costs_no_passwords() {
    let (asked, provider) = in_turn(&["secret"]);
    let engine = builder("postgresql://u@127.0.0.1:1/db")
        .password_provider(provider)
        .build()
        .expect("good settings");
    refused(&engine).await;
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_password_file_is_read_at_each_connect() {
    let url = role("filed", "one").await;
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("pgpass");
    let write = |password: &str| {
        std::fs::write(&file, format!("other:*:*:*:no\n*:*:app:filed:{password}\n"))
            .expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, mode).expect("a mode");
    };
    write("one");
    let engine = builder(&format!("{url}?passfile={}", file.display()))
        .pool_size(1)
        .build()
        .expect("good settings");
    engine.ping().await.expect("in by the file");
    set_password("filed", "two").await;
    write("two");
    engine.dispose();
    engine.ping().await.expect("in by what the file says now");
    write("wrong");
    engine.dispose();
    let error = refused(&engine).await;
    let message = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Authentication, "{message}");
    assert!(
        message.contains("pgpass") && !message.contains("wrong"),
        "{message}"
    );
}

#[tokio::test]
async fn a_name_is_looked_up_at_each_connect_and_each_of_its_addresses_tried() {
    let node = testbed::shared().await.cluster().primary();
    let (looked_up, port) = (Arc::new(AtomicUsize::new(0)), node.port());
    let count = Arc::clone(&looked_up);
    let engine = builder("postgresql://app:secret@db.test:6000/app")
        .pool_size(1)
        .resolver(move |host, asked| {
            assert_eq!((&*host, asked), ("db.test", 6000));
            count.fetch_add(1, Ordering::Relaxed);
            let nobody = ([127, 0, 0, 1], 1).into();
            let server = ([127, 0, 0, 1], port).into();
            std::future::ready(Ok(vec![nobody, server]))
        })
        .build()
        .expect("good settings");
    engine.ping().await.expect("in by the second address");
    engine.dispose();
    engine.ping().await.expect("in again");
    assert_eq!(looked_up.load(Ordering::Relaxed), 2, "never remembered");
}

#[tokio::test]
async fn an_address_that_swallows_packets_leaves_time_for_the_next() {
    let node = testbed::shared().await.cluster().primary();
    // A queue that is full: the system answers no more connects to it.
    let full =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    full.bind(&any.into()).expect("a free port");
    full.listen(0).expect("listening");
    let swallowing = full.local_addr().expect("bound").as_socket().expect("TCP");
    let mut filling = Vec::new();
    while let Ok(stream) =
        std::net::TcpStream::connect_timeout(&swallowing, Duration::from_millis(50))
    {
        filling.push(stream);
        assert!(filling.len() < 100, "the queue never fills");
    }
    let server = ([127, 0, 0, 1], node.port()).into();
    let engine = builder("postgresql://app:secret@db.test/app")
        .connect_timeout(Duration::from_secs(2))
        .resolver(move |_, _| std::future::ready(Ok(vec![swallowing, server])))
        .build()
        .expect("good settings");
    engine.ping().await.expect("in by the second address");
}

#[tokio::test]
async fn a_host_with_its_address_is_not_looked_up() {
    let node = testbed::shared().await.cluster().primary();
    let port = node.port();
    let url = format!("postgresql://app:secret@db.test:{port}/app?hostaddr=127.0.0.1");
    let engine = builder(&url)
        .resolver(|_, _| std::future::ready(Err(std::io::Error::other("asked"))))
        .build()
        .expect("good settings");
    engine.ping().await.expect("in by the address");
}

#[tokio::test]
async fn of_several_hosts_that_will_not_do_each_is_named() {
    let engine = builder("postgresql://u@127.0.0.1:1,127.0.0.1:2/db")
        .build()
        .expect("good settings");
    let message = refused(&engine).await.to_string();
    for part in ["none of 2 hosts", "127.0.0.1:1 (", "127.0.0.1:2"] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn a_silent_peer_is_noticed_by_the_system_and_the_program_is_named_by_default() {
    let node = testbed::shared().await.cluster().primary();
    let engine = builder(&node.url()).build().expect("good settings");
    let row = engine
        .query_one("SELECT current_setting('application_name')", &[])
        .await
        .expect("in");
    let program = std::env::current_exe().expect("a program");
    let name = program.file_stem().expect("a name").to_string_lossy();
    // The server keeps 63 bytes.
    assert!(name.starts_with(row.get::<_, &str>(0)), "{name}");
}
