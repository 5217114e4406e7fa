//! `cargo xtask chaos`: a real primary with replicas, under load, while servers and network fail at random and
//! replicas are promoted; then what clients saw is held against what is there.
//!
//! The trouble (`faults`) goes by a seed; the servers and the changes of role are the `world`'s. The `clients` note
//! all that they did and were told in the `history`, of which the `verdict` is a function. Half of the time
//! replication is asynchronous, and failovers lose writes, which the tokens of exactly those have to say; half of it is
//! synchronous, and none may be lost.

mod clients;
mod faults;
mod history;
mod report;
mod story;
mod verdict;
mod world;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;
use fastrand::Rng;
use futures_util::StreamExt as _;
use pool_router::{Consistency, Database, ReadOptions};
use tokio::time::Instant;

use clients::Clients;
use history::{Place, Promise, Saw, Told};
use report::Report;
use story::Story;
use verdict::{Found, LOST, TOKEN, Violation, of};
use world::World;

use crate::tour::chain;
use crate::waits::happened_by;

/// What `chaos` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long the trouble lasts in all, in minutes; starting and healing come on top.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) minutes: f64,
    /// Fixes the order of the faults. Default: by chance; it is printed.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// One way of replication only. Default: each for half of the time.
    #[arg(long, value_enum)]
    pub(crate) replication: Option<Replication>,
    /// Tell what happens while it does.
    #[arg(long)]
    pub(crate) story: bool,
    /// The folder of PostgreSQL's programs.
    #[arg(long, value_name = "DIR")]
    pub(crate) pg_bin: Option<PathBuf>,
}

/// Whether a commit waits for a standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Replication {
    Async,
    Sync,
}

impl Args {
    /// As long as that, and everything else by default.
    pub(crate) fn lasting(minutes: f64) -> Self {
        Self {
            minutes,
            seed: None,
            replication: None,
            story: false,
            pg_bin: None,
        }
    }
}

/// How long the services may take to be whole again once everything runs.
const RECOVERY: Duration = Duration::from_secs(20);
/// How many tokens of writes that survive are tried at the end, beside those of all that are lost.
const TRIED: usize = 300;

/// Runs it and prints the report.
///
/// # Errors
/// If anything was seen that must not be, and if the servers could not be made to do what they were told.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !(args.minutes > 0.0 && args.minutes <= 1_000.0) {
        bail!(
            "--minutes {}: between 0 and 1000 are possible",
            args.minutes
        );
    }
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let ways = match args.replication {
        Some(way) => vec![way],
        None => vec![Replication::Async, Replication::Sync],
    };
    let length = Duration::from_secs_f64(args.minutes * 60.0) / u32::try_from(ways.len())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut violations = 0;
    for way in ways {
        println!(
            "{way:?} replication, seed {seed}, {:.0} s of trouble",
            length.as_secs_f64()
        );
        let report = runtime.block_on(async {
            tokio::select! {
                done = trouble(args, way, seed, length) => done,
                interrupted = tokio::signal::ctrl_c() => {
                    interrupted?;
                    bail!("interrupted; the servers were stopped")
                }
            }
        })?;
        report.print();
        violations += report.violations.len();
    }
    if violations > 0 {
        bail!("{violations} violations with --seed {seed}: see the story above");
    }
    Ok(())
}

async fn trouble(args: &Args, way: Replication, seed: u64, length: Duration) -> Result<Report> {
    let mut builder = testbed::cluster();
    if let Some(dir) = &args.pg_bin {
        builder = builder.pg_bin(dir);
    }
    let synchronous = way == Replication::Sync;
    let world = World::begin(builder, synchronous, Story::new(args.story)).await?;
    let clients = Clients::connect(&world.proxies).await?;
    let mut rng = Rng::with_seed(seed);
    let mut load = clients.start(&mut rng);
    let until = Instant::now() + length;
    let events = clients
        .services
        .iter()
        .enumerate()
        .map(|(index, db)| note_events(&world.story, index, db));
    let listening = futures_util::future::join_all(events);
    let done = async {
        let (servers, network) = (rng.fork(), rng.fork());
        let (done, ()) = tokio::join!(
            faults::servers(&world, &clients.services, servers, until),
            faults::network(&world, network, until)
        );
        done?;
        world.mend().await?;
        world.story.tell("everything is mended");
        let mut violations = recovered(&world, &clients).await;
        clients.end();
        while let Some(task) = load.join_next().await {
            task?;
        }
        violations.extend(settled(&clients).await);
        anyhow::Ok(violations)
    };
    let mut violations = tokio::select! {
        done = done => done.inspect_err(|_| world.story.show_the_end())?,
        _ = listening => bail!("the services' events ended"),
    };
    let found = found(&world).await?;
    let (sums, of_clients) = verdict::verdict(&clients.history, &found, synchronous);
    violations.extend(of_clients);
    violations.extend(tokens(&clients, &found, &mut rng).await);
    let report = Report::new(&world, &clients, sums, violations);
    for db in clients.services.iter() {
        db.shutdown().await;
    }
    world.cluster.stop().await?;
    Ok(report)
}

