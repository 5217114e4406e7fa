//! Figures of interleaved rounds, their medians, and what they are held against.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Each contender's figures of one kind, one or more a round.
#[derive(Clone, Debug, Default)]
pub struct Rounds(BTreeMap<&'static str, Vec<f64>>);

/// Which end of a scale is the good one.
#[derive(Clone, Copy, Debug)]
pub enum Best {
    /// More is better.
    Highest,
    /// Less is better.
    Lowest,
}

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

    /// The best of some contenders, by their medians, and its median.
    ///
    /// # Panics
    /// If there are no contenders, or one has no figures.
    pub fn best(&self, contenders: &[&'static str], best: Best) -> (&'static str, f64) {
        let medians = contenders.iter().map(|name| (*name, self.median(name)));
        let found = match best {
            Best::Highest => medians.max_by(|a, b| a.1.total_cmp(&b.1)),
            Best::Lowest => medians.min_by(|a, b| a.1.total_cmp(&b.1)),
        };
        found.expect("the callers name at least one")
    }

    /// All medians, in this unit.
    pub fn measure(&self, unit: &'static str) -> Measure {
        let medians = self.0.keys().map(|name| (*name, self.median(name)));
        Measure {
            unit,
            medians: medians.collect(),
        }
    }
}

/// What was measured of each contender.
#[derive(Clone, Debug, Serialize)]
pub struct Measure {
    /// What it is, and its unit.
    pub unit: &'static str,
    /// Each contender's median.
    pub medians: BTreeMap<&'static str, f64>,
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
    /// What was measured.
    pub measures: Vec<Measure>,
    /// The ratios, held against their targets.
    pub verdicts: Vec<Verdict>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.workload)?;
        for Measure { unit, medians } in &self.measures {
            writeln!(f, "  {unit}")?;
            for (name, median) in medians {
                writeln!(f, "    {name:<48} {median:>12.2}")?;
            }
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
            writeln!(f, "  {name:<50} {value:>12.2}   {sign} {bound} {word}")?;
        }
        Ok(())
    }
}
