//! The options by name, as they stand in a URL's query and in `key=value` text.

use std::time::Duration;

use super::hosts::Lists;
use super::{
    ChannelBindingMode, EngineConfig, Limit, RootCertificates, Secret, SslMode, TargetSessionAttrs,
};
use crate::error::{Error, ErrorKind};

/// All names, for a suggestion where one is unknown, and for the variables of an environment.
pub(super) const KNOWN: [&str; 34] = [
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "passfile",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "channel_binding",
    "connect_timeout",
    "application_name",
    "fallback_application_name",
    "options",
    "client_encoding",
    "target_session_attrs",
    "load_balance_hosts",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "pool_size",
    "max_overflow",
    "pool_timeout",
    "pool_recycle",
    "pool_pre_ping",
    "min_idle",
    "idle_timeout",
    "max_waiting",
    "max_connecting",
    "external_pooler",
];

/// What libpq has and we have not, with what to do instead. Values that ask for nothing are accepted.
const REFUSED: [(&str, &[&str], &str); 14] = [
    (
        "gssencmode",
        &["disable", "prefer"],
        "there is no GSSAPI here: use TLS (sslmode)",
    ),
    (
        "gsslib",
        &[],
        "there is no GSSAPI here: use a password or a client certificate",
    ),
    (
        "gssdelegation",
        &["0"],
        "there is no GSSAPI here: use a password or a client certificate",
    ),
    (
        "krbsrvname",
        &[],
        "there is no GSSAPI here: use a password or a client certificate",
    ),
    (
        "sslcompression",
        &["0"],
        "TLS is not compressed here: leave it out",
    ),
    (
        "sslsni",
        &["1"],
        "the server's name is always sent: leave it out",
    ),
    (
        "ssl_min_protocol_version",
        &["TLSv1", "TLSv1.1", "TLSv1.2"],
        "TLS is 1.2 or 1.3 here, whatever the two sides agree on",
    ),
    (
        "ssl_max_protocol_version",
        &["TLSv1.3"],
        "TLS is 1.2 or 1.3 here, whatever the two sides agree on",
    ),
    (
        "sslnegotiation",
        &["postgres"],
        "TLS is asked for in the old way, which every server understands: leave it out",
    ),
    (
        "sslpassword",
        &[],
        "an encrypted key can't be read here: decrypt it (openssl pkey) and protect the file",
    ),
    (
        "sslcrl",
        &[],
        "revocation lists are not read here: have the server's certificate renewed by another authority",
    ),
    (
        "sslcrldir",
        &[],
        "revocation lists are not read here: have the server's certificate renewed by another authority",
    ),
    (
        "require_auth",
        &[],
        "it is not looked at here: demand channel_binding=require or sslmode=verify-full",
    ),
    (
        "service",
        &[],
        "service files are not read here: write out what the service says",
    ),
];

