//! One mutation: a unified diff, under a line that says what it breaks.
//!
//! A hunk is found by what its lines say, wherever they stand and however far they are indented, so that a
//! mutation outlives changes around it. Where its whole context is not found, the outermost lines of the
//! context are left out one by one.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// A mutation, as its file says it.
pub(crate) struct Patch {
    /// The file's name without its ending.
    pub(crate) name: String,
    /// What follows `Breaks:`.
    pub(crate) breaks: String,
    /// Relative to the package.
    files: Vec<(PathBuf, Vec<Hunk>)>,
}

struct Hunk {
    /// The line at which it was found when it was written, from one.
    at: usize,
    lines: Vec<Line>,
}

enum Line {
    Context(String),
    Removed(String),
    Added(String),
}

impl Line {
    /// What the line says in the file before the mutation.
    fn before(&self) -> Option<&str> {
        match self {
            Self::Context(text) | Self::Removed(text) => Some(text.trim()),
            Self::Added(_) => None,
        }
    }
}

/// All mutations of a folder, by name.
pub(crate) fn all(folder: &Path) -> anyhow::Result<Vec<Patch>> {
    let listed = fs::read_dir(folder).with_context(|| format!("no folder {}", folder.display()))?;
    let mut paths = Vec::new();
    for entry in listed {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "patch") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| Patch::read(path)).collect()
}

impl Patch {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path)?;
        Self::parse(path, &text).with_context(|| format!("{} cannot be read", path.display()))
    }

    fn parse(path: &Path, text: &str) -> anyhow::Result<Self> {
        let name = path.file_stem().context("it has no name")?;
        let mut lines = text.lines();
        let breaks = lines
            .next()
            .and_then(|line| line.strip_prefix("Breaks: "))
            .context("its first line must be `Breaks: …`")?;
        let mut files: Vec<(PathBuf, Vec<Hunk>)> = Vec::new();
        for line in lines {
            // The heading's other line, `+++ b/…`, names the same file, and stands in no hunk.
            if let Some(file) = line.strip_prefix("--- a/") {
                files.push((PathBuf::from(file), Vec::new()));
                continue;
            }
            let Some((_, hunks)) = files.last_mut() else {
                continue;
            };
            if let Some(header) = line.strip_prefix("@@ -") {
                let digits: String = header.chars().take_while(char::is_ascii_digit).collect();
                let at = digits.parse().context("a hunk that does not say where")?;
                let lines = Vec::new();
                hunks.push(Hunk { at, lines });
            } else if let Some(hunk) = hunks.last_mut() {
                let (sign, text) = line.split_at_checked(1).unwrap_or((" ", ""));
                match sign {
                    " " => hunk.lines.push(Line::Context(text.to_owned())),
                    "-" => hunk.lines.push(Line::Removed(text.to_owned())),
                    "+" => hunk.lines.push(Line::Added(text.to_owned())),
                    _ => hunks.push(Hunk {
                        at: 1,
                        lines: Vec::new(),
                    }),
                }
            }
        }
        for (_, hunks) in &mut files {
            hunks.retain(|hunk| !hunk.lines.is_empty());
        }
        if files.iter().all(|(_, hunks)| hunks.is_empty()) {
            bail!("it changes nothing");
        }
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            breaks: breaks.to_owned(),
            files,
        })
    }

    /// Applies it to a copy of the package; returns the files that it changed, with what they said before.
    pub(crate) fn apply(&self, package: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
        let mut originals = Vec::new();
        for (file, hunks) in &self.files {
            let path = package.join(file);
            let original =
                fs::read_to_string(&path).with_context(|| format!("no {}", file.display()))?;
            let mut lines: Vec<String> = original.lines().map(str::to_owned).collect();
            for hunk in hunks {
                hunk.apply(&mut lines).with_context(|| {
                    format!(
                        "the hunk for {} around line {} is not found there: write it anew",
                        file.display(),
                        hunk.at
                    )
                })?;
            }
            fs::write(&path, lines.join("\n") + "\n")?;
            originals.push((path, original));
        }
        Ok(originals)
    }

    /// Writes the mutation anew, with the lines and places of the present code.
    pub(crate) fn refresh(&self, package: &Path, folder: &Path) -> anyhow::Result<()> {
        let originals = self.apply(package)?;
        let aside = package.with_extension("before");
        let mut text = format!("Breaks: {}\n\n", self.breaks);
        for ((file, _), (path, original)) in self.files.iter().zip(&originals) {
            fs::write(&aside, original)?;
            let diff = Command::new("git")
                .args(["diff", "--no-index", "--no-color", "--unified=2", "--"])
                .args([&aside, path])
                .output()
                .context("git could not be started")?;
            let diff = String::from_utf8(diff.stdout)?;
            let hunks = diff.find("@@ ").context("the mutation changes nothing")?;
            let name = file.display();
            writeln!(text, "--- a/{name}\n+++ b/{name}")?;
            for line in diff[hunks..].lines() {
                // What git believes to be the enclosing function changes with every edit.
                let end = line
                    .starts_with("@@ ")
                    .then(|| line.rfind("@@").map(|at| at + 2))
                    .flatten()
                    .unwrap_or(line.len());
                text.push_str(&line[..end]);
                text.push('\n');
            }
        }
        restore(&originals)?;
        fs::remove_file(&aside)?;
        fs::write(folder.join(format!("{}.patch", self.name)), text)?;
        Ok(())
    }
}

/// Undoes what [`Patch::apply`] did.
pub(crate) fn restore(originals: &[(PathBuf, String)]) -> anyhow::Result<()> {
    for (path, original) in originals {
        fs::write(path, original)?;
    }
    Ok(())
}

impl Hunk {
    fn apply(&self, lines: &mut Vec<String>) -> anyhow::Result<()> {
        let leading = self.context(self.lines.iter());
        let trailing = self.context(self.lines.iter().rev());
        for left_out in 0..=leading.max(trailing) {
            let from = left_out.min(leading);
            let to = self.lines.len() - left_out.min(trailing);
            let kept = &self.lines[from..to];
            let before: Vec<&str> = kept.iter().filter_map(Line::before).collect();
            if before.is_empty() {
                break;
            }
            let Some(start) = nearest(lines, &before, self.at) else {
                continue;
            };
            let mut old = lines[start..start + before.len()].iter();
            let mut new = Vec::new();
            for line in kept {
                match line {
                    Line::Context(_) => new.extend(old.next().cloned()),
                    Line::Removed(_) => drop(old.next()),
                    Line::Added(text) => new.push(text.clone()),
                }
            }
            lines.splice(start..start + before.len(), new);
            return Ok(());
        }
        bail!("not found")
    }

    /// How many lines are context until the first that is not.
    fn context<'a>(&self, lines: impl Iterator<Item = &'a Line>) -> usize {
        lines
            .take_while(|line| matches!(line, Line::Context(_)))
            .count()
            .min(self.lines.len())
    }
}

/// Where the lines say `wanted`, nearest to the line `at`.
fn nearest(lines: &[String], wanted: &[&str], at: usize) -> Option<usize> {
    let found = lines.windows(wanted.len()).enumerate();
    found
        .filter(|(_, window)| {
            let said = window.iter().map(|line| line.trim());
            said.eq(wanted.iter().copied())
        })
        .map(|(start, _)| start)
        .min_by_key(|start| start.abs_diff(at))
}
