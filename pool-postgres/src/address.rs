//! Where a database is and how to get in: the options, and the text forms that they are read from.
//!
//! [`parse`] reads URLs and `key=value` text into options; [`render`] writes them as a URL. Nothing here reads the
//! environment: what is missing is filled in by [`target`], when an engine is built.

mod keys;
mod parse;
mod render;
mod target;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pool_core::{Backend, Builder, PrePing};

use crate::error::Error;
pub(crate) use target::{Place, Target};

/// Where a database is, how to get in, and what its pool is like: what a URL says, typed.
///
/// Read from text with [`str::parse`]. `Display` and `Debug` hide the password.
///
/// ```
/// use pool_postgres::EngineOptions;
///
/// let options: EngineOptions = "postgresql://app:secret@db1:5433/shop?connect_timeout=3".parse()?;
/// assert_eq!(options.to_string(), "postgresql://app:***@db1:5433/shop?connect_timeout=3");
/// # Ok::<(), pool_postgres::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EngineOptions {
    pub(crate) hosts: Vec<HostPort>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) dbname: Option<String>,
    pub(crate) sslmode: Option<SslMode>,
    pub(crate) sslrootcert: Option<RootCertificates>,
    pub(crate) channel_binding: Option<ChannelBindingMode>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) application_name: Option<String>,
    pub(crate) options: Option<String>,
    pub(crate) target_session_attrs: Option<TargetSessionAttrs>,
    pub(crate) keepalives: Option<bool>,
    pub(crate) keepalives_idle: Option<Duration>,
    pub(crate) keepalives_interval: Option<Duration>,
    pub(crate) keepalives_count: Option<u32>,
    pub(crate) tcp_user_timeout: Option<Duration>,
    pub(crate) pool: PoolSettings,
}

/// One of the places where the database may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// A name, an address, or the folder of a Unix socket (it begins with a slash).
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
}

/// What the query of a URL says about the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoolSettings {
    pub(crate) pool_size: Option<usize>,
    pub(crate) max_overflow: Option<Limit>,
    pub(crate) pool_timeout: Option<Duration>,
    pub(crate) pool_recycle: Option<Duration>,
    pub(crate) pool_pre_ping: Option<bool>,
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

impl EngineOptions {
    /// Adds a host (a name, an address, or the folder of a Unix socket) and its port.
    pub fn host(mut self, host: impl Into<String>, port: impl Into<Option<u16>>) -> Self {
        self.hosts.push(HostPort {
            host: host.into(),
            port: port.into(),
        });
        self
    }

    /// The user to log in as. Default: `PGUSER`, else the name of the operating system's user.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The password. Default: `PGPASSWORD`. Never shown.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(Secret(password.into()));
        self
    }

    /// The database. Default: `PGDATABASE`, else the user's name.
    pub fn dbname(mut self, dbname: impl Into<String>) -> Self {
        self.dbname = Some(dbname.into());
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

    /// The file with the certificates of trusted authorities. Read again at each connect.
    pub fn sslrootcert(mut self, file: impl Into<PathBuf>) -> Self {
        self.sslrootcert = Some(RootCertificates::File(file.into()));
        self
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

impl FromStr for EngineOptions {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse::options(text)
    }
}

impl fmt::Display for EngineOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&render::url(self, false))
    }
}

impl fmt::Debug for EngineOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EngineOptions({self})")
    }
}
