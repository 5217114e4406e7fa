//! The load: writers that append numbers, and readers that look at lists under every promise there is.
//!
//! Two services, each a [`Database`] of its own, so that what one has noticed the other may not have yet. Nothing is
//! retried: each request is made once, and what it came to is noted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use pool_router::{
    CommitToken, Consistency, Database, Durability, Error, ErrorKind, Outcome, ReadOptions,
    RouteError, TokenRefusal, Unproved, WaitPolicy, plan::Refusal,
};
use testbed::Proxy;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::history::{History, LIST, Place, Promise, Read, Saw, Told};
use crate::tour::lock;

const SERVICES: usize = 2;
pub(crate) const WRITERS: usize = 6;
const READERS: usize = 8;
/// How long a client waits for anything.
const LIMIT: Duration = Duration::from_secs(4);
/// What a plain read promises here.
const DEFAULT_AGE: Duration = Duration::from_millis(800);
const AGES: [u64; 5] = [60, 150, 300, 600, 1_500];
const INSERT: &str = "INSERT INTO appended VALUES ($1, $2)";
const SELECT: &str = "SELECT array(SELECT number FROM appended WHERE writer = $1 AND number BETWEEN $2 AND $3), \
                      inet_server_port()";

/// What was asked, and what became of it.
#[derive(Default)]
pub(crate) struct Counts(Mutex<BTreeMap<(&'static str, String), u64>>);

impl Counts {
    fn count(&self, asked: &'static str, became: impl Into<String>) {
        *lock(&self.0).entry((asked, became.into())).or_default() += 1;
    }

    pub(crate) fn all(&self) -> BTreeMap<(&'static str, String), u64> {
        lock(&self.0).clone()
    }
}

/// What each client has at hand.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) services: Arc<Vec<Database>>,
    pub(crate) history: Arc<History>,
    pub(crate) counts: Arc<Counts>,
    over: Arc<AtomicBool>,
}

impl Clients {
    /// Connects the services, through the proxies.
    pub(crate) async fn connect(proxies: &[Proxy]) -> Result<Self> {
        let mut services = Vec::new();
        for _ in 0..SERVICES {
            let db = Database::builder()
                .primary(proxies[0].url())
                .replicas(proxies[1..].iter().map(Proxy::url))
                .pool_size(4)
                .max_overflow(4)
                .pool_timeout(Duration::from_secs(2))
                .default_consistency(Consistency::BoundedStaleness(DEFAULT_AGE))
                .each_engine(|engine| {
                    engine
                        .connect_timeout(Duration::from_secs(1))
                        .backoff(Duration::from_millis(20), Duration::from_millis(200))
                        .close_deadline(Duration::from_secs(5))
                })
                .connect()
                .await?;
            services.push(db);
        }
        Ok(Self {
            services: Arc::new(services),
            history: Arc::new(History::new(WRITERS)),
            counts: Arc::default(),
            over: Arc::default(),
        })
    }

    /// Starts them all.
    pub(crate) fn start(&self, rng: &mut Rng) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for writer in 0..WRITERS {
            tasks.spawn(self.clone().append(writer, rng.fork()));
        }
        for _ in 0..READERS {
            tasks.spawn(self.clone().look(rng.fork()));
        }
        tasks
    }

    /// Tells them to end.
    pub(crate) fn end(&self) {
        self.over.store(true, Relaxed);
    }

    fn service(&self, rng: &mut Rng) -> &Database {
        &self.services[rng.usize(..self.services.len())]
    }

    async fn append(self, writer: usize, mut rng: Rng) {
        while !self.over.load(Relaxed) {
            let place = self.history.open(writer);
            let db = self.service(&mut rng).clone();
            let patience = if rng.u8(..) < 6 {
                Duration::from_micros(rng.u64(..8_000))
            } else {
                LIMIT
            };
            let committing = AtomicBool::new(false);
            let append = self.append_one(&db, place, &committing);
            let (told, became) = match timeout(patience, append).await {
                Ok(told) => told,
                // Whoever leaves before the commit has not committed.
                Err(_) if !committing.load(Relaxed) => (Told::Refused, left(patience)),
                Err(_) => (Told::Unknown, left(patience)),
            };
            self.history.told(place, told);
            self.counts.count("write", became);
            match told {
                Told::Acknowledged {
                    token: Some(token), ..
                } if rng.bool() => {
                    let promise = Promise::After(place);
                    self.look_at(promise, Some(token), (writer, place.list()), &mut rng)
                        .await;
                }
                Told::Acknowledged { .. } => sleep(Duration::from_millis(rng.u64(..10))).await,
                _ => sleep(Duration::from_millis(rng.u64(5..30))).await,
            }
        }
    }

    async fn append_one(
        &self,
        db: &Database,
        place: Place,
        committing: &AtomicBool,
    ) -> (Told, String) {
        let (Ok(writer), Ok(number)) = (i32::try_from(place.writer), i32::try_from(place.number))
        else {
            return (Told::Refused, "out of numbers".to_owned());
        };
        let mut session = db.write();
        if let Err(error) = session.execute(INSERT, &[&writer, &number]).await {
            return (Told::Refused, why(&error));
        }
        committing.store(true, Relaxed);
        self.history.committing(place);
        match session.commit().await {
            Ok(committed) => {
                let told = Told::Acknowledged {
                    at: Instant::now(),
                    token: committed.token,
                    durable: committed.durability == Durability::Durable,
                };
                let became = match committed.durability {
                    Durability::Durable if committed.token.is_none() => "committed, token lost",
                    Durability::Durable => "committed",
                    _ => "committed, but only locally",
                };
                (told, became.to_owned())
            }
            Err(error) => {
                let told = match error.outcome() {
                    Outcome::NotSent | Outcome::NotApplied => Told::Refused,
                    Outcome::Applied => Told::Acknowledged {
                        at: Instant::now(),
                        token: None,
                        durable: true,
                    },
                    _ => Told::Unknown,
                };
                (told, why(&error))
            }
        }
    }

    async fn look(self, mut rng: Rng) {
        while !self.over.load(Relaxed) {
            let recent = self.history.recent(rng.usize(..));
            let writer = rng.usize(..WRITERS);
            let current = (writer, self.history.current_list(writer));
            let of = |place: Place| (place.writer, place.list());
            let (promise, token, list) = match (rng.u8(..100), recent) {
                (0..25, _) | (_, None) => {
                    let age = AGES[rng.usize(..AGES.len())];
                    (Promise::Age(Duration::from_millis(age)), None, current)
                }
                (25..35, _) => (Promise::Age(DEFAULT_AGE), None, current),
                (35..60, Some((place, token))) => (Promise::After(place), Some(token), of(place)),
                (60..70, Some((place, token))) => (Promise::After(place), Some(token), current),
                (70..80, Some((place, token))) => {
                    (Promise::NotBefore(place), Some(token), of(place))
                }
                (80..90, _) => (Promise::Strong, None, current),
                _ => (Promise::Nothing, None, current),
            };
            if !self.look_at(promise, token, list, &mut rng).await {
                sleep(Duration::from_millis(rng.u64(5..30))).await;
            }
        }
    }

    /// Reads a list once and notes what it saw; says whether it was answered.
    async fn look_at(
        &self,
        promise: Promise,
        token: Option<CommitToken>,
        list: (usize, u32),
        rng: &mut Rng,
    ) -> bool {
        let db = self.service(rng).clone();
        let mut options = options(promise, token);
        if rng.u8(..5) == 0 {
            options = options.wait(WaitPolicy::UpTo(Duration::from_millis(rng.u64(1..200))));
        }
        if rng.u8(..8) == 0 && promise != Promise::Strong {
            options = options.forbid_primary();
        }
        let began = Instant::now();
        let asked = name(promise);
        let read = timeout(LIMIT, numbers(&db, options, list)).await;
        let saw = match read {
            Ok(Ok(saw)) => {
                self.counts.count(asked, "served");
                saw
            }
            Ok(Err(error)) => {
                self.counts.count(asked, why(&error));
                if !says_lost(&error) {
                    return false;
                }
                Saw::Lost
            }
            Err(_) => {
                self.counts.count(asked, left(LIMIT));
                return false;
            }
        };
        self.history.read(Read {
            began,
            writer: list.0,
            list: list.1,
            promise,
            saw,
        });
        true
    }
}

