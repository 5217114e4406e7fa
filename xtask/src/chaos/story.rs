//! What happened when, for whoever has to find out why something is wrong.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::tour::lock;

/// How much of the story before and after a violation is shown.
const AROUND: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(2));

/// How many lines are shown where it breaks off.
const LAST: usize = 40;

/// Everything that was done to the servers, and what the databases said of it.
pub(crate) struct Story {
    began: Instant,
    aloud: bool,
    lines: Mutex<Vec<(Instant, String)>>,
    faults: Mutex<BTreeMap<String, u32>>,
}

impl Story {
    pub(crate) fn new(aloud: bool) -> Self {
        Self {
            began: Instant::now(),
            aloud,
            lines: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    /// Something happened just now.
    pub(crate) fn tell(&self, what: impl Into<String>) {
        self.told(Instant::now(), what.into());
    }

    /// Something happened then.
    pub(crate) fn told(&self, at: Instant, what: String) {
        if self.aloud {
            println!("  {}", self.line(at, &what));
        }
        lock(&self.lines).push((at, what));
    }

    /// One more fault of a kind.
    pub(crate) fn fault(&self, kind: String) {
        *lock(&self.faults).entry(kind).or_default() += 1;
    }

    /// How many faults of each kind there were.
    pub(crate) fn faults(&self) -> BTreeMap<String, u32> {
        lock(&self.faults).clone()
    }

    /// What happened about a moment; all of it without one.
    pub(crate) fn about(&self, moment: Option<Instant>) -> Vec<String> {
        let (before, after) = AROUND;
        let mut lines = lock(&self.lines).clone();
        lines.sort_by_key(|(at, _)| *at);
        lines
            .iter()
            .filter(|(at, _)| {
                moment.is_none_or(|moment| *at + before > moment && *at < moment + after)
            })
            .map(|(at, what)| self.line(*at, what))
            .collect()
    }

    /// Prints the last of it.
    pub(crate) fn show_the_end(&self) {
        let lines = self.about(None);
        for line in &lines[lines.len().saturating_sub(LAST)..] {
            println!("  {line}");
        }
    }

    /// A moment as the story's lines name it.
    pub(crate) fn time(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.began).as_secs_f64()
    }

    fn line(&self, at: Instant, what: &str) -> String {
        format!("{:9.3} s  {what}", self.time(at))
    }
}
