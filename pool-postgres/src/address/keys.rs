//! The options by name, as they stand in a URL's query and in `key=value` text.

use std::time::Duration;

use super::{
    ChannelBindingMode, EngineOptions, Limit, RootCertificates, Secret, SslMode, TargetSessionAttrs,
};
use crate::error::{Error, ErrorKind};

/// All names, for a suggestion where one is unknown.
const KNOWN: [&str; 24] = [
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "channel_binding",
    "connect_timeout",
    "application_name",
    "fallback_application_name",
    "options",
    "client_encoding",
    "target_session_attrs",
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

const SWITCH: [(&str, bool); 6] = [
    ("1", true),
    ("true", true),
    ("on", true),
    ("0", false),
    ("false", false),
    ("off", false),
];

/// Sets one option, but for `host` and `port`, which belong together.
pub(super) fn set(options: &mut EngineOptions, key: &str, value: &str) -> Result<(), Error> {
    let text = || Some(value.to_owned());
    match key {
        // Empty means that it is not given, as with libpq.
        "user" => options.user = text().filter(|user| !user.is_empty()),
        "password" => options.password = Some(Secret(value.to_owned())),
        "dbname" => options.dbname = text().filter(|dbname| !dbname.is_empty()),
        "sslmode" => options.sslmode = Some(one_of(key, value, &SSL_MODES)?),
        "sslrootcert" if value == "system" => options.sslrootcert = Some(RootCertificates::System),
        "sslrootcert" => options.sslrootcert = Some(RootCertificates::File(value.into())),
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
        _ => return Err(unknown(key)),
    }
    Ok(())
}

pub(super) fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Url, message)
}

fn unknown(key: &str) -> Error {
    let nearest = KNOWN
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(key, a).total_cmp(&strsim::jaro_winkler(key, b)));
    match nearest {
        Some(nearest) if strsim::jaro_winkler(key, nearest) > 0.75 => {
            refused(format!("unknown option {key:?}: did you mean {nearest:?}?"))
        }
        _ => refused(format!(
            "unknown option {key:?}: see the documentation of EngineOptions"
        )),
    }
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

fn seconds(key: &str, value: &str) -> Result<Duration, Error> {
    let parsed: Option<f64> = value.parse().ok();
    parsed
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| {
            refused(format!(
                "{key} is {value:?}: it must be a number of seconds"
            ))
        })
}
