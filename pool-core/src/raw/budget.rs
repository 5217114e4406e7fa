//! A number of connections shared by many pools, and who is given what comes free.
//!
//! A pool takes one *permit* for each slot before that leaves the vacant state, and frees it when the slot is
//! vacant again. A pool for whose waiters there is no permit is *starving*: it stands in a line, and no other
//! pool takes a permit past it. What comes free is *granted* one at a time to the *poorest* in the line: who
//! holds least by weight, and of those alike who came first, so that they take turns.
//!
//! # Giving way
//! While somebody starves, all pools that hold connections are asked to give one up: an idle one at once; else
//! the next for which nobody waits there; else, of a pool that holds more than the poorest (by weight, so much
//! more that giving one away does not turn the tables), or if that one holds nothing, the next that comes back
//! at all. A pool that was asked asks back under its own mutex before it closes one
//! ([`Ticket::yield_one`]), so no more are closed than are wanted.
//!
//! # Locks
//! The budget's mutex is a leaf: it may be taken under a pool's mutex, and nothing is taken or called under it.
//! What concerns other pools ([`Ticket::balance`]) is done with no lock held, by one thread at a time; who
//! comes meanwhile leaves word to go round again.
//!
//! Checked by the models `budget`.

use std::cmp::Ordering as Compared;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Weak;

use slab::Slab;

use crate::sync::{Arc, AtomicBool, Mutex, Ordering};

/// A pool, as its budget sees it. Called with no lock held.
pub(crate) trait Sharer: Send + Sync {
    /// Closes an idle connection, or the next one that comes back: see [`Core::give_way`](super::core::Core::give_way).
    fn give_way(&self, any: bool);
    /// Tells a waiter that there is room now.
    fn offer_room(&self);
}

/// The permits, and the pools that share them.
pub(crate) struct Budget(Mutex<State>);

struct State {
    total: usize,
    free: usize,
    members: Slab<Member>,
    /// Those that hold something: at most `total`, however many members there are.
    holding: BTreeSet<usize>,
    /// Those that starve.
    line: VecDeque<usize>,
    starving: usize,
    /// How many connections are being closed for the starving.
    yielding: usize,
    balancing: bool,
    again: bool,
}

struct Member {
    pool: Weak<dyn Sharer>,
    weight: usize,
    /// How many connections it was promised for its own use (`min_idle`).
    promised: usize,
    held: usize,
    granted: usize,
    yielding: usize,
    starving: bool,
}

/// The numbers of a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) total: usize,
    pub(crate) free: usize,
    pub(crate) pools: usize,
    pub(crate) starving: usize,
}

impl Member {
    /// What it holds, or may take at any moment.
    fn has(&self) -> usize {
        self.held + self.granted
    }

    /// Which of two has more by weight.
    fn wealth(&self, other: &Self) -> Compared {
        (self.has() * other.weight).cmp(&(other.has() * self.weight))
    }
}

/// A pool's membership; leaves when dropped.
pub(crate) struct Ticket {
    budget: Arc<Budget>,
    id: usize,
    /// Whether the budget may hold something for this pool, or it may stand in the line. A hint that saves the
    /// budget's mutex; only used under the pool's own.
    involved: AtomicBool,
}

/// How asking for a permit went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Took {
    Yes,
    /// Yes, and others starve: they may ask for it.
    YesAmongStarving,
    /// No, and the pool starves from now on.
    NewlyStarving,
    StillStarving,
}

impl Budget {
    pub(crate) fn new(total: usize) -> Self {
        Self(Mutex::new(State {
            total,
            free: total,
            members: Slab::new(),
            holding: BTreeSet::new(),
            line: VecDeque::new(),
            starving: 0,
            yielding: 0,
            balancing: false,
            again: false,
        }))
    }

    /// Lets a pool take part; `Err` with the sum of what is promised, if that would be more than there is.
    pub(crate) fn join(
        budget: &Arc<Self>,
        pool: Weak<dyn Sharer>,
        weight: usize,
        promised: usize,
    ) -> Result<Ticket, usize> {
        let mut state = budget.0.lock();
        let members = state.members.iter();
        let sum = members.map(|(_, member)| member.promised).sum::<usize>() + promised;
        if promised > 0 && sum > state.total {
            return Err(sum);
        }
        let id = state.members.insert(Member {
            pool,
            weight,
            promised,
            held: 0,
            granted: 0,
            yielding: 0,
            starving: false,
        });
        drop(state);
        Ok(Ticket {
            budget: Arc::clone(budget),
            id,
            involved: AtomicBool::new(false),
        })
    }

    pub(crate) fn numbers(&self) -> Numbers {
        let state = self.0.lock();
        Numbers {
            total: state.total,
            free: state.free,
            pools: state.members.len(),
            starving: state.starving,
        }
    }

    /// Gives what is free to the starving, and asks others to give way to those that are left.
    fn balance(&self) {
        {
            let mut state = self.0.lock();
            if state.balancing {
                state.again = true;
                return;
            }
            state.balancing = true;
        }
        // Wakers and destructors run in here: even if one panics, the next must be able to go on.
        let turn = Turn(self);
        loop {
            self.grant();
            self.ask();
            let mut state = self.0.lock();
            if !std::mem::take(&mut state.again) {
                state.balancing = false;
                std::mem::forget(turn);
                return;
            }
        }
    }

    fn grant(&self) {
        loop {
            let next = self.0.lock().grant();
            let Some(pool) = next else { return };
            // One that is gone gave its grant back when it left.
            if let Some(pool) = pool.upgrade() {
                pool.offer_room();
            }
        }
    }

