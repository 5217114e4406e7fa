//! Options made complete: what they leave open comes from the environment, as with libpq.

use std::borrow::Cow;
use std::env;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::environment::fill;
use super::{ChannelBindingMode, EngineConfig, HostPort, PassFile, TargetSessionAttrs};
use crate::dial::Resolver;
use crate::error::{Error, ErrorKind};
use crate::password::{Passwords, Provider};
use crate::tls::Tls;

/// The pool's default for opening one connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where sockets are, if nobody says so: Debian's folder, then PostgreSQL's own default.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// All that is needed to open a connection.
pub(crate) struct Target {
    pub(crate) places: Vec<Place>,
    /// Whether the places are tried in a random order.
    pub(crate) shuffled: bool,
    /// How long all places together may take; each gets a fair share of what is left.
    pub(crate) limit: Duration,
    pub(crate) tls: Tls,
    pub(crate) attrs: TargetSessionAttrs,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) tcp_user_timeout: Option<Duration>,
    pub(crate) user: String,
    pub(crate) dbname: String,
    pub(crate) passwords: Passwords,
    pub(crate) resolver: Option<Resolver>,
    /// User, database and the like, for the driver; the password is added at each connect.
    pub(crate) login: tokio_postgres::Config,
    /// Whether somebody stands between us and the server who gives its connections to others too.
    pub(crate) pooled: bool,
}

/// One of the places where the database may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp {
        host: String,
        port: u16,
        /// Where the host is, so that its name need not be looked up.
        address: Option<IpAddr>,
    },
    Unix {
        folder: PathBuf,
        port: u16,
    },
}

impl Place {
    pub(super) fn unix(folder: &Path, port: u16) -> Self {
        Self::Unix {
            folder: folder.to_owned(),
            port,
        }
    }

    /// The socket in a folder.
    pub(crate) fn socket(folder: &Path, port: u16) -> PathBuf {
        folder.join(format!(".s.PGSQL.{port}"))
    }

    /// How a password file names it: a socket in the usual folder is `localhost` there.
    pub(super) fn in_password_file(&self) -> (Cow<'_, str>, u16) {
        match self {
            Self::Tcp { host, port, .. } => (Cow::Borrowed(host), *port),
            Self::Unix { folder, port } => {
                let usual = SOCKET_FOLDERS
                    .iter()
                    .any(|usual| folder == Path::new(usual));
                let host = if usual {
                    "localhost".into()
                } else {
                    folder.to_string_lossy()
                };
                (host, *port)
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix { folder, port } => write!(f, "{}", Self::socket(folder, *port).display()),
        }
    }
}

/// How a silent TCP connection is probed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keepalive {
    pub(crate) idle: Duration,
    pub(crate) interval: Duration,
    pub(crate) count: u32,
}

impl EngineConfig {
    /// Fills in from libpq's variables what is left open.
    pub(crate) fn completed(mut self) -> Result<Self, Error> {
        fill(&mut self, variable_set)?;
        Ok(self)
    }
}

impl Target {
    /// Takes [`completed`](EngineConfig::completed) options.
    pub(crate) fn new(
        options: &EngineConfig,
        provider: Option<Provider>,
        resolver: Option<Resolver>,
    ) -> Result<Self, Error> {
        let user = options.user.clone().or_else(login_name).ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "no user: name one in the URL (postgresql://user@host/database) or in PGUSER",
            )
        })?;
        let dbname = options.dbname.clone().unwrap_or_else(|| user.clone());
        let limit = options.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        Ok(Self {
            places: places(options),
            shuffled: options.load_balance_hosts.unwrap_or(false),
            limit,
            tls: Tls::new(options)?,
            attrs: options.target_session_attrs.unwrap_or_default(),
            keepalive: options.keepalives.unwrap_or(true).then(|| Keepalive {
                idle: options.keepalives_idle.unwrap_or(Duration::from_mins(1)),
                interval: options
                    .keepalives_interval
                    .unwrap_or(Duration::from_secs(10)),
                count: options.keepalives_count.unwrap_or(3),
            }),
            tcp_user_timeout: Some(options.tcp_user_timeout.unwrap_or(Duration::from_secs(30)))
                .filter(|limit| !limit.is_zero()),
            login: login(options, &user, &dbname)?,
            user,
            dbname,
            passwords: passwords(options, provider, limit * 4 / 5),
            resolver,
            pooled: options.external_pooler.unwrap_or(false),
        })
    }
}

fn login(
    options: &EngineConfig,
    user: &str,
    dbname: &str,
) -> Result<tokio_postgres::Config, Error> {
    use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};
    let mut login = tokio_postgres::Config::new();
    login.user(user).dbname(dbname);
    // We have shaken hands over TLS (or not) before the driver sees the stream; it is told to ask no more.
    login
        .ssl_mode(SslMode::Require)
        .ssl_negotiation(SslNegotiation::Direct);
    login.channel_binding(match options.channel_binding {
        Some(ChannelBindingMode::Disable) => ChannelBinding::Disable,
        Some(ChannelBindingMode::Require) => ChannelBinding::Require,
        Some(ChannelBindingMode::Prefer) | None => ChannelBinding::Prefer,
    });
    let name = options.application_name.clone().or_else(program);
    if let Some(name) = &name {
        login.application_name(name);
    }
    if let Some(options) = &options.options {
        login.options(options);
    }
    let password = options.password.as_ref().map(|secret| &*secret.0);
    for (what, text) in [
        ("the user", Some(user)),
        ("the database", Some(dbname)),
        ("the password", password),
        ("application_name", name.as_deref()),
        ("options", options.options.as_deref()),
    ] {
        if text.is_some_and(|text| text.contains('\0')) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("{what} holds a NUL, which PostgreSQL can't take"),
            ));
        }
    }
    Ok(login)
}

fn passwords(options: &EngineConfig, provider: Option<Provider>, patience: Duration) -> Passwords {
    if let Some(ask) = provider {
        return Passwords::Provided { ask, patience };
    }
    if let Some(secret) = &options.password {
        return Passwords::Given(secret.clone());
    }
    let file = options.passfile.clone().or_else(|| {
        let home = PathBuf::from(env::var_os("HOME")?);
        Some(home.join(".pgpass"))
    });
    file.map_or(Passwords::None, |file| Passwords::File(PassFile::new(file)))
}

fn places(options: &EngineConfig) -> Vec<Place> {
    let place = |it: &HostPort| {
        let port = it.port.unwrap_or(5432);
        let host = match it.address {
            _ if !it.host.is_empty() => it.host.clone(),
            // What a certificate must name, then.
            Some(address) => address.to_string(),
            None => {
                let there = SOCKET_FOLDERS
                    .iter()
                    .find(|folder| Path::new(folder).is_dir());
                (*there.unwrap_or(&"localhost")).to_owned()
            }
        };
        if it.address.is_none() && host.starts_with('/') {
            return Place::unix(Path::new(&host), port);
        }
        Place::Tcp {
            host,
            port,
            address: it.address,
        }
    };
    if options.hosts.is_empty() {
        return vec![place(&HostPort::default())];
    }
    options.hosts.iter().map(place).collect()
}

fn variable_set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The name of the operating system's user.
fn login_name() -> Option<String> {
    #[cfg(unix)]
    {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
        user.ok().flatten().map(|user| user.name)
    }
    #[cfg(not(unix))]
    {
        variable_set("USERNAME")
    }
}

/// The program's name.
fn program() -> Option<String> {
    let path = env::current_exe().ok()?;
    Some(path.file_stem()?.to_string_lossy().into_owned())
}
