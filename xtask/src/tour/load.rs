//! The mixed load: many tasks that write orders, read them back, list them, give up half-way.
//!
//! What always holds: every read is compared with what its promise demands (the order of its token, the tick
//! that was committed that long ago), and every attempt to write gets a fate in the ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use pool_router::{CommitToken, Database};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::checks::{Check, Checks};
use super::ledger::{Fate, Ledger};
use super::shop::{self, LINES};
use super::traffic::{Ask, Traffic};

/// How many tasks there are: more than a node's pool has connections.
const TASKS: u8 = 20;
/// The dice that choose what a task does next.
const SIDES: u8 = 100;
/// What `read` promises in the tour.
pub(crate) const DEFAULT_AGE: Duration = Duration::from_secs(1);
/// What `read_within` is asked for.
const AGES: [u64; 4] = [50, 150, 400, 800];
/// The time between two ticks.
const TICK: Duration = Duration::from_millis(20);
/// How long a task that just failed waits before it goes on.
const PAUSE: Duration = Duration::from_millis(30);
/// How long the last requests may take once the load is told to end.
const LAST_REQUESTS: Duration = Duration::from_secs(20);

/// A running load.
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    traffic: Arc<Traffic>,
    ends: Arc<Check>,
}

/// What each task has at hand.
#[derive(Clone)]
struct Shopper {
    db: Database,
    ledger: Arc<Ledger>,
    traffic: Arc<Traffic>,
    promises: Arc<Promises>,
    stop: watch::Receiver<bool>,
}

/// What is compared.
struct Promises {
    after: Arc<Check>,
    read: Arc<Check>,
    within: Arc<Check>,
    listed: Arc<Check>,
}

impl Load {
    /// Starts the tasks; checks carry the phase's name.
    pub(crate) fn start(db: &Database, ledger: &Arc<Ledger>, checks: &Checks, phase: &str) -> Self {
        let named = |what: &str| checks.named(format!("{phase}: {what}"));
        let promises = Promises {
            after: named("read_after sees its order, whole"),
            read: named("read sees every tick older than its promise"),
            within: named("read_within sees every tick older than its age"),
            listed: named("a list holds no order that was given up"),
        };
        let (stop, stopped) = watch::channel(false);
        let shopper = Shopper {
            db: db.clone(),
            ledger: Arc::clone(ledger),
            traffic: Arc::default(),
            promises: Arc::new(promises),
            stop: stopped,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(shopper.clone().tick());
        for number in 0..TASKS {
            // The first throws cover everything, so that each kind of request is made however short it is.
            tasks.spawn(shopper.clone().shop(number * (SIDES / TASKS)));
        }
        let ends = named("every request ends");
        Self {
            stop,
            tasks,
            traffic: shopper.traffic,
            ends,
        }
    }

    /// What the requests came to so far.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Lets the requests under way end, and gives what all came to.
    pub(crate) async fn stop(mut self) -> Arc<Traffic> {
        self.stop.send_replace(true);
        let ended = timeout(LAST_REQUESTS, async {
            while let Some(task) = self.tasks.join_next().await {
                self.ends.that(task.is_ok(), || {
                    format!("a task of the load failed: {task:?}")
                });
            }
        });
        if ended.await.is_err() {
            let left = self.tasks.len();
            self.ends.that(false, || {
                format!("{left} requests had not ended after {LAST_REQUESTS:?}")
            });
        }
        self.traffic
    }
}

impl Shopper {
    /// Commits tick after tick: what tells old data from new.
    async fn tick(self) {
        let mut next = self.ledger.tick_at(Instant::now()) + 1;
        while !*self.stop.borrow() {
            let began = Instant::now();
            match shop::set_tick(&mut self.db.write(), next).await {
                Ok(()) => {
                    self.ledger.ticked(next);
                    self.traffic.served(Ask::Write, began, None);
                }
                Err(error) => self.traffic.failed(Ask::Write, began, &error),
            }
            // A tick whose outcome is unknown is never used again.
            next += 1;
            sleep(TICK).await;
        }
    }

    async fn shop(self, mut throw: u8) {
        while !*self.stop.borrow() {
            let went_well = match throw {
                0..35 => self.order().await,
                35..40 => self.change_of_mind().await,
                40..45 => self.closed_window().await,
                45..75 => self.list().await,
                _ => self.look_within().await,
            };
            throw = fastrand::u8(..SIDES);
            if !went_well {
                sleep(PAUSE).await;
            }
        }
    }

    /// Writes an order and reads it back.
    async fn order(&self) -> bool {
        let id = self.ledger.open();
        match self.place(id, &AtomicBool::new(false)).await {
            Ok(Some(token)) => self.read_back(id, token).await,
            Ok(None) => true,
            Err(()) => false,
        }
    }