    fn ask(&self) {
        let asked = self.0.lock().richest_first();
        for (pool, any) in asked {
            if !self.0.lock().is_hungry() {
                return;
            }
            if let Some(pool) = pool.upgrade() {
                pool.give_way(any);
            }
        }
    }
}

/// Ends a round that a panic cut short.
struct Turn<'a>(&'a Budget);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.0.lock().balancing = false;
    }
}

impl State {
    /// Whether a connection should be closed for one that starves, beside those that are being closed.
    fn is_hungry(&self) -> bool {
        self.starving > self.yielding
    }

    /// The place in the line of the poorest.
    fn poorest(&self) -> Option<usize> {
        let mut poorest: Option<(usize, &Member)> = None;
        for (place, id) in self.line.iter().enumerate() {
            let member = &self.members[*id];
            if member.has() == 0 {
                return Some(place);
            }
            if poorest.is_none_or(|(_, known)| member.wealth(known) == Compared::Less) {
                poorest = Some((place, member));
            }
        }
        poorest.map(|(place, _)| place)
    }

    fn grant(&mut self) -> Option<Weak<dyn Sharer>> {
        if self.free == 0 {
            return None;
        }
        let id = self.line.remove(self.poorest()?)?;
        let member = &mut self.members[id];
        member.starving = false;
        member.granted += 1;
        self.starving -= 1;
        self.free -= 1;
        Some(member.pool.clone())
    }

    /// Whom to ask to give way to the poorest in the line, and whether for any connection.
    fn richest_first(&self) -> Vec<(Weak<dyn Sharer>, bool)> {
        let Some(poor_id) = self.poorest().map(|place| self.line[place]) else {
            return Vec::new();
        };
        let poor = &self.members[poor_id];
        let others = self.holding.iter().filter(|id| **id != poor_id);
        let mut rich: Vec<_> = others.map(|id| &self.members[*id]).collect();
        rich.sort_by(|a, b| b.wealth(a));
        let has = poor.has();
        rich.into_iter()
            .map(|rich| {
                let spared = rich.held.saturating_sub(1) * poor.weight;
                let any = has == 0 || spared >= (has + 1) * rich.weight;
                (rich.pool.clone(), any)
            })
            .collect()
    }

    /// Notes that a member holds one more.
    fn hold(&mut self, id: usize) {
        self.members[id].held += 1;
        self.holding.insert(id);
    }

    fn stop_starving(&mut self, id: usize) {
        let member = &mut self.members[id];
        if std::mem::take(&mut member.starving) {
            self.starving -= 1;
            self.line.retain(|other| *other != id);
        }
    }
}

impl Ticket {
    /// Takes a permit, or gets in line. Under the pool's mutex.
    pub(super) fn take(&self) -> Took {
        let mut state = self.budget.0.lock();
        let among_starving = state.starving > 0;
        let free = state.free > 0 && !among_starving;
        let member = &mut state.members[self.id];
        if member.granted > 0 {
            member.granted -= 1;
        } else if free {
            state.free -= 1;
        } else {
            // Ordering: Relaxed, here and below; only used under the pool's mutex.
            self.involved.store(true, Ordering::Relaxed);
            if std::mem::replace(&mut member.starving, true) {
                return Took::StillStarving;
            }
            state.starving += 1;
            state.line.push_back(self.id);
            return Took::NewlyStarving;
        }
        state.hold(self.id);
        if among_starving {
            Took::YesAmongStarving
        } else {
            Took::Yes
        }
    }

    /// Takes a permit if one is free, without getting in line. Under the pool's mutex.
    pub(super) fn take_free(&self) -> bool {
        let mut state = self.budget.0.lock();
        let free = state.free > 0 && state.starving == 0;
        if free {
            state.free -= 1;
            state.hold(self.id);
        }
        free
    }

    /// Gives a permit back. Under the pool's mutex; [`balance`](Self::balance) must follow outside.
    pub(super) fn freed(&self) {
        let mut state = self.budget.0.lock();
        state.free += 1;
        let member = &mut state.members[self.id];
        member.held -= 1;
        let nothing = member.held == 0;
        if member.yielding > 0 {
            member.yielding -= 1;
            state.yielding -= 1;
        }
        if nothing {
            state.holding.remove(&self.id);
        }
    }

    /// Whether this pool is to close a connection for one that starves; that is then counted on. Under the
    /// pool's mutex.
    pub(super) fn yield_one(&self) -> bool {
        let mut state = self.budget.0.lock();
        if !state.is_hungry() {
            return false;
        }
        state.yielding += 1;
        state.members[self.id].yielding += 1;
        true
    }

    /// Leaves the line and gives back what was granted: nobody in this pool waits for it any more. Whether
    /// there is something for others now. Under the pool's mutex.
    pub(super) fn sated(&self) -> bool {
        if !self.involved.load(Ordering::Relaxed) {
            return false;
        }
        self.involved.store(false, Ordering::Relaxed);
        let mut state = self.budget.0.lock();
        state.stop_starving(self.id);
        let granted = std::mem::take(&mut state.members[self.id].granted);
        state.free += granted;
        granted > 0
    }

    /// Hands on what is free. With no lock held.
    pub(super) fn balance(&self) {
        self.budget.balance();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.budget.0.lock();
        state.stop_starving(self.id);
        let member = state.members.remove(self.id);
        state.holding.remove(&self.id);
        state.free += member.held + member.granted;
        state.yielding -= member.yielding;
        drop(state); // Before the weak handle in `member` is dropped.
        self.budget.balance();
    }
}
