//! Trouble on all sides, and the books must balance: backends are terminated, transactions time out while they are
//! idle, the server is restarted, killed and frozen, and the network, which takes its time, is cut, while tasks move
//! money between accounts and append to a list.
//!
//! What is checked at the end is what people trust a database client with: the sum of all balances has not changed;
//! what was acknowledged is there once; what was reported as not applied is not there; what is unknown is there at most
//! once. And the pool serves its full capacity again.
//!
//! `POOL_CHAOS_SECONDS` says for how long (8 by default; the proof runs ten minutes).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pool_postgres::{Engine, Error, Outcome, Session, SessionFactory};
use testbed::{Cluster, Node, Proxy};
use tokio::time::{Instant, sleep};

const ACCOUNTS: i64 = 16;
const OPENING_BALANCE: i64 = 1_000;
const TELLERS: u64 = 6;
const WRITERS: i64 = 6;
/// From when on the server ends an idle transaction.
const IDLE_LIMIT: Duration = Duration::from_millis(40);
/// What a message takes each way: long enough that many an answer is lost of something that has happened.
const NETWORK_DELAY: Duration = Duration::from_millis(2);
/// How long the world may take to come to rest afterwards.
const PATIENCE: Duration = Duration::from_secs(30);

fn seconds() -> u64 {
    let asked = std::env::var("POOL_CHAOS_SECONDS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(8)
}

/// What a writer was told about its numbers.
#[derive(Default)]
struct Told {
    applied: Vec<i64>,
    not_applied: Vec<i64>,
    unknown: Vec<i64>,
}

impl Told {
    fn note(&mut self, number: i64, result: Result<(), Outcome>) {
        let list = match result {
            Ok(()) | Err(Outcome::Applied) => &mut self.applied,
            Err(Outcome::NotSent | Outcome::NotApplied) => &mut self.not_applied,
            Err(_) => &mut self.unknown,
        };
        list.push(number);
    }
}

/// Appends numbers in all ways that there are, and keeps what it was told.
async fn append(engine: Engine, writer: i64, over: Arc<AtomicBool>) -> Told {
    const INSERT: &str = "INSERT INTO appended VALUES ($1, $2)";
    let (sessions, shared) = (SessionFactory::new(engine.clone()), engine.shared());
    let mut told = Told::default();
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        number += 1;
        let outcome = match number % 3 {
            0 => of(engine.execute(INSERT, &[&writer, &number]).await),
            1 => of(shared.execute(INSERT, &[&writer, &number]).await),
            _ => {
                let mut session = sessions.session();
                match session.execute(INSERT, &[&writer, &number]).await {
                    Ok(_) => of(session.commit().await),
                    // Without a commit nothing of it is in force, whatever became of the statement.
                    Err(_) => Err(Outcome::NotApplied),
                }
            }
        };
        if outcome.is_err() {
            breathe().await;
        }
        told.note(number, outcome);
    }
    told
}

fn of<T>(result: Result<T, Error>) -> Result<(), Outcome> {
    result.map(drop).map_err(|error| error.outcome())
}

/// A caller that was refused pauses before it asks again, as callers do.
async fn breathe() {
    sleep(Duration::from_millis(fastrand::u64(1..20))).await;
}

/// Moves money about; sometimes dawdles, so that the server ends its transaction, or is cancelled on the way.
async fn tell(engine: Engine, over: Arc<AtomicBool>) {
    let sessions = SessionFactory::new(engine);
    while !over.load(Ordering::Relaxed) {
        let amount = fastrand::i64(1..100);
        let (from, to) = (fastrand::i64(0..ACCOUNTS), fastrand::i64(0..ACCOUNTS));
        let dawdles = fastrand::u8(..) < 8;
        let leaves = fastrand::u8(..) < 16;
        let mut session = sessions.session();
        let transfer = transfer(&mut session, (from, to), amount, dawdles);
        if leaves {
            let limit = Duration::from_micros(fastrand::u64(0..3_000));
            let _left = tokio::time::timeout(limit, transfer).await;
            continue;
        }
        if transfer.await.is_err() {
            drop(session);
            breathe().await;
        }
    }
}

async fn transfer(
    session: &mut Session,
    (from, to): (i64, i64),
    amount: i64,
    dawdles: bool,
) -> Result<(), Error> {
    const MOVE: &str = "UPDATE accounts SET balance = balance + $2 WHERE id = $1";
    session.execute(MOVE, &[&from, &-amount]).await?;
    if dawdles {
        sleep(2 * IDLE_LIMIT).await;
    }
    session.execute(MOVE, &[&to, &amount]).await?;
    session.commit().await.map(drop)
}

