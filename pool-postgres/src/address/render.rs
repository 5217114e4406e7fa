//! Writing options as a URL that [`parse`](super::parse) reads back to the same options.

use std::fmt::Write;
use std::net::Ipv6Addr;
use std::time::Duration;

use super::keys::{CHANNEL_BINDINGS, SESSION_ATTRS, SSL_MODES};
use super::{EngineOptions, Limit, RootCertificates};

pub(super) fn url(options: &EngineOptions, with_password: bool) -> String {
    let mut url = String::from("postgresql://");
    if options.user.is_some() || options.password.is_some() {
        url.push_str(&encode(options.user.as_deref().unwrap_or("")));
        if let Some(password) = &options.password {
            url.push(':');
            url.push_str(&if with_password {
                encode(&password.0)
            } else {
                "***".to_owned()
            });
        }
        url.push('@');
    }
    for (index, place) in options.hosts.iter().enumerate() {
        if index > 0 {
            url.push(',');
        }
        if place.host.parse::<Ipv6Addr>().is_ok() {
            let _ = write!(url, "[{}]", place.host);
        } else {
            url.push_str(&encode(&place.host));
        }
        if let Some(port) = place.port {
            let _ = write!(url, ":{port}");
        }
    }
    if let Some(dbname) = &options.dbname {
        url.push('/');
        url.push_str(&encode(dbname));
    }
    let mut mark = '?';
    for (key, value) in query(options) {
        let _ = write!(url, "{mark}{key}={}", encode(&value));
        mark = '&';
    }
    url
}

fn query(options: &EngineOptions) -> Vec<(&'static str, String)> {
    let mut pairs = Vec::new();
    let mut put = |key, value: Option<String>| pairs.extend(value.map(|value| (key, value)));
    put(
        "sslmode",
        options.sslmode.map(|mode| name_of(mode, &SSL_MODES)),
    );
    put(
        "sslrootcert",
        options.sslrootcert.as_ref().map(|root| match root {
            RootCertificates::System => "system".to_owned(),
            RootCertificates::File(file) => file.display().to_string(),
        }),
    );
    put(
        "channel_binding",
        options
            .channel_binding
            .map(|mode| name_of(mode, &CHANNEL_BINDINGS)),
    );
    put("connect_timeout", options.connect_timeout.map(seconds));
    put("application_name", options.application_name.clone());
    put("options", options.options.clone());
    put(
        "target_session_attrs",
        options
            .target_session_attrs
            .map(|it| name_of(it, &SESSION_ATTRS)),
    );
    put("keepalives", options.keepalives.map(switch));
    put("keepalives_idle", options.keepalives_idle.map(seconds));
    put(
        "keepalives_interval",
        options.keepalives_interval.map(seconds),
    );
    put(
        "keepalives_count",
        options.keepalives_count.map(|count| count.to_string()),
    );
    put(
        "tcp_user_timeout",
        options
            .tcp_user_timeout
            .map(|limit| limit.as_millis().to_string()),
    );
    put(
        "pool_size",
        options.pool.pool_size.map(|size| size.to_string()),
    );
    put(
        "max_overflow",
        options.pool.max_overflow.map(|limit| match limit {
            Limit::None => "-1".to_owned(),
            Limit::At(overflow) => overflow.to_string(),
        }),
    );
    put("pool_timeout", options.pool.pool_timeout.map(seconds));
    put("pool_recycle", options.pool.pool_recycle.map(seconds));
    put("pool_pre_ping", options.pool.pool_pre_ping.map(switch));
    pairs
}

fn name_of<T: Copy + PartialEq>(value: T, names: &[(&str, T)]) -> String {
    names
        .iter()
        .find(|(_, named)| *named == value)
        .map_or_else(String::new, |(name, _)| (*name).to_owned())
}

fn switch(on: bool) -> String {
    (if on { "1" } else { "0" }).to_owned()
}

fn seconds(span: Duration) -> String {
    span.as_secs_f64().to_string()
}

/// Percent-encodes all but what is safe in every part of a URL.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
