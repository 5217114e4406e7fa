//! Encrypted connections: whom they trust, whom they don't, and what they say then.

use std::path::PathBuf;

use pool_postgres::{Engine, Error, ErrorKind};
use testbed::{Certificates, ServerCert, TlsFront};

use crate::support::{builder, database};

/// A TLS front with the certificate before the shared server, and the authority's file.
async fn front(cert: ServerCert) -> (TlsFront, PathBuf, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::create_in(dir.path()).expect("certificates");
    let server = testbed::shared().await.cluster().primary().port();
    let front = TlsFront::before(server, &certificates, cert)
        .await
        .expect("a front");
    (front, certificates.ca_file(), dir)
}

fn engine(port: u16, host: &str, query: &str) -> Engine {
    builder(&format!(
        "postgresql://app:secret@{host}:{port}/app?{query}"
    ))
    .build()
    .expect("good settings")
}

async fn answer(engine: &Engine) -> Result<i32, Error> {
    Ok(engine.query_one("SELECT 1", &[]).await?.get(0))
}

/// What a mode with the authority's file makes of a certificate.
async fn with(cert: ServerCert, mode: &str) -> Result<i32, Error> {
    let (front, ca, _dir) = front(cert).await;
    let query = format!("sslmode={mode}&sslrootcert={}", ca.display());
    answer(&engine(front.port(), "localhost", &query)).await
}

#[tokio::test]
async fn a_good_certificate_passes_every_mode() {
    for mode in ["allow", "prefer", "require", "verify-ca", "verify-full"] {
        assert_eq!(with(ServerCert::Good, mode).await.expect(mode), 1);
    }
}

#[tokio::test]
async fn a_certificate_for_another_host_passes_verify_ca_and_not_verify_full() {
    assert_eq!(
        with(ServerCert::WrongHost, "verify-ca")
            .await
            .expect("a chain"),
        1
    );
    let error = with(ServerCert::WrongHost, "verify-full")
        .await
        .expect_err("another name");
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(error.to_string().contains("names another host"), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_passes_no_verifying_mode() {
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = with(ServerCert::Expired, mode).await.expect_err("expired");
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        assert!(error.to_string().contains("expired"), "{mode}: {error}");
    }
}

#[tokio::test]
async fn a_self_signed_certificate_passes_only_where_nobody_verifies() {
    for mode in ["verify-ca", "verify-full"] {
        let error = with(ServerCert::SelfSigned, mode)
            .await
            .expect_err("unknown authority");
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    }
    let (front, _ca, _dir) = front(ServerCert::SelfSigned).await;
    let engine = engine(front.port(), "localhost", "sslmode=require");
    assert_eq!(answer(&engine).await.expect("nobody verifies"), 1);
}

#[tokio::test]
async fn prefer_and_allow_do_without_tls_where_there_is_none() {
    let database = database().await;
    for mode in ["disable", "allow", "prefer"] {
        let engine = builder(&format!("{}?sslmode={mode}", database.url()))
            .build()
            .expect("good settings");
        assert_eq!(answer(&engine).await.expect(mode), 1);
    }
}

#[tokio::test]
async fn a_certificate_file_that_is_missing_or_empty_is_named() {
    let (front, _ca, dir) = front(ServerCert::Good).await;
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "").expect("a file");
    for file in [dir.path().join("nowhere.pem"), empty] {
        let query = format!("sslmode=verify-full&sslrootcert={}", file.display());
        let error = answer(&engine(front.port(), "localhost", &query))
            .await
            .expect_err("nothing to verify with");
        assert_eq!(error.kind(), ErrorKind::Tls);
        assert!(error.to_string().contains(".pem"), "{error}");
    }
}

/// Changes who may get in how, and waits until the server has read it.
async fn set_rules(node: &testbed::Node, rules: &str) {
    let file = node.sql("SHOW hba_file").await.expect("a setting")[0][0].clone();
    std::fs::write(file.expect("a path"), rules).expect("written");
    let before = "SELECT pg_conf_load_time()";
    let loaded = node.sql(before).await.expect("a time");
    node.sql("SELECT pg_reload_conf()").await.expect("reloaded");
    let deadline = tokio::time::Instant::now() + crate::support::SOON;
    // A process that starts after the server has read them goes by the new rules, and knows the new time.
    while node.sql(before).await.expect("a time") == loaded {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the rules were never read"
        );
    }
}

