//! Whether what clients saw is what they were promised: a function of the history and of what is there at the end.
//!
//! A write *survives* if it is there at the end. A read must have seen every surviving write that was acknowledged
//! early enough for its promise; acknowledged writes that do not survive are lost, which is allowed without
//! synchronous replication, and then has to be what their tokens say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::history::{Attempt, History, LIST, Place, Promise, Read, Saw, Told};

/// What is there at the end: how often each number is.
pub(crate) type Found = BTreeMap<Place, i64>;

/// What must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Of which kind, for counting.
    pub(crate) kind: &'static str,
    pub(crate) what: String,
    /// When it was seen, if at a moment.
    pub(crate) at: Option<Instant>,
}

/// What the writes came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) acknowledged: usize,
    pub(crate) refused: usize,
    pub(crate) unknown: usize,
    pub(crate) unknown_there: usize,
    pub(crate) only_local: usize,
    /// Acknowledged, and not there at the end.
    pub(crate) lost: BTreeSet<Place>,
}

pub(crate) const LOST: &str = "acknowledged writes lost";
pub(crate) const STALE: &str = "stale reads";
pub(crate) const DUPLICATE: &str = "duplicates";
pub(crate) const OUTCOME: &str = "wrong outcomes";
pub(crate) const TOKEN: &str = "wrong answers to tokens";

/// Holds the history against what is there.
pub(crate) fn verdict(
    history: &History,
    found: &Found,
    synchronous: bool,
) -> (Sums, Vec<Violation>) {
    let attempts: Vec<_> = (0..history.writers())
        .map(|writer| history.attempts(writer))
        .collect();
    let mut sums = Sums::default();
    let mut violations = Vec::new();
    for (writer, attempts) in attempts.iter().enumerate() {
        for (number, attempt) in (0..).zip(attempts) {
            let place = Place { writer, number };
            let times = found.get(&place).copied().unwrap_or(0);
            violations.extend(judge_write(place, attempt, times, synchronous, &mut sums));
        }
    }
    for place in found.keys() {
        let tried = attempts.get(place.writer).map_or(0, Vec::len);
        if place.number as usize >= tried {
            let what = format!("{place:?} is there, and was never appended");
            violations.push(of(OUTCOME, what, None));
        }
    }
    for read in history.reads() {
        violations.extend(judge_read(&read, &attempts, found));
    }
    (sums, violations)
}

fn judge_write(
    place: Place,
    attempt: &Attempt,
    times: i64,
    synchronous: bool,
    sums: &mut Sums,
) -> Option<Violation> {
    if times > 1 {
        return Some(of(
            DUPLICATE,
            format!("{place:?} is there {times} times"),
            None,
        ));
    }
    let there = times == 1;
    match attempt.told {
        Told::Acknowledged { durable, at, .. } => {
            sums.acknowledged += 1;
            sums.only_local += usize::from(!durable);
            if !there {
                sums.lost.insert(place);
            }
            let lost = !there && durable && synchronous;
            lost.then(|| {
                of(
                    LOST,
                    format!("{place:?} was acknowledged and is gone"),
                    Some(at),
                )
            })
        }
        Told::Refused => {
            sums.refused += 1;
            let what = || format!("{place:?} was reported as not applied and is there");
            there.then(|| of(OUTCOME, what(), Some(attempt.sent)))
        }
        Told::Unknown => {
            sums.unknown += 1;
            sums.unknown_there += usize::from(there);
            None
        }
        Told::Pending => {
            let what = format!("{place:?} never came to an end");
            Some(of(OUTCOME, what, Some(attempt.sent)))
        }
    }
}

fn judge_read(read: &Read, attempts: &[Vec<Attempt>], found: &Found) -> Option<Violation> {
    let Saw::Numbers { bits, odd, port } = read.saw else {
        let (Promise::After(place) | Promise::NotBefore(place)) = read.promise else {
            return None;
        };
        let survives = found.contains_key(&place);
        let what = || format!("{place:?} was said to be lost and is there");
        return survives.then(|| of(TOKEN, what(), Some(read.began)));
    };
    let who = || {
        format!(
            "the read of list {} of writer {} on port {port} ({:?})",
            read.list, read.writer, read.promise
        )
    };
    if odd {
        return Some(of(
            DUPLICATE,
            format!("{} saw a number twice, or none of that list", who()),
            Some(read.began),
        ));
    }
    let first = read.list * LIST;
    for number in first..first + LIST {
        let place = Place {
            writer: read.writer,
            number,
        };
        let seen = bits & place.bit() != 0;
        let attempt = attempts[read.writer].get(number as usize);
        match attempt.map(|attempt| attempt.told) {
            None if seen => {
                let what = format!("{} saw {number}, which was not appended yet", who());
                return Some(of(OUTCOME, what, Some(read.began)));
            }
            Some(Told::Refused) if seen => {
                let what = format!("{} saw {number}, reported as not applied", who());
                return Some(of(OUTCOME, what, Some(read.began)));
            }
            Some(Told::Acknowledged { at, .. })
                if !seen && read.must_see(place, at, attempts, found) =>
            {
                let since = read.began.saturating_duration_since(at);
                let what = format!("{} missed {number}, acknowledged {since:?} before", who());
                return Some(of(STALE, what, Some(read.began)));
            }
            _ => {}
        }
    }
    None
}

