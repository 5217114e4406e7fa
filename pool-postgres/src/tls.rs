//! Whom an encrypted connection trusts: rustls configurations with the meanings of libpq's `sslmode`.
//!
//! | mode | the certificate's chain | the host's name |
//! |---|---|---|
//! | `allow`, `prefer`, `require` without `sslrootcert` | not looked at | not looked at |
//! | `require` with `sslrootcert`, `verify-ca` | must lead to a trusted authority | not looked at |
//! | `verify-full` | must lead to a trusted authority | must be in the certificate |
//!
//! A `root.crt` in libpq's folder counts as `sslrootcert`. Certificate files, the client's own too, are read at
//! each connect, so that renewed ones are used. The provider (ring) is named here
//! and never taken from the process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::address::{EngineConfig, RootCertificates, SslMode};
use crate::error::{Error, ErrorKind};

/// What the options say about TLS.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) mode: SslMode,
    roots: Option<RootCertificates>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Tls {
    /// # Errors
    /// Where the mode is weaker than the trusted authorities of a whole system allow.
    pub(crate) fn new(options: &EngineConfig) -> Result<Self, Error> {
        let mode = match (options.sslmode, &options.sslrootcert) {
            (None | Some(SslMode::VerifyFull), Some(RootCertificates::System)) => {
                SslMode::VerifyFull
            }
            // Anybody can get a certificate from one of them, for some name.
            (Some(_), Some(RootCertificates::System)) => {
                return Err(Error::new(
                    ErrorKind::Config,
                    "sslrootcert=system says little unless the host's name is checked too: set \
                     sslmode=verify-full, or name a file in sslrootcert",
                ));
            }
            (mode, _) => mode.unwrap_or_default(),
        };
        Ok(Self {
            mode,
            roots: options.sslrootcert.clone(),
            certificate: options.sslcert.clone(),
            key: options.sslkey.clone(),
        })
    }

    /// What shakes hands. Reads the certificate files, and blocks meanwhile.
    pub(crate) fn connector(&self) -> Result<MakeRustlsConnect, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| tls("no TLS version is to be had", error))?
            .dangerous();
        let roots = self.roots.clone().or_else(|| {
            // As libpq: a file in its place makes `require` verify.
            let file = default_file("root.crt")?;
            Some(RootCertificates::File(file))
        });
        let trust = match (self.mode, roots) {
            (SslMode::VerifyFull, roots) => Trust::Named(verifier(roots.as_ref(), &provider)?),
            (SslMode::VerifyCa, roots) | (SslMode::Require, roots @ Some(_)) => {
                Trust::Chain(verifier(roots.as_ref(), &provider)?)
            }
            _ => Trust::Anybody,
        };
        let verifier = Arc::new(Verifier { trust, provider });
        let builder = builder.with_custom_certificate_verifier(verifier);
        let mut config = match self.client_certificate()? {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
                tls("the client's certificate (sslcert) and its key (sslkey) can't be used together", error)
            })?,
        };
        // What a server that was asked without SSLRequest would want to see; harmless otherwise.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(MakeRustlsConnect::new(config))
    }

    /// The certificate that this client shows, and its key.
    fn client_certificate(&self) -> Result<Option<ClientCertificate>, Error> {
        let given = self.certificate.clone();
        let Some(file) = given.or_else(|| default_file("postgresql.crt")) else {
            if self.key.is_some() {
                return Err(Error::new(
                    ErrorKind::Tls,
                    "there is a key (sslkey) and no certificate: set sslcert too",
                ));
            }
            return Ok(None);
        };
        let key = self.key.clone().or_else(|| default_file("postgresql.key"));
        let Some(key_file) = key else {
            return Err(Error::new(
                ErrorKind::Tls,
                format!(
                    "the certificate {} has no key: set sslkey to its file",
                    file.display()
                ),
            ));
        };
        let chain = certificates(&file)?;
        if chain.is_empty() {
            return Err(Error::new(
                ErrorKind::Tls,
                format!(
                    "{} holds no certificate: sslcert must be a PEM file",
                    file.display()
                ),
            ));
        }
        guarded(&key_file)?;
        let key = PrivateKeyDer::from_pem_file(&key_file).map_err(|error| {
            let why = match error {
                pem::Error::NoItemsFound => " (it must be PEM, and not encrypted)",
                _ => "",
            };
            tls(
                format!("the key in {} can't be read{why}", key_file.display()),
                error,
            )
        })?;
        Ok(Some((chain, key)))
    }
}

type ClientCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Refuses a key that others may read, by libpq's rule.
fn guarded(key: &Path) -> Result<(), Error> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if let Ok(kind) = std::fs::metadata(key) {
            // Root's may be read by a group, that of the services which use it.
            let forbidden = if kind.uid() == 0 { 0o037 } else { 0o077 };
            if kind.is_file() && kind.mode() & forbidden != 0 {
                return Err(Error::new(
                    ErrorKind::Tls,
                    format!(
                        "others may read the key in {}: make its mode u=rw (0600) or less, or u=rw,g=r (0640) \
                         where root owns it",
                        key.display()
                    ),
                ));
            }
        }
    }
    Ok(())
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
        Some(RootCertificates::File(file)) => file,
        None => {
            return Err(Error::new(
                ErrorKind::Tls,
                "verifying the server's certificate needs trusted ones: set sslrootcert to a file, or to \
                 `system`",
            ));
        }
    };
    for certificate in certificates(file)? {
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

/// All certificates in a PEM file.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| {
            tls(
                format!("the certificates in {} can't be read", file.display()),
                error,
            )
        })
}

/// Where libpq looks for a file that is not named, if it is there.
fn default_file(name: &str) -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME")?);
    let file = home.join(".postgresql").join(name);
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