fn options(promise: Promise, token: Option<CommitToken>) -> ReadOptions {
    let consistency = match (promise, token) {
        (Promise::Age(age), _) => Consistency::BoundedStaleness(age),
        (Promise::After(_), Some(token)) => Consistency::ReadYourWrites(token),
        (Promise::NotBefore(_), Some(token)) => Consistency::Monotonic(token),
        (Promise::Strong, _) => Consistency::Strong,
        _ => Consistency::Eventual,
    };
    ReadOptions::new(consistency)
}

/// What a read sees of a list.
pub(crate) async fn numbers(
    db: &Database,
    options: ReadOptions,
    (writer, list): (usize, u32),
) -> Result<Saw, Error> {
    let fits = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let first = list * LIST;
    let writer = i32::try_from(writer).unwrap_or(i32::MAX);
    let mut session = db.read_with(options);
    let row = session
        .query_one(SELECT, &[&writer, &fits(first), &fits(first + LIST - 1)])
        .await?;
    let (mut bits, mut odd) = (0_u64, false);
    for number in row.get::<_, Vec<i32>>(0) {
        let bit = 1 << (number - fits(first));
        odd |= bits & bit != 0;
        bits |= bit;
    }
    let port = row.get(1);
    Ok(Saw::Numbers { bits, odd, port })
}

fn name(promise: Promise) -> &'static str {
    match promise {
        Promise::Nothing => "read, of any age",
        Promise::Age(_) => "read, bounded age",
        Promise::After(_) => "read, after a token",
        Promise::NotBefore(_) => "read, monotonic",
        Promise::Strong => "read, strong",
    }
}

fn left(patience: Duration) -> String {
    let what = if patience == LIMIT {
        "no answer in time"
    } else {
        "left on purpose"
    };
    what.to_owned()
}

/// Whether a read was told that the write it follows is lost.
pub(crate) fn says_lost(error: &Error) -> bool {
    error.kind() == ErrorKind::Token && !says_unknown(error)
}

/// Whether a read was told that nobody can say whether the write it follows survived.
pub(crate) fn says_unknown(error: &Error) -> bool {
    matches!(
        RouteError::behind(error),
        Some(
            RouteError::Refused(Refusal::Token(TokenRefusal::CannotTell { .. }))
                | RouteError::Unproved {
                    why: Unproved::Token(TokenRefusal::CannotTell { .. }),
                    ..
                }
        )
    )
}

fn why(error: &Error) -> String {
    let kind = format!("{:?}", error.kind());
    if says_unknown(error) {
        return format!("{kind}: cannot be told");
    }
    match error.sqlstate() {
        Some(code) => format!("{kind} {code}"),
        None => kind,
    }
}