    /// Writes an order; notes when the commit is about to be sent.
    async fn place(&self, id: i64, committing: &AtomicBool) -> Result<Option<CommitToken>, ()> {
        let began = Instant::now();
        let mut session = self.db.write();
        if let Err(error) = shop::write_order(&mut session, id).await {
            // Whatever the statement did, no commit was sent: it is not written for certain.
            self.ledger.settle(id, Fate::NotWritten);
            self.traffic.failed(Ask::Write, began, &error);
            return Err(());
        }
        committing.store(true, SeqCst);
        match session.commit().await {
            Ok(committed) => {
                self.ledger.settle(id, Fate::Acknowledged);
                self.traffic.served(Ask::Write, began, None);
                Ok(committed.token)
            }
            Err(error) => {
                self.ledger.settle(id, Fate::of_commit(&error));
                self.traffic.failed(Ask::Write, began, &error);
                Err(())
            }
        }
    }

    async fn read_back(&self, id: i64, token: CommitToken) -> bool {
        let began = Instant::now();
        match shop::find_order(&mut self.db.read_after(&token), id).await {
            Ok(seen) => {
                self.promises
                    .after
                    .that((seen.orders, seen.lines) == (1, LINES), || {
                        let (orders, lines, port) = (seen.orders, seen.lines, seen.port);
                        format!(
                            "order {id} was there {orders} times with {lines} lines on port {port}"
                        )
                    });
                self.traffic.served(Ask::ReadAfter, began, Some(seen.port));
                true
            }
            Err(error) => self.failed(Ask::ReadAfter, began, &error),
        }
    }

    /// Writes an order and drops the session without committing.
    async fn change_of_mind(&self) -> bool {
        let (id, began) = (self.ledger.open(), Instant::now());
        let mut session = self.db.write();
        let written = shop::write_order(&mut session, id).await;
        self.ledger.settle(id, Fate::NotWritten);
        drop(session);
        match written {
            Ok(()) => {
                self.traffic.served(Ask::Write, began, None);
                true
            }
            Err(error) => self.failed(Ask::Write, began, &error),
        }
    }

    /// Stops waiting for an order at some point, as a server does whose client has left.
    async fn closed_window(&self) -> bool {
        let (id, committing) = (self.ledger.open(), AtomicBool::new(false));
        let patience = Duration::from_micros(fastrand::u64(..20_000));
        let placed = timeout(patience, self.place(id, &committing)).await;
        if let Ok(placed) = placed {
            return placed.is_ok();
        }
        let fate = if committing.load(SeqCst) {
            Fate::Unknown
        } else {
            Fate::NotWritten
        };
        self.ledger.settle(id, fate);
        true
    }

    async fn list(&self) -> bool {
        let began = Instant::now();
        match shop::list(&mut self.db.read()).await {
            Ok(listed) => {
                self.is_fresh(
                    &self.promises.read,
                    began,
                    DEFAULT_AGE,
                    (listed.tick, listed.port),
                );
                for id in listed.orders {
                    let fate = self.ledger.fate(id);
                    let fine = fate.is_some_and(|fate| fate != Fate::NotWritten);
                    self.promises
                        .listed
                        .that(fine, || format!("order {id} is listed, and is {fate:?}"));
                }
                self.traffic.served(Ask::Read, began, Some(listed.port));
                true
            }
            Err(error) => self.failed(Ask::Read, began, &error),
        }
    }

    async fn look_within(&self) -> bool {
        let (began, age) = (
            Instant::now(),
            Duration::from_millis(AGES[fastrand::usize(..AGES.len())]),
        );
        match shop::tick(&mut self.db.read_within(age)).await {
            Ok(seen) => {
                self.is_fresh(&self.promises.within, began, age, seen);
                self.traffic.served(Ask::ReadWithin, began, Some(seen.1));
                true
            }
            Err(error) => self.failed(Ask::ReadWithin, began, &error),
        }
    }

    /// Compares what a read saw with what was committed for certain that long before it began.
    fn is_fresh(&self, check: &Check, began: Instant, age: Duration, (seen, port): (i64, i32)) {
        let floor = began
            .checked_sub(age)
            .map_or(0, |moment| self.ledger.tick_at(moment));
        check.that(seen >= floor, || {
            format!("tick {seen} was seen on port {port}, and {floor} was committed {age:?} before")
        });
    }

    fn failed(&self, ask: Ask, began: Instant, error: &pool_router::Error) -> bool {
        self.traffic.failed(ask, began, error);
        false
    }
}
