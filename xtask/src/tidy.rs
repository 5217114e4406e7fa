//! Rules of the house that no compiler knows.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};

use crate::steps::root;

/// A file longer than this holds more than one concept.
const LONGEST: usize = 600;

/// Files that may be longer, each with its reason.
const LONG: [(&str, &str); 0] = [];

/// The only places for unsafe code.
const UNSAFE: [&str; 2] = ["pool-core/src/raw/", "pool-core/tests/alloc.rs"];

pub(crate) fn check() -> anyhow::Result<()> {
    let files = rust_files()?;
    let mut faults = Vec::new();
    let mut sources = String::new();
    for file in &files {
        let name = file.to_string_lossy();
        let text = fs::read_to_string(root().join(file)).with_context(|| name.to_string())?;
        let lines = text.lines().count();
        let excused = LONG.iter().any(|(long, _)| *long == name);
        if lines > LONGEST && !excused {
            faults.push(format!(
                "{name} has {lines} lines: split it where a second concept has moved in"
            ));
        }
        if !UNSAFE.iter().any(|place| name.starts_with(place)) && has_unsafe(&text) {
            faults.push(format!(
                "{name} holds unsafe code, which belongs into pool-core/src/raw"
            ));
        }
        sources.push_str(&text);
    }
    faults.extend(missing_names(&sources)?);
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    println!("{} Rust files in order", files.len());
    Ok(())
}

/// All Rust files that git knows, or would add.
fn rust_files() -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "*.rs",
        ])
        .current_dir(root())
        .output()
        .context("git could not be started")?;
    let names = String::from_utf8(output.stdout)?;
    let files: Vec<_> = names
        .lines()
        .map(PathBuf::from)
        .filter(|file| root().join(file).is_file())
        .collect();
    if files.is_empty() {
        bail!("git lists no Rust file: run this in a checkout");
    }
    Ok(files)
}

fn has_unsafe(text: &str) -> bool {
    let keyword = concat!("uns", "afe");
    text.lines().any(|line| {
        let code = line.split("//").next().unwrap_or("");
        ["{", "impl", "fn", "trait"]
            .iter()
            .any(|next| code.contains(&format!("{keyword} {next}")))
    })
}

/// Each test and model that these pages name in back quotes, in a table, must exist.
const PAGES: [&str; 2] = ["docs/guarantees.md", "docs/consistency.md"];

fn missing_names(sources: &str) -> anyhow::Result<Vec<String>> {
    let mut missing = Vec::new();
    for page in PAGES {
        let text = fs::read_to_string(root().join(page)).with_context(|| page.to_owned())?;
        let rows = text.lines().filter(|line| line.starts_with('|'));
        let names = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
        let tests = names.filter(|name| {
            name.contains('_')
                && name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        });
        missing.extend(
            tests
                .filter(|name| !sources.contains(&format!("fn {name}(")))
                .map(|name| format!("{page} names {name}, which does not exist")),
        );
    }
    Ok(missing)
}