/// Makes trouble of one kind after another until the time is over.
async fn trouble(
    node: &Node,
    proxy: &Proxy,
    until: Instant,
) -> Result<HashMap<&'static str, u32>, testbed::Error> {
    let mut made = HashMap::new();
    let mut round = 0_u32;
    while Instant::now() < until {
        sleep(Duration::from_millis(fastrand::u64(50..400))).await;
        let kind = match round % 8 {
            3 => {
                node.freeze().await?;
                sleep(Duration::from_millis(fastrand::u64(100..1_500))).await;
                node.thaw().await?;
                "frozen"
            }
            5 => {
                node.restart().await?;
                "restarted"
            }
            7 => {
                node.kill().await?;
                node.start().await?;
                "killed"
            }
            0 | 2 | 4 => {
                proxy.cut();
                "cut"
            }
            _ => {
                node.sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE usename <> 'postgres' AND backend_type = 'client backend' AND random() < 0.4",
                )
                .await?;
                "terminated"
            }
        };
        *made.entry(kind).or_default() += 1;
        round += 1;
    }
    Ok(made)
}

async fn bank() -> Result<(Cluster, Proxy, Engine), Box<dyn std::error::Error>> {
    let cluster = testbed::cluster()
        .setting(
            "idle_in_transaction_session_timeout",
            format!("{}ms", IDLE_LIMIT.as_millis()),
        )
        .start()
        .await?;
    let proxy = cluster.primary().proxy().await?;
    proxy.set_delay(NETWORK_DELAY);
    let engine = Engine::builder(proxy.url())
        .pool_size(6)
        .max_overflow(2)
        .pool_timeout(Duration::from_secs(5))
        .backoff(Duration::from_millis(10), Duration::from_millis(200))
        .build()?;
    engine
        .execute(
            "CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL)",
            &[],
        )
        .await?;
    engine
        .execute(
            "CREATE TABLE appended (writer bigint NOT NULL, number bigint NOT NULL)",
            &[],
        )
        .await?;
    engine
        .execute(
            "INSERT INTO accounts SELECT id, $2 FROM generate_series(0, $1::bigint - 1) AS id",
            &[&ACCOUNTS, &OPENING_BALANCE],
        )
        .await?;
    Ok((cluster, proxy, engine))
}

/// The first answer of a database that may still be recovering.
async fn once_it_answers(engine: &Engine) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = engine.ping().await {
        assert!(Instant::now() < deadline, "never answered again: {error}");
        breathe().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_servers_and_backends_the_books_balance() {
    let (cluster, proxy, engine) = bank().await.expect("a bank");
    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(append(engine.clone(), writer, Arc::clone(&over))))
        .collect();
    let tellers: Vec<_> = (0..TELLERS)
        .map(|_| tokio::spawn(tell(engine.clone(), Arc::clone(&over))))
        .collect();
    let until = Instant::now() + Duration::from_secs(seconds());
    let made = trouble(cluster.primary(), &proxy, until)
        .await
        .expect("trouble");
    over.store(true, Ordering::Relaxed);
    for teller in tellers {
        teller.await.expect("a teller that did not panic");
    }
    let mut told = Vec::new();
    for writer in writers {
        told.push(writer.await.expect("a writer that did not panic"));
    }
    once_it_answers(&engine).await;

    let sum = engine
        .query_one("SELECT sum(balance)::bigint FROM accounts", &[])
        .await
        .expect("a sum");
    assert_eq!(sum.get::<_, i64>(0), ACCOUNTS * OPENING_BALANCE, "{made:?}");
    let (mut applied, mut unknown, mut refused, mut happened) = (0, 0, 0, 0);
    for (writer, told) in (0_i64..).zip(&told) {
        let rows = engine
            .query(
                "SELECT number, count(*) FROM appended WHERE writer = $1 GROUP BY number",
                &[&writer],
            )
            .await
            .expect("a list");
        let found: HashMap<i64, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let times = |number: &i64| found.get(number).copied().unwrap_or(0);
        for number in &told.applied {
            assert_eq!(
                times(number),
                1,
                "acknowledged: {writer}, {number}; {made:?}"
            );
        }
        for number in &told.not_applied {
            assert_eq!(
                times(number),
                0,
                "not applied: {writer}, {number}; {made:?}"
            );
        }
        for number in &told.unknown {
            assert!(times(number) <= 1, "unknown: {writer}, {number}; {made:?}");
            happened += times(number);
        }
        applied += told.applied.len();
        unknown += told.unknown.len();
        refused += told.not_applied.len();
    }
    println!(
        "{applied} applied, {refused} not, {unknown} unknown ({happened} happened); {made:?}; {}",
        engine.pool().stats()
    );
    assert!(applied > 100, "{applied} applied: the load was no load");
    all_of_it_serves(&engine).await;
}

/// Every slot can be had at once, and each connection is clean.
async fn all_of_it_serves(engine: &Engine) {
    let capacity = engine.status().capacity;
    let deadline = Instant::now() + PATIENCE;
    // Shared connections hold theirs until they are dropped, and abandoned ones until the server has let go.
    while engine.status().in_use > 0 {
        assert!(Instant::now() < deadline, "{}", engine.status());
        breathe().await;
    }
    let mut held = Vec::new();
    for _ in 0..capacity {
        let connection = engine.connect().await.expect("a connection");
        let refused = connection.client().batch_execute("SAVEPOINT inside").await;
        let code = refused.err().and_then(|error| error.code().cloned());
        assert_eq!(
            code.map(|code| code.code().to_owned()).as_deref(),
            Some("25P01")
        );
        held.push(connection);
    }
}
