//! What an audit or an attack says: findings, what was accepted, what could not be tried; as text, and as JSON by serde.

use std::error::Error as StdError;
use std::fmt;

use super::findings::{Finding, Level};
use super::install::SharedTables;

/// What [`check`](super::check) and [`attack`](super::attack) found.
///
/// As text by `Display`: the heaviest first, each with its remedy. With the feature `serde` it serialises, for a tool.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[must_use = "a finding that nobody reads protects nobody"]
#[non_exhaustive]
pub struct Report {
    /// What was found and not accepted, the heaviest first.
    pub findings: Vec<Finding>,
    /// What was found and accepted, each with its reason.
    pub accepted: Vec<Accepted>,
    /// Tables that are everybody's, each with its reason.
    pub global: Vec<Global>,
    /// What an attack could not try, and why.
    pub untried: Vec<Untried>,
    /// How many tables were looked at, parts included.
    pub tables: usize,
    /// How many things an attack tried.
    pub tries: usize,
}

/// A finding that was [accepted](SharedTables::accept).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Accepted {
    /// What was found.
    pub finding: Finding,
    /// Why it is accepted.
    pub reason: String,
}

/// A table that is [everybody's](SharedTables::global).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Global {
    /// The table.
    pub table: String,
    /// Why.
    pub reason: String,
}

/// Something that an attack left out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Untried {
    /// What would have been attacked.
    pub object: String,
    /// What was not tried, and why.
    pub why: String,
}

impl Report {
    /// Sorts findings into those that count and those that were accepted, and gives each its level.
    pub(crate) fn of(findings: Vec<Finding>, shared: &SharedTables, tables: usize) -> Self {
        let mut report = Self {
            tables,
            ..Self::default()
        };
        for (table, reason) in &shared.global {
            report.global.push(Global {
                table: table.to_string(),
                reason: reason.clone(),
            });
        }
        for mut finding in findings {
            finding.level = shared.level_of(finding.kind);
            if let Some(reason) = shared.acceptance_of(&finding) {
                let reason = reason.to_owned();
                report.accepted.push(Accepted { finding, reason });
            } else if !report.findings.contains(&finding) {
                report.findings.push(finding);
            }
        }
        report.sort();
        report
    }

    /// What is heavy enough not to start.
    pub fn refusals(&self) -> impl Iterator<Item = &Finding> {
        self.of_level(Level::Refuse)
    }

    /// What is only told.
    pub fn warnings(&self) -> impl Iterator<Item = &Finding> {
        self.of_level(Level::Warn)
    }

    /// Puts another report's findings to these: an audit and an attack as one.
    pub fn and(mut self, other: Self) -> Self {
        for finding in other.findings {
            if !self.findings.contains(&finding) {
                self.findings.push(finding);
            }
        }
        for accepted in other.accepted {
            if !self.accepted.contains(&accepted) {
                self.accepted.push(accepted);
            }
        }
        self.untried.extend(other.untried);
        self.tables = self.tables.max(other.tables);
        self.tries += other.tries;
        self.sort();
        self
    }

    /// Itself, unless something refuses: for a service's start, as in `check(&engine, &shared).await?.or_refuse()?`.
    ///
    /// # Errors
    /// [`Refused`], which lists what refuses, each with its remedy.
    pub fn or_refuse(self) -> Result<Self, Refused> {
        if self.refusals().next().is_none() {
            Ok(self)
        } else {
            Err(Refused {
                report: Box::new(self),
            })
        }
    }

    fn of_level(&self, level: Level) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(move |finding| finding.level == level)
    }

    fn sort(&mut self) {
        self.findings.sort_by(|a, b| {
            let heavy = |finding: &Finding| finding.level;
            let place = |finding: &Finding| (finding.object.clone(), finding.kind);
            heavy(b)
                .cmp(&heavy(a))
                .then_with(|| place(a).cmp(&place(b)))
        });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "tenancy: {} to refuse, {} to warn of, {} accepted, {} global, in {} tables",
            self.refusals().count(),
            self.warnings().count(),
            self.accepted.len(),
            self.global.len(),
            self.tables
        )?;
        if self.tries > 0 {
            write!(f, " and {} tries", self.tries)?;
        }
        for finding in &self.findings {
            write!(f, "\n{finding}")?;
        }
        for Accepted { finding, reason } in &self.accepted {
            let (object, kind) = (&finding.object, finding.kind);
            write!(f, "\naccepted {object} [{kind}] {reason}")?;
        }
        for Global { table, reason } in &self.global {
            write!(f, "\nglobal {table} {reason}")?;
        }
        for Untried { object, why } in &self.untried {
            write!(f, "\nuntried {object} {why}")?;
        }
        Ok(())
    }
}

/// A report with something that refuses.
#[derive(Debug)]
pub struct Refused {
    report: Box<Report>,
}

impl Refused {
    /// The whole report.
    pub fn report(&self) -> &Report {
        &self.report
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.report.refusals().count();
        write!(f, "tenants are not kept apart: {count} to refuse")?;
        for finding in self.report.refusals() {
            write!(f, "\n{finding}")?;
        }
        Ok(())
    }
}

impl StdError for Refused {}
