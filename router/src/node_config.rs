//! One node's own settings: where it is, and what sets it apart from the others.

use std::fmt;
use std::sync::Arc;

use pool_postgres::{Engine, EngineBuilder, EngineConfig, Error, ErrorKind};

/// A setting of an engine, to be made when the node's engine is built.
pub(crate) type Configure = Arc<dyn Fn(EngineBuilder) -> EngineBuilder + Send + Sync>;

/// One node of a database: its URL, and settings that are its own.
///
/// What is set here overrides what the [`Builder`](crate::Builder) sets for every node. A URL is a `NodeConfig`
/// without anything of its own, and goes wherever one is asked for.
///
/// ```no_run
/// use pool_router::{Database, NodeConfig};
///
/// let large = NodeConfig::new("postgresql://app:secret@db2/shop").weight(2).pool_size(20);
/// let builder = Database::builder()
///     .primary("postgresql://app:secret@db1/shop")
///     .replica(large)
///     .replica("postgresql://app:secret@db3/shop")
///     .pool_size(10);
/// # let _ = builder;
/// ```
#[derive(Clone)]
#[must_use = "a node's settings do nothing until they are given to a builder"]
pub struct NodeConfig {
    /// The options, or the mistake that `connect` reports.
    address: Result<EngineConfig, Error>,
    configure: Vec<Configure>,
    weight: u32,
    zone: Option<Arc<str>>,
}

impl NodeConfig {
    /// A node at this URL. A malformed one is reported by [`Builder::connect`](crate::Builder::connect).
    pub fn new(url: impl AsRef<str>) -> Self {
        Self::of(url.as_ref().parse())
    }

    pub(crate) fn of(address: Result<EngineConfig, Error>) -> Self {
        Self {
            address,
            configure: Vec::new(),
            weight: 1,
            zone: None,
        }
    }

    /// How much of the load it takes beside the others: one with weight 2 is given twice as many transactions at a
    /// time as one with weight 1 that answers as fast. Default 1; zero is refused
    /// ([`Database::drain`](crate::Database::drain) keeps reads from a node).
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// The zone that it is in. Where the [`Builder`](crate::Builder::zone) names the same one, reads go to it before
    /// the nodes of other zones. Default: none; so is an empty name.
    pub fn zone(mut self, name: impl AsRef<str>) -> Self {
        self.zone = zone(name.as_ref());
        self
    }

    /// How many connections its pool keeps; see [`Builder::pool_size`](crate::Builder::pool_size).
    pub fn pool_size(self, connections: usize) -> Self {
        self.engine(move |engine| engine.pool_size(connections))
    }

    /// How many connections its pool may open beyond `pool_size`; see
    /// [`Builder::max_overflow`](crate::Builder::max_overflow).
    pub fn max_overflow(self, connections: impl Into<Option<usize>>) -> Self {
        let connections = connections.into();
        self.engine(move |engine| engine.max_overflow(connections))
    }

    /// Any other setting of its engine.
    pub fn engine(
        mut self,
        configure: impl Fn(EngineBuilder) -> EngineBuilder + Send + Sync + 'static,
    ) -> Self {
        self.configure.push(Arc::new(configure));
        self
    }

    /// Adds options by name to those of the URL, which they override.
    pub(crate) fn with_options(self, options: &[(String, String)]) -> Self {
        if options.is_empty() {
            return self;
        }
        let address = self
            .address
            .and_then(|address| with_options(&address, options));
        Self { address, ..self }
    }

    pub(crate) fn address(&self) -> Result<EngineConfig, Error> {
        self.address.clone()
    }

    pub(crate) fn its_weight(&self) -> u32 {
        self.weight
    }

    pub(crate) fn its_zone(&self) -> Option<Arc<str>> {
        self.zone.clone()
    }

    /// Its engine's settings: those of every node, then its own. Its pool is called like the node unless they say
    /// otherwise.
    pub(crate) fn engine_builder(
        &self,
        name: &str,
        every: &[Configure],
    ) -> Result<EngineBuilder, Error> {
        let name = name.to_owned();
        let plain = Engine::from_config(self.address.clone()?)
            .pool_with(move |pool| pool.name(name.clone()));
        let all = every.iter().chain(&self.configure);
        Ok(all.fold(plain, |engine, configure| configure(engine)))
    }
}

/// A zone by its name; an empty one is none.
pub(crate) fn zone(name: &str) -> Option<Arc<str>> {
    (!name.is_empty()).then(|| name.into())
}

/// The options with others over them, by way of their URL.
pub(crate) fn with_options(
    address: &EngineConfig,
    options: &[(String, String)],
) -> Result<EngineConfig, Error> {
    let mut url = address.render_with_password();
    for (name, value) in options {
        url.push(if url.contains('?') { '&' } else { '?' });
        encode(name, &mut url);
        url.push('=');
        encode(value, &mut url);
    }
    url.parse()
}

/// Percent-encodes everything but letters, digits and what is never special in a URL.
fn encode(text: &str, url: &mut String) {
    use fmt::Write as _;
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                url.push(char::from(byte));
            }
            // Writing to a string does not fail.
            _ => drop(write!(url, "%{byte:02X}")),
        }
    }
}

/// What a wrong setting of the database's own is reported as.
pub(crate) fn mistake(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}

impl From<&str> for NodeConfig {
    fn from(url: &str) -> Self {
        Self::new(url)
    }
}

impl From<String> for NodeConfig {
    fn from(url: String) -> Self {
        Self::new(url)
    }
}

impl From<&String> for NodeConfig {
    fn from(url: &String) -> Self {
        Self::new(url)
    }
}

impl From<EngineConfig> for NodeConfig {
    fn from(address: EngineConfig) -> Self {
        Self::of(Ok(address))
    }
}

impl fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeConfig")
            .field("address", &self.address)
            .field("weight", &self.weight)
            .field("zone", &self.zone)
            .finish_non_exhaustive()
    }
}
