//! What a run came to, for people.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clients::Clients;
use super::verdict::{Sums, Violation};
use super::world::World;

/// How many violations are told in full.
const TOLD: usize = 5;

/// A run's results.
pub(crate) struct Report {
    pub(crate) violations: Vec<Violation>,
    lines: Vec<String>,
}

impl Report {
    pub(crate) fn new(
        world: &World,
        clients: &Clients,
        sums: Sums,
        violations: Vec<Violation>,
    ) -> Self {
        let mut lines = vec!["  requests".to_owned()];
        for ((asked, became), times) in clients.counts.all() {
            lines.push(format!("    {times:>8}  {asked}: {became}"));
        }
        let Sums {
            acknowledged,
            refused,
            unknown,
            unknown_there,
            only_local,
            lost,
        } = sums;
        lines.push(format!(
            "  writes: {acknowledged} acknowledged ({only_local} of them only locally), {refused} not applied, \
             {unknown} unknown ({unknown_there} of them there); {} acknowledged and lost, each said by its token",
            lost.len()
        ));
        lines.push("  faults".to_owned());
        for (kind, times) in world.story.faults() {
            lines.push(format!("    {times:>8}  {kind}"));
        }
        lines.push(
            "  from accepting writes after a promotion to the first acknowledged write".to_owned(),
        );
        lines.extend(promotions(world, clients));
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for violation in &violations {
            *kinds.entry(violation.kind).or_default() += 1;
        }
        lines.push(format!("  violations: {}", violations.len()));
        for (kind, times) in kinds {
            lines.push(format!("    {times:>8}  {kind}"));
        }
        for violation in violations.iter().take(TOLD) {
            lines.push(format!("  {}: {}", violation.kind, violation.what));
            if let Some(at) = violation.at {
                lines.push(format!("    at {:.3} s; about then:", world.story.time(at)));
            }
            let story = world.story.about(violation.at);
            lines.extend(story.iter().map(|line| format!("    {line}")));
        }
        Self { violations, lines }
    }

    pub(crate) fn print(&self) {
        for line in &self.lines {
            println!("{line}");
        }
        println!();
    }
}

/// How long each promotion kept writes waiting, by kind and in all.
fn promotions(world: &World, clients: &Clients) -> Vec<String> {
    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    let mut none = 0;
    for promotion in world.promotions() {
        match clients.history.first_on(promotion.timeline) {
            Some(first) => {
                let time = first.saturating_duration_since(promotion.accepted);
                times.entry(promotion.kind).or_default().push(time);
                times.entry("all").or_default().push(time);
            }
            None => none += 1,
        }
    }
    let mut lines = Vec::new();
    for (kind, mut times) in times {
        times.sort_unstable();
        let median = times[times.len() / 2];
        let longest = times.last().copied().unwrap_or_default();
        lines.push(format!(
            "    {:>8}  {kind}: median {:.0} ms, longest {:.0} ms",
            times.len(),
            median.as_secs_f64() * 1e3,
            longest.as_secs_f64() * 1e3
        ));
    }
    if none > 0 {
        lines.push(format!(
            "    {none:>8}  without one, followed by the next promotion"
        ));
    }
    lines
}
