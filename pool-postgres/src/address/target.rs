//! Options made complete: what they leave open comes from the environment, as with libpq.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keys::set;
use super::{ChannelBindingMode, EngineOptions, RootCertificates, SslMode, TargetSessionAttrs};
use crate::error::{Error, ErrorKind};

/// The pool's default for opening one connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// All that is needed to open a connection.
pub(crate) struct Target {
    pub(crate) places: Vec<Place>,
    /// How long one place may take where there are several, so that a silent one leaves time for the rest.
    pub(crate) patience: Option<Duration>,
    pub(crate) sslmode: SslMode,
    pub(crate) sslrootcert: Option<RootCertificates>,
    pub(crate) attrs: TargetSessionAttrs,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) tcp_user_timeout: Option<Duration>,
    /// User, password, database and the like, for the driver.
    pub(crate) login: tokio_postgres::Config,
}

/// One of the places where the database may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp { host: String, port: u16 },
    Unix { socket: PathBuf },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { socket } => write!(f, "{}", socket.display()),
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

impl Target {
    pub(crate) fn new(mut options: EngineOptions) -> Result<Self, Error> {
        for (variable, key, missing) in [
            ("PGUSER", "user", options.user.is_none()),
            ("PGPASSWORD", "password", options.password.is_none()),
            ("PGDATABASE", "dbname", options.dbname.is_none()),
            ("PGSSLMODE", "sslmode", options.sslmode.is_none()),
            (
                "PGSSLROOTCERT",
                "sslrootcert",
                options.sslrootcert.is_none(),
            ),
            (
                "PGAPPNAME",
                "application_name",
                options.application_name.is_none(),
            ),
            (
                "PGTARGETSESSIONATTRS",
                "target_session_attrs",
                options.target_session_attrs.is_none(),
            ),
        ] {
            if let Some(value) = variable_set(variable).filter(|_| missing) {
                set(&mut options, key, &value).map_err(|cause| {
                    Error::from_source(
                        ErrorKind::Config,
                        format!("the variable {variable} can't be used"),
                        cause,
                    )
                })?;
            }
        }
        let user = options.user.clone().or_else(login_name).ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "no user: name one in the URL (postgresql://user@host/database) or in PGUSER",
            )
        })?;
        let mut login = tokio_postgres::Config::new();
        login
            .user(&user)
            .dbname(options.dbname.as_deref().unwrap_or(&user));
        // We have shaken hands over TLS (or not) before the driver sees the stream; it is told to ask no more.
        login
            .ssl_mode(tokio_postgres::config::SslMode::Require)
            .ssl_negotiation(tokio_postgres::config::SslNegotiation::Direct);
        login.channel_binding(match options.channel_binding {
            Some(ChannelBindingMode::Disable) => tokio_postgres::config::ChannelBinding::Disable,
            Some(ChannelBindingMode::Require) => tokio_postgres::config::ChannelBinding::Require,
            Some(ChannelBindingMode::Prefer) | None => {
                tokio_postgres::config::ChannelBinding::Prefer
            }
        });
        if let Some(password) = &options.password {
            login.password(&password.0);
        }
        if let Some(name) = options.application_name.clone().or_else(program) {
            login.application_name(name);
        }
        if let Some(options) = &options.options {
            login.options(options);
        }
        let keepalive = Keepalive {
            idle: options.keepalives_idle.unwrap_or(Duration::from_mins(1)),
            interval: options
                .keepalives_interval
                .unwrap_or(Duration::from_secs(10)),
            count: options.keepalives_count.unwrap_or(3),
        };
        let places = places(&options)?;
        let share = u32::try_from(places.len()).unwrap_or(u32::MAX);
        let patience =
            (share > 1).then(|| options.connect_timeout.unwrap_or(CONNECT_TIMEOUT) / share);
        Ok(Self {
            places,
            patience,
            sslmode: options.sslmode.unwrap_or_default(),
            sslrootcert: options.sslrootcert.clone(),
            attrs: options.target_session_attrs.unwrap_or_default(),
            keepalive: options.keepalives.unwrap_or(true).then_some(keepalive),
            tcp_user_timeout: Some(options.tcp_user_timeout.unwrap_or(Duration::from_secs(30)))
                .filter(|limit| !limit.is_zero()),
            login,
        })
    }
}

fn places(options: &EngineOptions) -> Result<Vec<Place>, Error> {
    let default_port = match variable_set("PGPORT") {
        None => 5432,
        Some(port) => port.parse().map_err(|_| {
            Error::new(
                ErrorKind::Config,
                format!("the variable PGPORT is {port:?}: it must be a number from 1 to 65535"),
            )
        })?,
    };
    let place = |host: &str, port: Option<u16>| {
        let port = port.unwrap_or(default_port);
        if host.starts_with('/') {
            Place::Unix {
                socket: Path::new(host).join(format!(".s.PGSQL.{port}")),
            }
        } else {
            Place::Tcp {
                host: host.to_owned(),
                port,
            }
        }
    };
    let default_host = || {
        variable_set("PGHOST").unwrap_or_else(|| {
            let folders = ["/var/run/postgresql", "/tmp"];
            let there = folders.iter().find(|folder| Path::new(folder).is_dir());
            there.map_or_else(|| "localhost".to_owned(), |folder| (*folder).to_owned())
        })
    };
    if options.hosts.is_empty() {
        return Ok(default_host()
            .split(',')
            .map(|host| place(host, None))
            .collect());
    }
    let named = options.hosts.iter().map(|it| {
        if it.host.is_empty() {
            place(&default_host(), it.port)
        } else {
            place(&it.host, it.port)
        }
    });
    Ok(named.collect())
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
