//! `cargo xtask mutate`: breaks a copy of the pool in each way that is known, and sees that a model notices;
//! `cargo xtask mutate router` breaks the router's decisions, and sees that the simulation does.
//!
//! A mutation is a patch in `pool-core/mutations`. Each is applied to a copy of the package, whose models are
//! run. What went red stands in `docs/guarantees.md`: a run checks that it still does, and `--write` finds it
//! out anew.

mod patch;
mod router;
mod table;
mod trial;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};

use self::patch::{Patch, restore};
use self::table::Table;
use self::trial::{Built, Copy};
use crate::steps::root;

/// How many models a row names at most: the first ones, by name.
const NAMED: usize = 4;

/// What to do with the mutations.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// What to break.
    #[arg(value_enum, default_value_t)]
    pub(crate) what: What,
    /// Find out anew what goes red, and write it into `docs/guarantees.md` (of the router: `docs/consistency.md`).
    #[arg(long)]
    pub(crate) write: bool,
    /// Only write the patches anew, with the lines and places of the present code.
    #[arg(long, conflicts_with = "write")]
    pub(crate) refresh: bool,
    /// Only the mutations whose name contains this.
    #[arg(long, conflicts_with = "write")]
    pub(crate) only: Option<String>,
}

/// What is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum What {
    /// The pool's protocol.
    #[default]
    Core,
    /// The router's decisions.
    Router,
}

fn folder() -> PathBuf {
    root().join("pool-core/mutations")
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.what == What::Router {
        return router::run(args);
    }
    let mut patches = patch::all(&folder())?;
    if let Some(only) = &args.only {
        patches.retain(|patch| patch.name.contains(only));
    }
    let copy = Copy::new("pool-core")?;
    fits(&patches, &copy)?;
    if args.refresh {
        return patches
            .iter()
            .try_for_each(|patch| patch.refresh(&copy.package(), &folder()));
    }
    let mut known = Table::read()?;
    let mut faults = Vec::new();
    for patch in &patches {
        let begun = Instant::now();
        let recorded = known.0.get(&patch.name).filter(|_| !args.write);
        let red = tried(patch, &copy, recorded)?;
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
        known.write(&patches)?;
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

/// Every patch must still apply: all that don't are named at once.
fn fits(patches: &[Patch], copy: &Copy) -> anyhow::Result<()> {
    let mut faults = Vec::new();
    for patch in patches {
        match patch.apply(&copy.package()) {
            Ok(originals) => restore(&originals)?,
            Err(error) => faults.push(format!("{}: {error:#}", patch.name)),
        }
    }
    if !faults.is_empty() {
        bail!("mutations that fit no longer:\n{}", faults.join("\n"));
    }
    Ok(())
}

/// What goes red under one mutation: of what is recorded, or else of everything.
fn tried(
    patch: &Patch,
    copy: &Copy,
    recorded: Option<&Vec<String>>,
) -> anyhow::Result<Vec<String>> {
    let originals = patch.apply(&copy.package())?;
    let red = red(copy, recorded).with_context(|| format!("the mutation {}", patch.name));
    restore(&originals)?;
    red
}

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
