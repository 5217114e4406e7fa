//! What each server's `postgresql.conf` and `pg_hba.conf` say.
//!
//! The files are written whole before each start and each reload, so a lever changes a value here and
//! nothing else. `ALTER SYSTEM` is left to whoever uses the cluster: its file is read after ours.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// Everyone who connects has this password: it protects nothing, and a test may show it.
pub(crate) const PASSWORD: &str = "secret";

/// [`PASSWORD`] as the server keeps it, with 64 rounds instead of 4096: a test in a debug build
/// spends a tenth of a second per connection on the usual number.
pub(crate) const PASSWORD_VERIFIER: &str = "SCRAM-SHA-256$64:dGVzdGJlZC1zYWx0LTAxNg==$\
     c7GcG/82rfmwyoaRopyu60xnzwNDapyQ4DlKZhufpIY=:WG6W6Yjj1u629zMamqT2FrfRCoMkJw8joGEBwk4Fajc=";

/// The superuser, also the one that replicas stream as.
pub(crate) const SUPERUSER: &str = "postgres";

/// The ordinary user, owner of every database that is handed out.
pub(crate) const APP: &str = "app";

/// Everybody proves who they are by the password, over the socket too.
pub(crate) const HBA: &str = "\
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
local replication postgres scram-sha-256
host replication postgres 127.0.0.1/32 scram-sha-256
";

/// What the whole cluster has in common.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) max_connections: u32,
    pub(crate) extra: Vec<(String, String)>,
    /// Certificate, key and CA, where the server speaks TLS itself.
    pub(crate) tls_files: Option<[String; 3]>,
    pub(crate) major: u32,
}

/// What differs from node to node, and from lever to lever.
#[derive(Clone, Debug)]
pub(crate) struct Own<'a> {
    pub(crate) name: &'a str,
    pub(crate) port: u16,
    pub(crate) socket_dir: &'a Path,
    pub(crate) follows: Option<&'a Upstream>,
    pub(crate) apply_delay: Duration,
}

/// The server that a replica streams from.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) port: u16,
}

/// `postgresql.conf` of one node.
pub(crate) fn postgresql_conf(common: &Common, own: &Own<'_>) -> String {
    let mut conf = String::new();
    let mut set = |name: &str, value: &str| {
        // Writing to a String can't fail.
        let _ = writeln!(conf, "{name} = {}", quoted(value));
    };
    set("listen_addresses", "127.0.0.1");
    set("port", &own.port.to_string());
    set(
        "unix_socket_directories",
        &own.socket_dir.display().to_string(),
    );
    set("cluster_name", own.name);
    set("max_connections", &common.max_connections.to_string());

    // Small and quick. The files survive a killed server without fsync, as long as the system runs on.
    set("shared_buffers", "16MB");
    set("fsync", "off");
    set("dynamic_shared_memory_type", "mmap"); // In the data folder, so that it goes with it.
    set("huge_pages", "off");
    set("max_wal_size", "256MB");
    set("jit", "off");
    if common.major >= 18 {
        set("io_method", "sync");
    }

    // Every node can become the primary, and every node can be rewound.
    set("wal_level", "replica");
    set("wal_log_hints", "on");
    set("max_wal_senders", "16");
    set("max_replication_slots", "16");
    set("wal_keep_size", "64MB");
    set("hot_standby", "on");

    // Replicas notice within a blink.
    set("wal_receiver_status_interval", "1s");
    set("wal_retrieve_retry_interval", "100ms");

    set("log_line_prefix", "%m [%p] %a ");
    set("timezone", "UTC");
    set("log_timezone", "UTC");
    set("lc_messages", "C");
    if let Some([cert, key, ca]) = &common.tls_files {
        set("ssl", "on");
        set("ssl_cert_file", cert);
        set("ssl_key_file", key);
        set("ssl_ca_file", ca);
    }
    if let Some(Upstream { port }) = own.follows {
        let host = own.socket_dir.display();
        let name = own.name;
        set(
            "primary_conninfo",
            &format!(
                "host='{host}' port={port} user={SUPERUSER} password={PASSWORD} application_name={name}"
            ),
        );
        set("primary_slot_name", name);
    }
    let delay = own.apply_delay.as_millis();
    set("recovery_min_apply_delay", &format!("{delay}ms"));
    for (name, value) in &common.extra {
        set(name, value);
    }
    conf
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_quote_in_a_setting_does_not_end_it() {
        assert_eq!(quoted(r"it's a \ path"), r"'it''s a \\ path'");
    }
}
