//! `cargo xtask`: everything that is done to this project, each with its own set-up.

mod chaos;
mod crates;
mod examples;
mod fuzz;
mod isolation;
mod lab;
mod licences;
mod mutate;
mod prove;
mod settings;
mod setup;
mod sim;
mod steps;
mod test;
mod tidy;
mod tour;
mod waits;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything that is done to this project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a primary with two streaming replicas, drive the whole stack, and verify what happens.
    Tour(tour::Args),
    /// Fail servers and network at random under load, promote replicas, and hold what clients saw against what is there.
    Chaos(chaos::Args),
    /// Have hundreds of tenants work at random, and hold every row against its tenant; then with deliberate faults.
    Isolation(isolation::Args),
    /// Run everything that must pass.
    Test,
    /// Run the examples that need servers, on servers of their own.
    Examples,
    /// Check the rules of the house that no compiler knows: a few seconds of `test`.
    Tidy,
    /// Run the models of the pool's protocol alone.
    Models,
    /// Let the router's decisions meet a simulated cluster, its failures and its clients, in virtual time.
    Sim(sim::Args),
    /// Break a copy of the pool, or of the router, in each known way, and see that a model or the simulation notices.
    Mutate(mutate::Args),
    /// Run all of the proof, of which `test` runs a bounded part.
    Prove(prove::Args),
    /// Find or unpack the PostgreSQL that tests and the tour run.
    Setup {
        /// Install it with the system's package manager instead.
        #[arg(long)]
        system: bool,
    },
    /// Study the pool in virtual time: writes target/lab/index.html; `lab size --help` advises on a pool's size.
    #[command(disable_help_flag = true)]
    Lab(lab::Args),
    /// Run the benchmarks: ours beside the peers, as ratios of one run.
    Bench,
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Tour(args) => {
            setup::postgres(args.pg_bin.as_deref()).and_then(|()| tour::run(&args))
        }
        Command::Chaos(args) => {
            setup::postgres(args.pg_bin.as_deref()).and_then(|()| chaos::run(&args))
        }
        Command::Isolation(args) => {
            setup::postgres(args.pg_bin.as_deref()).and_then(|()| isolation::run(&args))
        }
        Command::Test => test::run(),
        Command::Examples => setup::postgres(None).and_then(|()| examples::run()),
        Command::Tidy => test::tidy(),
        Command::Models => test::models(),
        Command::Sim(args) => sim::run(&args),
        Command::Mutate(args) => mutate::run(&args),
        Command::Prove(args) => prove::run(&args),
        Command::Setup { system } => setup::run(system),
        Command::Lab(args) => lab::run(&args),
        Command::Bench => setup::postgres(None).and_then(|()| test::bench()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
