//! A pool and all who use it, told the same story as the reference.
//!
//! Each attempt to open a connection stands before a gate of its own until the story lets it go on. After each
//! step everything that can go on goes on, then twelve milliseconds pass, so that no pause between two attempts
//! and no look at the clock is still to come. Whole seconds pass in the story, and patience ends at a half: no
//! deadline falls into those milliseconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pool_core::{Failure, GetError, GetOptions, Health, OwnedPooledConnection, PrePing, Reuse};
use tokio::task::AbortHandle;
use tokio::time::advance;

use super::reference::{
    Caller, Conn, End, Numbers, Opened, Order, Patience, Reference, Return, Seen, Settings,
};
use super::{Op, POOLS_PATIENCE};
use crate::scripted::{Call, Fault, Fixture, Gate, ScriptedBackend, Step, at_rest, tasks_run};

/// More than any story opens.
const GATES: usize = 400;
const A_DAY: Duration = Duration::from_hours(24);

type Guard = OwnedPooledConnection<ScriptedBackend>;
type Ends = Arc<Mutex<Vec<(Caller, Result<Guard, GetError<Fault>>)>>>;

pub(crate) struct Scene {
    pool: Fixture,
    gates: Vec<Gate>,
    reference: Reference,
    callers: Caller,
    /// The largest capacity so far: as many may have been live at once.
    most: usize,
    tasks: BTreeMap<Caller, AbortHandle>,
    held: BTreeMap<Conn, Guard>,
    ends: Ends,
}

impl Scene {
    pub(crate) fn new(settings: &Settings) -> Self {
        let backend = ScriptedBackend::new();
        let gates: Vec<_> = (0..GATES).map(|_| Gate::new()).collect();
        backend.next(Call::Open, gates.iter().cloned().map(Step::Slow));
        let pool = backend.pool_with(settings.size, settings.overflow, |builder| {
            builder
                .max_connecting(settings.connecting)
                .max_waiting(settings.waiting)
                .pool_timeout(Duration::from_millis(POOLS_PATIENCE))
                .connect_timeout(A_DAY)
                .backoff(Duration::from_millis(1), Duration::from_millis(1))
                .down_after(0)
                .pre_ping(PrePing::Never)
                .idle_timeout(None)
                .reuse(match settings.order {
                    Order::Packed => Reuse::Packed,
                    Order::Lifo => Reuse::Lifo,
                    Order::Fifo => Reuse::Fifo,
                })
        });
        Self {
            pool,
            gates,
            reference: Reference::new(settings.clone()),
            callers: 0,
            most: settings.size + settings.overflow,
            tasks: BTreeMap::new(),
            held: BTreeMap::new(),
            ends: Ends::default(),
        }
    }

    /// Does one thing to the pool and to the reference, and compares how both stand afterwards.
    pub(crate) async fn step(&mut self, op: Op) -> Result<(), String> {
        let tell = self.act(op).await;
        tasks_run().await;
        advance(Duration::from_millis(2)).await;
        tasks_run().await;
        advance(Duration::from_millis(10)).await;
        tasks_run().await;
        let seen = self.look();
        if let Some(tell) = tell {
            tell(&mut self.reference, &seen);
        }
        self.reference.pass(12);
        self.compare(&seen)
    }

