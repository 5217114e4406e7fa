//! Reading options from text: URLs as libpq and SQLAlchemy write them, and libpq's `key=value` pairs.
//!
//! Where the two differ libpq holds; what libpq refuses and SQLAlchemy accepts (`?host=a&host=b:5433`) is read
//! as SQLAlchemy does. A text that could be read in two ways is refused, and no message repeats any part of
//! what may be a password.

use super::keys::{refused, set};
use super::{EngineOptions, HostPort, Secret};
use crate::error::Error;

pub(super) fn options(text: &str) -> Result<EngineOptions, Error> {
    let text = text.trim();
    if text.contains('\0') {
        return Err(refused(
            "the address holds a NUL, which PostgreSQL can't take",
        ));
    }
    match text.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['=', ' ']) => {
            check_scheme(scheme)?;
            url(rest)
        }
        _ if text.contains('=') => pairs(text),
        _ if text.is_empty() => Err(refused(
            "the URL is empty: write postgresql://user@host/database",
        )),
        _ => Err(refused(
            "neither a URL (postgresql://user@host/database) nor key=value pairs (host=… dbname=…)",
        )),
    }
}

fn check_scheme(scheme: &str) -> Result<(), Error> {
    let (backend, driver) = match scheme.split_once('+') {
        Some((backend, driver)) => (backend, Some(driver)),
        None => (scheme, None),
    };
    if !matches!(backend, "postgresql" | "postgres") {
        return Err(refused(format!(
            "unknown scheme {scheme:?}: this engine speaks to PostgreSQL, so write postgresql://…"
        )));
    }
    match driver {
        None => Ok(()),
        Some("asyncpg" | "psycopg" | "psycopg2" | "psycopg_async" | "pg8000") => {
            tracing::debug!(
                driver,
                "the driver in the URL's scheme is ignored: there is one driver here"
            );
            Ok(())
        }
        Some(driver) => Err(refused(format!(
            "unknown driver {driver:?} in the scheme: leave it out (postgresql://…)"
        ))),
    }
}

/// Reads what follows `postgresql://`.
fn url(rest: &str) -> Result<EngineOptions, Error> {
    let (before_query, query) = match rest.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (rest, None),
    };
    let (authority, path) = match before_query.split_once('/') {
        Some((authority, path)) => (authority, Some(path)),
        None => (before_query, None),
    };
    if path.is_some_and(|path| path.contains('@')) {
        return Err(refused(
            "an '@' follows a '/': where the user or the password holds a '/', write it as %2F, and where the \
             database's name holds an '@', write it as %40",
        ));
    }
    // A value may hold an '@'; a name never does, so there it can only be the end of a login.
    let torn = |query: &str| {
        let mut names = query.split('&').filter_map(|pair| pair.split('=').next());
        names.any(|name| name.contains('@')) || (query.contains('@') && !authority.contains('@'))
    };
    if query.is_some_and(torn) {
        return Err(refused(
            "an '@' follows a '?': where the user or the password holds a '?', write it as %3F, and an '@' in \
             an option as %40",
        ));
    }
    let mut options = EngineOptions::default();
    // The last one: a password may hold an '@' that nobody escaped, a host can't.
    let hosts = match authority.rsplit_once('@') {
        Some((login, hosts)) => {
            let (user, password) = match login.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (login, None),
            };
            if !user.is_empty() {
                options.user = Some(decode(user, "the user")?);
            }
            if let Some(password) = password {
                options.password = Some(Secret(decode(password, "the password")?));
            }
            hosts
        }
        None => authority,
    };
    let mut places = Vec::new();
    if !hosts.is_empty() {
        for place in hosts.split(',') {
            places.push(host_port(place)?);
        }
    }
    if let Some(path) = path.filter(|path| !path.is_empty()) {
        options.dbname = Some(decode(path, "the database")?);
    }
    let (mut query_hosts, mut query_ports) = (Vec::new(), Vec::new());
    for pair in query
        .unwrap_or("")
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(refused(format!(
                "option {:?} has no value",
                decode(pair, "an option")?
            )));
        };
        let (key, value) = (decode(key, "an option")?, decode(value, "an option")?);
        match key.as_str() {
            "host" => query_hosts.extend(value.split(',').map(str::to_owned)),
            "port" => query_ports.extend(value.split(',').map(str::to_owned)),
            _ => set(&mut options, &key, &value)?,
        }
    }
    options.hosts = join(places, &query_hosts, &query_ports)?;
    Ok(options)
}

