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

#[tokio::test]
async fn a_server_that_demands_tls_is_told_apart_from_a_wrong_password() {
    let cluster = testbed::cluster()
        .tls(true)
        .start()
        .await
        .expect("a cluster");
    if !cluster.installation().has_tls {
        return; // The front before such a server offers TLS and can't demand it.
    }
    let node = cluster.primary();
    let file = node.sql("SHOW hba_file").await.expect("a setting")[0][0].clone();
    let file = file.expect("a path");
    let rules = "local all all trust\nhostssl all all all scram-sha-256\n";
    std::fs::write(&file, rules).expect("written");
    node.sql("SELECT pg_reload_conf()").await.expect("reloaded");
    let engine = builder(&format!("{}?sslmode=disable", node.url()))
        .build()
        .expect("good settings");
    // The server reads its rules anew in its own time.
    let deadline = tokio::time::Instant::now() + crate::support::SOON;
    let error = loop {
        engine.dispose();
        match answer(&engine).await {
            Err(error) => break error,
            Ok(_) => assert!(
                tokio::time::Instant::now() < deadline,
                "the rules were never read"
            ),
        }
    };
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(error.to_string().contains("sslmode=require"), "{error}");
    let url = node.tls_url().expect("a TLS address");
    let engine = builder(&url).build().expect("good settings");
    assert_eq!(answer(&engine).await.expect("encrypted"), 1);
}
