//! `cargo xtask mutate`: breaks a copy of the pool in each way that is known, and sees that a model notices;
//! `cargo xtask mutate router` breaks the router's decisions, and sees that the simulation does.
//!
//! A mutation is a patch in the package's folder `mutations`. Each is applied to a copy of the package, which is then
//! tried: by its models (`core`), by the simulation (`router`). What notices each stands in a table on a page of `docs`.

mod core;
mod patch;
mod router;
mod table;
mod trial;

use anyhow::{Context, bail};

use self::patch::{Patch, restore};
use self::trial::Copy;
use crate::steps::root;

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

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let package = match args.what {
        What::Core => "pool-core",
        What::Router => "router",
    };
    let folder = root().join(package).join("mutations");
    let mut patches = patch::all(&folder)?;
    if let Some(only) = &args.only {
        patches.retain(|patch| patch.name.contains(only));
    }
    let copy = Copy::new(package)?;
    fits(&patches, &copy)?;
    if args.refresh {
        return patches
            .iter()
            .try_for_each(|patch| patch.refresh(&copy.package(), &folder));
    }
    match args.what {
        What::Core => core::run(args, &patches, &copy),
        What::Router => router::run(args, &patches, &copy),
    }
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

/// What comes of a trial of the copy while it is broken in that way.
fn broken<T>(
    patch: &Patch,
    copy: &Copy,
    trial: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let originals = patch.apply(&copy.package())?;
    let came_of_it = trial().with_context(|| format!("the mutation {}", patch.name));
    restore(&originals)?;
    came_of_it
}
