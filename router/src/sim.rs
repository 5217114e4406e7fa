//! The simulation: a cluster, its failures and its clients in virtual time, over the decision code that ships.
//!
//! A seed is a story: servers that replicate late, crash, hang, lose what nobody else had, are promoted and come back
//! with the old timeline or the right one; wires that delay, hold back and part; clocks that drift and jump; clients
//! that write and read with every promise. Evidence, views, plans, proofs, waits, the readers of answers and the
//! monitors' courses are those of the crate; what is simulated is what lies beneath them: servers, wires, time.
//!
//! The checker ([`oracle`]) holds each routing and each answer against the truth. No real time, no threads within a
//! story, no runtime: a seed takes the same course every time.
//!
//! `cargo xtask sim` runs as many seeds as it is told, `cargo test` a few; the variables that it sets are
//! `POOL_SIM_SEEDS` (how many), `POOL_SIM_SEED` (the first) and `POOL_SIM_TRACE` (tell what happens in the first). A seed
//! that breaks a promise is told in full, and made shorter. What once broke one is kept in `sim/kept`.
//!
//! # What the model leaves out
//! Each promotion has a timeline number of its own. A user may see what members of `pg_monitor` may. An address leads to
//! one server at a time, and to one of another cluster only after it was silent for longer than a look takes.

mod acts;
mod answers;
mod generate;
mod looks;
mod ops;
mod oracle;
mod process;
mod run;
mod shrink;
mod world;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use self::acts::Act;
use self::generate::Story;
use self::run::{Fault, run};
use self::shrink::shrink;

/// How many seeds run where nobody says how many: as many as take a few seconds in a build that is not optimised.
const FEW: u64 = 200;

/// The stories that once broke a promise: a name, and the text that a failing seed printed.
const KEPT: [(&str, &str); 1] = [(
    "a bounded read that reached an old primary after the promotion",
    include_str!("sim/kept/bounded_read_on_an_old_primary.txt"),
)];

fn number(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is {text:?}, and has to be a number"))
    })
}

#[test]
fn no_seed_breaks_a_promise() {
    let (count, first) = (number("POOL_SIM_SEEDS", FEW), number("POOL_SIM_SEED", 1));
    if std::env::var_os("POOL_SIM_TRACE").is_some() {
        let story = Story::of(first);
        println!("{}{}", text_of(&story), run(&story, true).told);
    }
    let begun = Instant::now();
    // Relaxed: each number is taken once, and nothing goes with it. Numbers are taken in their order, so the lowest
    // that fails is found however many threads there are.
    let (next, found) = (AtomicU64::new(first), AtomicU64::new(u64::MAX));
    let end = first.saturating_add(count);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= end.min(found.load(Relaxed)) {
                        return;
                    }
                    if fault_of(&Story::of(seed)).is_some() {
                        found.fetch_min(seed, Relaxed);
                    }
                }
            });
        }
    });
    let seed = found.load(Relaxed);
    assert!(seed == u64::MAX, "{}", report(&Story::of(seed)));
    println!("{count} seeds from {first} on, {:.1?}", begun.elapsed());
}

#[test]
fn what_once_broke_a_promise_keeps_it() {
    for (name, text) in KEPT {
        let story = read(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        if let Some(fault) = fault_of(&story) {
            panic!("{name}: {fault}\n{}", run(&story, true).told);
        }
    }
}

#[test]
fn a_seed_takes_the_same_course_every_time_and_its_text_too() {
    for seed in 1..20 {
        let story = Story::of(seed);
        let told = run(&story, true).told;
        assert_eq!(told, run(&story, true).told);
        assert_eq!(read(&text_of(&story)), Ok(story));
    }
}

/// The promise that a story breaks. A panic is one too.
fn fault_of(story: &Story) -> Option<Fault> {
    let ended = catch_unwind(AssertUnwindSafe(|| run(story, false).fault));
    ended.unwrap_or_else(|_| {
        Some(Fault {
            kind: "the code under test panicked",
            what: "its message is above".to_owned(),
        })
    })
}

/// What a failing seed prints: the short story, as text to be kept, and what happens in it.
fn report(story: &Story) -> String {
    let seed = story.seed;
    let Some(fault) = fault_of(story) else {
        return format!(
            "seed {seed} breaks a promise once, and not again: the simulation leans on something real"
        );
    };
    if std::env::var_os("POOL_SIM_BRIEF").is_some() {
        return format!("seed {seed}: {fault}");
    }
    let short = shrink(story, |story| {
        fault_of(story).is_some_and(|other| other.kind == fault.kind)
    });
    let told = catch_unwind(AssertUnwindSafe(|| run(&short, true).told)).unwrap_or_default();
    format!(
        "seed {seed}: {fault}\n\n--- the story, to be kept in router/src/sim/kept ---\n{}--- what happens ---\n{told}",
        text_of(&short)
    )
}

/// A story as text.
fn text_of(story: &Story) -> String {
    let Story {
        seed,
        nodes,
        processes,
        lazily,
        history,
        acts,
    } = story;
    let (lazily, history) = (u8::from(*lazily), u8::from(*history));
    let mut text = format!(
        "seed {seed} nodes {nodes} processes {processes} lazily {lazily} history {history}\n"
    );
    for act in acts {
        let _ = writeln!(text, "{act}");
    }
    text
}

/// Reads a story's text.
fn read(text: &str) -> Result<Story, String> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let words: Vec<&str> = head.split_whitespace().collect();
    let value = |name: &str| {
        let at = words.iter().position(|word| *word == name);
        let value = at.and_then(|at| words.get(at + 1)?.parse::<u64>().ok());
        value.ok_or_else(|| format!("no {name} in {head:?}"))
    };
    let size = |name| value(name).and_then(|size| usize::try_from(size).map_err(|e| e.to_string()));
    Ok(Story {
        seed: value("seed")?,
        nodes: size("nodes")?,
        processes: size("processes")?,
        lazily: value("lazily")? != 0,
        history: value("history")? != 0,
        acts: lines.map(str::parse::<Act>).collect::<Result<_, _>>()?,
    })
}