/// Reads `host`, `host:port`, `[address]` or `[address]:port`. The host may be percent-encoded.
fn host_port(text: &str) -> Result<HostPort, Error> {
    let (host, port) = if let Some(inner) = text.strip_prefix('[') {
        let Some((address, rest)) = inner.split_once(']') else {
            return Err(refused("an IPv6 address begins with '[' and has no ']'"));
        };
        match rest.strip_prefix(':') {
            Some(port) => (address.to_owned(), Some(port)),
            None if rest.is_empty() => (address.to_owned(), None),
            None => {
                return Err(refused(
                    "after an IPv6 address in brackets only a port may follow",
                ));
            }
        }
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(refused(
                    "a port holds a ':': write an IPv6 address in brackets, as [::1]:5432",
                ));
            }
            Some((host, port)) => (decode(host, "the host")?, Some(port)),
            None => (decode(text, "the host")?, None),
        }
    };
    let port = match port {
        None | Some("") => None,
        Some(port) => Some(self::port(port)?),
    };
    Ok(HostPort { host, port })
}

/// Reads a port. What is no number may be part of a password, so it is not repeated.
fn port(text: &str) -> Result<u16, Error> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused(
            "the port is not a number (it is not shown, for it may be part of a password: then the host is \
             missing, or an '@' in the password is to be written as %40)",
        ));
    }
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(refused(format!(
            "port {text:?} is out of range: it must be from 1 to 65535"
        ))),
    }
}

/// Joins the hosts of the authority with those of the query, which win.
fn join(places: Vec<HostPort>, hosts: &[String], ports: &[String]) -> Result<Vec<HostPort>, Error> {
    let mut joined = places;
    if !hosts.is_empty() {
        joined = hosts
            .iter()
            .map(|host| {
                // A socket's folder and a bare IPv6 address may hold colons; a name may not.
                if host.starts_with('/') || host.parse::<std::net::Ipv6Addr>().is_ok() {
                    Ok(HostPort {
                        host: host.clone(),
                        port: None,
                    })
                } else {
                    host_port(host)
                }
            })
            .collect::<Result<_, _>>()?;
    }
    if ports.is_empty() {
        return Ok(named(joined));
    }
    if joined.is_empty() {
        joined.push(HostPort {
            host: String::new(),
            port: None,
        });
    }
    if ports.len() != 1 && ports.len() != joined.len() {
        return Err(refused(format!(
            "{} hosts and {} ports: give one port for all hosts, or one for each",
            joined.len(),
            ports.len()
        )));
    }
    for (index, place) in joined.iter_mut().enumerate() {
        let text = &ports[if ports.len() == 1 { 0 } else { index }];
        if !text.is_empty() {
            place.port = Some(port(text)?);
        }
    }
    Ok(named(joined))
}

/// One place of which nothing is said is none given.
fn named(mut places: Vec<HostPort>) -> Vec<HostPort> {
    if matches!(&places[..], [only] if only.host.is_empty() && only.port.is_none()) {
        places.clear();
    }
    places
}

/// Undoes percent-encoding; `what` names the part, which is not shown.
fn decode(text: &str, what: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()];
        let value = match digits {
            [Some(high), Some(low)] => hex(high).zip(hex(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        match value {
            Some(0) => {
                return Err(refused(format!(
                    "{what} holds %00, which PostgreSQL can't take"
                )));
            }
            Some(value) => bytes.push(value),
            None => {
                return Err(refused(format!(
                    "{what} holds a '%' that two hexadecimal digits don't follow: write a '%' itself as %25"
                )));
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| refused(format!("{what} is not UTF-8 once decoded")))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// Reads libpq's `key=value` pairs: values may be quoted with `'`, and `\` escapes.
fn pairs(text: &str) -> Result<EngineOptions, Error> {
    let mut options = EngineOptions::default();
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        if rest.peek().is_none() {
            break;
        }
        let mut key = String::new();
        while let Some(c) = rest.next_if(|c| *c != '=' && !c.is_whitespace()) {
            key.push(c);
        }
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        if rest.next() != Some('=') {
            return Err(refused(
                "a key is not followed by '=' (not shown, for it may be part of a password: \
                                quote values that hold blanks with ')",
            ));
        }
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = rest.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match rest.next() {
                None if quoted => {
                    return Err(refused(format!(
                        "the value of {key:?} has no closing quote"
                    )));
                }
                None => break,
                Some('\\') => value.extend(rest.next()),
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_whitespace() => break,
                Some(c) => value.push(c),
            }
        }
        match key.as_str() {
            "host" => hosts = value.split(',').map(str::to_owned).collect(),
            "port" => ports = value.split(',').map(str::to_owned).collect(),
            _ => set(&mut options, &key, &value)?,
        }
    }
    options.hosts = join(Vec::new(), &hosts, &ports)?;
    Ok(options)
}
