//! The laboratory: a package of its own, which this starts with optimizations.

use crate::steps::{self, cargo, target};

/// What the laboratory is asked.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on: nothing for the page, `size …` for advice, `--help` for all of it.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut lab = cargo(&["run", "--quiet", "--release", "-p", "lab", "--"]);
    lab.arg("--out").arg(target().join("lab")).args(&args.rest);
    // Files that are named on the command line lie where it was typed.
    lab.current_dir(std::env::current_dir()?);
    steps::run(lab)
}
