//! `cargo xtask isolation`: hundreds of tenants of all placements at random work over few connections, every row
//! stamped with its tenant; and the same with one deliberate fault at a time, each of which has to be noticed.
//!
//! The tenants and their tables are the `world`'s, what is done to them the `work`'s. A row that comes back with
//! another's stamp, or that one could write with another's, is foreign: there are none, or the run fails. `faults` has
//! the ways in which it goes wrong elsewhere.

mod faults;
mod work;
mod world;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use pool_router::Engine;
use pool_router::tenancy::Tenants;

use faults::Fault;
use work::{Ledger, Worker};
use world::World;

/// How many tasks work at a time.
const WORKERS: usize = 16;
/// How long a fault may go unnoticed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What `isolation` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long the tenants work; starting and the faults come on top.
    #[arg(long, default_value_t = 20.0)]
    pub(crate) seconds: f64,
    /// Fixes what each task does. Default: by chance; it is printed.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How many tenants there are, of which one in eight has a database of its own.
    #[arg(long, default_value_t = 200)]
    pub(crate) tenants: usize,
    /// The deliberate faults alone.
    #[arg(long)]
    pub(crate) faults_only: bool,
    /// The folder of PostgreSQL's programs.
    #[arg(long, value_name = "DIR")]
    pub(crate) pg_bin: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
        println!("seed {seed}");
        let mut builder = testbed::cluster().replicas(1);
        if let Some(bin) = &args.pg_bin {
            builder = builder.pg_bin(bin);
        }
        let cluster = builder.start().await?;
        let mut faults = Vec::new();
        if !args.faults_only {
            let world = World::begin(&cluster, "isolation", args.tenants, true).await?;
            let ledger =
                work_for(&world, Duration::from_secs_f64(args.seconds.max(0.1)), seed).await?;
            println!("{ledger}");
            let stored = world.foreign_rows().await?;
            println!("as stored: {stored} foreign rows");
            if ledger.foreign() > 0 || stored > 0 {
                faults.push("a foreign row".to_owned());
            }
            if ledger.unexpected() > 0 {
                faults.push("errors that nothing explains".to_owned());
            }
            world.end().await;
        }
        println!(
            "\n{:<44} {:<12} first noticed by",
            "deliberate fault", "noticed"
        );
        for fault in Fault::ALL {
            let name = format!("fault_{}", fault as usize);
            let world = World::begin(&cluster, &name, 24, false).await?;
            let noticed = faults::noticed(fault, &world, seed).await?;
            let shown = noticed.as_deref().unwrap_or("nothing");
            let yes = if noticed.is_some() { "yes" } else { "NO" };
            println!("{:<44} {yes:<12} {shown}", fault.name());
            if noticed.is_none() {
                faults.push(format!("unnoticed: {}", fault.name()));
            }
            world.end().await;
        }
        if !faults.is_empty() {
            bail!("{} (seed {seed})", faults.join("; "));
        }
        println!(
            "\nno foreign row, and all {} faults were noticed",
            Fault::ALL.len()
        );
        Ok(())
    })
}

/// Has tenants work for a time, while connections are killed and pools renewed.
async fn work_for(world: &World<'_>, time: Duration, seed: u64) -> Result<Ledger> {
    let ledger = Arc::new(Ledger::default());
    let until = Instant::now() + time;
    let mut tasks = Vec::new();
    for number in 0..WORKERS {
        let worker = Worker::new(world.names.clone(), Arc::clone(&ledger), seed, number);
        let tenants = world.tenants.clone();
        tasks.push(tokio::spawn(async move {
            rightly(worker, tenants, until).await;
        }));
    }
    let trouble = tokio::spawn(trouble(world.superuser()?, world.shared.clone(), until));
    for task in tasks {
        task.await?;
    }
    trouble.await?;
    Ok(Arc::into_inner(ledger).unwrap_or_default())
}

async fn rightly(mut worker: Worker, tenants: Tenants, until: Instant) {
    while Instant::now() < until {
        let (tenant, reads) = worker.next();
        let session = if reads {
            tenants.read(&*tenant).await
        } else {
            tenants.write(&*tenant).await
        };
        match session {
            Ok(session) => worker.turn(session, &tenant, reads).await,
            Err(error) => worker.failed(&error.into()),
        }
    }
}

/// Kills connections and renews pools.
async fn trouble(superuser: Engine, shared: pool_router::Database, until: Instant) {
    let mut turn = 0;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(70)).await;
        turn += 1;
        let kill = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity
            WHERE usename = 'app' AND application_name NOT LIKE '%monitor' ORDER BY random() LIMIT 1) one";
        let _ = superuser.query(kill, &[]).await;
        if turn % 10 == 0 {
            let _ = shared.health().await;
        }
    }
}
