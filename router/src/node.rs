//! One node as the tasks see it: its engine, its counts, and the bells that its monitor and its callers ring.

use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use pool_postgres::{Connection, Engine, EngineConfig, Error};
use tokio::sync::{Notify, watch};

use crate::load::Load;
use crate::tally::Tally;

/// A node's moving parts.
pub(crate) struct NodeParts {
    pub(crate) name: Arc<str>,
    /// Where it is, as it was given.
    pub(crate) address: EngineConfig,
    pub(crate) engine: Engine,
    /// Makes the monitor's connections; its pool opens none.
    pub(crate) watching: Engine,
    pub(crate) load: Arc<Load>,
    pub(crate) zone: Option<Arc<str>>,
    pub(crate) tally: Arc<Tally>,
    /// Rung to have the monitor look at once.
    pub(crate) look: Notify,
    /// How many looks have ended, well or not.
    pub(crate) looks: watch::Sender<u64>,
    /// Rung when the node leaves rotation: whoever waits in its pool's queue goes elsewhere.
    pub(crate) left: Notify,
    /// Rung when the last transaction on the node has ended.
    pub(crate) quiet: Notify,
}

/// Why there is no connection.
pub(crate) enum NoConnection {
    /// The node left rotation while we waited.
    NodeLeft,
    /// The pool says so.
    Pool(Error),
}

impl NodeParts {
    pub(crate) fn new(
        address: EngineConfig,
        name: Arc<str>,
        engine: Engine,
        watching: Engine,
        load: Arc<Load>,
        zone: Option<Arc<str>>,
    ) -> Self {
        Self {
            name,
            address,
            engine,
            watching,
            load,
            zone,
            tally: Arc::default(),
            look: Notify::new(),
            looks: watch::Sender::new(0),
            left: Notify::new(),
            quiet: Notify::new(),
        }
    }

    /// Takes a connection from the node's pool.
    pub(crate) async fn connection(
        &self,
        place: &'static Location<'static>,
    ) -> Result<Connection, Error> {
        let taken = self.engine.pool().get_owned_at(place).await;
        taken.map_err(|error| Error::from(error).with_node(&*self.name))
    }

    /// Takes a connection from the node's pool unless the node leaves rotation first, as `in_rotation` tells.
    pub(crate) async fn connection_while(
        &self,
        in_rotation: impl Fn() -> bool,
        place: &'static Location<'static>,
    ) -> Result<Connection, NoConnection> {
        let mut left = pin!(self.left.notified());
        // From here on the bell is heard; the node may have left before.
        left.as_mut().enable();
        if !in_rotation() {
            return Err(NoConnection::NodeLeft);
        }
        let connection = pin!(self.connection(place));
        match select(connection, left).await {
            Either::Left((taken, _)) => taken.map_err(NoConnection::Pool),
            Either::Right(((), _)) => Err(NoConnection::NodeLeft),
        }
    }

    /// Waits until no transaction runs on the node.
    pub(crate) async fn idle(&self) {
        loop {
            let mut quiet = pin!(self.quiet.notified());
            // From here on the bell is heard; the last may have ended before.
            quiet.as_mut().enable();
            if self.load.outstanding() == 0 {
                return;
            }
            quiet.await;
        }
    }

    /// Takes a note of a look's end, and lets those who wait for it go on.
    pub(crate) fn looked(&self) {
        self.looks.send_modify(|looks| *looks += 1);
    }
}
