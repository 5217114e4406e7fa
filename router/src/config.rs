//! A database's settings from outside the program: variables, and with the feature `serde` configuration files.
//!
//! Settings have one list of names for both. A name that is not on it is an option of every node's engine, or a
//! mistake, which names the nearest. No message shows a password.

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use pool_postgres::{EngineConfig, Error, ErrorKind};

use crate::builder::Builder;
use crate::node_config::{NodeConfig, mistake, with_options};
use crate::request::Consistency;

/// The settings that are the database's own, for a suggestion where a name is unknown.
const KNOWN: [&str; 8] = [
    "url",
    "replica_urls",
    "node_urls",
    "max_staleness",
    "max_connections",
    "min_replicas",
    "start_timeout",
    "zone",
];

/// The nodes of a database and its settings, as variables or a configuration file give them.
///
/// | name | what |
/// |---|---|
/// | `url` | the primary's URL |
/// | `replica_urls` | the replicas' URLs; in a variable separated by white space or by commas before `postgresql://` |
/// | `node_urls` | URLs of nodes whose roles are found by asking |
/// | `max_staleness` | how old, in seconds, the data of a plain read may be; default 10 |
/// | `max_connections` | how many connections all nodes' pools may have together; default no such limit |
/// | `min_replicas` | how many replicas must answer at the start; default 0 |
/// | `start_timeout` | how many seconds a node may take to answer at the start; default 5 |
/// | `zone` | the zone that the service runs in ([`Builder::zone`](crate::Builder::zone)) |
///
/// Any other name is an option of [`EngineConfig`], as `pool_size` or `password`, for every node; it overrides what a
/// URL says.
///
/// With the feature `serde`, a file holds the same names; `primary`, `replicas` and `nodes` are other names for the
/// first three, and a node may be a table, of options of its own, its `url`, its `weight` and
/// its `zone`:
///
/// ```toml
/// primary = "postgresql://app@db1/shop"
/// replicas = ["postgresql://app@db2/shop", { url = "postgresql://app@db3/shop", pool_size = 20, weight = 2 }]
/// password = "secret"
/// pool_size = 10
/// max_staleness = 2.5
/// ```
#[derive(Clone, Default)]
pub struct DatabaseConfig {
    pub(crate) primary: Option<NodeConfig>,
    pub(crate) replicas: Vec<NodeConfig>,
    pub(crate) nodes: Vec<NodeConfig>,
    /// Options of every node.
    every: Vec<(String, String)>,
    max_staleness: Option<Duration>,
    max_connections: Option<usize>,
    min_replicas: Option<usize>,
    start_timeout: Option<Duration>,
    zone: Option<String>,
}

impl DatabaseConfig {
    /// Reads variables that begin with this prefix: `DATABASE` reads `DATABASE_URL`, `DATABASE_REPLICA_URLS`,
    /// `DATABASE_MIN_REPLICAS` and so on, and any option of the engines by its name in capitals, as
    /// `DATABASE_POOL_SIZE`. An empty one counts as not set.
    ///
    /// ```no_run
    /// use pool_router::{Database, DatabaseConfig};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = Database::from_config(DatabaseConfig::from_env("DATABASE")?).connect().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming the variable: if neither the URL nor the nodes' URLs are set, if a value can't
    /// be used, and for any other name with the prefix, with the nearest that exists.
    pub fn from_env(prefix: &str) -> Result<Self, Error> {
        Self::from_variables(prefix, std::env::vars_os())
    }

