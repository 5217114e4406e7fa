//! Where sessions get their connections: the plan, carried out.
//!
//! What always holds: a read's promise is proved on the connection that it uses, in the flight of its first
//! statement, or it is not a read on that connection. A node that fails sends the read on to the next
//! candidate; only a full pool does not, for that is the caller's to know. Each look at a plan is counted
//! when its lease ends, so a read counts where it ran.

use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pool_postgres::{
    Checkout, CheckoutFuture, ConnectionSource, Error, ErrorKind, Guard, Lease, LeaseObserver,
};

use crate::database::Watchers;
use crate::error::RouteError;
use crate::events::EventKind;
use crate::node::{NoConnection, NodeParts};
use crate::plan::{Candidate, NoReplica, Plan, Proof, Refusal, plan, plan_write};
use crate::proof::{self, Testimony, Unproved};
use crate::request::{ReadOptions, Request, WaitPolicy};
use crate::shared::{Shared, Writing};
use crate::view::{Reason, View};
use crate::wait;

/// "Cannot execute … in a read-only transaction": perhaps a node that changed its role.
const READ_ONLY: &str = "25006";

/// Sends transactions to the node that takes writes.
pub(crate) struct WriteSource {
    pub(crate) shared: Arc<Shared>,
    pub(crate) _watchers: Arc<Watchers>,
}

/// Sends transactions to one node, whatever it is.
pub(crate) struct OneNode {
    pub(crate) shared: Arc<Shared>,
    pub(crate) node: usize,
    pub(crate) _watchers: Arc<Watchers>,
}

/// Sends transactions to a node that can keep a promise.
pub(crate) struct ReadSource {
    pub(crate) shared: Arc<Shared>,
    pub(crate) options: ReadOptions,
    /// A factory or a session that outlives the handle is watched for as long as it lives.
    pub(crate) watchers: Arc<Watchers>,
}

impl ConnectionSource for WriteSource {
    fn checkout<'a>(&'a self, request: Checkout<'a>) -> CheckoutFuture<'a> {
        Box::pin(async move {
            let shared = &self.shared;
            shared.first_look().await;
            let writing = shared.may_write().await;
            let node = plan_write(&shared.view()).map_err(refused)?;
            lend(
                shared,
                node,
                request.place,
                Kind::Write { _writing: writing },
            )
            .await
        })
    }
}

impl ConnectionSource for OneNode {
    fn checkout<'a>(&'a self, request: Checkout<'a>) -> CheckoutFuture<'a> {
        Box::pin(async move {
            let shared = &self.shared;
            shared.first_look().await;
            let writes = |view: &View| !request.read_only && view.primary == Some(self.node);
            let mut kind = Kind::Read {
                passed_over: Vec::new(),
            };
            if writes(&shared.view()) {
                let writing = shared.may_write().await;
                // It may have become a replica meanwhile.
                if writes(&shared.view()) {
                    kind = Kind::Write { _writing: writing };
                }
            }
            lend(shared, self.node, request.place, kind).await
        })
    }
}

/// Takes a connection of a node that is given.
async fn lend(
    shared: &Arc<Shared>,
    node: usize,
    place: &'static Location<'static>,
    kind: Kind,
) -> Result<Lease, Error> {
    let parts = &shared.nodes[node];
    let taken = parts.connection(place).await;
    let connection = taken.inspect_err(|error| shared.lost_by(node, error))?;
    let lease = Lease::new(connection);
    let lease = match (&kind, shared.view().system_identifier) {
        (Kind::Write { .. }, Some(system)) => lease.with_token(system),
        _ => lease,
    };
    Ok(lease.with_observer(Box::new(Ride::begin(shared, node, kind))))
}

