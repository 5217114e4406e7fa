//! The connections that statements share, and which of them takes the next one.
//!
//! A connection is borrowed from the pool when a statement needs it and goes back when its last answer has come (or
//! after [`LONGEST_TENURE`], or when others wait for it): so the pool's rules on age, renewal and closing
//! hold, and an idle handle holds nothing.
//!
//! # Stalled
//! Answers come in order. A line whose oldest statement is unanswered for longer than `grow_after` gets no more
//! while another can be had; what was sent behind that statement before has to wait for it.
//!
//! # What always holds
//! A statement has a [`Seat`] from before it is sent until its answer was read to the end. No lock is held while the
//! pool is called: connections are taken out of `lines` under the lock and dropped after it.

use std::collections::VecDeque;
use std::panic::Location;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pool_core::Pool;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant as Deadline, sleep, timeout_at};

use super::flight::Flight;
use super::{SharedOptions, SharedStatus};
use crate::backend::PgBackend;
use crate::connection::PgConnection;
use crate::engine::Connection;
use crate::error::{Error, ErrorKind};

/// After how long a connection goes back to its pool although it is busy: whatever the pool wants done to it is done
/// then.
const LONGEST_TENURE: Duration = Duration::from_secs(10);
/// As long a busy connection stays in spite of others that wait for the pool.
const TENURE_AMONG_OTHERS: Duration = Duration::from_millis(500);

/// All that the handles of one engine share.
pub(super) struct Hub {
    pool: Pool<PgBackend>,
    pub(super) options: SharedOptions,
    /// A permit for each statement that may be unanswered.
    room: Arc<Semaphore>,
    lines: Mutex<Lines>,
    /// A line was opened, or failed to, or answered while somebody waited.
    moved: Notify,
    waiting: AtomicUsize,
}

#[derive(Default)]
struct Lines {
    open: Vec<Line>,
    opening: usize,
    /// How many attempts to open have failed, and the last failure.
    failures: u64,
    last_failure: Option<Error>,
    watched: bool,
    closed: bool,
}

/// A borrowed connection and what is unanswered on it.
struct Line {
    wire: Arc<SharedConnection>,
    /// Oldest first.
    queue: VecDeque<(Instant, Arc<Flight>)>,
    since: Instant,
    /// Gets no more statements, and goes back once all are answered.
    leaving: bool,
}

/// A connection that several statements use at once.
pub(super) struct SharedConnection {
    connection: Connection,
    /// A statement was given up on before its answer was read.
    abandoned: AtomicBool,
}

impl SharedConnection {
    pub(super) fn connection(&self) -> &PgConnection {
        &self.connection
    }
}

impl Drop for SharedConnection {
    fn drop(&mut self) {
        // Ordering: Relaxed; the last handle is ours, and taking it over ordered what others did.
        if !self.abandoned.load(Ordering::Relaxed) {
            self.connection.settled();
        }
    }
}

/// A statement's place on a line.
pub(super) struct Seat {
    hub: Arc<Hub>,
    line: Arc<SharedConnection>,
    flight: Arc<Flight>,
    /// Something was sent whose answer was not read.
    pub(super) unanswered: bool,
    _permit: OwnedSemaphorePermit,
}

impl Seat {
    pub(super) fn connection(&self) -> &PgConnection {
        self.line.connection()
    }

    pub(super) fn flight(&self) -> Arc<Flight> {
        Arc::clone(&self.flight)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.unanswered {
            self.line.abandoned.store(true, Ordering::Relaxed);
        }
        self.hub.leave(&self.line, &self.flight, self.unanswered);
    }
}

/// What to do with a statement that wants a line.
enum Plan {
    /// Board the line of this number; open another one meanwhile, if so said.
    Board { line: usize, and_open: bool },
    /// Wait until something moves; open another one, if so said.
    Wait { and_open: bool },
}

impl Lines {
    /// Where the next statement goes. `patient`: an attempt to open failed meanwhile, so a stalled line will do.
    fn plan(&self, options: &SharedOptions, now: Instant, patient: bool) -> Plan {
        let usable = self
            .open
            .iter()
            .enumerate()
            .filter(|(_, line)| line.usable());
        let best = usable
            .clone()
            .min_by_key(|(_, line)| (line.is_stalled(options, now), line.queue.len()));
        let total = usable.count() + self.opening;
        let Some((at, best)) = best else {
            return Plan::Wait {
                and_open: self.opening == 0,
            };
        };
        if best.is_stalled(options, now) && !patient {
            let may_open = total < options.max_connections;
            if may_open || self.opening > 0 {
                return Plan::Wait {
                    and_open: may_open && self.opening == 0,
                };
            }
        }
        Plan::Board {
            line: at,
            and_open: total < options.connections && !best.queue.is_empty(),
        }
    }
}

