//! `cargo testbed`: real PostgreSQL servers to try things on, for as long as the command runs.

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Real PostgreSQL servers to try things on.
#[derive(Parser)]
#[command(name = "cargo testbed", bin_name = "cargo testbed")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a primary with its replicas, print their addresses, and stop all on Ctrl-C.
    Up {
        /// How many streaming replicas.
        #[arg(long, default_value_t = 0)]
        replicas: usize,
        /// Give TLS addresses too, with a CA of the cluster's own.
        #[arg(long)]
        tls: bool,
        /// The folder of PostgreSQL's programs; by default the one that is found.
        #[arg(long, value_name = "DIR")]
        pg_bin: Option<PathBuf>,
        /// Leave the folder with data and logs when it ends.
        #[arg(long)]
        keep: bool,
    },
    /// Stop servers and remove folders that killed processes left behind.
    Sweep,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Up {
            replicas,
            tls,
            pg_bin,
            keep,
        } => up(replicas, tls, pg_bin, keep).await,
        Command::Sweep => sweep(),
    };
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    eprint!("cargo testbed: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
    ExitCode::FAILURE
}

async fn up(
    replicas: usize,
    tls: bool,
    pg_bin: Option<PathBuf>,
    keep: bool,
) -> Result<(), Box<dyn Error>> {
    let mut builder = testbed::cluster().replicas(replicas).tls(tls).keep(keep);
    if let Some(dir) = pg_bin {
        builder = builder.pg_bin(dir);
    }
    // Listened for from the start, so that Ctrl-C while servers start stops them too.
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let cluster = tokio::select! {
        started = builder.start() => started?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    say(format_args!("{}", cluster.installation()));
    say(format_args!("folder      {}", cluster.dir().display()));
    for node in std::iter::once(cluster.primary()).chain(cluster.replicas()) {
        say(format_args!("{:<11} {}", node.name(), node.url()));
        if let Some(url) = node.tls_url() {
            say(format_args!("{:<11} {url}", "  with TLS"));
        }
    }
    say(format_args!(
        "superuser   {}",
        cluster.primary().superuser_url()
    ));
    say(format_args!("Running until Ctrl-C."));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    cluster.stop().await?;
    say(format_args!("Stopped."));
    Ok(())
}

fn sweep() -> Result<(), Box<dyn Error>> {
    let swept = testbed::sweep()?;
    for folder in &swept {
        say(format_args!("removed {}", folder.display()));
    }
    if swept.is_empty() {
        say(format_args!("Nothing was left behind."));
    }
    Ok(())
}

/// Prints a line. Whoever read our output may have gone, and the servers must be stopped all the same.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
