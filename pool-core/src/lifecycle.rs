//! What concerns all of a pool's connections: warming up, resizing, suspending, renewing, closing, seeing.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::advice::{Advice, Demand};
use crate::backend::Backend;
use crate::clock;
use crate::config::check_limits;
use crate::error::{BuildError, GetError};
use crate::events::{EventKind, Events};
use crate::open;
use crate::pool::Pool;
use crate::put_back;
use crate::raw::claim::Closing;
use crate::rt::{Handle, timeout};
use crate::rules::Span;
use crate::shared::{Core, Parts, Refusal};
use crate::stats::{CloseReason, Stats};
use crate::status::{CloseReport, Holder, Status};

/// What [`Pool::retain`] tells of an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdleInfo {
    /// How old it is, exact to about 100 ms.
    pub age: Duration,
    /// How long it has been idle, exact to about 100 ms.
    pub idle: Duration,
}

/// How a pool's idle connections are closed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Polite,
    AtOnce,
}

impl<B: Backend> Pool<B> {
    /// Opens connections until `connections` exist, at most `pool_size`; for start-up, before load comes.
    ///
    /// Ready at once where as many exist already. At most `max_connecting` are opened at a time.
    ///
    /// # Errors
    /// [`GetError::Connect`] with the first failure; what was opened stays. [`GetError::Closed`],
    /// [`GetError::NoRuntime`]; [`GetError::TimedOut`] if `pool_timeout` passes, as it may where a budget has no
    /// room.
    ///
    /// # Cancel safety
    /// May be dropped at any point; what is being opened goes on opening.
    pub fn warm_up(
        &self,
        connections: usize,
    ) -> impl Future<Output = Result<(), GetError<B::Error>>> + Send {
        let core = self.core();
        async move {
            let shared = &core.outside;
            let started = clock::exact();
            let warm = warm_up(core, connections);
            match shared
                .config
                .pool_timeout
                .map(Span::get)
                .filter(|limit| !limit.is_zero())
            {
                None => warm.await,
                Some(limit) => timeout(limit, warm)
                    .await
                    .unwrap_or_else(|_| Err(crate::checkout::timed_out(core, started))),
            }
        }
    }

    /// Changes `pool_size` and `max_overflow`, with callers waiting and connections in use.
    ///
    /// Larger, waiters open connections in the new room at once. Smaller, idle connections beyond it are
    /// closed now, and what is in use is closed when it comes back, until no more exist than may.
    ///
    /// # Errors
    /// As [`Builder::build`](crate::Builder::build) has them; nothing is changed then. Below `min_idle` is
    /// refused too.
    pub fn resize(
        &self,
        pool_size: usize,
        max_overflow: impl Into<Option<usize>>,
    ) -> Result<(), BuildError> {
        let max_overflow = max_overflow.into();
        check_limits(pool_size, max_overflow)?;
        let shared = &self.core().outside;
        let config = &shared.config;
        if config.min_idle > pool_size {
            return Err(BuildError::MinIdle {
                min_idle: config.min_idle,
                pool_size,
            });
        }
        let capacity = max_overflow.map_or(crate::MAX_CONNECTIONS, |more| pool_size + more);
        let keep = config.keep(pool_size, capacity);
        let surplus = Core::<B>::resize(self.core(), (pool_size, keep), capacity);
        for (closing, _) in surplus {
            put_back::finish_closing(closing, CloseReason::Resized);
        }
        shared.tell(|| EventKind::Resized {
            pool_size,
            capacity,
        });
        Ok(())
    }

    /// Looks at every idle connection and closes those for which `keep` says false; returns how many.
    ///
    /// `keep` runs in the calling thread, without a lock. Each connection is taken out while it is looked at: a
    /// caller that comes meanwhile waits for it. If `keep` panics, the connection it was looking at is closed,
    /// and the others go back.
    pub fn retain(&self, mut keep: impl FnMut(&mut B::Connection, IdleInfo) -> bool) -> usize {
        let shared = &self.core().outside;
        let mut closed = 0;
        let all = Core::<B>::take_idle_where(self.core(), |_| true);
        // From the back, so that those go back first that stood first.
        let mut all: Vec<_> = all
            .into_iter()
            .rev()
            .map(put_back::Untouched::new)
            .collect();
        while let Some(untouched) = all.pop() {
            let mut vetting = put_back::Vetting::new(untouched.take());
            let (entry, facts, _) = vetting.split();
            let now = shared.now();
            let info = IdleInfo {
                age: Duration::from_micros(now.saturating_sub(entry.born)),
                idle: Duration::from_micros(now.saturating_sub(facts.since())),
            };
            if keep(&mut entry.conn, info) {
                put_back::unmoved(vetting.release());
            } else {
                closed += 1;
                put_back::close(vetting.release(), CloseReason::Refused);
            }
        }
        closed
    }