impl Line {
    fn usable(&self) -> bool {
        !self.leaving && !self.wire.connection().is_closed()
    }

    fn is_stalled(&self, options: &SharedOptions, now: Instant) -> bool {
        self.queue
            .front()
            .is_some_and(|(begun, _)| now.duration_since(*begun) > options.grow_after)
    }
}

impl Hub {
    pub(super) fn new(pool: Pool<PgBackend>, options: SharedOptions) -> Arc<Self> {
        Arc::new(Self {
            pool,
            room: Arc::new(Semaphore::new(options.max_in_flight)),
            options,
            lines: Mutex::default(),
            moved: Notify::new(),
            waiting: AtomicUsize::new(0),
        })
    }

    /// A place for one statement.
    pub(super) async fn seat(
        self: &Arc<Self>,
        place: &'static Location<'static>,
    ) -> Result<Seat, Error> {
        // The way of nearly all: there is room, and a line.
        if let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() {
            match self.try_board(permit, place, None)? {
                Ok(seat) => Ok(seat),
                Err(permit) => self.wait_for_a_seat(Some(permit), place).await,
            }
        } else {
            self.wait_for_a_seat(None, place).await
        }
    }

    async fn wait_for_a_seat(
        self: &Arc<Self>,
        permit: Option<OwnedSemaphorePermit>,
        place: &'static Location<'static>,
    ) -> Result<Seat, Error> {
        let begun = Instant::now();
        let deadline = Deadline::from_std(begun) + self.options.timeout;
        let _waiting = Waiting::new(&self.waiting);
        let late = |_| self.too_late(begun);
        let mut permit = match permit {
            Some(permit) => permit,
            None => timeout_at(deadline, Arc::clone(&self.room).acquire_owned())
                .await
                .map_err(late)?
                .map_err(|_| closed())?,
        };
        let failures = self.lines.lock().failures;
        loop {
            let mut moved = pin!(self.moved.notified());
            moved.as_mut().enable();
            match self.try_board(permit, place, Some(failures))? {
                Ok(seat) => return Ok(seat),
                Err(back) => permit = back,
            }
            timeout_at(deadline, moved).await.map_err(late)?;
        }
    }

    /// Boards a line where there is one for it. Starts to open another one where that is due. `failures` is how many
    /// attempts had failed when the caller began to wait.
    fn try_board(
        self: &Arc<Self>,
        permit: OwnedSemaphorePermit,
        place: &'static Location<'static>,
        failures: Option<u64>,
    ) -> Result<Result<Seat, OwnedSemaphorePermit>, Error> {
        let now = Instant::now();
        let mut lines = self.lines.lock();
        if lines.closed {
            return Err(closed());
        }
        let failed = failures.is_some_and(|failures| lines.failures > failures);
        let (seat, and_open) = match lines.plan(&self.options, now, failed) {
            Plan::Board { line, and_open } => {
                let line = &mut lines.open[line];
                let flight = Flight::new();
                line.queue.push_back((now, Arc::clone(&flight)));
                let seat = Seat {
                    hub: Arc::clone(self),
                    line: Arc::clone(&line.wire),
                    flight,
                    unanswered: false,
                    _permit: permit,
                };
                (Ok(seat), and_open)
            }
            Plan::Wait { and_open: true } if failed => {
                return Err(lines.last_failure.clone().unwrap_or_else(closed));
            }
            Plan::Wait { and_open } => (Err(permit), and_open),
        };
        if and_open {
            lines.opening += 1;
        }
        drop(lines);
        if and_open {
            self.open(place);
        }
        Ok(seat)
    }

    /// Borrows another connection; where that takes time, in a task, for whoever asked for it may leave.
    fn open(self: &Arc<Self>, place: &'static Location<'static>) {
        let mut opening = Opening {
            hub: Arc::clone(self),
            failure: None,
        };
        if let Some(connection) = self.pool.try_get_owned() {
            self.add(connection);
            return;
        }
        opening.failure = Some(Error::new(
            ErrorKind::ConnectionLost,
            "the runtime ended while a shared connection was being opened",
        ));
        tokio::spawn(async move {
            let mut opening = opening;
            match opening.hub.pool.get_owned_at(place).await {
                Ok(connection) => {
                    opening.failure = None;
                    opening.hub.add(connection);
                }
                Err(error) => opening.failure = Some(Error::from(error)),
            }
        });
    }

