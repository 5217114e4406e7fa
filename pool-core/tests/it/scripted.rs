//! A backend that does what a test tells it to, and writes down what it was asked.
//!
//! Connections are named `C1`, `C2`, … in the order in which their opening began. What is called is logged
//! as `open C1`, `ping C1`, `reset C1`, `close C1`, `terminate C1`; `check` is not logged, for it is called at
//! every checkout and return. A connection counts as live from the beginning of its opening until it is
//! dropped, so [`Fixture`] can hold every pool to its capacity.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pool_core::{Backend, Builder, Failure, GetError, Health, Pool, Status, TimeSource, When};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::sleep;
use tokio_test::task::Spawn;

/// What the pool asks of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Open,
    Ping,
    Reset,
    Close,
    Terminate,
    /// `check` at a checkout.
    Look,
    /// `check` at a return.
    Back,
}

/// What the backend does when it is asked.
#[derive(Clone)]
pub(crate) enum Step {
    Ok,
    Err(Failure),
    /// Waits for the gate, then does what that says.
    Slow(Gate),
    /// Takes this long by the paused clock, then goes on with the step.
    After(Duration, Box<Step>),
    Never,
    Panic,
    /// For `check`.
    Say(Health),
}

impl Step {
    pub(crate) fn after(millis: u64, step: Step) -> Self {
        Self::After(Duration::from_millis(millis), Box::new(step))
    }
}

/// Holds a call back until the test lets it go on.
#[derive(Clone)]
pub(crate) struct Gate(Arc<GateState>);

struct GateState {
    arrived: Semaphore,
    open: Semaphore,
    outcome: Mutex<Step>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::new(GateState {
            arrived: Semaphore::new(0),
            open: Semaphore::new(0),
            outcome: Mutex::new(Step::Ok),
        }))
    }

    /// Ready once a call stands before the gate; each call counts once.
    pub(crate) async fn arrived(&self) {
        let arrived = self.0.arrived.acquire().await;
        arrived.expect("a gate is never closed").forget();
    }

    /// Lets all calls go on.
    pub(crate) fn open(&self) {
        self.open_with(Step::Ok);
    }

    pub(crate) fn open_with(&self, outcome: Step) {
        *self.0.outcome.lock() = outcome;
        self.0.open.add_permits(1_000_000);
    }

    async fn pass(&self) -> Step {
        self.0.arrived.add_permits(1);
        let open = self.0.open.acquire().await;
        open.expect("a gate is never closed").forget();
        self.0.outcome.lock().clone()
    }
}

/// The backend's error.
#[derive(Debug)]
pub(crate) struct Fault {
    call: Call,
    id: u32,
    failure: Failure,
}

impl Fault {
    /// An error of that kind, as a caller might get one from a statement.
    pub(crate) fn of(failure: Failure) -> Self {
        Self {
            call: Call::Ping,
            id: 0,
            failure,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the script failed {:?} C{}", self.call, self.id)
    }
}

impl std::error::Error for Fault {}

#[derive(Default)]
struct State {
    log: Vec<String>,
    opened: u32,
    live: usize,
    most_live: usize,
    next: HashMap<Call, VecDeque<Step>>,
    always: HashMap<Call, Step>,
}

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct ScriptedBackend(Arc<Mutex<State>>);

/// A connection of [`ScriptedBackend`].
pub(crate) struct Conn {
    pub(crate) id: u32,
    live: Live,
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "C{}", self.id)
    }
}

/// Counts one connection as live.
struct Live(Arc<Mutex<State>>);

impl Live {
    fn new(state: &Arc<Mutex<State>>) -> Self {
        let mut locked = state.lock();
        locked.live += 1;
        locked.most_live = locked.most_live.max(locked.live);
        Self(Arc::clone(state))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.lock().live -= 1;
    }
}

impl ScriptedBackend {
    /// Everything succeeds, and nothing needs a reset.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Every return needs a reset.
    pub(crate) fn resetting() -> Self {
        Self::new().always(Call::Back, Step::Say(Health::NeedsReset))
    }

    /// What the next calls do, in order; then what `always` says.
    pub(crate) fn next(&self, call: Call, steps: impl IntoIterator<Item = Step>) {
        let mut state = self.0.lock();
        state.next.entry(call).or_default().extend(steps);
    }

    /// What calls do for which nothing else was said.
    pub(crate) fn always(self, call: Call, step: Step) -> Self {
        self.0.lock().always.insert(call, step);
        self
    }

    /// Forgets what was said with `next` and has not been used.
    pub(crate) fn forget_next(&self) {
        self.0.lock().next.clear();
    }

    pub(crate) fn pool(&self, size: usize, overflow: impl Into<Option<usize>>) -> Fixture {
        self.pool_with(size, overflow, |builder| builder)
    }

    pub(crate) fn pool_with(
        &self,
        size: usize,
        overflow: impl Into<Option<usize>>,
        settings: impl FnOnce(Builder<Self>) -> Builder<Self>,
    ) -> Fixture {
        let builder = Pool::builder(self.clone())
            .pool_size(size)
            .max_overflow(overflow)
            .time_source(TimeSource::Exact)
            .recycle_jitter(0.0);
        Fixture {
            pool: settings(builder)
                .build()
                .expect("the test's settings are good"),
            backend: self.clone(),
        }
    }

    pub(crate) fn live(&self) -> usize {
        self.0.lock().live
    }

    /// How many were live at once at most.
    pub(crate) fn most_live(&self) -> usize {
        self.0.lock().most_live
    }

    pub(crate) fn opens(&self) -> u32 {
        self.0.lock().opened
    }