    /// Hands out nothing until [`resume`](Self::resume): for the time of a failover or a migration.
    ///
    /// Callers wait, each until its own time is over ([`GetError::Suspended`]); `try_get` finds nothing. What is in
    /// use stays in use, what comes back is kept, and nothing is opened. Suspending twice is suspending once.
    pub fn suspend(&self) {
        self.core().suspend();
        self.core().outside.tell(|| EventKind::Suspended);
    }

    /// Hands out again, to those who wait first.
    pub fn resume(&self) {
        let shared = &self.core().outside;
        put_back::finish(Core::<B>::resume(self.core(), shared.now()));
        shared.attempted.notify_waiters(); // A warm-up may have found nothing to be opened.
        shared.tell(|| EventKind::Resumed);
    }

    /// Makes every connection that was opened before now unfit: idle ones are closed, those in use when they
    /// come back, those being opened when they land.
    ///
    /// Nobody is interrupted, and nothing is opened before somebody wants it.
    pub fn invalidate_all(&self) {
        let shared = &self.core().outside;
        while !shared.outdate(shared.generation()) {}
        for claim in Core::<B>::take_idle_where(self.core(), |_| true) {
            put_back::close(claim, CloseReason::Invalidated);
        }
    }

    /// Renews every connection that was opened before now, spread evenly over the span: for rotated passwords,
    /// moved names, changed roles.
    ///
    /// An idle connection is replaced before it is closed where there is room, one in use is closed when it
    /// comes back after its turn. At most about a second late.
    pub fn renew_all(&self, over: Duration) {
        let shared = &self.core().outside;
        let (now, exact) = (shared.now(), clock::exact());
        let span = clock::micros(over);
        shared.rounds.renew(exact, exact.saturating_add(span));
        let mut all = 0;
        self.core().each_live(|_, _| all += 1);
        let mut nth = 0;
        self.core().each_live(|_, facts| {
            nth += 1;
            let share = clock::part(span, f64::from(nth) / f64::from(all.max(nth)));
            facts.expire_by(now.saturating_add(share));
        });
        shared.tell(|| EventKind::Renewing { over });
    }

    /// Closes the pool: refuses newcomers and those who wait, closes what is idle, waits up to
    /// [`close_deadline`](crate::Builder::close_deadline) for what is in use, and closes that as it comes back.
    ///
    /// May be called any number of times and from many tasks: each waits for the same end. What comes back
    /// later is closed all the same.
    ///
    /// # Cancel safety
    /// May be dropped at any point; the pool stays closed, and goes on closing its connections.
    pub fn close(&self) -> impl Future<Output = CloseReport> + Send {
        let core = self.core();
        async move {
            begin_close(core, Manner::Polite);
            let shared = &core.outside;
            let config = &shared.config;
            drained_within(core, config.close_deadline.get(), |status| {
                status.in_use == 0 && status.connecting == 0
            })
            .await;
            let limit = config.close_timeout.get().max(config.reset_timeout.get());
            let held = shared.status(core).in_use;
            drained_within(core, limit, |status| {
                status.open + status.connecting <= held
            })
            .await;
            report(core)
        }
    }

    /// Closes the pool without waiting: refuses everybody, and terminates what is idle. What is in use is closed
    /// when it comes back; the report names who holds it.
    pub fn close_now(&self) -> CloseReport {
        begin_close(self.core(), Manner::AtOnce);
        report(self.core())
    }

    /// What happens from now on, as a stream.
    ///
    /// While somebody observes, each checkout and return costs some hundred nanoseconds more.
    pub fn events(&self) -> Events {
        let shared = &self.core().outside;
        let events = shared.hub.observe();
        shared.watch();
        events
    }

    /// What the pool has done since it was built.
    pub fn stats(&self) -> Stats {
        let (mut stats, served_late) = self.counts();
        let shared = &self.core().outside;
        if shared.config.times.is_none() {
            let at_once = stats.checkouts.saturating_sub(served_late);
            stats.timed(&shared.tally.times, at_once);
        }
        stats
    }

    /// How large this pool should be so that 99 of 100 callers wait no longer than 10 ms, from what it has measured
    /// since it was built; `None` where it has timed no checkout yet (one in 64 is).
    ///
    /// Tells also whether it is the database that is at its limit, and not the pool. See [`Demand`] for other figures,
    /// and the formula in [`Demand::advise`].
    pub fn advice(&self) -> Option<Advice> {
        self.advice_for(Duration::from_millis(10))
    }

    /// As [`advice`](Self::advice), for another wait that 99 of 100 callers are not to exceed.
    pub fn advice_for(&self, target: Duration) -> Option<Advice> {
        let stats = self.stats();
        let demand = Demand::of(&stats)?;
        let capacity = self.core().counts().capacity;
        Some(demand.seen_with(capacity, stats.wait.mean).advise(target))
    }

