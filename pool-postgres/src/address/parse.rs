//! Reading options from text: URLs as libpq and SQLAlchemy write them, and libpq's `key=value` pairs.
//!
//! Where the two differ libpq holds; what libpq refuses and SQLAlchemy accepts (`?host=a&host=b:5433`) is read
//! as SQLAlchemy does. A text that could be read in two ways is refused, and no message repeats any part of
//! what may be a password.

use super::hosts::list;
use super::keys::{apply, refused};
use super::{EngineConfig, Secret};
use crate::error::Error;

pub(super) fn options(text: &str) -> Result<EngineConfig, Error> {
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
fn url(rest: &str) -> Result<EngineConfig, Error> {
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
    let mut options = EngineConfig::default();
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
    options.hosts = list(hosts)?;
    if let Some(path) = path.filter(|path| !path.is_empty()) {
        options.dbname = Some(decode(path, "the database")?);
    }
    let mut pairs = Vec::new();
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
        pairs.push((decode(key, "an option")?, decode(value, "an option")?));
    }
    apply(&mut options, pairs)?;
    Ok(options)
}

/// Undoes percent-encoding; `what` names the part, which is not shown.
pub(super) fn decode(text: &str, what: &str) -> Result<String, Error> {
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
fn pairs(text: &str) -> Result<EngineConfig, Error> {
    let mut pairs = Vec::new();
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
        // The last of several wins, as with libpq.
        pairs.retain(|(earlier, _)| *earlier != key);
        pairs.push((key, value));
    }
    let mut options = EngineConfig::default();
    apply(&mut options, pairs)?;
    Ok(options)
}
