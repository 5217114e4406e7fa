//! The decision where a read goes: a function of what is known, what is asked, the time and a throw of dice.
//!
//! What always holds: nothing unknown makes a node eligible; every candidate but those of an eventual read
//! has something to prove on the connection that will be used; the primary comes last, and alone where only
//! it can keep the promise. No lock, no I/O, no clock.

use std::fmt;
use std::time::{Duration, Instant};

use pool_postgres::{CommitToken, Strength};

use crate::choose::order;
use crate::floor::{TokenRefusal, floor_of};
use crate::lsn::Lsn;
use crate::orders::Reads;
use crate::request::{Consistency, Request, WaitPolicy};
use crate::sample::Replay;
use crate::view::{Answers, Node, Reason, View};

/// A replica whose last sample lies below a token may have reached it since, if its data was no older than
/// this.
const MAY_HAVE_CAUGHT_UP: Duration = Duration::from_secs(1);

/// Where a read may go, in the order to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The nodes, the best first.
    pub candidates: Vec<Candidate>,
    /// The replicas that are not among them, and why.
    pub passed_over: Vec<(usize, Reason)>,
}

/// One node that may serve a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its index in the view.
    pub node: usize,
    /// What it has to prove on the connection that is used.
    pub proof: Proof,
}

/// What a node has to prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing.
    Nothing,
    /// That its data is at most this old.
    Age(Duration),
    /// That it has replayed up to the token.
    Token(CommitToken),
    /// That it is a primary, on the current timeline.
    Primary,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The token cannot be honoured anywhere.
    Token(TokenRefusal),
    /// No node is known to be the primary; says of each what it is instead.
    NoPrimary(Vec<(String, &'static str)>),
    /// The read may not go to the primary, and no replica can keep its promise.
    PrimaryForbidden(NoReplica),
}

/// Why no replica could serve a read that may not go to the primary. `Display` names each and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NoReplica {
    /// What the read promises.
    pub consistency: Consistency,
    /// The place that its token asks for, where it has one.
    pub needed: Option<Lsn>,
    /// The replicas; empty where there are none, or where only a primary could keep the promise.
    pub replicas: Vec<Missed>,
    /// How long the read might wait for one.
    pub wait: WaitPolicy,
}

/// A replica that could not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missed {
    /// Its name.
    pub name: String,
    /// Why not.
    pub reason: Reason,
    /// How far it had replayed when it was looked at last.
    pub reached: Option<Lsn>,
}

impl NoReplica {
    /// From what a plan has passed over.
    pub(crate) fn new(view: &View, request: &Request, passed_over: &[(usize, Reason)]) -> Self {
        let asks = Asks::of(view, request.consistency).ok();
        let missed = passed_over.iter().map(|(index, reason)| {
            let node = &view.nodes[*index];
            Missed {
                name: node.name.to_string(),
                reason: *reason,
                reached: node.position(),
            }
        });
        Self {
            consistency: request.consistency,
            needed: asks.and_then(|asks| asks.floor),
            replicas: missed.collect(),
            wait: WaitPolicy::Never,
        }
    }
}

impl fmt::Display for NoReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the read of {} may not go to the primary, and no replica can serve it",
            self.consistency
        )?;
        for (index, missed) in self.replicas.iter().enumerate() {
            let before = if index == 0 { ":" } else { ";" };
            write!(f, "{before} {} {}", missed.name, missed.reason)?;
            if let (Some(needed), Some(reached)) = (self.needed, missed.reached) {
                write!(f, " (stands at {reached}, has to be at {needed})")?;
            }
        }
        match self.wait {
            WaitPolicy::UpTo(limit) if self.needed.is_some() => write!(
                f,
                "; it may wait {limit:?}: let it wait longer, or allow the primary"
            ),
            _ if self.needed.is_some() => {
                f.write_str("; allow the primary, or let the read wait (WaitPolicy::UpTo)")
            }
            _ => f.write_str("; allow the primary, or ask for less"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(refusal) => refusal.fmt(f),
            Self::NoPrimary(nodes) => {
                f.write_str("no node takes writes:")?;
                for (index, (node, what)) in nodes.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma} {node} {what}")?;
                }
                Ok(())
            }
            Self::PrimaryForbidden(missed) => missed.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}