impl Read {
    /// Whether its promise covers a write that was acknowledged then.
    fn must_see(
        &self,
        place: Place,
        at: Instant,
        attempts: &[Vec<Attempt>],
        found: &Found,
    ) -> bool {
        let survives = found.contains_key(&place);
        match self.promise {
            Promise::Nothing => false,
            Promise::Strong => survives && at <= self.began,
            Promise::Age(age) => survives && at + age <= self.began,
            // It was answered: so the write itself was there, wherever that was.
            Promise::After(own) | Promise::NotBefore(own) if own == place => true,
            Promise::After(own) | Promise::NotBefore(own) => {
                let sent = attempts[own.writer]
                    .get(own.number as usize)
                    .map(|attempt| attempt.sent);
                survives && sent.is_some_and(|sent| at <= sent)
            }
        }
    }
}

pub(crate) fn of(kind: &'static str, what: String, at: Option<Instant>) -> Violation {
    Violation { kind, what, at }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PORT: i32 = 5432;
    const SECOND: Duration = Duration::from_secs(1);

    fn acknowledged(at: Instant) -> Told {
        Told::Acknowledged {
            at,
            token: None,
            durable: true,
        }
    }

    /// One writer whose numbers had these ends.
    fn history(told: &[Told]) -> History {
        let history = History::new(1);
        for told in told {
            let place = history.open(0);
            history.told(place, *told);
        }
        history
    }

    fn place(number: u32) -> Place {
        Place { writer: 0, number }
    }

    fn found(numbers: &[u32]) -> Found {
        numbers.iter().map(|number| (place(*number), 1)).collect()
    }

    /// A read that saw these numbers, begun at that moment.
    fn read(began: Instant, promise: Promise, bits: u64) -> Read {
        Read {
            began,
            writer: 0,
            list: 0,
            promise,
            saw: Saw::Numbers {
                bits,
                odd: false,
                port: PORT,
            },
        }
    }

    fn kinds(history: &History, found: &Found, synchronous: bool) -> Vec<&'static str> {
        let (_, violations) = verdict(history, found, synchronous);
        violations.iter().map(|violation| violation.kind).collect()
    }

    #[test]
    fn a_lost_write_is_a_violation_only_with_synchronous_replication() {
        let history = history(&[acknowledged(Instant::now())]);
        assert_eq!(kinds(&history, &found(&[]), true), [LOST]);
        assert!(kinds(&history, &found(&[]), false).is_empty());
        assert_eq!(verdict(&history, &found(&[]), false).0.lost.len(), 1);
        assert!(kinds(&history, &found(&[0]), true).is_empty());
    }

    #[test]
    fn outcomes_have_to_be_what_they_were_said_to_be() {
        let history = history(&[Told::Refused, Told::Unknown, Told::Pending]);
        assert_eq!(kinds(&history, &found(&[1]), false), [OUTCOME]);
        assert_eq!(kinds(&history, &found(&[0]), false), [OUTCOME; 2]);
        assert_eq!(kinds(&history, &found(&[7]), false), [OUTCOME; 2]);
        let twice = Found::from([(place(1), 2)]);
        assert_eq!(kinds(&history, &twice, false), [DUPLICATE, OUTCOME]);
    }

    #[test]
    fn a_read_that_misses_what_its_promise_covers_is_stale() {
        let at = Instant::now();
        let later = at + SECOND;
        for (promise, stale) in [
            (Promise::Nothing, false),
            (Promise::Strong, true),
            (Promise::Age(SECOND), true),
            (Promise::Age(2 * SECOND), false),
            (Promise::After(place(0)), true),
            (Promise::NotBefore(place(0)), true),
        ] {
            let history = history(&[acknowledged(at)]);
            history.read(read(later, promise, 0));
            let expected: &[_] = if stale { &[STALE] } else { &[] };
            assert_eq!(kinds(&history, &found(&[0]), true), expected, "{promise:?}");
            history.read(read(later, promise, 1));
            assert_eq!(kinds(&history, &found(&[0]), true), expected, "{promise:?}");
        }
    }

    #[test]
    fn a_token_covers_what_was_acknowledged_before_its_commit_and_its_own_write_even_if_that_is_lost()
     {
        let history = history(&[]);
        let (first, second) = (history.open(0), history.open(0));
        history.told(first, acknowledged(Instant::now()));
        history.committing(second);
        history.told(second, acknowledged(Instant::now()));
        history.read(read(Instant::now(), Promise::After(second), 0b10));
        assert_eq!(kinds(&history, &found(&[0, 1]), true), [STALE]);
        assert!(
            kinds(&history, &found(&[1]), false).is_empty(),
            "the first is lost"
        );
        history.read(read(Instant::now(), Promise::After(second), 0b01));
        assert_eq!(kinds(&history, &found(&[0]), false), [STALE; 2]);
    }

    #[test]
    fn what_was_not_written_is_not_to_be_seen_and_nothing_twice() {
        let history = history(&[Told::Refused]);
        history.read(read(Instant::now(), Promise::Nothing, 0b1));
        history.read(read(Instant::now(), Promise::Nothing, 0b10));
        assert_eq!(kinds(&history, &found(&[]), true), [OUTCOME; 2]);
        let mut odd = read(Instant::now(), Promise::Nothing, 0);
        odd.saw = Saw::Numbers {
            bits: 0,
            odd: true,
            port: PORT,
        };
        history.read(odd);
        assert_eq!(
            kinds(&history, &found(&[]), true),
            [OUTCOME, OUTCOME, DUPLICATE]
        );
    }

    #[test]
    fn a_token_that_calls_a_surviving_write_lost_is_wrong() {
        let history = history(&[acknowledged(Instant::now())]);
        let mut refused = read(Instant::now(), Promise::After(place(0)), 0);
        refused.saw = Saw::Lost;
        history.read(refused);
        assert_eq!(kinds(&history, &found(&[0]), false), [TOKEN]);
        assert!(kinds(&history, &found(&[]), false).is_empty());
    }
}
