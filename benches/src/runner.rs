//! Runs the parts that were asked for, prints a table for each, and writes all of it as JSON if asked to.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

use crate::report::Report;

/// Ours beside the peers, as ratios of medians of interleaved rounds.
#[derive(Parser)]
struct Args {
    /// Write the figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many rounds; parts that take long do fewer.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Given by `cargo bench`; changes nothing.
    #[arg(long, hide = true)]
    bench: bool,
    /// The parts to run. Default: all.
    parts: Vec<String>,
}

/// A workload, for a number of rounds.
pub type Part = fn(usize) -> Result<Report>;

/// Runs the parts named on the command line.
///
/// # Errors
/// Where a name is unknown, a workload fails or the file can't be written.
pub fn run(parts: &[(&str, Part)]) -> Result<()> {
    let args = Args::parse();
    let names: Vec<_> = parts.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = args
        .parts
        .iter()
        .find(|part| !names.contains(&part.as_str()))
    {
        anyhow::bail!(
            "there is no part {unknown:?}: the parts are {}",
            names.join(", ")
        );
    }
    let mut reports = Vec::new();
    for (name, compare) in parts {
        if args.parts.is_empty() || args.parts.iter().any(|part| part == name) {
            let report = compare(args.rounds.max(1)).with_context(|| (*name).to_owned())?;
            println!("{report}");
            reports.push(report);
        }
    }
    let missed = reports
        .iter()
        .flat_map(|report| &report.verdicts)
        .filter(|verdict| !verdict.met)
        .count();
    println!("{missed} targets missed.");
    if let Some(file) = args.json {
        let text = serde_json::to_string_pretty(&reports)?;
        std::fs::write(&file, text)
            .with_context(|| format!("could not write {}", file.display()))?;
    }
    Ok(())
}
