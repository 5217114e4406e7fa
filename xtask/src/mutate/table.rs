//! The table of mutations in `docs/guarantees.md`: what each breaks, and what goes red then.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};

use super::patch::Patch;
use crate::steps::root;

const BEGIN: &str = "<!-- mutations: written by `cargo xtask mutate --write` -->";
pub(crate) const END: &str = "<!-- end of mutations -->";

/// What goes red, by mutation.
#[derive(PartialEq, Eq)]
pub(crate) struct Table(pub(crate) BTreeMap<String, Vec<String>>);

fn page() -> PathBuf {
    root().join("docs/guarantees.md")
}

impl Table {
    /// The table as it stands on the page.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let text = fs::read_to_string(page())?;
        let (_, table, _) = split(&text, BEGIN)?;
        let rows = table.lines().filter(|line| line.starts_with("| `"));
        let quoted = |cell: &str| -> Vec<String> {
            let names = cell.split('`').skip(1).step_by(2);
            names.map(str::to_owned).collect()
        };
        let red = rows.filter_map(|row| {
            // What it breaks, in the cell between, may quote names too.
            let mut cells = row.split('|').skip(1);
            let name = quoted(cells.next()?).pop()?;
            Some((name, quoted(cells.nth(1)?)))
        });
        Ok(Self(red.collect()))
    }

    /// Writes the table onto the page.
    pub(crate) fn write(&self, patches: &[Patch]) -> anyhow::Result<()> {
        let text = fs::read_to_string(page())?;
        let (before, _, after) = split(&text, BEGIN)?;
        let mut table =
            String::from("\n| mutation | what it breaks | what goes red |\n|---|---|---|\n");
        for patch in patches {
            let none = Vec::new();
            let red = self.0.get(&patch.name).unwrap_or(&none);
            let quoted: Vec<_> = red.iter().map(|name| format!("`{name}`")).collect();
            let (name, breaks, red) = (&patch.name, &patch.breaks, quoted.join(", "));
            writeln!(table, "| `{name}` | {breaks} | {red} |")?;
        }
        fs::write(page(), format!("{before}{BEGIN}\n{table}\n{END}{after}"))?;
        Ok(())
    }
}

/// The page before, between and after the marks.
pub(crate) fn split<'a>(text: &'a str, begin: &str) -> anyhow::Result<(&'a str, &'a str, &'a str)> {
    let (before, rest) = text
        .split_once(begin)
        .with_context(|| format!("the page has no line {begin}"))?;
    let Some((table, after)) = rest.split_once(END) else {
        bail!("the page has no line {END}");
    };
    Ok((before, table, after))
}
