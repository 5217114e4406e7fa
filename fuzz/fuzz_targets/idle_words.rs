//! Any sequence of operations on the idle words, held against a plain set.
//!
//! One thread: what races can do is for the models to show. Here it is the arithmetic of words, bits and flags.
#![no_main]

use std::collections::BTreeSet;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pool_core::__fuzz::{Gave, IdleWords};

#[derive(Arbitrary, Debug)]
struct Story {
    words: u8,
    per_word: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Claim,
    ClaimAt(u8),
    Give(u8),
    Set(u8, u8),
    RaiseWaiting,
    LowerWaiting,
    Careful(bool),
    Keep(u8),
}

/// What the words should say.
#[derive(Default)]
struct Model {
    words: usize,
    idle: BTreeSet<usize>,
    waiting: bool,
    careful: bool,
    keep: usize,
}

impl Model {
    fn gave(&mut self, slot: usize, per_word: usize) -> Option<Gave> {
        if self.idle.contains(&slot) {
            return None;
        }
        let word = slot / per_word;
        let beside = self.idle.iter().filter(|other| *other / per_word == word);
        if self.waiting || (self.careful && beside.count() >= self.keep) {
            return Some(Gave::MustLock);
        }
        self.idle.insert(slot);
        Some(Gave::Idle)
    }

    fn set(&mut self, slot: usize, keep: usize) -> Option<bool> {
        if self.idle.contains(&slot) {
            return None;
        }
        let few = self.idle.len() < keep;
        if few {
            self.idle.insert(slot);
        }
        Some(few)
    }
}

fuzz_target!(|story: Story| {
    let per_word = 1 + usize::from(story.per_word) % 62;
    let mut model = Model {
        words: 1 + usize::from(story.words) % 4,
        ..Model::default()
    };
    let slots = model.words * per_word;
    let mut words = IdleWords::new(model.words, per_word);
    for step in story.steps {
        match step {
            Step::Claim => {
                let got = words.claim();
                assert_eq!(got.is_some(), !model.idle.is_empty());
                if let Some(slot) = got {
                    assert!(model.idle.remove(&slot), "{slot} was not idle");
                    // The lowest of its word: what is idle stays packed.
                    let lower = model.idle.range(slot / per_word * per_word..slot).next();
                    assert_eq!(lower, None, "{slot} was taken before a lower one");
                }
            }
            Step::ClaimAt(slot) => {
                let slot = usize::from(slot) % slots;
                assert_eq!(words.claim_at(slot), model.idle.remove(&slot));
            }
            Step::Give(slot) => {
                let slot = usize::from(slot) % slots;
                let gave = words.give(slot);
                assert_eq!(gave, model.gave(slot, per_word), "giving {slot}");
            }
            Step::Set(slot, keep) => {
                let (slot, keep) = (usize::from(slot) % slots, usize::from(keep));
                let set = words.set(slot, keep);
                assert_eq!(set, model.set(slot, keep), "setting {slot}");
            }
            Step::RaiseWaiting => match words.raise_waiting() {
                Some(slot) => {
                    assert!(model.idle.remove(&slot), "{slot} was not idle");
                    words.lower_waiting(); // As its contract demands: some words may carry the flag.
                    model.waiting = false;
                }
                None => {
                    assert!(model.idle.is_empty(), "raised beside an idle bit");
                    model.waiting = true;
                }
            },
            Step::LowerWaiting => {
                words.lower_waiting();
                model.waiting = false;
            }
            Step::Careful(up) => {
                words.careful(up);
                model.careful = up;
            }
            Step::Keep(keep) => {
                words.set_keep(usize::from(keep));
                model.keep = usize::from(keep);
            }
        }
        assert_eq!(words.count(), model.idle.len(), "{words:?}");
        assert!(words.idle().iter().eq(&model.idle), "{words:?}");
    }
});
