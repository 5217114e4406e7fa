//! Variables: libpq's, which fill in what options leave open, and those that begin with a prefix of the service's.
//!
//! An empty variable counts as one that is not set. A message names the variable, and shows no password.

use std::ffi::OsString;

use super::hosts::Lists;
use super::keys::{self, KNOWN, apply};
use super::{EngineConfig, HostPort};
use crate::error::{Error, ErrorKind};

/// libpq's variables and the options that they stand for, but for those of the hosts.
const VARIABLES: [(&str, &str); 22] = [
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGDATABASE", "dbname"),
    ("PGOPTIONS", "options"),
    ("PGAPPNAME", "application_name"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
    ("PGCLIENTENCODING", "client_encoding"),
    // Without effect here; where that could matter, `apply` says so.
    ("PGSERVICE", "service"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGGSSENCMODE", "gssencmode"),
];

/// Fills in from libpq's variables what the options leave open.
pub(super) fn fill(
    options: &mut EngineConfig,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(), Error> {
    for (name, key) in VARIABLES {
        if !is_given(options, key)
            && let Some(value) = variable(name)
        {
            apply(options, [(key, value)]).map_err(|cause| unusable(name, cause))?;
        }
    }
    // Where a host is given, the variables' hosts are not its own; the port is the one to use all the same.
    let nameless = |place: &HostPort| place.host.is_empty() && place.address.is_none();
    let hosts_wanted = options.hosts.iter().all(nameless);
    let ports: Vec<_> = options.hosts.iter().map(|place| place.port).collect();
    let mut lists = Lists::default();
    let mut named = Vec::new();
    for (name, key, wanted) in [
        ("PGHOST", "host", hosts_wanted),
        ("PGHOSTADDR", "hostaddr", hosts_wanted),
        ("PGPORT", "port", ports.iter().all(Option::is_none)),
    ] {
        if wanted && let Some(value) = variable(name) {
            lists.take(key, &value);
            named.push(name);
        }
    }
    if !named.is_empty() {
        let mut places = std::mem::take(&mut options.hosts);
        if named.iter().any(|name| name.starts_with("PGHOST")) {
            for port in ports.into_iter().flatten() {
                lists.take("port", &port.to_string());
            }
            places.clear();
        }
        options.hosts = lists
            .join(places)
            .map_err(|cause| unusable(&named.join(", "), cause))?;
    }
    Ok(())
}

fn is_given(options: &EngineConfig, key: &str) -> bool {
    match key {
        "user" => options.user.is_some(),
        "password" => options.password.is_some(),
        "passfile" => options.passfile.is_some(),
        "dbname" => options.dbname.is_some(),
        "options" => options.options.is_some(),
        "application_name" => options.application_name.is_some(),
        "sslmode" => options.sslmode.is_some(),
        "sslrootcert" => options.sslrootcert.is_some(),
        "sslcert" => options.sslcert.is_some(),
        "sslkey" => options.sslkey.is_some(),
        "channel_binding" => options.channel_binding.is_some(),
        "connect_timeout" => options.connect_timeout.is_some(),
        "target_session_attrs" => options.target_session_attrs.is_some(),
        "load_balance_hosts" => options.load_balance_hosts.is_some(),
        _ => false,
    }
}

/// Reads the variables that begin with `prefix` and an underscore.
pub(super) fn config(
    prefix: &str,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<EngineConfig, Error> {
    let start = format!("{prefix}_");
    let mut options = EngineConfig::default();
    let mut found: Vec<(String, String, String)> = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        let Some(rest) = name.strip_prefix(&start) else {
            continue;
        };
        let key = rest.to_ascii_lowercase();
        if key != "url" && !KNOWN.contains(&&*key) {
            if let Some(nearest) = keys::nearest(&key, 0.94) {
                let meant = format!("{start}{}", nearest.to_ascii_uppercase());
                tracing::warn!(variable = name, %meant, "a variable is no option, but nearly one");
            }
            continue;
        }
        let value = value.into_string().map_err(|_| {
            Error::new(
                ErrorKind::Config,
                format!("the variable {name} is not UTF-8"),
            )
        })?;
        if !value.is_empty() {
            found.push((name.to_owned(), key, value));
        }
    }
    if found.is_empty() {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "{start}URL is not set, nor any other option as {start}HOST: set it to \
                 postgresql://user:password@host/database"
            ),
        ));
    }
    if let Some((name, _, url)) = found.iter().find(|(_, key, _)| key == "url") {
        options = url.parse().map_err(|cause| unusable(name, cause))?;
    }
    let (lists, single): (Vec<_>, Vec<_>) = found
        .into_iter()
        .filter(|(_, key, _)| key != "url")
        .partition(|(_, key, _)| matches!(&**key, "host" | "hostaddr" | "port"));
    for (name, key, value) in single {
        apply(&mut options, [(key, value)]).map_err(|cause| unusable(&name, cause))?;
    }
    let names: Vec<_> = lists.iter().map(|(name, ..)| &**name).collect();
    let names = names.join(", ");
    apply(
        &mut options,
        lists.into_iter().map(|(_, key, value)| (key, value)),
    )
    .map_err(|cause| unusable(&names, cause))?;
    Ok(options)
}

