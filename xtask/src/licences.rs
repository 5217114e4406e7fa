//! The licences of what we build on: every dependency's must be one that a closed program may link.

use std::process::Command;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::steps::cargo;

/// Licences that ask for no more than their own text.
const FREE: [&str; 13] = [
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "Zlib",
    "0BSD",
    "Unicode-3.0",
    "Unlicense",
    "CDLA-Permissive-2.0",
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for what lies in this repository.
    source: Option<String>,
}

pub(crate) fn check() -> anyhow::Result<()> {
    let mut metadata: Command = cargo(&["metadata", "--format-version", "1", "--locked"]);
    let output = metadata
        .output()
        .context("cargo metadata could not be started")?;
    if !output.status.success() {
        bail!(
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    let refused: Vec<_> = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_some())
        .filter(|package| !package.license.as_deref().is_some_and(is_free))
        .map(|package| {
            format!(
                "{} {}: {:?}",
                package.name, package.version, package.license
            )
        })
        .collect();
    if !refused.is_empty() {
        bail!(
            "licences to look at before they are allowed:\n{}",
            refused.join("\n")
        );
    }
    println!("{} packages, all free to link", metadata.packages.len());
    Ok(())
}

/// Whether an SPDX expression leaves a free choice: one free side of each OR, all sides of each AND.
fn is_free(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let plain = expression.trim();
    if let Some(inner) = plain
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
        && !inner.contains(['(', ')'])
    {
        return is_free(inner);
    }
    if let Some((left, right)) = split(plain, " AND ") {
        return is_free(left) && is_free(right);
    }
    if let Some((left, right)) = split(plain, " OR ") {
        return is_free(left) || is_free(right);
    }
    FREE.contains(&plain)
}

/// Splits at the first operator outside brackets.
fn split<'a>(expression: &'a str, operator: &str) -> Option<(&'a str, &'a str)> {
    expression
        .match_indices(operator)
        .map(|(at, _)| at)
        .find_map(|at| {
            let (left, right) = (&expression[..at], &expression[at + operator.len()..]);
            (left.matches('(').count() == left.matches(')').count()).then_some((left, right))
        })
}

#[cfg(test)]
mod tests {
    use super::is_free;

    #[test]
    fn an_expression_is_free_if_a_free_choice_is_left() {
        for free in [
            "MIT",
            "MIT OR GPL-3.0",
            "MIT/Apache-2.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
        ] {
            assert!(is_free(free), "{free}");
        }
        for unfree in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR Apache-2.0) AND GPL-2.0",
            "",
        ] {
            assert!(!is_free(unfree), "{unfree}");
        }
    }
}