#[tokio::test]
async fn a_server_that_demands_tls_or_a_certificate_is_told_apart_from_a_wrong_password() {
    let cluster = testbed::cluster()
        .tls(true)
        .start()
        .await
        .expect("a cluster");
    if !cluster.installation().has_tls {
        return; // The front before such a server offers TLS and can't demand it.
    }
    let node = cluster.primary();
    let url = node.tls_url().expect("a TLS address");
    set_rules(
        node,
        "local all all trust\nhost all postgres all trust\nhostssl all all all scram-sha-256\n",
    )
    .await;
    let engine = builder(&format!("{}?sslmode=disable", node.url()))
        .build()
        .expect("good settings");
    let error = answer(&engine).await.expect_err("TLS is demanded");
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(error.to_string().contains("sslmode=require"), "{error}");
    for binding in ["disable", "prefer", "require"] {
        let engine = builder(&format!("{url}&channel_binding={binding}"))
            .build()
            .expect("good settings");
        assert_eq!(answer(&engine).await.expect(binding), 1);
    }

    // Whoever shows no certificate stays outside, with the remedy.
    set_rules(
        node,
        "local all all trust\nhost all postgres all trust\nhostssl all all all cert\n",
    )
    .await;
    let engine = builder(&url).build().expect("good settings");
    let error = answer(&engine).await.expect_err("no certificate");
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    assert!(error.to_string().contains("sslcert"), "{error}");
    let certificates = cluster.certificates().expect("a cluster with TLS");
    let engine = builder(&url)
        .client_certificate(
            certificates.client_cert_file(),
            certificates.client_key_file(),
        )
        .build()
        .expect("good settings");
    assert_eq!(answer(&engine).await.expect("known by its certificate"), 1);
}

#[tokio::test]
async fn a_renewed_certificate_file_is_used_by_the_next_connect() {
    let (front, ca, dir) = front(ServerCert::Good).await;
    let other = tempfile::tempdir().expect("a folder");
    let other = Certificates::create_in(other.path()).expect("certificates");
    let file = dir.path().join("roots.pem");
    std::fs::copy(other.ca_file(), &file).expect("copied");
    let query = format!("sslmode=verify-full&sslrootcert={}", file.display());
    let engine = engine(front.port(), "localhost", &query);
    let error = answer(&engine).await.expect_err("another authority");
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(error.to_string().contains("sslrootcert"), "{error}");
    std::fs::copy(ca, &file).expect("copied");
    assert_eq!(answer(&engine).await.expect("the right one now"), 1);
}

#[tokio::test]
async fn a_client_s_certificate_that_cannot_be_used_is_named_before_anything_is_sent() {
    let (front, _ca, dir) = front(ServerCert::Good).await;
    let files = Certificates::create_in(dir.path()).expect("certificates");
    let open = dir.path().join("open.key");
    std::fs::copy(files.client_key_file(), &open).expect("copied");
    let empty = dir.path().join("empty.key");
    std::fs::copy(files.client_key_file(), &empty).expect("copied"); // With its mode.
    std::fs::write(&empty, "nothing").expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&open, mode).expect("a mode");
    let strange = files.server_key_file(ServerCert::Good);
    let cert = files.client_cert_file();
    for (cert, key, part) in [
        (cert.clone(), open, "0600"),
        (cert.clone(), strange, "together"),
        (cert.clone(), dir.path().join("none.key"), "none.key"),
        (
            dir.path().join("none.crt"),
            files.client_key_file(),
            "none.crt",
        ),
        (cert, empty, "PEM"),
    ] {
        let engine = builder(&front.url("sslmode=require"))
            .client_certificate(cert, key)
            .build()
            .expect("good settings");
        let error = answer(&engine).await.expect_err("no use");
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn channel_binding_that_is_demanded_is_had_or_nobody_gets_in() {
    // The front ends the encryption, so the server behind it can bind nothing to it.
    let (front, ca, _dir) = front(ServerCert::Good).await;
    let ca = ca.display();
    for query in [
        format!("sslmode=verify-full&sslrootcert={ca}&channel_binding=require"),
        "sslmode=disable&channel_binding=require".to_owned(),
    ] {
        let error = answer(&engine(front.port(), "localhost", &query))
            .await
            .expect_err("nothing is bound");
        assert_eq!(error.kind(), ErrorKind::Authentication, "{query}: {error}");
        assert!(!error.is_retryable());
    }
}
