//! Runs every comparison, prints a table for each, and writes all of it as JSON if asked to.

use std::path::PathBuf;

use anyhow::{Context, Result};
use benches::report::Report;
use benches::{contended, cycle, postgres, round_trips, routing};
use clap::Parser;

/// Ours beside the peers, as ratios of medians of interleaved rounds.
#[derive(Parser)]
struct Args {
    /// Write the figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many rounds.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Given by `cargo bench`; changes nothing.
    #[arg(long, hide = true)]
    bench: bool,
    /// The parts to run: cycle, plenty, scarce, postgres, routing, trips. Default: all.
    parts: Vec<String>,
}

type Part = fn(usize) -> Result<Report>;

const PARTS: [(&str, Part); 6] = [
    ("cycle", cycle::compare),
    ("plenty", contended::plenty),
    ("scarce", contended::scarce),
    ("postgres", postgres::compare),
    ("routing", routing::compare),
    ("trips", round_trips::compare),
];

fn main() -> Result<()> {
    let args = Args::parse();
    let names = PARTS.map(|(name, _)| name);
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
    for (name, compare) in PARTS {
        if args.parts.is_empty() || args.parts.iter().any(|part| part == name) {
            let report = compare(args.rounds.max(1)).with_context(|| name.to_owned())?;
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