/// Notes what a service says of its nodes, for as long as anybody waits.
async fn note_events(story: &Story, service: usize, db: &Database) {
    let mut events = db.events();
    while let Some(event) = events.next().await {
        let service = service + 1;
        story.told(event.at, format!("    service {service}: {:?}", event.kind));
    }
}

/// Once everything runs, every service serves everything again.
async fn recovered(world: &World, clients: &Clients) -> Vec<Violation> {
    let deadline = Instant::now() + RECOVERY;
    let mut violations = Vec::new();
    for (index, db) in clients.services.iter().enumerate() {
        if !happened_by(deadline, async || db.health().await.is_whole()).await {
            let what = format!(
                "service {} is not whole after {RECOVERY:?}:\n{}",
                index + 1,
                db.status()
            );
            violations.push(of("no recovery", what, None));
        }
    }
    let began = std::time::Instant::now();
    let timeline = world
        .promotions()
        .last()
        .map_or(1, |promotion| promotion.timeline);
    let written = async || clients.history.first_since(timeline, began).is_some();
    if !happened_by(Instant::now() + RECOVERY, written).await {
        let what = format!("no write on timeline {timeline} within {RECOVERY:?}");
        violations.push(of("no recovery", what, None));
    }
    violations
}

/// With nobody left, no connection is in use.
async fn settled(clients: &Clients) -> Vec<Violation> {
    let deadline = Instant::now() + RECOVERY;
    let mut violations = Vec::new();
    for db in clients.services.iter() {
        let none_in_use = async || db.status().nodes.iter().all(|node| node.pool.in_use == 0);
        if !happened_by(deadline, none_in_use).await {
            let what = format!("connections are in use with nobody left:\n{}", db.status());
            violations.push(of("connections not returned", what, None));
        }
    }
    violations
}

/// What is there: on the primary, and the same on every replica.
async fn found(world: &World) -> Result<Found> {
    const ALL: &str = "SELECT writer, number, count(*) FROM appended GROUP BY 1, 2 ORDER BY 1, 2";
    let rows = world.primary().sql(ALL).await?;
    for index in world.replicas() {
        let replica = world.node(index);
        replica.wait_until_caught_up(world.primary()).await?;
        if replica.sql(ALL).await? != rows {
            bail!(
                "{} has other rows than the primary: the servers differ",
                replica.name()
            );
        }
    }
    let number = |cell: &Option<String>| cell.as_ref().and_then(|text| text.parse::<i64>().ok());
    let mut found = Found::new();
    for row in &rows {
        let [Some(writer), Some(place), Some(times)] =
            [number(&row[0]), number(&row[1]), number(&row[2])]
        else {
            bail!("not a row of numbers: {row:?}");
        };
        let place = Place {
            writer: usize::try_from(writer)?,
            number: u32::try_from(place)?,
        };
        found.insert(place, times);
    }
    Ok(found)
}

/// The token of every write that is lost says so, and that of a survivor never does.
async fn tokens(clients: &Clients, found: &Found, rng: &mut Rng) -> Vec<Violation> {
    let history = &clients.history;
    let mut gone = Vec::new();
    let mut there = Vec::new();
    for writer in 0..history.writers() {
        for (number, attempt) in (0..).zip(history.attempts(writer)) {
            let place = Place { writer, number };
            if let Told::Acknowledged {
                at,
                token: Some(token),
                ..
            } = attempt.told
            {
                let whose = if found.contains_key(&place) {
                    &mut there
                } else {
                    &mut gone
                };
                whose.push((place, token, at));
            }
        }
    }
    rng.shuffle(&mut there);
    there.truncate(TRIED);
    let mut violations = Vec::new();
    for (place, token, at) in gone.into_iter().chain(there) {
        let survives = found.contains_key(&place);
        let db = &clients.services[rng.usize(..clients.services.len())];
        let options = ReadOptions::new(Consistency::ReadYourWrites(token));
        let list = (place.writer, place.list());
        let answer = clients::numbers(db, options, list).await;
        let verdict = match &answer {
            Ok(Saw::Numbers { bits, .. }) if survives => {
                (bits & place.bit() == 0).then_some((LOST, "was not seen by its token"))
            }
            Ok(_) => Some((TOKEN, "is lost, and its token was honoured")),
            Err(error) if survives => Some(if clients::says_lost(error) {
                (TOKEN, "is there, and its token was refused as lost")
            } else if clients::says_unknown(error) {
                (TOKEN, "is there, and of its token nothing could be told")
            } else {
                ("no recovery", "is there, and its token's read failed")
            }),
            Err(error) if clients::says_lost(error) => None,
            Err(error) if clients::says_unknown(error) => {
                Some((TOKEN, "is lost, and of its token nothing could be told"))
            }
            Err(_) => Some((
                "no recovery",
                "is lost, and its token's read failed otherwise",
            )),
        };
        if let Some((kind, what)) = verdict {
            let why = answer.err().map(|error| chain(&error)).unwrap_or_default();
            let what = format!(
                "{place:?} ({:?}) {what} ({token}): {why}",
                Promise::After(place)
            );
            violations.push(of(kind, what, Some(at)));
        }
    }
    violations
}
