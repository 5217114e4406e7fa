//! A database of one server, as an engine: there is nothing to watch and nothing to choose.

use pool_postgres::Engine;

use super::{Builder, PRIMARY};
use crate::error::StartError;

impl Builder {
    /// The one node's engine, under the budget; `None` where there are several nodes. Asks nobody.
    pub(crate) fn sole_engine(&self) -> Option<Result<Engine, StartError>> {
        if !self.replicas.is_empty() || !self.nodes.is_empty() {
            return None;
        }
        let primary = self.primary.as_ref().ok_or(StartError::NoPrimary);
        Some(primary.and_then(|node| self.engine(PRIMARY, node)))
    }
}
