//! Where a database is and how to get in: the options, and the text forms that they are read from.
//!
//! [`parse`] reads URLs and `key=value` text, [`file`] what a configuration file says, [`environment`] variables;
//! [`keys`] has the options by name, and [`render`] writes them as a URL. What is missing is filled in by
//! [`target`], when an engine is built, and a password that is still missing is looked for by [`passfile`] at
//! each connect.

mod environment;
#[cfg(feature = "serde")]
mod file;
mod hosts;
mod keys;
mod parse;
mod passfile;
mod render;
mod target;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pool_core::{Backend, Builder, PrePing};

use crate::error::Error;
pub(crate) use passfile::PassFile;
pub(crate) use target::{Place, Target};

/// Where a database is, how to get in, and what its pool is like.
///
/// Read from a URL or `key=value` text with [`str::parse`], from variables with [`from_env`](Self::from_env), from
/// a configuration file by serde (feature `serde`). `Display` and `Debug` hide the password.
///
/// What is left open comes from libpq's variables (`PGHOST`, `PGUSER`, …) when an engine is built, and a password
/// from libpq's password file when a connection is opened.
///
/// # Options
/// In a URL's query and in `key=value` text, beside `host`, `port`, `user`, `password` and `dbname`:
///
/// | option | meaning |
/// |---|---|
/// | `hostaddr` | the addresses of the hosts, which are then not looked up |
/// | `passfile` | the password file; default `PGPASSFILE`, else `~/.pgpass` |
/// | `sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `channel_binding` | as libpq's |
/// | `target_session_attrs`, `load_balance_hosts` | which of several hosts will do, and whether in a random order |
/// | `connect_timeout` | seconds, also with a fraction |
/// | `application_name`, `fallback_application_name`, `options` | as libpq's |
/// | `keepalives`, `keepalives_idle`, `keepalives_interval`, `keepalives_count`, `tcp_user_timeout` | as libpq's |
/// | `pool_size`, `max_overflow`, `pool_timeout`, `pool_recycle`, `pool_pre_ping` | as SQLAlchemy's |
/// | `min_idle`, `idle_timeout`, `max_waiting`, `max_connecting` | the pool's: numbers, and seconds |
/// | `external_pooler` | [`EngineBuilder::external_pooler`](crate::EngineBuilder::external_pooler) |
///
/// An option of libpq's that has no effect here is an error that says so, and an unknown one an error that names
/// the nearest.
///
/// ```
/// use pool_postgres::EngineConfig;
///
/// let options: EngineConfig = "postgresql://app:secret@db1:5433/shop?connect_timeout=3".parse()?;
/// assert_eq!(options.to_string(), "postgresql://app:***@db1:5433/shop?connect_timeout=3");
/// # Ok::<(), pool_postgres::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EngineConfig {
    pub(crate) hosts: Vec<HostPort>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) dbname: Option<String>,
    pub(crate) sslmode: Option<SslMode>,
    pub(crate) sslrootcert: Option<RootCertificates>,
    pub(crate) sslcert: Option<PathBuf>,
    pub(crate) sslkey: Option<PathBuf>,
    pub(crate) passfile: Option<PathBuf>,
    pub(crate) channel_binding: Option<ChannelBindingMode>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) application_name: Option<String>,
    pub(crate) options: Option<String>,
    pub(crate) target_session_attrs: Option<TargetSessionAttrs>,
    pub(crate) load_balance_hosts: Option<bool>,
    pub(crate) keepalives: Option<bool>,
    pub(crate) keepalives_idle: Option<Duration>,
    pub(crate) keepalives_interval: Option<Duration>,
    pub(crate) keepalives_count: Option<u32>,
    pub(crate) tcp_user_timeout: Option<Duration>,
    pub(crate) external_pooler: Option<bool>,
    pub(crate) pool: PoolSettings,
}

/// One of the places where the database may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// A name, an address, or the folder of a Unix socket (it begins with a slash).
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    /// Where the host is, so that its name need not be looked up.
    pub(crate) address: Option<IpAddr>,
}

/// What the query of a URL says about the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoolSettings {
    pub(crate) pool_size: Option<usize>,
    pub(crate) max_overflow: Option<Limit>,
    pub(crate) pool_timeout: Option<Duration>,
    pub(crate) pool_recycle: Option<Duration>,
    pub(crate) pool_pre_ping: Option<bool>,
    pub(crate) min_idle: Option<usize>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_waiting: Option<usize>,
    pub(crate) max_connecting: Option<usize>,
    /// From `connect_timeout`: the pool keeps it.
    pub(crate) connect_timeout: Option<Duration>,
}

/// A number, or none (SQLAlchemy writes −1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    None,
    At(usize),
}