pub(super) const SSL_MODES: [(&str, SslMode); 6] = [
    ("disable", SslMode::Disable),
    ("allow", SslMode::Allow),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

pub(super) const CHANNEL_BINDINGS: [(&str, ChannelBindingMode); 3] = [
    ("disable", ChannelBindingMode::Disable),
    ("prefer", ChannelBindingMode::Prefer),
    ("require", ChannelBindingMode::Require),
];

pub(super) const SESSION_ATTRS: [(&str, TargetSessionAttrs); 6] = [
    ("any", TargetSessionAttrs::Any),
    ("read-write", TargetSessionAttrs::ReadWrite),
    ("read-only", TargetSessionAttrs::ReadOnly),
    ("primary", TargetSessionAttrs::Primary),
    ("standby", TargetSessionAttrs::Standby),
    ("prefer-standby", TargetSessionAttrs::PreferStandby),
];

const SWITCH: [(&str, bool); 8] = [
    ("1", true),
    ("true", true),
    ("on", true),
    ("yes", true),
    ("0", false),
    ("false", false),
    ("off", false),
    ("no", false),
];

pub(super) const LOAD_BALANCE: [(&str, bool); 2] = [("disable", false), ("random", true)];

/// Sets options by name.
pub(super) fn apply<K: AsRef<str>, V: AsRef<str>>(
    options: &mut EngineConfig,
    pairs: impl IntoIterator<Item = (K, V)>,
) -> Result<(), Error> {
    let mut lists = Lists::default();
    for (key, value) in pairs {
        let (key, value) = (key.as_ref(), value.as_ref());
        if !lists.take(key, value) {
            set(options, key, value)?;
        }
    }
    options.hosts = lists.join(std::mem::take(&mut options.hosts))?;
    Ok(())
}

/// Sets one option, but for those of the hosts, which belong together.
fn set(options: &mut EngineConfig, key: &str, value: &str) -> Result<(), Error> {
    let text = || Some(value.to_owned());
    match key {
        // Empty means that it is not given, as with libpq.
        "user" => options.user = text().filter(|user| !user.is_empty()),
        "password" => options.password = Some(Secret(value.to_owned())),
        "dbname" => options.dbname = text().filter(|dbname| !dbname.is_empty()),
        "sslmode" => options.sslmode = Some(one_of(key, value, &SSL_MODES)?),
        "sslrootcert" => options.sslrootcert = Some(RootCertificates::from_path(value.into())),
        "sslcert" => options.sslcert = Some(value.into()),
        "sslkey" => options.sslkey = Some(value.into()),
        "passfile" => options.passfile = Some(value.into()),
        "channel_binding" => options.channel_binding = Some(one_of(key, value, &CHANNEL_BINDINGS)?),
        "connect_timeout" => {
            let limit = seconds(key, value)?;
            if limit.is_zero() {
                return Err(refused(
                    "connect_timeout is zero: set a positive number of seconds",
                ));
            }
            options.connect_timeout = Some(limit);
        }
        "application_name" => options.application_name = text(),
        "fallback_application_name" => {
            options.application_name = options.application_name.take().or_else(text);
        }
        "options" => options.options = text(),
        "client_encoding" => {
            if !["utf8", "utf-8", "auto", "unicode"].contains(&value.to_ascii_lowercase().as_str())
            {
                return Err(refused(format!(
                    "client_encoding {value:?} can't be had: text is always UTF-8 here, so leave it out"
                )));
            }
        }
        "target_session_attrs" => {
            options.target_session_attrs = Some(one_of(key, value, &SESSION_ATTRS)?);
        }
        "load_balance_hosts" => {
            options.load_balance_hosts = Some(one_of(key, value, &LOAD_BALANCE)?);
        }
        "external_pooler" => options.external_pooler = Some(one_of(key, value, &SWITCH)?),
        "keepalives" => options.keepalives = Some(one_of(key, value, &SWITCH)?),
        "keepalives_idle" => options.keepalives_idle = Some(seconds(key, value)?),
        "keepalives_interval" => options.keepalives_interval = Some(seconds(key, value)?),
        "keepalives_count" => options.keepalives_count = Some(number(key, value)?),
        "tcp_user_timeout" => {
            options.tcp_user_timeout = Some(Duration::from_millis(number(key, value)?));
        }
        "pool_size" => options.pool.pool_size = Some(number(key, value)?),
        "max_overflow" => {
            options.pool.max_overflow = Some(match value {
                "-1" | "none" => Limit::None,
                _ => Limit::At(number(key, value)?),
            });
        }
        "pool_timeout" => options.pool.pool_timeout = Some(seconds(key, value)?),
        "pool_recycle" if value == "-1" => options.pool.pool_recycle = None,
        "pool_recycle" => options.pool.pool_recycle = Some(seconds(key, value)?),
        "pool_pre_ping" => options.pool.pool_pre_ping = Some(one_of(key, value, &SWITCH)?),
        "min_idle" => options.pool.min_idle = Some(number(key, value)?),
        "idle_timeout" => options.pool.idle_timeout = Some(seconds(key, value)?),
        "max_waiting" => options.pool.max_waiting = Some(number(key, value)?),
        "max_connecting" => options.pool.max_connecting = Some(number(key, value)?),
        _ => return without_effect(key, value),
    }
    Ok(())
}

/// Whether an option that we do not have asks for nothing that we do not do anyhow.
fn without_effect(key: &str, value: &str) -> Result<(), Error> {
    match REFUSED.iter().find(|(name, ..)| *name == key) {
        Some((_, harmless, _)) if harmless.contains(&value) => Ok(()),
        Some((_, _, instead)) => Err(refused(format!("{key} can't be had: {instead}"))),
        None => Err(unknown(key)),
    }
}

pub(super) fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Url, message)
}

fn unknown(key: &str) -> Error {
    // A text that long is no misspelt name, and may be anything.
    let shown: String = key.chars().take(40).collect();
    match nearest(key, 0.75) {
        Some(nearest) => refused(format!(
            "unknown option {shown:?}: did you mean {nearest:?}?"
        )),
        None => refused(format!(
            "unknown option {shown:?}: see the documentation of EngineConfig"
        )),
    }
}

/// The option whose name is most like this one, if it is at least so like it (from 0 to 1).
pub(super) fn nearest(key: &str, likeness: f64) -> Option<&'static str> {
    let like = |name: &&str| strsim::jaro_winkler(key, name);
    let nearest = KNOWN.iter().max_by(|a, b| like(a).total_cmp(&like(b)))?;
    (like(nearest) > likeness).then_some(nearest)
}

fn one_of<T: Copy>(key: &str, value: &str, choices: &[(&str, T)]) -> Result<T, Error> {
    choices
        .iter()
        .find(|(name, _)| *name == value)
        .map(|(_, choice)| *choice)
        .ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            refused(format!(
                "{key} is {value:?}: it must be one of {}",
                names.join(", ")
            ))
        })
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, Error> {
    value.parse().map_err(|_| {
        refused(format!(
            "{key} is {value:?}: it must be a whole number in its range"
        ))
    })
}

/// Reads seconds, to the nanosecond.
fn seconds(key: &str, value: &str) -> Result<Duration, Error> {
    exact_seconds(value).ok_or_else(|| {
        refused(format!(
            "{key} is {value:?}: it must be a number of seconds, as 5 or 2.5"
        ))
    })
}

fn exact_seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let nanos: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let whole = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    Some(Duration::new(whole, nanos.parse().ok()?))
}