/// Decides where a read goes.
///
/// `chance` is a random number: two eligible replicas are drawn by it and the less loaded one is preferred
/// (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).
///
/// # Errors
/// Where no node can keep the promise, and none could by waiting a little.
pub fn plan(view: &View, request: &Request, now: Instant, chance: u64) -> Result<Plan, Refusal> {
    let mut plan = Plan {
        candidates: Vec::new(),
        passed_over: Vec::new(),
    };
    let asks = Asks::of(view, request.consistency)?;
    let by_order = view.orders.reads == Reads::PrimaryOnly;
    if asks.replicas && !request.primary_only && !by_order {
        plan.candidates.reserve_exact(view.nodes.len());
        let mut perhaps = None;
        for index in 0..view.nodes.len() {
            if view.primary == Some(index) {
                continue;
            }
            let fit = if request.avoid == Some(index) {
                Err(Reason::ProofFailed)
            } else {
                asks.fit(view, index, now)
            };
            let ejected = view.ejected(index, now).is_some();
            match fit {
                Ok(Fit::Good) if ejected => plan.pass(Some(index), Reason::Ejected),
                Ok(Fit::Good) => plan.candidates.push(Candidate {
                    node: index,
                    proof: asks.proof,
                }),
                Ok(Fit::Perhaps) if !ejected && better(view, index, perhaps) => {
                    plan.pass(perhaps, Reason::BehindToken);
                    perhaps = Some(index);
                }
                Ok(Fit::Perhaps) => plan.pass(Some(index), Reason::BehindToken),
                Err(reason) => plan.pass(Some(index), reason),
            }
        }
        if plan.candidates.is_empty() && perhaps.is_none() {
            plan.take_the_ejected(asks.proof);
        }
        order(view, &mut plan.candidates, now, chance);
        match perhaps {
            // What is sure comes first; beside it a try that may cost a round trip is not worth making.
            Some(_) if !plan.candidates.is_empty() => plan.pass(perhaps, Reason::BehindToken),
            Some(node) => plan.candidates.push(Candidate {
                node,
                proof: asks.proof,
            }),
            None => {}
        }
    } else if view.has_replicas() {
        let reason = if by_order {
            Reason::PrimaryOnly
        } else if asks.weak {
            Reason::WeakToken
        } else {
            Reason::ProofFailed
        };
        let strong = request.consistency == Consistency::Strong;
        let replicas =
            (0..view.nodes.len()).filter(|index| view.primary != Some(*index) && !strong);
        plan.passed_over
            .extend(replicas.map(|index| (index, reason)));
    }
    if request.forbid_primary {
        return if plan.candidates.is_empty() {
            let missed = NoReplica::new(view, request, &plan.passed_over);
            Err(Refusal::PrimaryForbidden(missed))
        } else {
            Ok(plan)
        };
    }
    match view.primary {
        Some(node) => plan.candidates.push(Candidate {
            node,
            proof: asks.primary_proof,
        }),
        None if plan.candidates.is_empty() => return Err(no_primary(view)),
        None => {}
    }
    Ok(plan)
}

/// The node that takes writes.
///
/// # Errors
/// If none is known to.
pub fn plan_write(view: &View) -> Result<usize, Refusal> {
    view.primary.ok_or_else(|| no_primary(view))
}

/// What a read asks of nodes.
pub(crate) struct Asks {
    /// Whether a replica can keep the promise at all.
    pub(crate) replicas: bool,
    weak: bool,
    proof: Proof,
    primary_proof: Proof,
    oldest: Option<Duration>,
    /// The place in the log that a node must have reached.
    pub(crate) floor: Option<Lsn>,
}

/// What a node's last sample says of it.
pub(crate) enum Fit {
    /// It can keep the promise.
    Good,
    /// It could not then, and may have caught up since.
    Perhaps,
}

