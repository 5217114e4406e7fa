//! What is looked after without anybody asking: idle connections that have stood for too long, those over
//! their age, those to be kept warm, those held suspiciously long.
//!
//! One task for each pool makes the rounds while the pool has connections and there is something to look
//! after; it starts with the first connection and ends with the last, so an idle pool costs no task. A round
//! reads the slots' [`Facts`] under the mutex, takes only those out of the idle ones that something is due
//! for, and hands them to maintenance. Nothing depends on it: a checkout and a return look at ages themselves,
//! and where the task's runtime ends, the next opening starts another.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};

use crate::backend::Backend;
use crate::clock;
use crate::entry::Facts;
use crate::events::EventKind;
use crate::maintenance::{self, Job};
use crate::open;
use crate::put_back;
use crate::raw::claim::Claim;
use crate::raw::rare::Counts;
use crate::raw::whole::Live;
use crate::rt::{Handle, sleep};
use crate::rules::{Rules, Span};
use crate::shared::{Core, Parts, held_by};
use crate::stats::CloseReason;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering};

/// The longest and the shortest time between two rounds.
const LONGEST: Duration = Duration::from_secs(1);
const SHORTEST: Duration = Duration::from_millis(10);
/// An expired connection is replaced if it was used within this part of its life.
const LATELY: u64 = 4;

/// The state of a pool's rounds.
#[derive(Default)]
pub(crate) struct Rounds {
    running: AtomicBool,
    /// When the last one was made, by the exact clock; zero before the first.
    last: AtomicU64,
    /// Until when all connections are being renewed, and when that began.
    renewing: AtomicU64,
    renewal: AtomicU64,
    /// How many were closed to make room for those that replace them.
    refill: AtomicUsize,
    /// The numbers of those for which another is being opened.
    replacing: Mutex<Vec<u64>>,
}

impl Rounds {
    /// How long ago the last round was made; `None` while none is to be made.
    pub(crate) fn age(&self) -> Option<Duration> {
        // Ordering of all here: Relaxed; numbers for the eye, and hints.
        let last = self.last.load(Ordering::Relaxed);
        (last != 0 && self.running.load(Ordering::Relaxed))
            .then(|| Duration::from_micros(clock::exact().saturating_sub(last)))
    }

    /// Notes that all connections begun before now are to be renewed until `end`.
    pub(crate) fn renew(&self, now: u64, end: u64) {
        self.renewing.store(end, Ordering::Relaxed);
        self.renewal.store(now, Ordering::Relaxed);
    }

    /// Whether those that are due now are to be replaced although nobody has used them.
    fn are_renewing(&self, now: u64) -> bool {
        let end = self.renewing.load(Ordering::Relaxed);
        // The last are seen by the round after the end.
        end != 0 && now <= end.saturating_add(2 * clock::micros(LONGEST))
    }

    /// Notes that another is being opened for this one; false if that was so before.
    fn begin_replacing(&self, serial: u64) -> bool {
        let mut replacing = self.replacing.lock();
        let first = !replacing.contains(&serial);
        if first {
            replacing.push(serial);
        }
        first
    }

    /// Notes that no other is being opened for this one any more.
    pub(crate) fn end_replacing(&self, serial: u64) {
        self.replacing.lock().retain(|other| *other != serial);
    }

    /// Until when a connection that was begun at `begun` is to be renewed, if it is.
    pub(crate) fn renewal_since(&self, begun: u64) -> Option<u64> {
        (begun < self.renewal.load(Ordering::Relaxed))
            .then(|| self.renewing.load(Ordering::Relaxed))
    }
}

fn micros(span: Span) -> u64 {
    clock::micros(span.get())
}

/// How often the rounds are made: four times in the shortest span that is looked after, at least every second.
fn period(config: &Rules) -> Duration {
    [
        config.idle_timeout,
        config.keepalive,
        config.recycle,
        config.max_hold,
        config.leak_threshold,
        config.overflow_linger,
    ]
    .into_iter()
    .flatten()
    .map(|span| span.get() / 4)
    .fold(LONGEST, Duration::min)
    .max(SHORTEST)
}

/// Sees to it that somebody makes the rounds.
pub(crate) fn begin<B: Backend>(handle: &Handle, core: &Arc<Core<B>>) {
    // Ordering: AcqRel with the swap in `is_done`: either that comes later and then sees the slot that the
    // caller has taken, or ours comes later and we start another.
    if core.outside.rounds.running.swap(true, Ordering::AcqRel) {
        return;
    }
    let keeper = Housekeeper {
        core: Arc::clone(core),
        ended: false,
    };
    handle.spawn(keeper.run());
}

struct Housekeeper<B: Backend> {
    core: Arc<Core<B>>,
    ended: bool,
}