    fn from_variables(
        prefix: &str,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Error> {
        let start = format!("{prefix}_");
        let mut config = Self::default();
        for (name, value) in variables {
            let Some((name, key)) = name
                .to_str()
                .and_then(|name| Some((name, name.strip_prefix(&start)?)))
            else {
                continue;
            };
            let value = value
                .into_string()
                .map_err(|_| mistake(format!("the variable {name} is not UTF-8")))?;
            if value.is_empty() {
                continue;
            }
            let key = key.to_ascii_lowercase();
            config.set(&key, &value).map_err(|error| match error {
                Mistake::Unknown(Some(nearest)) => mistake(format!(
                    "the variable {name} is not known: did you mean {start}{}?",
                    nearest.to_ascii_uppercase()
                )),
                Mistake::Unknown(None) | Mistake::Unusable(_) => Error::from_source(
                    ErrorKind::Config,
                    format!("the variable {name} can't be used"),
                    error.cause(&key),
                ),
            })?;
        }
        if config.primary.is_none() && config.nodes.is_empty() {
            return Err(mistake(format!(
                "neither {start}URL nor {start}NODE_URLS is set: set the first to \
                 postgresql://user:password@host/database"
            )));
        }
        Ok(config)
    }

    /// Takes one setting by its name.
    fn set(&mut self, key: &str, value: &str) -> Result<(), Mistake> {
        match key {
            "url" | "primary" => self.primary = Some(node(value)?),
            "replica_urls" | "replicas" => self.replicas = urls(value)?,
            "node_urls" | "nodes" => self.nodes = urls(value)?,
            "max_staleness" => self.max_staleness = Some(seconds(value)?),
            "max_connections" => self.max_connections = Some(number(value)?),
            "min_replicas" => self.min_replicas = Some(number(value)?),
            "start_timeout" => self.start_timeout = Some(seconds(value)?),
            "zone" => self.zone = Some(value.to_owned()),
            _ => {
                let option = (key.to_owned(), value.to_owned());
                let checked = with_options(&EngineConfig::default(), std::slice::from_ref(&option));
                if let Err(cause) = checked {
                    // One of ours that is nearer than any of the engine's, or what the engine says.
                    return Err(match nearest(key) {
                        Some(nearest) => Mistake::Unknown(Some(nearest)),
                        None => Mistake::Unusable(cause),
                    });
                }
                self.every.push(option);
            }
        }
        Ok(())
    }

    /// A builder with these settings, for those that a file can't hold.
    pub fn builder(self) -> Builder {
        let with_options = |node: NodeConfig| node.with_options(&self.every);
        let mut builder = Builder::default()
            .replicas(self.replicas.into_iter().map(with_options))
            .nodes(self.nodes.into_iter().map(with_options));
        if let Some(primary) = self.primary {
            builder = builder.primary(with_options(primary));
        }
        if let Some(age) = self.max_staleness {
            builder = builder.default_consistency(Consistency::BoundedStaleness(age));
        }
        if let Some(connections) = self.max_connections {
            builder = builder.budget(&pool_core::Budget::new(connections));
        }
        if let Some(replicas) = self.min_replicas {
            builder = builder.min_replicas(replicas);
        }
        if let Some(limit) = self.start_timeout {
            builder = builder.start_timeout(limit);
        }
        if let Some(zone) = self.zone {
            builder = builder.zone(zone);
        }
        builder
    }
}

/// Why a setting can't be taken.
enum Mistake {
    /// There is no such setting; the nearest of ours.
    Unknown(Option<&'static str>),
    /// Its value is wrong, or the engine knows no such option.
    Unusable(Error),
}

impl Mistake {
    fn cause(self, key: &str) -> Error {
        match self {
            Self::Unusable(cause) => cause,
            Self::Unknown(Some(nearest)) => mistake(format!(
                "unknown setting {key:?}: did you mean {nearest:?}?"
            )),
            Self::Unknown(None) => mistake(format!("unknown setting {key:?}")),
        }
    }
}

fn nearest(key: &str) -> Option<&'static str> {
    let like = |name: &&str| strsim::jaro_winkler(key, name);
    let nearest = KNOWN
        .into_iter()
        .max_by(|a, b| like(a).total_cmp(&like(b)))?;
    (like(&nearest) > 0.87).then_some(nearest)
}

fn node(url: &str) -> Result<NodeConfig, Mistake> {
    let address: EngineConfig = url.parse().map_err(Mistake::Unusable)?;
    Ok(address.into())
}

/// URLs separated by white space, or by a comma before the next scheme: a URL may hold commas itself.
fn urls(text: &str) -> Result<Vec<NodeConfig>, Mistake> {
    let spaced = text
        .replace(",postgres://", " postgres://")
        .replace(",postgresql://", " postgresql://");
    spaced
        .split_whitespace()
        .map(|url| node(url.trim_end_matches(',')))
        .collect()
}

fn number(text: &str) -> Result<usize, Mistake> {
    text.parse()
        .map_err(|_| Mistake::Unusable(mistake(format!("{text:?} is not a whole number"))))
}

fn seconds(text: &str) -> Result<Duration, Mistake> {
    let seconds = text.parse().ok();
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| Mistake::Unusable(mistake(format!("{text:?} is not a number of seconds"))))
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An option may be a password.
        let names: Vec<_> = self.every.iter().map(|(name, _)| name).collect();
        f.debug_struct("DatabaseConfig")
            .field("primary", &self.primary)
            .field("replicas", &self.replicas)
            .field("nodes", &self.nodes)
            .field("options", &names)
            .field("max_staleness", &self.max_staleness)
            .field("max_connections", &self.max_connections)
            .field("min_replicas", &self.min_replicas)
            .field("start_timeout", &self.start_timeout)
            .field("zone", &self.zone)
            .finish()
    }
}

