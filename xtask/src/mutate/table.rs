//! The tables of mutations on the pages of `docs`. That of the pool's says what each breaks, and what goes red then.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, bail};

use super::patch::Patch;
use crate::steps::root;

const END: &str = "<!-- end of mutations -->";
const GUARANTEES: Page = Page {
    file: "docs/guarantees.md",
    begin: "<!-- mutations: written by `cargo xtask mutate --write` -->",
};

/// A page with a table of mutations between two marks.
pub(crate) struct Page {
    pub(crate) file: &'static str,
    pub(crate) begin: &'static str,
}

impl Page {
    /// The table's rows, without its head.
    pub(crate) fn rows(&self) -> anyhow::Result<Vec<String>> {
        let text = self.text()?;
        let (_, table, _) = self.split(&text)?;
        let rows = table.lines().filter(|line| line.starts_with("| `"));
        Ok(rows.map(str::to_owned).collect())
    }

    /// Writes the table anew.
    pub(crate) fn write(&self, table: &str) -> anyhow::Result<()> {
        let text = self.text()?;
        let (before, _, after) = self.split(&text)?;
        let Self { file, begin } = self;
        let text = format!("{before}{begin}\n\n{table}\n{END}{after}");
        fs::write(root().join(file), text)?;
        Ok(())
    }

    fn text(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(root().join(self.file))?)
    }

    /// What stands before, between and after the marks.
    fn split<'a>(&self, text: &'a str) -> anyhow::Result<(&'a str, &'a str, &'a str)> {
        let Self { file, begin } = self;
        let (before, rest) = text
            .split_once(begin)
            .with_context(|| format!("{file} has no line {begin}"))?;
        let Some((table, after)) = rest.split_once(END) else {
            bail!("{file} has no line {END}");
        };
        Ok((before, table, after))
    }
}

/// What goes red, by mutation.
#[derive(PartialEq, Eq)]
pub(crate) struct Table(pub(crate) BTreeMap<String, Vec<String>>);

impl Table {
    /// The table as it stands on the page.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let rows = GUARANTEES.rows()?;
        let quoted = |cell: &str| -> Vec<String> {
            let names = cell.split('`').skip(1).step_by(2);
            names.map(str::to_owned).collect()
        };
        let red = rows.iter().filter_map(|row| {
            // What it breaks, in the cell between, may quote names too.
            let mut cells = row.split('|').skip(1);
            let name = quoted(cells.next()?).pop()?;
            Some((name, quoted(cells.nth(1)?)))
        });
        Ok(Self(red.collect()))
    }

    /// Writes the table onto the page.
    pub(crate) fn write(&self, patches: &[Patch]) -> anyhow::Result<()> {
        let mut table =
            String::from("| mutation | what it breaks | what goes red |\n|---|---|---|\n");
        for patch in patches {
            let none = Vec::new();
            let red = self.0.get(&patch.name).unwrap_or(&none);
            let quoted: Vec<_> = red.iter().map(|name| format!("`{name}`")).collect();
            let (name, breaks, red) = (&patch.name, &patch.breaks, quoted.join(", "));
            writeln!(table, "| `{name}` | {breaks} | {red} |")?;
        }
        GUARANTEES.write(&table)
    }
}
