//! Whom an encrypted connection trusts: rustls configurations with the meanings of libpq's `sslmode`.
//!
//! | mode | the certificate's chain | the host's name |
//! |---|---|---|
//! | `allow`, `prefer`, `require` without `sslrootcert` | not looked at | not looked at |
//! | `require` with `sslrootcert`, `verify-ca` | must lead to a trusted authority | not looked at |
//! | `verify-full` | must lead to a trusted authority | must be in the certificate |
//!
//! Certificate files are read at each connect, so that renewed ones are used. The provider (ring) is named here
//! and never taken from the process.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::address::{RootCertificates, SslMode};
use crate::error::{Error, ErrorKind};

/// What shakes hands, for a mode.
pub(crate) fn connector(
    mode: SslMode,
    roots: Option<&RootCertificates>,
) -> Result<MakeRustlsConnect, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| tls("no TLS version is to be had", error))?
        .dangerous();
    let trust = match (mode, roots) {
        (SslMode::VerifyFull, roots) => Trust::Named(verifier(roots, &provider)?),
        (SslMode::VerifyCa, roots) | (SslMode::Require, roots @ Some(_)) => {
            Trust::Chain(verifier(roots, &provider)?)
        }
        _ => Trust::Anybody,
    };
    let verifier = Arc::new(Verifier { trust, provider });
    let mut config = builder
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // What a server that was asked without SSLRequest would want to see; harmless otherwise.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(MakeRustlsConnect::new(config))
}

fn verifier(
    roots: Option<&RootCertificates>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let store = Arc::new(store(roots)?);
    WebPkiServerVerifier::builder_with_provider(store, Arc::clone(provider))
        .build()
        .map_err(|error| tls("the trusted certificates can't be used", error))
}

fn store(roots: Option<&RootCertificates>) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    let file = match roots {
        Some(RootCertificates::System) => {
            let found = rustls_native_certs::load_native_certs();
            let (added, _) = store.add_parsable_certificates(found.certs);
            if added == 0 {
                return Err(Error::new(
                    ErrorKind::Tls,
                    "sslrootcert is `system`, and this system has no certificates: install its package of \
                     trusted authorities, or name a file",
                ));
            }
            return Ok(store);
        }
        Some(RootCertificates::File(file)) => file.clone(),
        None => default_file().ok_or_else(|| {
            Error::new(
                ErrorKind::Tls,
                "verifying the server's certificate needs trusted ones: set sslrootcert to a file, or to \
                 `system`",
            )
        })?,
    };
    let unreadable = |error| {
        tls(
            format!("the certificates in {} can't be read", file.display()),
            error,
        )
    };
    let certificates = CertificateDer::pem_file_iter(&file).map_err(unreadable)?;
    for certificate in certificates {
        let certificate = certificate.map_err(unreadable)?;
        store.add(certificate).map_err(|error| {
            tls(
                format!("a certificate in {} can't be used", file.display()),
                error,
            )
        })?;
    }
    if store.is_empty() {
        return Err(Error::new(
            ErrorKind::Tls,
            format!(
                "{} holds no certificate: sslrootcert must be a PEM file",
                file.display()
            ),
        ));
    }
    Ok(store)
}

/// Where libpq looks if `sslrootcert` is not given.
fn default_file() -> Option<PathBuf> {
    let file = PathBuf::from(std::env::var_os("HOME")?).join(".postgresql/root.crt");
    file.is_file().then_some(file)
}

fn tls(message: impl Into<String>, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::from_source(ErrorKind::Tls, message, cause)
}

/// How much a certificate must show.
#[derive(Debug)]
enum Trust {
    Anybody,
    Chain(Arc<WebPkiServerVerifier>),
    Named(Arc<WebPkiServerVerifier>),
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.trust {
            Trust::Anybody => Ok(ServerCertVerified::assertion()),
            Trust::Named(inner) => {
                inner.verify_server_cert(certificate, intermediates, name, ocsp, now)
            }
            Trust::Chain(inner) => {
                match inner.verify_server_cert(certificate, intermediates, name, ocsp, now) {
                    // The name is looked at last, when the chain has passed.
                    Err(rustls::Error::InvalidCertificate(
                        CertificateError::NotValidForName
                        | CertificateError::NotValidForNameContext { .. },
                    )) => Ok(ServerCertVerified::assertion()),
                    other => other,
                }
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
