//! Writing options as a URL that [`parse`](super::parse) reads back to the same options.

use std::fmt::Write;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

use super::keys::{CHANNEL_BINDINGS, LOAD_BALANCE, SESSION_ATTRS, SSL_MODES};
use super::{EngineConfig, Limit, RootCertificates};

pub(super) fn url(options: &EngineConfig, with_password: bool) -> String {
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

fn query(options: &EngineConfig) -> Vec<(&'static str, String)> {
    let mut pairs = Vec::new();
    let mut put = |key, value: Option<String>| pairs.extend(value.map(|value| (key, value)));
    if options.hosts.iter().any(|place| place.address.is_some()) {
        let addresses = options.hosts.iter().map(|place| {
            let address = place.address.map(|address| address.to_string());
            address.unwrap_or_default()
        });
        put("hostaddr", Some(addresses.collect::<Vec<_>>().join(",")));
    }
    put("passfile", options.passfile.as_deref().map(path));
    put(
        "sslmode",
        options.sslmode.map(|mode| name_of(mode, &SSL_MODES)),
    );
    put(
        "sslrootcert",
        options.sslrootcert.as_ref().map(|root| match root {
            RootCertificates::System => "system".to_owned(),
            RootCertificates::File(file) => path(file),
        }),
    );
    put("sslcert", options.sslcert.as_deref().map(path));
    put("sslkey", options.sslkey.as_deref().map(path));
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
    put(
        "load_balance_hosts",
        options
            .load_balance_hosts
            .map(|random| name_of(random, &LOAD_BALANCE)),
    );
    put("external_pooler", options.external_pooler.map(switch));
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
    put("min_idle", options.pool.min_idle.map(|it| it.to_string()));
    put("idle_timeout", options.pool.idle_timeout.map(seconds));
    put(
        "max_waiting",
        options.pool.max_waiting.map(|it| it.to_string()),
    );
    put(
        "max_connecting",
        options.pool.max_connecting.map(|it| it.to_string()),
    );
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

/// Seconds, to the nanosecond.
fn seconds(span: Duration) -> String {
    let (whole, nanos) = (span.as_secs(), span.subsec_nanos());
    if nanos == 0 {
        return whole.to_string();
    }
    let text = format!("{whole}.{nanos:09}");
    text.trim_end_matches('0').to_owned()
}

fn path(path: &Path) -> String {
    path.display().to_string()
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

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::super::{
        ChannelBindingMode, HostPort, PoolSettings, Secret, SslMode, TargetSessionAttrs,
    };
    use super::*;

    /// Any text without a NUL, with all that could be mistaken for something else.
    fn text() -> impl Strategy<Value = String> {
        let odd = "[ -~äß€\\t%@:/?#&=+'\\\\,\\[\\]]{1,12}";
        odd.prop_filter("no NUL", |text| !text.contains('\0'))
    }

    fn span() -> impl Strategy<Value = Duration> {
        (0..10_000_000_u64, 0..1_000_000_000_u32).prop_map(|(s, n)| Duration::new(s, n))
    }

    fn place() -> impl Strategy<Value = HostPort> {
        let host = prop_oneof![
            text(),
            Just("::1".to_owned()),
            Just("fe80::1%eth0".to_owned()),
            Just("/run/postgresql".to_owned()),
            Just(String::new()),
        ];
        let address = any::<[u8; 4]>().prop_map(|it| IpAddr::V4(Ipv4Addr::from(it)));
        let port = proptest::option::of(1..=u16::MAX);
        (host, port, proptest::option::of(address)).prop_map(|(host, port, address)| HostPort {
            host,
            port,
            address,
        })
    }

    /// One that says nothing is none, once it has been written.
    fn places() -> impl Strategy<Value = Vec<HostPort>> {
        proptest::collection::vec(place(), 0..4).prop_filter(
            "it says nothing",
            |places| !matches!(&places[..], [only] if *only == HostPort::default()),
        )
    }

    fn pool() -> impl Strategy<Value = PoolSettings> {
        use proptest::option::of;
        let limit = prop_oneof![Just(Limit::None), any::<usize>().prop_map(Limit::At)];
        let numbers = (
            of(any::<usize>()),
            of(any::<usize>()),
            of(any::<usize>()),
            of(any::<usize>()),
        );
        let spans = (of(span()), of(span()), of(span()));
        (of(limit), numbers, spans, of(any::<bool>())).prop_map(|(limit, numbers, spans, ping)| {
            PoolSettings {
                pool_size: numbers.0,
                max_overflow: limit,
                pool_timeout: spans.0,
                pool_recycle: spans.1,
                pool_pre_ping: ping,
                min_idle: numbers.1,
                idle_timeout: spans.2,
                max_waiting: numbers.2,
                max_connecting: numbers.3,
                connect_timeout: None,
            }
        })
    }

    fn one_of<T: Copy + std::fmt::Debug + 'static>(
        choices: &'static [(&'static str, T)],
    ) -> impl Strategy<Value = Option<T>> {
        proptest::option::of(proptest::sample::select(choices).prop_map(|(_, choice)| choice))
    }

    fn way_in() -> impl Strategy<Value = EngineConfig> {
        use proptest::option::of;
        let login = (
            of(text()),
            of("[ -~€]{0,12}"),
            of(text()),
            of(text()),
            of(text()),
        );
        let files = (of(text()), of(text()), of(text()), of(text()));
        (places(), login, files).prop_map(|(hosts, login, files)| EngineConfig {
            hosts,
            user: login.0,
            password: login.1.map(Secret),
            dbname: login.2,
            application_name: login.3,
            options: login.4,
            sslrootcert: files.0.map(|file| RootCertificates::from_path(file.into())),
            sslcert: files.1.map(Into::into),
            sslkey: files.2.map(Into::into),
            passfile: files.3.map(Into::into),
            ..EngineConfig::default()
        })
    }

    type Modes = (
        Option<SslMode>,
        Option<ChannelBindingMode>,
        Option<TargetSessionAttrs>,
        Option<bool>,
    );

    fn options() -> impl Strategy<Value = EngineConfig> {
        use proptest::option::of;
        let modes = (
            one_of(&SSL_MODES),
            one_of(&CHANNEL_BINDINGS),
            one_of(&SESSION_ATTRS),
            one_of(&LOAD_BALANCE),
        );
        let keep = (of(any::<bool>()), of(span()), of(span()), of(any::<u32>()));
        let other = (of(any::<u32>()), of(any::<bool>()), of(span()));
        (way_in(), pool(), modes, keep, other).prop_map(
            |(way_in, pool, modes, keep, other): (_, _, Modes, _, _)| EngineConfig {
                pool,
                sslmode: modes.0,
                channel_binding: modes.1,
                target_session_attrs: modes.2,
                load_balance_hosts: modes.3,
                keepalives: keep.0,
                keepalives_idle: keep.1,
                keepalives_interval: keep.2,
                keepalives_count: keep.3,
                tcp_user_timeout: other.0.map(|millis| Duration::from_millis(millis.into())),
                external_pooler: other.1,
                connect_timeout: other.2.filter(|limit| !limit.is_zero()),
                ..way_in
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_to_the_same_and_hides_the_password(options in options()) {
            let written = options.render_with_password();
            let read: EngineConfig = match written.parse() {
                Ok(read) => read,
                Err(error) => panic!("{written}: {error}"),
            };
            prop_assert_eq!(&read, &options, "{}", written);
            let mut others = options.clone();
            others.password = others.password.map(|_| Secret("another".to_owned()));
            prop_assert_eq!(options.to_string(), others.to_string());
        }
    }
}