    /// How often a call was made.
    pub(crate) fn calls(&self, verb: &str) -> usize {
        let state = self.0.lock();
        state
            .log
            .iter()
            .filter(|line| line.starts_with(verb))
            .count()
    }

    /// What was called since the last look.
    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().log)
    }

    fn step(&self, call: Call) -> Step {
        let mut state = self.0.lock();
        let next = state.next.get_mut(&call).and_then(VecDeque::pop_front);
        next.or_else(|| state.always.get(&call).cloned())
            .unwrap_or(Step::Ok)
    }

    fn note(&self, verb: &str, id: u32) {
        self.0.lock().log.push(format!("{verb} C{id}"));
    }

    async fn perform(&self, call: Call, id: u32) -> Result<(), Fault> {
        let mut step = self.step(call);
        loop {
            step = match step {
                Step::Ok | Step::Say(_) => return Ok(()),
                Step::Err(failure) => return Err(Fault { call, id, failure }),
                Step::Slow(gate) => gate.pass().await,
                Step::After(span, then) => {
                    sleep(span).await;
                    *then
                }
                Step::Never => std::future::pending().await,
                Step::Panic => panic!("scripted: {call:?} C{id}"),
            };
        }
    }
}

impl Backend for ScriptedBackend {
    type Connection = Conn;
    type Error = Fault;

    async fn connect(&self) -> Result<Conn, Fault> {
        let id = {
            let mut state = self.0.lock();
            state.opened += 1;
            state.opened
        };
        self.note("open", id);
        let live = Live::new(&self.0);
        self.perform(Call::Open, id).await?;
        Ok(Conn { id, live })
    }

    fn check(&self, conn: &mut Conn, when: When) -> Health {
        let call = match when {
            When::Checkout => Call::Look,
            _ => Call::Back,
        };
        match self.step(call) {
            Step::Say(health) => health,
            Step::Panic => panic!("scripted: {call:?} C{}", conn.id),
            _ => Health::Good,
        }
    }

    async fn ping(&self, conn: &mut Conn) -> Result<(), Fault> {
        self.note("ping", conn.id);
        self.perform(Call::Ping, conn.id).await
    }

    async fn reset(&self, conn: &mut Conn) -> Result<(), Fault> {
        self.note("reset", conn.id);
        self.perform(Call::Reset, conn.id).await
    }

    async fn close(&self, conn: Conn) {
        self.note("close", conn.id);
        drop(self.perform(Call::Close, conn.id).await);
        drop(conn.live);
    }

    fn terminate(&self, conn: Conn) {
        self.note("terminate", conn.id);
        if let Step::Panic = self.step(Call::Terminate) {
            panic!("scripted: terminate C{}", conn.id);
        }
        drop(conn.live);
    }

    fn classify(&self, error: &Fault) -> Failure {
        error.failure
    }
}

/// A pool and its backend. When it ends, no more connections may ever have been live than the capacity
/// and those that were detached.
pub(crate) struct Fixture {
    pub(crate) pool: Pool<ScriptedBackend>,
    pub(crate) backend: ScriptedBackend,
}

impl Deref for Fixture {
    type Target = Pool<ScriptedBackend>;
    fn deref(&self) -> &Self::Target {
        &self.pool
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let (status, most) = (self.status(), self.backend.0.lock().most_live);
        let detached = usize::try_from(status.detached).expect("few");
        assert!(
            most <= status.capacity + detached,
            "{most} connections were live at once, {} may be",
            status.capacity
        );
    }
}

impl Fixture {
    /// `(size, idle, overflow, in use)`.
    pub(crate) fn numbers(&self) -> (usize, usize, usize, usize) {
        let Status {
            size,
            idle,
            overflow,
            in_use,
            ..
        } = self.status();
        (size, idle, overflow, in_use)
    }

    /// Asserts that nothing is going on, and that the whole capacity can be had at once.
    pub(crate) async fn assert_whole(&self) {
        at_rest(self).await;
        let status = self.status();
        assert_eq!((status.in_use, status.waiting), (0, 0), "{status}");
        let mut all = Vec::new();
        for _ in 0..status.capacity {
            all.push(self.get().await.expect("the pool serves its full capacity"));
        }
        assert!(self.try_get().is_none(), "and not one more");
        drop(all);
        at_rest(self).await;
        let status = self.status();
        assert_eq!((status.idle, status.in_use), (status.size, 0), "{status}");
    }
}

/// Polls every one of them, and sees them wait.
pub(crate) fn all_wait<F: Future>(callers: &mut [Spawn<F>]) {
    for caller in callers {
        assert!(caller.poll().is_pending(), "it waits");
    }
}

/// Lets every task run that can, without moving the paused clock.
pub(crate) async fn tasks_run() {
    for _ in 0..64 {
        yield_now().await;
    }
}

/// Lets tasks run until nothing is being opened, reset or closed.
pub(crate) async fn at_rest(pool: &Pool<ScriptedBackend>) {
    for _ in 0..200 {
        tasks_run().await;
        let status = pool.status();
        if status.connecting + status.resetting + status.closing == 0 {
            return;
        }
        // Whatever is still at work waits for the paused clock.
        sleep(Duration::from_millis(100)).await;
    }
    panic!("the pool does not come to rest: {}", pool.status());
}

/// The timeout in an error.
pub(crate) fn timed_out<E: fmt::Debug>(error: GetError<E>) -> Box<pool_core::TimedOut<E>> {
    match error {
        GetError::TimedOut(timed_out) => timed_out,
        other => panic!("expected a pool timeout, not {other:?}"),
    }
}

/// Whether the error is the backend's own, from opening.
pub(crate) fn from_opening<E>(error: &GetError<E>) -> bool {
    matches!(error, GetError::Connect(_) | GetError::Down { .. }) && error.backend_error().is_some()
}
