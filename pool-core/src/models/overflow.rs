//! Returns in overflow: exactly `keep` connections stay.

use loom::thread;

use super::{assert_at_rest, check, give, opened, rig};
use crate::raw::core::Core;

/// Two returns at once, of which one must be closed: one word, where its bits are counted.
/// Two threads, two slots. Fails if the count is taken apart from the exchange.
#[test]
fn two_returns_in_overflow_keep_one() {
    check(3, || {
        let rig = rig(1, 2);
        let (one, two) = (opened(&rig, 1), opened(&rig, 2));
        let other = thread::spawn(move || give(one));
        give(two);
        other.join().unwrap();
        assert_at_rest(&rig, 1);
    });
}

/// The same over two words, where `CAREFUL` sends returns to the mutex.
/// Two threads, three slots. Fails if `CAREFUL` is not raised when the overflow begins.
#[test]
fn returns_in_overflow_over_two_words_keep_two() {
    check(2, || {
        let rig = rig(2, 3);
        let held = [opened(&rig, 1), opened(&rig, 2), opened(&rig, 3)];
        let [one, two, three] = held;
        give(two);
        let other = thread::spawn(move || give(one));
        give(three);
        other.join().unwrap();
        assert_at_rest(&rig, 2);
    });
}

/// While one connection is still in overflow, the next return is looked at as closely as the last.
/// Two threads, three slots in two words. Fails if `CAREFUL` is lowered while a connection is in overflow.
#[test]
fn the_end_of_the_overflow_meets_a_return() {
    check(2, || {
        let rig = rig(1, 3);
        let held = [opened(&rig, 1), opened(&rig, 2), opened(&rig, 3)];
        let [one, two, three] = held;
        give(one);
        give(two); // One too many: closed. Two connections are left, one of them in overflow.
        let other = thread::spawn(move || give(three));
        if let Some(claim) = Core::claim_by(&rig) {
            give(claim);
        }
        other.join().unwrap();
        assert_at_rest(&rig, 1);
    });
}
