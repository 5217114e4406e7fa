//! A decision without a connection: for services that route by this crate and run their statements through another
//! driver's pools.
//!
//! What always holds: a route counts as outstanding on its node until it is dropped, and what its user reports about
//! the node reaches the monitors as what a session sees does. A promise is proved on the connection in use here too,
//! by the user's sending the proof's statement: without that, a route is only as good as the monitors' last look.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pool_postgres::{EngineConfig, Error};

use crate::database::Database;
use crate::plan::{Proof, plan, plan_write};
use crate::proof;
use crate::request::{Consistency, Request};
use crate::shared::Shared;
use crate::source::{Kind, Ride, judge, refused};
use crate::view::View;

impl Database {
    /// Decides where a read goes, and leaves the connection to the caller.
    ///
    /// Takes a [`Consistency`], or a [`Request`] that says besides which node has just failed to keep the promise.
    ///
    /// ```no_run
    /// use pool_router::{Consistency, Database};
    ///
    /// # async fn count(_url: &str, _first: Option<&str>) -> (Vec<Vec<Option<String>>>, i64) { (Vec::new(), 0) }
    /// # async fn example(db: Database) -> Result<(), pool_router::Error> {
    /// let route = db.route(Consistency::default()).await?;
    /// // Run the proof's statement and then your own on a connection to that node.
    /// let (rows, _count) = count(&route.address().render_with_password(), route.proof()).await;
    /// route.verify(&rows)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As a session's first statement: no node can keep the promise.
    ///
    /// # Cancel safety
    /// Waits at most for the first look after a lazy start; may be dropped at any point.
    pub async fn route(&self, request: impl Into<Request>) -> Result<Route, Error> {
        let shared = self.shared();
        let request = request.into();
        shared.first_look().await;
        shared.ask_for(request.consistency);
        let view = shared.view();
        let plan = plan(&view, &request, Instant::now(), fastrand::u64(..)).map_err(refused)?;
        // A plan has a candidate, or it is an error.
        let first = plan.candidates[0];
        let passed_over = if view.primary == Some(first.node) {
            plan.passed_over
        } else {
            Vec::new()
        };
        let kind = Kind::Read { passed_over };
        Ok(Route::new(shared, &view, first.node, first.proof, kind))
    }

    /// Decides where a write goes, and leaves the connection to the caller. Waits while writes are suspended.
    ///
    /// # Errors
    /// If no node is known to take writes.
    ///
    /// # Cancel safety
    /// Only waits: may be dropped at any point.
    pub async fn route_write(&self) -> Result<Route, Error> {
        let shared = self.shared();
        shared.first_look().await;
        let writing = shared.may_write().await;
        let view = shared.view();
        let node = plan_write(&view).map_err(refused)?;
        let kind = Kind::Write { _writing: writing };
        Ok(Route::new(shared, &view, node, Proof::Nothing, kind))
    }
}

/// A node that was chosen, and the guard that counts what runs there; made by [`Database::route`] and
/// [`Database::route_write`].
///
/// Hold it as long as the transaction runs; report answers and failures, for the choices that come after.
#[must_use = "dropping it says that the transaction has ended"]
pub struct Route {
    ride: Ride,
    proof: Proof,
    epoch: u64,
    timeline: Option<u32>,
}

impl Route {
    fn new(shared: &Arc<Shared>, view: &View, node: usize, proof: Proof, kind: Kind) -> Self {
        Self {
            ride: Ride::begin(shared, node, kind),
            proof,
            epoch: view.epoch,
            timeline: view.timeline,
        }
    }

    /// The node's index in [`DatabaseStatus::nodes`](crate::DatabaseStatus::nodes): a key for a pool of each node.
    pub fn node(&self) -> usize {
        self.ride.node
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.ride.parts().name
    }

    /// Where the node is. Its `Display` is the URL without the password;
    /// [`render_with_password`](EngineConfig::render_with_password) is the one to connect to.
    pub fn address(&self) -> &EngineConfig {
        &self.ride.parts().address
    }

    /// A number that changes whenever another node takes writes, or the timeline changes. Connections that were opened
    /// under a lower one are to be checked before they are used.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The primary's timeline: a fencing token, for it only rises. `None` where nobody watches, without replicas.
    pub fn timeline(&self) -> Option<u32> {
        self.timeline
    }

    /// The statement by which the node proves on the connection in use that it keeps the promise, to be sent before
    /// the transaction begins; [`verify`](Self::verify) judges its rows. `None` where nothing has to be proved.
    pub fn proof(&self) -> Option<&'static str> {
        (self.proof != Proof::Nothing).then_some(proof::STATEMENT)
    }

    /// Judges the rows of the [proof](Self::proof)'s statement, as text; NULL is `None`.
    ///
    /// # Errors
    /// If the node can't keep the promise: route again, with [`Request::avoid`] set to this node.
    pub fn verify(&self, rows: &[Vec<Option<String>>]) -> Result<(), Error> {
        if self.proof == Proof::Nothing {
            return Ok(());
        }
        let judged = judge(&self.ride.shared, self.node(), self.proof, rows);
        judged.inspect_err(|_| self.ride.refuse())
    }

    /// The node answered a statement, this long after it was sent.
    pub fn answered(&self, round_trip: Duration) {
        self.ride.took(round_trip);
    }

    /// A statement failed, with this SQLSTATE; `None` if no connection could be had or it was lost.
    ///
    /// What says something about the node has it looked at: a lost connection, or a write refused as read-only (25006).
    /// A replica whose connections keep failing goes out of rotation for a while.
    pub fn failed(&self, sqlstate: Option<&str>, why: impl fmt::Display) {
        match sqlstate {
            None => {
                let Ride { shared, node, .. } = &self.ride;
                shared.lost(*node, why.to_string(), true);
            }
            Some(code) => self.ride.refused_as(code),
        }
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("node", &self.name())
            .field("address", self.address())
            .field("epoch", &self.epoch)
            .field("timeline", &self.timeline)
            .field("proof", &self.proof)
            .finish_non_exhaustive()
    }
}

impl From<Consistency> for Request {
    fn from(consistency: Consistency) -> Self {
        Self::new(consistency)
    }
}
