//! `cargo xtask mutate`: runs the pool's models on each mutation.
//!
//! What went red stands in `docs/guarantees.md`: a run checks that it still does, and `--write` finds it out anew.

use std::time::Instant;

use anyhow::bail;

use super::patch::Patch;
use super::table::Table;
use super::trial::{Built, Copy};
use super::{Args, broken};

/// How many models a row names at most: the first ones, by name.
const NAMED: usize = 4;

pub(super) fn run(args: &Args, patches: &[Patch], copy: &Copy) -> anyhow::Result<()> {
    let mut known = Table::read()?;
    let mut faults = Vec::new();
    for patch in patches {
        let begun = Instant::now();
        let recorded = known.0.get(&patch.name).filter(|_| !args.write);
        let red = broken(patch, copy, || red(copy, recorded))?;
        let said = if red.is_empty() {
            faults.push(format!("{}: nothing goes red", patch.name));
            "nothing goes red".to_owned()
        } else {
            red.join(", ")
        };
        let seconds = begun.elapsed().as_secs_f64();
        println!("{seconds:>6.1} s  {}: {said}", patch.name);
        if known.0.get(&patch.name) != Some(&red) {
            if !args.write && !red.is_empty() {
                faults.push(format!("{}: the table says otherwise", patch.name));
            }
            known.0.insert(patch.name.clone(), red);
        }
    }
    if args.write {
        known
            .0
            .retain(|name, _| patches.iter().any(|patch| patch.name == *name));
        known.write(patches)?;
    } else if args.only.is_none() {
        for name in known.0.keys() {
            if !patches.iter().any(|patch| patch.name == *name) {
                faults.push(format!(
                    "{name}: in the table, and there is no such mutation"
                ));
            }
        }
    }
    if !faults.is_empty() {
        bail!(
            "{}\n`cargo xtask mutate --write` writes the table of docs/guarantees.md",
            faults.join("\n")
        );
    }
    println!("{} mutations, each noticed", patches.len());
    Ok(())
}

/// What goes red in the copy as it is: of what is recorded, or else of everything.
fn red(copy: &Copy, recorded: Option<&Vec<String>>) -> anyhow::Result<Vec<String>> {
    let models = copy.models()?;
    if let Some(recorded) = recorded {
        let red = red_of(&models, recorded.iter().map(String::as_str))?;
        if red == *recorded {
            return Ok(red);
        }
    }
    red_of(&models, models.names())
}

fn red_of<'a>(models: &Built, names: impl Iterator<Item = &'a str>) -> anyhow::Result<Vec<String>> {
    let mut red = Vec::new();
    for name in names {
        if models.is_red(name)? {
            red.push(name.to_owned());
        }
        if red.len() == NAMED {
            break;
        }
    }
    Ok(red)
}