impl PoolSettings {
    pub(crate) fn apply<B: Backend>(&self, mut pool: Builder<B>) -> Builder<B> {
        if let Some(size) = self.pool_size {
            pool = pool.pool_size(size);
        }
        match self.max_overflow {
            Some(Limit::At(overflow)) => pool = pool.max_overflow(overflow),
            Some(Limit::None) => pool = pool.max_overflow(None),
            None => {}
        }
        if let Some(limit) = self.pool_timeout {
            pool = pool.pool_timeout(limit);
        }
        if let Some(age) = self.pool_recycle {
            pool = pool.recycle(age);
        }
        match self.pool_pre_ping {
            Some(true) => pool = pool.pre_ping(PrePing::Always),
            Some(false) => pool = pool.pre_ping(PrePing::Never),
            None => {}
        }
        if let Some(connections) = self.min_idle {
            pool = pool.min_idle(connections);
        }
        if let Some(limit) = self.idle_timeout {
            pool = pool.idle_timeout(limit);
        }
        if let Some(callers) = self.max_waiting {
            pool = pool.max_waiting(callers);
        }
        if let Some(connections) = self.max_connecting {
            pool = pool.max_connecting(connections);
        }
        if let Some(limit) = self.connect_timeout {
            pool = pool.connect_timeout(limit);
        }
        pool
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Whether a connection is encrypted and whom it trusts, as libpq's `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted only if the server refuses an unencrypted connection.
    Allow,
    /// Encrypted if the server can. The default, as libpq's. Trusts any certificate.
    #[default]
    Prefer,
    /// Encrypted, or no connection. Trusts any certificate, unless `sslrootcert` is given: then as `VerifyCa`.
    Require,
    /// Encrypted, and the certificate comes from a trusted authority.
    VerifyCa,
    /// Encrypted, and the certificate comes from a trusted authority and names the host.
    VerifyFull,
}

/// Where the certificates of trusted authorities are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RootCertificates {
    System,
    File(PathBuf),
}

impl RootCertificates {
    /// As libpq reads `sslrootcert`: a file of the name `system` is written `./system`.
    pub(crate) fn from_path(path: PathBuf) -> Self {
        if path.as_os_str() == "system" {
            Self::System
        } else {
            Self::File(path)
        }
    }
}

/// Whether the login is bound to the TLS channel, as libpq's `channel_binding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelBindingMode {
    Disable,
    Prefer,
    Require,
}

/// Which of several servers will do, as libpq's `target_session_attrs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetSessionAttrs {
    /// The first that answers. The default.
    #[default]
    Any,
    /// One on which transactions may write.
    ReadWrite,
    /// One on which they may not.
    ReadOnly,
    /// One that is not in recovery.
    Primary,
    /// One that is in recovery.
    Standby,
    /// One that is in recovery, else any.
    PreferStandby,
}

impl EngineConfig {
    /// Adds a host (a name, an address, or the folder of a Unix socket) and its port.
    pub fn host(mut self, host: impl Into<String>, port: impl Into<Option<u16>>) -> Self {
        self.hosts.push(HostPort {
            host: host.into(),
            port: port.into(),
            address: None,
        });
        self
    }

    /// The user to log in as. Default: `PGUSER`, else the name of the operating system's user.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into()).filter(|user| !user.is_empty());
        self
    }

    /// The password. Default: `PGPASSWORD`, else what the password file says. Never shown.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(Secret(password.into()));
        self
    }

    /// The database. Default: `PGDATABASE`, else the user's name.
    pub fn dbname(mut self, dbname: impl Into<String>) -> Self {
        self.dbname = Some(dbname.into()).filter(|dbname| !dbname.is_empty());
        self
    }

    /// The name that the server shows for these connections. Default: `PGAPPNAME`, else the program's name.
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.application_name = Some(name.into());
        self
    }

    /// Whether the connection is encrypted. Default: `PGSSLMODE`, else [`SslMode::Prefer`].
    pub fn sslmode(mut self, mode: SslMode) -> Self {
        self.sslmode = Some(mode);
        self
    }

    /// The file with the certificates of trusted authorities, or `system` for those of the operating system.
    /// Read again at each connect. Default: `PGSSLROOTCERT`, else `~/.postgresql/root.crt` if it is there.
    ///
    /// As with libpq, `system` makes [`SslMode::VerifyFull`] the default and admits no weaker mode.
    pub fn sslrootcert(mut self, file: impl Into<PathBuf>) -> Self {
        self.sslrootcert = Some(RootCertificates::from_path(file.into()));
        self
    }

    /// The files with the certificate that this client shows and with its key, both PEM. Read again at each
    /// connect. Default: `PGSSLCERT` and `PGSSLKEY`, else `postgresql.crt` and `postgresql.key` in
    /// `~/.postgresql`, if they are there.
    pub fn client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.sslcert = Some(certificate.into());
        self.sslkey = Some(key.into());
        self
    }

    /// The password file, in libpq's form. Read again at each connect. Default: `PGPASSFILE`, else `~/.pgpass`.
    pub fn passfile(mut self, file: impl Into<PathBuf>) -> Self {
        self.passfile = Some(file.into());
        self
    }

    /// Reads variables that begin with this prefix: `DATABASE` reads `DATABASE_URL`, and any option by its name
    /// in capitals, as `DATABASE_POOL_SIZE` or `DATABASE_PASSWORD`, which overrides what the URL says.
    ///
    /// Other variables with the prefix are left alone; one that is nearly the name of an option is warned of.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if no such variable is set or one can't be used, naming it.
    pub fn from_env(prefix: &str) -> Result<Self, Error> {
        environment::config(prefix, std::env::vars_os())
    }

    /// Which of several servers will do. Default [`TargetSessionAttrs::Any`].
    pub fn target_session_attrs(mut self, attrs: TargetSessionAttrs) -> Self {
        self.target_session_attrs = Some(attrs);
        self
    }

    /// The options as a URL with the password in it. [`Display`](fmt::Display) hides it.
    pub fn render_with_password(&self) -> String {
        render::url(self, true)
    }

    pub(crate) fn pool_settings(&self) -> PoolSettings {
        PoolSettings {
            connect_timeout: self.connect_timeout,
            ..self.pool.clone()
        }
    }
}

impl FromStr for EngineConfig {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse::options(text)
    }
}

impl fmt::Display for EngineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&render::url(self, false))
    }
}

impl fmt::Debug for EngineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EngineConfig({self})")
    }
}