    /// The same without times; and of the checkouts those that had waited.
    pub(crate) fn counts(&self) -> (Stats, u64) {
        let core = self.core();
        let shared = &core.outside;
        let tally = &shared.tally;
        let mut checkouts = 0;
        core.each_slot(|facts| checkouts += facts.uses());
        let stats = Stats {
            checkouts,
            hold_by_use: tally.by_use(),
            watched: tally.watched(),
            closed: tally.closings(),
            opened: tally.opened.get(),
            connect_failures: tally.connect_failures.get(),
            timeouts: tally.timeouts.get(),
            queue_full: tally.queue_full.get(),
            shed: core.counts().shed,
            gave_up: tally.gave_up.get(),
            leaks_suspected: tally.leaks_suspected.get(),
            leaks_returned: tally.leaks_returned.get(),
            held_too_long: tally.held_too_long.get(),
            maintenance_age: shared.rounds.age(),
            ..Stats::default()
        };
        (stats, tally.served_late.get())
    }

    /// Gives the pool's numbers to the recorder of the `metrics` crate now. Maintenance does so at least every
    /// second while the pool has connections; an exporter that wants them fresher calls this first.
    ///
    /// Names: `db.client.connection.count` by `db.client.connection.state`, `.max`, `.idle.max`, `.idle.min` and
    /// `.pending_requests`; recorded as they happen are `.timeouts`, `.create_time`, `.wait_time` and `.use_time`
    /// (seconds). Each carries `db.client.connection.pool.name`.
    #[cfg(feature = "metrics")]
    pub fn record_metrics(&self) {
        let shared = &self.core().outside;
        crate::export::status(&shared.config, &shared.status(self.core()));
    }

    /// Who holds connections now, longest first.
    pub fn holders(&self) -> Vec<Holder> {
        self.core().outside.holders(self.core())
    }
}

/// How often a warm-up looks whether its budget has room.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

async fn warm_up<B: Backend>(
    core: &Arc<Core<B>>,
    connections: usize,
) -> Result<(), GetError<B::Error>> {
    let shared = &core.outside;
    let failures = shared.tally.connect_failures.get();
    let Ok(handle) = Handle::try_current() else {
        return Err(GetError::NoRuntime);
    };
    loop {
        let mut attempted = pin!(shared.attempted.notified());
        // Registered before the look, so that an attempt that ends in between is not missed.
        attempted.as_mut().enable();
        let seen = core.counts();
        let wanted = connections.min(seen.size);
        if seen.closed {
            return Err(GetError::Closed);
        }
        if seen.taken - seen.connecting - seen.closing >= wanted {
            return Ok(());
        }
        if shared.tally.connect_failures.get() != failures
            && let Some(cause) = shared.outage.last()
        {
            return Err(GetError::Connect(cause));
        }
        while let Some(opening) =
            Core::<B>::take_spare(core, |counts| counts.taken - counts.closing < wanted)
        {
            open::start(&handle, opening.into_owned(core));
        }
        if shared.ticket.get().is_some() {
            // A budget does not tell those who don't stand in its line.
            let _ = timeout(LOOK_AGAIN, attempted).await;
        } else {
            attempted.await;
        }
    }
}

fn report<B: Backend>(core: &Core<B>) -> CloseReport {
    let shared = &core.outside;
    CloseReport {
        still_held: shared.holders(core),
        abandoned: shared.status(core).abandoned,
    }
}

/// Ready once the pool is `done`, at the latest after `limit`.
async fn drained_within<B: Backend>(
    core: &Core<B>,
    limit: Duration,
    done: impl Fn(&Status) -> bool,
) {
    let drained = async {
        loop {
            let mut vacated = pin!(core.outside.drained.notified());
            // Registered before the look, so that a slot vacated in between is not missed.
            vacated.as_mut().enable();
            if done(&core.outside.status(core)) {
                return;
            }
            vacated.await;
        }
    };
    // Whoever has not come back in time stands in the report.
    let _ = timeout(limit, drained).await;
}

/// Refuses everybody from now on, and begins to close what is idle.
pub(crate) fn begin_close<B: Backend>(core: &Arc<Core<B>>, manner: Manner) {
    let idle = Core::<B>::close(core, &Refusal::Closed);
    let shared = &core.outside;
    if !shared.shutdown.has_begun() {
        shared.tell(|| EventKind::PoolClosed);
    }
    shared.shutdown.begin();
    for closing in idle {
        match manner {
            Manner::Polite => put_back::finish_closing(closing, CloseReason::PoolClosed),
            Manner::AtOnce => close_at_once(closing),
        }
    }
    shared.end_events(core);
    shared.attempted.notify_waiters();
}

fn close_at_once<B: Backend>(mut closing: Closing<Parts<B>, Arc<Core<B>>>) {
    let core = Arc::clone(closing.holder());
    if let Some(entry) = closing.value_mut().take() {
        core.outside.terminate(entry, CloseReason::PoolClosed);
    }
    Core::<B>::vacate(closing);
    put_back::note_vacated(&core);
}