impl Asks {
    pub(crate) fn of(view: &View, consistency: Consistency) -> Result<Self, Refusal> {
        let nothing = Self {
            replicas: true,
            weak: false,
            proof: Proof::Nothing,
            primary_proof: Proof::Nothing,
            oldest: None,
            floor: None,
        };
        Ok(match consistency {
            Consistency::Eventual => nothing,
            Consistency::BoundedStaleness(bound) => Self {
                proof: Proof::Age(bound),
                // Its data has no age only as long as it is the primary. A node without others is what it is.
                primary_proof: if view.has_replicas() {
                    Proof::Primary
                } else {
                    Proof::Nothing
                },
                oldest: Some(bound),
                ..nothing
            },
            Consistency::Strong => Self {
                replicas: false,
                primary_proof: Proof::Primary,
                ..nothing
            },
            Consistency::ReadYourWrites(token) | Consistency::Monotonic(token) => {
                // The commit of a weak token may lie beyond its place; who only must not go back asks for no more
                // than the place.
                let weak = token.strength == Strength::Weak
                    && matches!(consistency, Consistency::ReadYourWrites(_));
                let strength = if weak {
                    Strength::Weak
                } else {
                    Strength::Strong
                };
                let token = CommitToken { strength, ..token };
                let proof = Proof::Token(token);
                let floor = floor_in(view, &token).map_err(Refusal::Token)?;
                let replicas = floor.is_some() && !weak;
                Self {
                    replicas,
                    weak,
                    proof,
                    primary_proof: proof,
                    floor,
                    ..nothing
                }
            }
        })
    }

    /// Whether a node can serve, by its last sample.
    pub(crate) fn fit(&self, view: &View, index: usize, now: Instant) -> Result<Fit, Reason> {
        let sample = view.replica(index)?;
        if view.orders.is_drained(index) {
            return Err(Reason::Drained);
        }
        let age = view.nodes[index]
            .as_of
            .map(|as_of| now.saturating_duration_since(as_of));
        if let Some(oldest) = self.oldest {
            return match age {
                None => Err(Reason::LagUnknown),
                Some(age) if age <= oldest => Ok(Fit::Good),
                Some(_) => Err(Reason::TooStale),
            };
        }
        let Some(floor) = self.floor else {
            return if age.is_some() {
                Ok(Fit::Good)
            } else {
                Err(Reason::LagUnknown)
            };
        };
        let position = sample.position.ok_or(Reason::LagUnknown)?;
        if position >= floor.settled(sample.geometry) {
            return Ok(Fit::Good);
        }
        let moves = sample.replay == Some(Replay::Running);
        let close = age.is_some_and(|age| age <= MAY_HAVE_CAUGHT_UP);
        if moves && close {
            Ok(Fit::Perhaps)
        } else {
            Err(Reason::BehindToken)
        }
    }
}

/// The position that the token asks for; `None` where only the primary, on the connection, can say.
fn floor_in(view: &View, token: &CommitToken) -> Result<Option<Lsn>, TokenRefusal> {
    if let Some(ours) = view.system_identifier
        && token.system_identifier != ours
    {
        return Err(TokenRefusal::OfAnotherCluster {
            token: token.system_identifier,
            ours,
        });
    }
    match view.timeline {
        // Somebody else has seen a promotion that we have not, or nobody watches: the primary will say.
        None => Ok(None),
        Some(ours) if token.timeline > ours => Ok(None),
        current => floor_of(token, current, &view.forks).map(Some),
    }
}

impl Plan {
    /// Where nobody else is fit, those that are out for their connections' sake are still before the primary.
    fn take_the_ejected(&mut self, proof: Proof) {
        let Self {
            candidates,
            passed_over,
        } = self;
        passed_over.retain(|(node, reason)| {
            let ejected = *reason == Reason::Ejected;
            candidates.extend(ejected.then_some(Candidate { node: *node, proof }));
            !ejected
        });
    }

    fn pass(&mut self, node: Option<usize>, reason: Reason) {
        self.passed_over.extend(node.map(|node| (node, reason)));
    }
}

/// Of two replicas that may have caught up, the one that stands further.
fn better(view: &View, index: usize, than: Option<usize>) -> bool {
    let position = |index: usize| view.nodes[index].position();
    than.is_none_or(|than| position(index) > position(than))
}

fn no_primary(view: &View) -> Refusal {
    let what = |node: &Node| match (node.answers, &node.sample) {
        (Answers::No, _) => "does not answer",
        (Answers::NotAsked, _) | (_, None) => "has not answered yet",
        (Answers::Yes, Some(sample)) => match sample.role {
            crate::sample::Role::Replica => "is a replica",
            crate::sample::Role::Primary => {
                "is a primary on an older timeline or of another cluster"
            }
        },
    };
    Refusal::NoPrimary(
        view.nodes
            .iter()
            .map(|node| (node.name.to_string(), what(node)))
            .collect(),
    )
}

#[cfg(test)]
mod promises;
#[cfg(test)]
mod tests;