#[cfg(feature = "serde")]
mod file;

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    pub(super) fn from(variables: &[(&str, &str)]) -> Result<DatabaseConfig, Error> {
        let variables = variables.iter();
        DatabaseConfig::from_variables(
            "DATABASE",
            variables.map(|(name, value)| (name.into(), value.into())),
        )
    }

    #[test]
    fn variables_name_the_nodes_and_options_of_all_of_them() {
        let config = from(&[
            ("DATABASE_URL", "postgresql://app@db1/shop"),
            (
                "DATABASE_REPLICA_URLS",
                "postgresql://app@db2,postgres3/shop,postgresql://app@db4/shop postgres://app@db5/shop",
            ),
            ("DATABASE_PASSWORD", "p&w=d"),
            ("DATABASE_POOL_SIZE", "7"),
            ("DATABASE_MAX_STALENESS", "2.5"),
            ("DATABASE_MIN_REPLICAS", "1"),
            ("DATABASE_START_TIMEOUT", ""),
            ("OTHER_URL", "nonsense"),
        ])
        .expect("good variables");
        let shown = format!("{config:?}");
        for part in [
            "db1",
            "db2,postgres3",
            "db4",
            "db5",
            "2.5s",
            "min_replicas: Some(1)",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert_eq!(config.replicas.len(), 3);
        assert!(!shown.contains("p&w=d"), "{shown}");
        let builder = format!("{:?}", config.builder());
        assert!(builder.contains("pool_size=7"), "{builder}");
        assert!(!builder.contains("w=d"), "{builder}");
    }

    #[test]
    fn an_unknown_variable_names_the_nearest() {
        let url = ("DATABASE_URL", "postgresql://db1/shop");
        for (name, nearest) in [
            ("DATABASE_REPLICA_URL", "DATABASE_REPLICA_URLS"),
            ("DATABASE_MIN_REPLICA", "DATABASE_MIN_REPLICAS"),
            ("DATABASE_POOL_SZIE", "pool_size"),
        ] {
            let error = from(&[url, (name, "1")]).expect_err("unknown");
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            let told = format!("{error} {cause}");
            assert!(told.contains(name) && told.contains(nearest), "{told}");
            assert_eq!(error.kind(), ErrorKind::Config);
        }
        assert!(from(&[url, ("DATABASE_BACKUP_FOLDER", "/var")]).is_err());
    }

    #[test]
    fn a_value_that_cannot_be_used_names_its_variable() {
        let url = ("DATABASE_URL", "postgresql://db1/shop");
        for (name, value) in [
            ("DATABASE_MIN_REPLICAS", "many"),
            ("DATABASE_MAX_STALENESS", "-1"),
            ("DATABASE_POOL_SIZE", "many"),
            ("DATABASE_REPLICA_URLS", "mysql://u:hush@db2/shop"),
        ] {
            let error = from(&[url, (name, value)]).expect_err("no use");
            assert!(error.to_string().contains(name), "{error}");
            assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        }
        let nothing = from(&[("DATABASE_POOL_SIZE", "5")]).expect_err("no URL");
        assert!(nothing.to_string().contains("DATABASE_URL"), "{nothing}");
    }
}
