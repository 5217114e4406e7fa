//! Reading the places where a database may be: names, addresses and ports, which are lists that belong together.
//!
//! What may be part of a password that was torn apart is not repeated in any message.

use std::net::{IpAddr, Ipv6Addr};

use super::HostPort;
use super::keys::refused;
use super::parse::decode;
use crate::error::Error;

/// The options of which each is a list, as they stand in a query, in pairs or in an environment.
#[derive(Default)]
pub(super) struct Lists {
    hosts: Vec<String>,
    addresses: Vec<String>,
    ports: Vec<String>,
}

impl Lists {
    /// Takes the option if it is one of them. One that is given twice goes on, as in SQLAlchemy's URLs.
    pub(super) fn take(&mut self, key: &str, value: &str) -> bool {
        let list = match key {
            "host" => &mut self.hosts,
            "hostaddr" => &mut self.addresses,
            "port" => &mut self.ports,
            _ => return false,
        };
        list.extend(value.split(',').map(str::to_owned));
        true
    }

    /// Joins them with the places known so far; hosts named here win.
    pub(super) fn join(&self, mut places: Vec<HostPort>) -> Result<Vec<HostPort>, Error> {
        if !self.hosts.is_empty() {
            places = self
                .hosts
                .iter()
                .map(|it| host(it))
                .collect::<Result<_, _>>()?;
        }
        if places.is_empty() {
            let count = self
                .addresses
                .len()
                .max(usize::from(!self.ports.is_empty()));
            places.resize_with(count, HostPort::default);
        }
        let count = places.len();
        if !self.addresses.is_empty() && self.addresses.len() != count {
            return Err(refused(format!(
                "{count} hosts and {} addresses: give one hostaddr for each host",
                self.addresses.len()
            )));
        }
        if self.ports.len() > 1 && self.ports.len() != count {
            return Err(refused(format!(
                "{count} hosts and {} ports: give one port for all hosts, or one for each",
                self.ports.len()
            )));
        }
        for (place, address) in places.iter_mut().zip(&self.addresses) {
            if !address.is_empty() {
                place.address = Some(ip(address)?);
            }
        }
        // A single one is everybody's.
        let all = self.ports.iter().cycle();
        for (place, port) in places.iter_mut().zip(all) {
            if !port.is_empty() {
                place.port = Some(number(port)?);
            }
        }
        Ok(named(places))
    }
}

/// Reads what stands between the login and the database of a URL.
pub(super) fn list(text: &str) -> Result<Vec<HostPort>, Error> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let places: Result<_, _> = text.split(',').map(host_port).collect();
    places.map(named)
}

/// Reads a host given by name. A socket's folder and a bare IPv6 address may hold colons; a name may not.
fn host(text: &str) -> Result<HostPort, Error> {
    let bare = text
        .split_once('%')
        .map_or(text, |(address, _zone)| address);
    if text.starts_with('/') || bare.parse::<Ipv6Addr>().is_ok() {
        return Ok(HostPort {
            host: text.to_owned(),
            ..HostPort::default()
        });
    }
    host_port(text)
}

fn ip(text: &str) -> Result<IpAddr, Error> {
    text.parse().map_err(|_| {
        refused(format!(
            "hostaddr is {text:?}: it must be an address, as 10.0.0.7; a name belongs in host"
        ))
    })
}

/// Reads `host`, `host:port`, `[address]` or `[address]:port`. The host may be percent-encoded.
fn host_port(text: &str) -> Result<HostPort, Error> {
    let (host, port) = if let Some(inner) = text.strip_prefix('[') {
        let Some((address, rest)) = inner.split_once(']') else {
            return Err(refused("an IPv6 address begins with '[' and has no ']'"));
        };
        match rest.strip_prefix(':') {
            Some(port) => (decode(address, "the host")?, Some(port)),
            None if rest.is_empty() => (decode(address, "the host")?, None),
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
        Some(port) => Some(number(port)?),
    };
    Ok(HostPort {
        host,
        port,
        address: None,
    })
}

/// Reads a port. What is no number may be part of a password, so it is not repeated.
fn number(text: &str) -> Result<u16, Error> {
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

/// One place of which nothing is said is none given.
fn named(mut places: Vec<HostPort>) -> Vec<HostPort> {
    if matches!(&places[..], [only] if *only == HostPort::default()) {
        places.clear();
    }
    places
}