impl<B: Backend> Housekeeper<B> {
    async fn run(mut self) {
        let core = Arc::clone(&self.core);
        let shared = &core.outside;
        let period = period(&shared.config);
        let mut shutdown = pin!(shared.shutdown.wait());
        loop {
            if let Either::Right(_) = select(pin!(sleep(period)), shutdown.as_mut()).await {
                return;
            }
            round(&core);
            if self.is_done() {
                return;
            }
        }
    }

    /// Whether the pool is empty and nothing is to be opened in it.
    fn is_done(&mut self) -> bool {
        let empty = || self.core.counts().taken == 0 && self.core.outside.config.min_idle == 0;
        if !empty() {
            return false;
        }
        let running = &self.core.outside.rounds.running;
        // Ordering: AcqRel, as in `begin`.
        running.swap(false, Ordering::AcqRel);
        self.ended = empty() || running.swap(true, Ordering::AcqRel);
        self.ended
    }
}

impl<B: Backend> Drop for Housekeeper<B> {
    /// Also where its runtime ends, or a round panicked: the next opening starts another.
    fn drop(&mut self) {
        if !self.ended {
            // Ordering: AcqRel, as in `begin`.
            self.core
                .outside
                .rounds
                .running
                .swap(false, Ordering::AcqRel);
        }
    }
}

/// What is due for an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Replace,
    Expired,
    Idle,
    Overflow,
    KeepAlive,
}

/// What is due, by the facts alone; whether it may be closed is another question.
fn due(config: &Rules, facts: &Facts, now: u64, renewing: bool) -> Option<Due> {
    let idle = now.saturating_sub(facts.since());
    let longer = |limit: Option<Span>| limit.is_some_and(|limit| idle >= micros(limit));
    let early = if renewing {
        2 * clock::micros(LONGEST)
    } else {
        0
    };
    if now.saturating_add(early) > facts.expires() {
        let lately = config.recycle.map_or(0, micros) / LATELY;
        let wanted = renewing || idle < lately;
        return Some(if wanted { Due::Replace } else { Due::Expired });
    }
    if longer(config.idle_timeout) {
        return Some(Due::Idle);
    }
    if longer(config.overflow_linger) {
        return Some(Due::Overflow);
    }
    let silent = now.saturating_sub(facts.proven());
    let every = config.keepalive.map(micros);
    every
        .is_some_and(|every| silent >= every)
        .then_some(Due::KeepAlive)
}

/// One round.
fn round<B: Backend>(core: &Arc<Core<B>>) {
    let shared = &core.outside;
    // Ordering: Relaxed; a number for the eye.
    shared.rounds.last.store(clock::exact(), Ordering::Relaxed);
    look_at_idle(core);
    look_at_holders(core);
    fill(core, shared.config.min_idle);
    #[cfg(feature = "metrics")]
    crate::export::status(&shared.config, &shared.status(core));
}

fn look_at_idle<B: Backend>(core: &Arc<Core<B>>) {
    let shared = &core.outside;
    let config = &shared.config;
    let now = clock::by(config.time_source);
    let renewing = shared.rounds.are_renewing(clock::exact());
    let seen = core.counts();
    let idle = seen.idle;
    // How many may go: down to `min_idle`, a quarter in one round; and of the lingering those too many.
    let mut spare = idle.saturating_sub(config.min_idle).min((idle / 4).max(1));
    let mut lingering = idle.saturating_sub(seen.size);
    let mut replace = Vec::new();
    let mut reasons = Vec::new();
    let taken = Core::<B>::take_idle_where(core, |facts| {
        let Some(due) = due(config, facts, now, renewing) else {
            return false;
        };
        let count_down = |left: &mut usize| {
            let some = *left > 0;
            *left = left.saturating_sub(1);
            some
        };
        let take = match due {
            Due::Replace => {
                replace.push(facts.serial());
                false // It goes when another is there.
            }
            Due::Expired | Due::KeepAlive => true,
            Due::Idle => count_down(&mut spare),
            Due::Overflow => count_down(&mut lingering),
        };
        if take {
            reasons.push((facts.serial(), due));
        }
        take
    });
    for claim in taken {
        // Somebody may have had it between the look and the taking: then it is looked at anew.
        let serial = claim.facts().serial();
        let chosen = reasons.iter().find(|(known, _)| *known == serial);
        match chosen.and(due(config, claim.facts(), now, renewing)) {
            Some(Due::Expired) => put_back::close(claim, CloseReason::Expired),
            Some(Due::Idle) => put_back::close(claim, CloseReason::Idle),
            Some(Due::Overflow) => put_back::close(claim, CloseReason::Overflow),
            Some(Due::KeepAlive) => {
                keep_alive(core, claim);
            }
            Some(Due::Replace) | None => put_back::unmoved(claim),
        }
    }
    for serial in replace {
        if !replace_one(core, serial) {
            return; // The others in later rounds.
        }
    }
}