impl ConnectionSource for ReadSource {
    fn checkout<'a>(&'a self, request: Checkout<'a>) -> CheckoutFuture<'a> {
        Box::pin(async move {
            let shared = &self.shared;
            shared.first_look().await;
            shared.ask_for(self.options.consistency);
            let before = match request.refused.and_then(RouteError::behind) {
                Some(RouteError::Unproved { node, why, .. }) => Some((*node, why)),
                _ => None,
            };
            let wanted = Request::attempt(self.options, request.attempt, before)
                .map_err(|refusal| refused(Refusal::Token(refusal)))?;
            if let WaitPolicy::UpTo(limit) = self.options.wait
                && request.attempt == 0
                && shared.is_watched()
            {
                wait::for_a_replica(shared, &self.watchers, &wanted, limit).await;
            }
            let view = shared.view();
            let plan = plan(&view, &wanted, Instant::now(), fastrand::u64(..))
                .map_err(|refusal| self.refused(refusal, request.refused))?;
            self.carry_out(plan, &view, &wanted, request.place).await
        })
    }
}

impl ReadSource {
    /// The error of a refusal, with what is known here besides: how long the read might wait, and where the node stood
    /// that has just failed to prove that it had reached the token.
    fn refused(&self, refusal: Refusal, before: Option<&Error>) -> Error {
        let Refusal::PrimaryForbidden(mut missed) = refusal else {
            return refused(refusal);
        };
        missed.wait = self.options.wait;
        if let Some(RouteError::Unproved { name, why, .. }) = before.and_then(RouteError::behind)
            && let Unproved::Behind { reached, .. } = why
            && let Some(node) = missed.replicas.iter_mut().find(|node| node.name == *name)
        {
            node.reason = Reason::BehindToken;
            node.reached = Some(*reached);
        }
        refused(Refusal::PrimaryForbidden(missed))
    }

    /// Tries the candidates in turn.
    async fn carry_out(
        &self,
        plan: Plan,
        view: &View,
        wanted: &Request,
        place: &'static Location<'static>,
    ) -> Result<Lease, Error> {
        let shared = &self.shared;
        let Plan {
            candidates,
            mut passed_over,
        } = plan;
        let mut last = None;
        for Candidate { node, proof } in candidates {
            let parts = &shared.nodes[node];
            let is_primary = view.primary == Some(node);
            let taken = if is_primary {
                parts.connection(place).await.map_err(NoConnection::Pool)
            } else {
                parts.connection_while(|| shared.answers(node), place).await
            };
            match taken {
                Ok(connection) => {
                    let passed_over = if is_primary {
                        std::mem::take(&mut passed_over)
                    } else {
                        Vec::new()
                    };
                    let ride = Ride::begin(shared, node, Kind::Read { passed_over });
                    let lease = Lease::new(connection).with_observer(Box::new(ride));
                    return Ok(match proof {
                        Proof::Nothing => lease,
                        proof => lease.with_guard(guard(shared, node, proof)),
                    });
                }
                Err(NoConnection::Pool(error)) if is_the_callers_to_know(&error) => {
                    return Err(error);
                }
                Err(NoConnection::Pool(error)) => {
                    shared.lost_by(node, &error);
                    last = Some(error);
                }
                Err(NoConnection::NodeLeft) => {}
            }
            passed_over.push((node, Reason::NoConnection));
        }
        // Without an error every candidate left while we waited for it, and no primary is known.
        Err(last.unwrap_or_else(|| {
            let refusal = if wanted.forbid_primary {
                Refusal::PrimaryForbidden(NoReplica::new(view, wanted, &passed_over))
            } else {
                plan_write(view)
                    .err()
                    .unwrap_or(Refusal::NoPrimary(Vec::new()))
            };
            self.refused(refusal, None)
        }))
    }
}

/// A full or closed pool says nothing about the node.
fn is_the_callers_to_know(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PoolTimeout
            | ErrorKind::PoolOverload
            | ErrorKind::PoolSuspended
            | ErrorKind::PoolClosed
    )
}

/// The statement by which a node proves that it keeps the promise, and the verdict on its answer.
fn guard(shared: &Arc<Shared>, node: usize, proof: Proof) -> Guard {
    let shared = Arc::clone(shared);
    Guard::new(proof::STATEMENT, move |rows| {
        judge(&shared, node, proof, rows)
    })
}