    fn add(self: &Arc<Self>, connection: Connection) {
        let line = Line {
            wire: Arc::new(SharedConnection {
                connection,
                abandoned: AtomicBool::new(false),
            }),
            queue: VecDeque::new(),
            since: Instant::now(),
            leaving: false,
        };
        let mut lines = self.lines.lock();
        if lines.closed {
            drop(lines);
            return; // The line goes back to its pool.
        }
        lines.open.push(line);
        let watch = !std::mem::replace(&mut lines.watched, true);
        drop(lines);
        if watch {
            tokio::spawn(watch_over(Arc::downgrade(self), self.options.grow_after));
        }
    }

    /// A statement is over.
    fn leave(&self, wire: &Arc<SharedConnection>, flight: &Arc<Flight>, broken: bool) {
        let mut lines = self.lines.lock();
        let at = lines
            .open
            .iter()
            .position(|line| Arc::ptr_eq(&line.wire, wire));
        let mut empty = None;
        if let Some(at) = at {
            let line = &mut lines.open[at];
            // Nearly always the first: answers come in order.
            if let Some(at) = line
                .queue
                .iter()
                .position(|(_, one)| Arc::ptr_eq(one, flight))
            {
                line.queue.remove(at);
            }
            line.leaving |= broken;
            if line.queue.is_empty() {
                empty = Some(lines.open.swap_remove(at));
            }
        }
        drop(lines);
        drop(empty);
        // Ordering: Relaxed; who waits looks again after it has counted itself and asked to be told.
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.moved.notify_waiters();
        }
    }

    /// Looks after the lines; says whether there are any.
    fn look_after(&self, runtime: &Handle) -> bool {
        let now = Instant::now();
        let wanted = self.pool.status().waiting > 0;
        let mut stalled = Vec::new();
        let mut lines = self.lines.lock();
        for line in &mut lines.open {
            let tenure = now.duration_since(line.since);
            line.leaving |= tenure > LONGEST_TENURE || (wanted && tenure > TENURE_AMONG_OTHERS);
            let overdue = line
                .queue
                .iter()
                .take_while(|(begun, _)| now.duration_since(*begun) > self.options.grow_after);
            stalled.extend(overdue.map(|(_, flight)| Arc::clone(flight)));
        }
        // Opened for somebody who left, or for a queue that dissolved meanwhile.
        let unused = lines.open.extract_if(.., |line| {
            line.queue.is_empty() && now.duration_since(line.since) > self.options.grow_after
        });
        let unused: Vec<Line> = unused.collect();
        let any = !lines.open.is_empty();
        lines.watched = any;
        drop(lines);
        drop(unused);
        for flight in stalled {
            flight.take_over(runtime);
        }
        any
    }

    /// Gives every connection back once what is under way on it is answered; others are borrowed for what comes.
    pub(super) fn renew(&self) {
        let mut lines = self.lines.lock();
        for line in &mut lines.open {
            line.leaving = true;
        }
    }

    /// Takes no more statements.
    pub(super) fn close(&self) {
        let mut lines = self.lines.lock();
        lines.closed = true;
        let unused: Vec<Line> = lines
            .open
            .extract_if(.., |line| line.queue.is_empty())
            .collect();
        drop(lines);
        drop(unused);
        self.moved.notify_waiters();
    }

    pub(super) fn status(&self) -> SharedStatus {
        let lines = self.lines.lock();
        let oldest = lines.open.iter().filter_map(|line| line.queue.front());
        let oldest = oldest.map(|(begun, _)| begun.elapsed()).max();
        SharedStatus {
            connections: lines.open.len(),
            connecting: lines.opening,
            in_flight: lines.open.iter().map(|line| line.queue.len()).sum(),
            // Ordering: Relaxed; a number for people.
            waiting: self.waiting.load(Ordering::Relaxed),
            oldest,
        }
    }

    fn too_late(&self, begun: Instant) -> Error {
        Error::new(
            ErrorKind::PoolTimeout,
            format!(
                "no room on the shared connections within {:.1?}: {}",
                begun.elapsed(),
                self.status()
            ),
        )
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::PoolClosed, "the engine is closed")
}

/// Looks after a hub's lines for as long as there are any.
async fn watch_over(hub: Weak<Hub>, interval: Duration) {
    let runtime = Handle::current();
    loop {
        sleep(interval).await;
        let Some(hub) = hub.upgrade() else { return };
        if !hub.look_after(&runtime) {
            return;
        }
    }
}

/// An attempt to open a line; however it ends, it is counted off and those who wait are told.
struct Opening {
    hub: Arc<Hub>,
    failure: Option<Error>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        let mut lines = self.hub.lines.lock();
        lines.opening -= 1;
        if let Some(failure) = self.failure.take() {
            lines.failures += 1;
            lines.last_failure = Some(failure);
        }
        drop(lines);
        self.hub.moved.notify_waiters();
    }
}

/// Counts a caller among those who wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        // Ordering: Relaxed; the lock on the lines orders it before the look that follows.
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