/// Goes on replacing, when another was just opened in some connection's place: all that are to be renewed get their
/// turn at the pace at which connections open.
pub(crate) fn replaced<B: Backend>(core: &Arc<Core<B>>) {
    if core.outside.rounds.are_renewing(clock::exact()) {
        look_at_idle(core);
    }
}

/// Pings a connection, unless it is of an older generation and was missed when that ended.
fn keep_alive<B: Backend>(core: &Arc<Core<B>>, claim: Claim<Parts<B>, Arc<Core<B>>>) {
    let of = claim.value().as_ref().map(|entry| entry.generation);
    let generation = core.outside.generation();
    if of == Some(generation) {
        maintenance::push(core, Job::Check(Core::<B>::set_aside(claim), generation));
    } else {
        put_back::close(claim, CloseReason::Invalidated);
    }
}

/// Opens another connection and then closes this one; true if there is room for that. Else the other way
/// round.
fn replace_one<B: Backend>(core: &Arc<Core<B>>, serial: u64) -> bool {
    let Some(handle) = core.outside.runtime() else {
        return false;
    };
    if core.counts().connecting >= core.outside.config.max_connecting {
        return false;
    }
    let rounds = &core.outside.rounds;
    if !rounds.begin_replacing(serial) {
        return true;
    }
    if let Some(opening) = Core::<B>::take_spare(core, |_| true) {
        open::start_replacing(&handle, opening.into_owned(core), serial);
        return true;
    }
    rounds.end_replacing(serial);
    for claim in Core::<B>::take_idle_where(core, |facts| facts.serial() == serial) {
        rounds.refill.fetch_add(1, Ordering::Relaxed);
        put_back::close(claim, CloseReason::Expired);
    }
    false
}

/// Opens what was closed to be replaced, once its slot is vacant.
pub(crate) fn refill<B: Backend>(core: &Arc<Core<B>>) {
    if core.outside.rounds.refill.load(Ordering::Relaxed) > 0 {
        fill(core, 0);
    }
}

fn look_at_holders<B: Backend>(core: &Arc<Core<B>>) {
    let shared = &core.outside;
    let config = &shared.config;
    let now = clock::by(config.time_source);
    let limits = (
        config.leak_threshold.map(micros),
        config.max_hold.map(micros),
    );
    let mut told = Vec::new();
    core.each_slot(|facts| {
        if facts.absolve() {
            shared.tally.leaks_returned.raise();
        }
    });
    core.each_live(|live, facts| {
        if live != Live::InUse {
            return;
        }
        let since = facts.since();
        let held = now.saturating_sub(since);
        if limits.0.is_some_and(|limit| held >= limit) && facts.suspect(since) {
            shared.tally.leaks_suspected.raise();
            let holder = held_by(facts, now);
            told.extend(holder.map(|holder| EventKind::LeakSuspected { holder }));
        }
        if limits.1.is_some_and(|limit| held > limit) && facts.overdo(since) {
            shared.tally.held_too_long.raise();
            let holder = held_by(facts, now);
            told.extend(holder.map(|holder| EventKind::HeldTooLong { holder }));
        }
    });
    for kind in told {
        shared.tell(|| kind);
    }
}

/// Opens connections until `idle` are idle or on their way there, within `pool_size`; and what was closed to be
/// replaced, as far as there is room by now.
///
/// What is wanted is worked out from the state each time. After failures one at a time is tried.
pub(crate) fn fill<B: Backend>(core: &Arc<Core<B>>, idle: usize) {
    let shared = &core.outside;
    let refill = &shared.rounds.refill;
    if idle == 0 && refill.load(Ordering::Relaxed) == 0 {
        return;
    }
    let Some(handle) = shared.runtime() else {
        return;
    };
    let troubled = shared.outage.failures() > 0;
    let may_try = |counts: &Counts| !(troubled && counts.connecting > 0);
    let full = |counts: &Counts| counts.taken - counts.closing >= counts.size;
    while let Some(opening) = Core::<B>::take_spare(core, |counts| {
        let spare = counts.connecting.saturating_sub(counts.waiting);
        counts.idle + spare < idle && !full(counts) && may_try(counts)
    }) {
        open::start(&handle, opening.into_owned(core));
    }
    while refill
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        })
        .is_ok()
    {
        let mut is_full = false;
        let opening = Core::<B>::take_spare(core, |counts| {
            is_full = full(counts);
            !is_full && may_try(counts)
        });
        match opening {
            Some(opening) => open::start(&handle, opening.into_owned(core)),
            None if is_full => {} // Others stand in its place.
            None => {
                refill.fetch_add(1, Ordering::Relaxed); // For when there is room.
                return;
            }
        }
    }
}