/// Whether a node's answer to the proof's statement proves what it has to.
pub(crate) fn judge(
    shared: &Shared,
    node: usize,
    proof: Proof,
    rows: &[Vec<Option<String>>],
) -> Result<(), Error> {
    let view = shared.view();
    let proved = Testimony::read(rows)
        .ok_or(Unproved::Unreadable)
        .and_then(|testimony| testimony.proves(proof, &view, node, Instant::now()));
    proved.map_err(|why| {
        // A node that only trails is as it should be; any other answer is news about it.
        if !matches!(why, Unproved::Behind { .. }) {
            shared.look_at(node);
        }
        let name = shared.nodes[node].name.to_string();
        route_error(RouteError::Unproved { node, name, why })
    })
}

pub(crate) fn refused(refusal: Refusal) -> Error {
    route_error(RouteError::Refused(refusal))
}

fn route_error(error: RouteError) -> Error {
    let about_a_token = matches!(
        &error,
        RouteError::Refused(Refusal::Token(_))
            | RouteError::Unproved {
                why: Unproved::Token(_),
                ..
            }
    );
    if about_a_token {
        Error::from_source(ErrorKind::Token, "the read cannot honour its token", error)
    } else {
        Error::from_source(
            ErrorKind::Source,
            "no node could serve the transaction",
            error,
        )
    }
}

/// One lease, from its beginning to its end.
pub(crate) struct Ride {
    pub(crate) shared: Arc<Shared>,
    pub(crate) node: usize,
    kind: Kind,
    refused: std::sync::atomic::AtomicBool,
}

pub(crate) enum Kind {
    Read { passed_over: Vec<(usize, Reason)> },
    Write { _writing: Writing },
}

impl Ride {
    pub(crate) fn begin(shared: &Arc<Shared>, node: usize, kind: Kind) -> Self {
        shared.nodes[node].load.began();
        Self {
            shared: Arc::clone(shared),
            node,
            kind,
            refused: false.into(),
        }
    }

    pub(crate) fn parts(&self) -> &NodeParts {
        &self.shared.nodes[self.node]
    }

    /// The node answered, this long after it was asked.
    pub(crate) fn took(&self, round_trip: Duration) {
        self.parts().load.answered(round_trip);
    }

    /// The node could not prove what it had to: nothing ran on it.
    pub(crate) fn refuse(&self) {
        // Relaxed: read when the ride is dropped, by whoever holds it.
        self.refused
            .store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// The node refused a statement with this SQLSTATE.
    pub(crate) fn refused_as(&self, sqlstate: &str) {
        if sqlstate == READ_ONLY && matches!(self.kind, Kind::Write { .. }) {
            // Another node may be the primary by now, so all of them are asked.
            self.shared.look_at_all();
            self.shared.teller.tell(EventKind::WriteRefused {
                node: Arc::clone(&self.parts().name),
            });
        }
    }
}

impl LeaseObserver for Ride {
    fn answered(&self, round_trip: Duration) {
        self.took(round_trip);
    }

    fn failed(&self, error: &Error) {
        if matches!(RouteError::behind(error), Some(RouteError::Unproved { .. })) {
            self.refuse();
            return;
        }
        if !error.connection_is_good() {
            self.shared.lost_by(self.node, error);
        }
        if let Some(code) = error.sqlstate() {
            self.refused_as(code);
        }
    }
}

impl Drop for Ride {
    fn drop(&mut self) {
        let parts = &self.shared.nodes[self.node];
        if parts.load.ended() {
            parts.quiet.notify_waiters();
        }
        match &self.kind {
            _ if *self.refused.get_mut() => parts.tally.refused(),
            Kind::Write { .. } => parts.tally.write(),
            Kind::Read { passed_over } => {
                parts.tally.read();
                for (node, reason) in passed_over {
                    self.shared.nodes[*node].tally.passed_over(*reason);
                }
            }
        }
    }
}