    /// Does something to the pool, and returns how to tell the reference of it once it is seen what it did.
    async fn act(&mut self, op: Op) -> Option<Tell> {
        match op {
            Op::Get(patience) => {
                let caller = self.ask(patience);
                tell(move |it, seen| it.get(caller, patience, seen))
            }
            Op::GetPastABroken => {
                let patience = Patience::For(POOLS_PATIENCE);
                let broken = self.breaks_next();
                let caller = self.ask(patience);
                tell(move |it, seen| {
                    if broken {
                        it.lose_idle(seen);
                    }
                    it.get(caller, patience, seen);
                })
            }
            Op::TryGet { past_a_broken } => {
                let broken = past_a_broken && self.breaks_next();
                self.callers += 1;
                let caller = self.callers;
                if let Some(conn) = self.pool.try_get_owned() {
                    self.ends.lock().push((caller, Ok(conn)));
                }
                tell(move |it, seen| {
                    if broken {
                        it.lose_idle(seen);
                    }
                    it.try_get(seen, caller);
                })
            }
            Op::GiveBack(nth, how) => {
                let conn = self.reference.held(nth)?;
                self.give_back(conn, how);
                tell(move |it, _| it.give_back(conn, how))
            }
            Op::GiveBackAndLeave(nth, how) => {
                let conn = self.reference.held(nth)?;
                // One that is closed by a task may meet the first while it still waits.
                let at_once = how != Return::Good
                    || (self.reference.is_current(conn) && !self.reference.in_excess());
                let first = self.reference.waiter(0).filter(|_| at_once);
                self.give_back(conn, how); // The turn goes to the first, which leaves without taking it.
                if let Some(first) = first {
                    self.tasks[&first].abort();
                }
                tell(move |it, _| {
                    if let Some(first) = first {
                        it.leave(first);
                    }
                    it.give_back(conn, how);
                })
            }
            Op::Suspect(nth) => {
                let conn = self.reference.held(nth)?;
                let guard = self.held.get_mut(&conn).expect("both hold the same");
                guard.report(&Fault::of(Failure::Generation));
                tell(move |it, _| it.suspect(conn))
            }
            Op::Leave(nth) => {
                let caller = self.reference.waiter(nth)?;
                self.tasks[&caller].abort();
                tell(move |it, _| it.leave(caller))
            }
            Op::Opened(nth, how) => {
                let conn = self.reference.opening(nth)?;
                self.gates[conn as usize - 1].open_with(match how {
                    Opened::Yes => Step::Ok,
                    Opened::Failed => Step::Err(Failure::Transient),
                    Opened::Panicked => Step::Panic,
                    Opened::Never => Step::Err(Failure::Permanent),
                });
                tell(move |it, _| it.opened(conn, how))
            }
            of_all => self.act_on_all(of_all).await,
        }
    }

    /// As [`act`](Self::act), for what concerns the whole pool.
    async fn act_on_all(&mut self, op: Op) -> Option<Tell> {
        match op {
            Op::Resize(size, overflow) => {
                let resized = self.pool.resize(size, overflow);
                assert_eq!(resized.is_ok(), size + overflow > 0);
                self.most = self.most.max(size + overflow);
                tell(move |it, seen| it.resize(size, overflow, seen))
            }
            Op::Suspend => {
                self.pool.suspend();
                tell(|it, _| it.suspend())
            }
            Op::Resume => {
                self.pool.resume();
                tell(Reference::resume)
            }
            Op::InvalidateAll => {
                self.pool.invalidate_all();
                tell(|it, _| it.invalidate_all())
            }
            Op::Pass(seconds) => {
                tasks_run().await;
                advance(Duration::from_secs(seconds)).await;
                tell(move |it, _| it.pass(1000 * seconds))
            }
            Op::Close => {
                let pool = self.pool.pool.clone();
                drop(tokio::spawn(async move { pool.close().await }));
                tell(|it, _| it.close())
            }
            of_one => unreachable!("{of_one:?}"),
        }
    }

    fn ask(&mut self, patience: Patience) -> Caller {
        self.callers += 1;
        let caller = self.callers;
        let options = match patience {
            Patience::None => GetOptions::new().timeout(Duration::ZERO),
            Patience::For(POOLS_PATIENCE) => GetOptions::new(),
            Patience::For(millis) => GetOptions::new().timeout(Duration::from_millis(millis)),
            Patience::Forever => GetOptions::new().timeout(None),
        };
        let (get, ends) = (self.pool.get_owned_with(options), Arc::clone(&self.ends));
        let task = tokio::spawn(async move {
            let end = get.await;
            ends.lock().push((caller, end));
        });
        self.tasks.insert(caller, task.abort_handle());
        caller
    }

    /// Makes the backend call the next idle connection broken, if the pool hands one out next.
    fn breaks_next(&self) -> bool {
        let breaks = self.reference.hands_out();
        if breaks {
            let broken = Step::Say(Health::Broken);
            self.pool.backend.next(Call::Look, [broken]);
        }
        breaks
    }

