//! Figures of interleaved rounds, their medians, and what they are held against.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// One contender's figure in each round of a workload.
#[derive(Clone, Debug, Default)]
pub struct Rounds(BTreeMap<&'static str, Vec<f64>>);

impl Rounds {
    /// Notes a figure of the round that is going on.
    pub fn note(&mut self, contender: &'static str, figure: f64) {
        self.0.entry(contender).or_default().push(figure);
    }

    /// The median of a contender's figures.
    ///
    /// # Panics
    /// If the contender has none.
    pub fn median(&self, contender: &str) -> f64 {
        let mut figures = self.0.get(contender).cloned().unwrap_or_default();
        assert!(!figures.is_empty(), "{contender} has no figures");
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    }

    /// All medians.
    pub fn medians(&self) -> BTreeMap<&'static str, f64> {
        self.0
            .keys()
            .map(|name| (*name, self.median(name)))
            .collect()
    }
}

/// What a ratio or figure shall be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

/// One figure held against its target.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// What it is.
    pub name: String,
    /// What came out.
    pub value: f64,
    /// What it shall be.
    pub target: Target,
    /// Whether it is.
    pub met: bool,
}

impl Verdict {
    /// Holds a figure against its target.
    pub fn new(name: impl Into<String>, value: f64, target: Target) -> Self {
        let met = match target {
            Target::AtLeast(floor) => value >= floor,
            Target::AtMost(ceiling) => value <= ceiling,
        };
        Self {
            name: name.into(),
            value,
            target,
            met,
        }
    }
}

/// What one workload found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The workload.
    pub workload: &'static str,
    /// What its figures are.
    pub unit: &'static str,
    /// Each contender's median.
    pub medians: BTreeMap<&'static str, f64>,
    /// The ratios, held against their targets.
    pub verdicts: Vec<Verdict>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})", self.workload, self.unit)?;
        for (name, median) in &self.medians {
            writeln!(f, "  {name:<42} {median:>12.1}")?;
        }
        for Verdict {
            name,
            value,
            target,
            met,
        } in &self.verdicts
        {
            let (sign, bound) = match target {
                Target::AtLeast(bound) => ('≥', bound),
                Target::AtMost(bound) => ('≤', bound),
            };
            let word = if *met { "met" } else { "MISSED" };
            writeln!(f, "  {name:<42} {value:>12.2}   {sign} {bound} {word}")?;
        }
        Ok(())
    }
}
