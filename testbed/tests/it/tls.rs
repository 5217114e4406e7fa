//! TLS by the server or by a front, and certificates that are wrong in one way each.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use testbed::{Certificates, ServerCert, TlsFront};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Asks for TLS as a PostgreSQL client does, and verifies the certificate fully.
async fn handshake(port: u16, certificates: &Certificates) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(certificates.ca_file()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream
        .write_all(&[0, 0, 0, 8, 4, 210, 22, 47])
        .await
        .unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'S', "TLS must be offered");
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = connector
        .connect(name, stream)
        .await
        .map_err(|error| error.to_string())?;
    // A startup message without a user: the server's own complaint comes back through TLS.
    tls.write_all(&[0, 0, 0, 9, 0, 3, 0, 0, 0]).await.unwrap();
    assert_eq!(tls.read_u8().await.unwrap(), b'E');
    Ok(())
}

#[tokio::test]
async fn a_cluster_with_tls_is_reached_by_it_whatever_its_server_can() {
    let cluster = testbed::cluster()
        .tls(true)
        .start()
        .await
        .expect("a cluster");
    let url = cluster.primary().tls_url().expect("a TLS address");
    let port = url
        .split(':')
        .nth(3)
        .and_then(|rest| rest.split('/').next())
        .unwrap();
    handshake(port.parse().unwrap(), cluster.certificates().unwrap())
        .await
        .unwrap();
    assert!(
        url.contains(&cluster.ca_file().unwrap().display().to_string()),
        "{url}"
    );
}

#[tokio::test]
async fn each_wrong_certificate_is_refused_for_its_own_reason() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::create_in(dir.path()).unwrap();
    let node = testbed::shared().await.cluster().primary();
    let cases = [
        (ServerCert::Good, None),
        (ServerCert::Expired, Some("expired")),
        (ServerCert::WrongHost, Some("not valid for name")),
        (ServerCert::SelfSigned, Some("UnknownIssuer")),
    ];
    for (cert, expected) in cases {
        let front = TlsFront::new(node, &certificates, cert).await.unwrap();
        let outcome = handshake(front.port(), &certificates).await;
        match (expected, outcome) {
            (None, outcome) => outcome.expect("a good certificate"),
            (Some(part), outcome) => {
                let error = outcome.expect_err("a wrong certificate");
                assert!(error.contains(part), "{cert:?}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn a_front_carries_a_client_that_asks_for_no_tls() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::create_in(dir.path()).unwrap();
    let node = testbed::shared().await.cluster().primary();
    let front = TlsFront::new(node, &certificates, ServerCert::Good)
        .await
        .unwrap();
    let url = front.url("sslmode=disable");
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .expect("a connection");
    tokio::spawn(connection);
    client.simple_query("SELECT 1").await.unwrap();
}