    fn give_back(&mut self, conn: Conn, how: Return) {
        let guard = self.held.remove(&conn).expect("both hold the same");
        let backend = &self.pool.backend;
        let says = |health| backend.next(Call::Back, [Step::Say(health)]);
        match how {
            Return::Good => {}
            Return::Invalidated => return guard.invalidate(),
            Return::Detached => return drop(guard.detach()),
            Return::Broken => says(Health::Broken),
            Return::AfterReset => says(Health::NeedsReset),
            Return::ResetFails => {
                says(Health::NeedsReset);
                if self.reference.is_current(conn) {
                    backend.next(Call::Reset, [Step::Err(Failure::Transient)]);
                }
            }
        }
        drop(guard);
    }

    /// What the pool has done since the last look.
    fn look(&mut self) -> Seen {
        let mut seen = Seen::default();
        for (caller, end) in std::mem::take(&mut *self.ends.lock()) {
            self.tasks.remove(&caller);
            let end = match end {
                Ok(guard) => {
                    let conn = guard.id;
                    assert!(self.held.insert(conn, guard).is_none(), "had twice");
                    End::Served(conn)
                }
                Err(GetError::Connect(_)) => End::Failed,
                Err(GetError::QueueFull { .. }) => End::Full,
                Err(GetError::TimedOut(_)) => End::TimedOut,
                Err(GetError::Suspended { .. }) => End::Suspended,
                Err(GetError::Closed) => End::Closed,
                Err(other) => panic!("nothing in these stories ends so: {other:?}"),
            };
            seen.ended.push((caller, end));
        }
        for line in self.pool.backend.log() {
            let closed = line
                .strip_prefix("close C")
                .or_else(|| line.strip_prefix("terminate C"));
            if let Some(conn) = closed {
                seen.closed.insert(conn.parse().expect("a number"));
            }
        }
        seen
    }

    fn compare(&mut self, seen: &Seen) -> Result<(), String> {
        let expected = self.reference.ended();
        if seen.ended != expected {
            return Err(format!(
                "calls ended so: {:?}, and not so: {expected:?}",
                seen.ended
            ));
        }
        let status = self.pool.status();
        let numbers = Numbers {
            size: status.size,
            capacity: status.capacity,
            idle: status.idle,
            in_use: status.in_use,
            connecting: status.connecting,
            waiting: status.waiting,
            detached: status.detached,
            suspended: status.suspended,
            closed: status.closed,
        };
        let expected = self.reference.numbers();
        if numbers != expected {
            return Err(format!(
                "it stands so: {numbers:?}, and not so: {expected:?}"
            ));
        }
        let exist = numbers.idle + numbers.in_use + numbers.connecting;
        let live = self.pool.backend.live();
        if (status.open, live) != (exist - numbers.connecting, exist) {
            return Err(format!("{live} are live, {exist} should be: {status}"));
        }
        Ok(())
    }

    /// The story is over: everybody goes, and the pool must serve all that it can.
    pub(crate) async fn end(mut self) {
        for task in self.tasks.values() {
            task.abort();
        }
        self.held.clear();
        for gate in &self.gates {
            gate.open();
        }
        self.pool.resume();
        at_rest(&self.pool).await;
        if self.pool.status().closed {
            assert!(self.pool.close().await.is_clean());
            assert_eq!(self.pool.backend.live(), 0);
        } else {
            self.pool.assert_whole().await;
        }
    }
}

impl Drop for Scene {
    /// The fixture holds what was live at once to the capacity that it finds.
    fn drop(&mut self) {
        let resized = self.pool.resize(self.most, 0);
        resized.expect("at least one");
    }
}

/// How the reference is told what happened.
type Tell = Box<dyn FnOnce(&mut Reference, &Seen)>;

#[allow(
    clippy::unnecessary_wraps,
    reason = "the callers return it as it is, or nothing where the story asks for what is not there"
)]
fn tell(how: impl FnOnce(&mut Reference, &Seen) + 'static) -> Option<Tell> {
    Some(Box::new(how))
}