fn unusable(name: &str, cause: Error) -> Error {
    Error::from_source(
        ErrorKind::Config,
        format!("the variable {name} can't be used"),
        cause,
    )
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn filled(url: &str, variables: &[(&str, &str)]) -> Result<EngineConfig, Error> {
        let mut options: EngineConfig = url.parse().expect("a good URL");
        fill(&mut options, |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })?;
        Ok(options)
    }

    fn from_prefix(variables: &[(&str, &str)]) -> Result<EngineConfig, Error> {
        let variables = variables.iter();
        config(
            "DATABASE",
            variables.map(|(name, value)| (name.into(), value.into())),
        )
    }

    #[test]
    fn libpqs_variables_fill_in_what_is_left_open_and_nothing_else() {
        let all = [
            ("PGHOST", "a,b"),
            ("PGPORT", "1,2"),
            ("PGUSER", "u"),
            ("PGPASSWORD", "p"),
            ("PGDATABASE", "d"),
            ("PGSSLMODE", "require"),
            ("PGCONNECT_TIMEOUT", "7"),
            ("PGOPTIONS", "-c x=1"),
        ];
        let options = filled("postgresql://", &all).expect("good variables");
        assert_eq!(
            options.render_with_password(),
            "postgresql://u:p@a:1,b:2/d?sslmode=require&connect_timeout=7&options=-c%20x%3D1"
        );
        let given = "postgresql://v:q@h:5/e?sslmode=disable&connect_timeout=1&options=x";
        let options = filled(given, &all).expect("good variables");
        assert_eq!(options.render_with_password(), given);
    }

    #[test]
    fn a_host_without_a_port_takes_the_variables_port_and_not_its_address() {
        let variables = [
            ("PGHOSTADDR", "10.0.0.1"),
            ("PGPORT", "6000"),
            ("PGHOST", "elsewhere"),
        ];
        let options = filled("postgresql://h/db", &variables).expect("good variables");
        assert_eq!(options.to_string(), "postgresql://h:6000/db");
        let options = filled(
            "postgresql://:7000/db",
            &[("PGHOST", "a,b"), ("PGPORT", "1")],
        );
        let options = options.expect("good variables");
        assert_eq!(options.to_string(), "postgresql://a:7000,b:7000/db");
    }

    #[test]
    fn a_variable_that_cannot_be_used_is_named_with_the_cause() {
        for (name, value, cause) in [
            ("PGPORT", "many", "not a number"),
            ("PGSSLMODE", "yes", "verify-full"),
            ("PGREQUIREAUTH", "scram-sha-256", "channel_binding=require"),
            ("PGSERVICE", "shop", "write out"),
        ] {
            let error = filled("postgresql://", &[(name, value)]).expect_err("no use");
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(name), "{error}");
            let said = error.source().expect("a cause").to_string();
            assert!(said.contains(cause), "{said}");
        }
    }

    #[test]
    fn a_service_s_own_variables_override_its_url() {
        let options = from_prefix(&[
            ("DATABASE_URL", "postgresql://u:p@h/db?pool_size=3"),
            ("DATABASE_POOL_SIZE", "9"),
            ("DATABASE_PASSWORD", "secret"),
            ("DATABASE_PORT", "6000"),
            ("DATABASE_BACKUP_FOLDER", "/var/backup"),
            ("DATABASE_SSLMODE", ""),
            ("OTHER_URL", "nonsense"),
        ])
        .expect("good variables");
        assert_eq!(
            options.render_with_password(),
            "postgresql://u:secret@h:6000/db?pool_size=9"
        );
    }

    #[test]
    fn a_service_without_its_variables_is_told_which_to_set() {
        for variables in [&[][..], &[("DATABASE_URL", "")]] {
            let error = from_prefix(variables).expect_err("nothing is set");
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(
                error.to_string().contains("DATABASE_URL is not set"),
                "{error}"
            );
        }
        let error = from_prefix(&[("DATABASE_POOL_SIZE", "many")]).expect_err("no number");
        assert!(error.to_string().contains("DATABASE_POOL_SIZE"), "{error}");
        let error = from_prefix(&[("DATABASE_URL", "postgresql://u:hu/sh@h/db")]);
        let error = error.expect_err("torn");
        assert!(!format!("{error} {error:?}").contains("hu"), "{error:?}");
    }
}
