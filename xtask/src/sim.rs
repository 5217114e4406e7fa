//! `cargo xtask sim`: the router's simulation (`router/src/sim.rs`) for as many seeds as one likes, optimised.

use crate::steps::{self, cargo};

/// The test that runs seeds.
pub(crate) const TEST: &str = "sim::no_seed_breaks_a_promise";

/// Which stories to let happen.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Tell what happens in the first one.
    #[arg(long)]
    pub(crate) trace: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut seeds = cargo(&["test", "-p", "pool-router", "--lib", "--release"]);
    seeds.args(["--", "--exact", TEST, "--nocapture"]);
    // As for the mutations, which share what is built here.
    seeds.env("CARGO_INCREMENTAL", "1");
    seeds.env("POOL_SIM_SEEDS", args.seeds.to_string());
    seeds.env("POOL_SIM_SEED", args.seed.to_string());
    if args.trace {
        seeds.env("POOL_SIM_TRACE", "1");
    }
    steps::run(seeds)
}
