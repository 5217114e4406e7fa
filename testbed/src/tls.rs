//! TLS for tests: a CA of the cluster's own, certificates that are right or wrong in one way each, and a
//! front that gives TLS to a server built without it.

mod front;

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

pub use front::TlsFront;

use crate::Error;
use crate::config::{APP, PASSWORD};
use crate::node::Shared;
use crate::run_as::RunAs;

/// A server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerCert {
    /// Signed by the CA, valid, for `localhost`, `127.0.0.1` and `::1`.
    Good,
    /// As [`ServerCert::Good`], but its time is over.
    Expired,
    /// Signed by the CA and valid, for `other.example`.
    WrongHost,
    /// For the right hosts, but signed by itself.
    SelfSigned,
}

impl ServerCert {
    const ALL: [Self; 4] = [Self::Good, Self::Expired, Self::WrongHost, Self::SelfSigned];

    fn file(self) -> &'static str {
        match self {
            Self::Good => "server",
            Self::Expired => "expired",
            Self::WrongHost => "wrong-host",
            Self::SelfSigned => "self-signed",
        }
    }

    fn hosts(self) -> Vec<String> {
        match self {
            Self::WrongHost => vec!["other.example".to_owned()],
            _ => ["localhost", "127.0.0.1", "::1"]
                .map(str::to_owned)
                .to_vec(),
        }
    }
}

/// A CA and what it signed, as PEM files in one folder.
#[derive(Clone, Debug)]
pub struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// Makes all of them anew in `dir`, which must exist.
    pub fn create_in(dir: impl Into<PathBuf>) -> Result<Self, Error> {
        let certificates = Self { dir: dir.into() };
        certificates.make(None)?;
        Ok(certificates)
    }

    /// Makes them in a cluster's folder, for the servers to read.
    pub(crate) fn write_to(cluster: &Path, user: RunAs) -> Result<Self, Error> {
        let dir = cluster.join("tls");
        std::fs::create_dir(&dir).map_err(Error::io("create", &dir))?;
        user.give(&dir)?;
        let certificates = Self { dir };
        certificates.make(Some(user))?;
        Ok(certificates)
    }

    fn make(&self, user: Option<RunAs>) -> Result<(), Error> {
        let what = "CA";
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "testbed CA");
        let key = key(what)?;
        let ca = params
            .self_signed(&key)
            .map_err(|e| Error::Certificate(what, e))?;
        self.write("ca.crt", &ca.pem(), user)?;
        let issuer = Issuer::new(params, key);
        for cert in ServerCert::ALL {
            let what = cert.file();
            let fail = |e| Error::Certificate(what, e);
            let mut params = CertificateParams::new(cert.hosts()).map_err(fail)?;
            params
                .distinguished_name
                .push(DnType::CommonName, "testbed server");
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            if cert == ServerCert::Expired {
                params.not_before = date_time_ymd(2001, 1, 1);
                params.not_after = date_time_ymd(2002, 1, 1);
            }
            self.sign(
                what,
                &params,
                (cert != ServerCert::SelfSigned).then_some(&issuer),
                user,
            )?;
        }
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, APP);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign("client", &params, Some(&issuer), user)
    }

    fn sign(
        &self,
        what: &'static str,
        params: &CertificateParams,
        issuer: Option<&Issuer<'_, KeyPair>>,
        user: Option<RunAs>,
    ) -> Result<(), Error> {
        let key = key(what)?;
        let signed = match issuer {
            Some(issuer) => params.signed_by(&key, issuer),
            None => params.self_signed(&key),
        };
        let signed = signed.map_err(|e| Error::Certificate(what, e))?;
        self.write(&format!("{what}.crt"), &signed.pem(), user)?;
        self.write(&format!("{what}.key"), &key.serialize_pem(), user)
    }

    fn write(&self, name: &str, pem: &str, user: Option<RunAs>) -> Result<(), Error> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.dir.join(name);
        std::fs::write(&path, pem).map_err(Error::io("write", &path))?;
        // PostgreSQL refuses a key that others can read.
        let mode = if path.extension().is_some_and(|kind| kind == "key") {
            0o600
        } else {
            0o644
        };
        let shut = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode));
        shut.map_err(Error::io("set the mode of", &path))?;
        user.map_or(Ok(()), |user| user.give(&path))
    }

    /// The CA's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// A client's certificate, for the user `app`.
    pub fn client_cert_file(&self) -> PathBuf {
        self.dir.join("client.crt")
    }

    /// The key of [`Certificates::client_cert_file`].
    pub fn client_key_file(&self) -> PathBuf {
        self.dir.join("client.key")
    }

    /// A server's certificate.
    pub fn server_cert_file(&self, cert: ServerCert) -> PathBuf {
        self.dir.join(format!("{}.crt", cert.file()))
    }

    /// The key of [`Certificates::server_cert_file`].
    pub fn server_key_file(&self, cert: ServerCert) -> PathBuf {
        self.dir.join(format!("{}.key", cert.file()))
    }

    /// Certificate, key and CA, for a server's configuration.
    pub(crate) fn server_files(&self) -> [String; 3] {
        let good = ServerCert::Good;
        [
            self.server_cert_file(good),
            self.server_key_file(good),
            self.ca_file(),
        ]
        .map(|path| path.display().to_string())
    }
}

fn key(what: &'static str) -> Result<KeyPair, Error> {
    KeyPair::generate().map_err(|e| Error::Certificate(what, e))
}

/// How one node speaks TLS.
#[derive(Debug)]
pub(crate) enum NodeTls {
    /// By itself.
    Native,
    /// By a front, which ends with the node.
    Front(TlsFront),
}

impl NodeTls {
    /// `None` for a cluster without TLS.
    pub(crate) async fn before(port: u16, shared: &Shared) -> Result<Option<Self>, Error> {
        let Some(certificates) = &shared.tls else {
            return Ok(None);
        };
        if shared.common.tls_files.is_some() {
            return Ok(Some(Self::Native));
        }
        let front = TlsFront::before(port, certificates, ServerCert::Good).await?;
        Ok(Some(Self::Front(front)))
    }

    /// The address that a client verifies fully.
    pub(crate) fn url(&self, port: u16, shared: &Shared) -> String {
        let port = match self {
            Self::Native => port,
            Self::Front(front) => front.port(),
        };
        let ca = shared
            .tls
            .as_ref()
            .map(Certificates::ca_file)
            .unwrap_or_default();
        let ca = ca.display();
        format!(
            "postgresql://{APP}:{PASSWORD}@localhost:{port}/{APP}?sslmode=verify-full&sslrootcert={ca}"
        )
    }
}
