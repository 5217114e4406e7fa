//! Returns that meet callers who join the queue.

use std::pin::pin;

use loom::thread;

use super::{assert_at_rest, check, get, give, opened, queue, rig, served};
use crate::raw::core::Core;
use crate::raw::wait::Wait;

/// A return that meets a caller joining the queue is never lost: a lost turn shows as a deadlock.
/// Two threads, one slot. Fails if `WAITING` is raised by `fetch_or` instead of from an empty word.
#[test]
fn a_return_meeting_a_joining_waiter_is_not_lost() {
    check(3, || {
        let rig = rig(1, 1);
        let held = opened(&rig, 1);
        let caller = thread::spawn({
            let rig = rig.clone();
            move || give(get(&rig).expect("nobody refuses"))
        });
        give(held);
        caller.join().unwrap();
        assert_at_rest(&rig, 1);
    });
}

/// The same where the return goes to another word than the one that the caller looks at first.
/// Two threads, three slots in two words. Fails if `raise_waiting` stops after the first word.
#[test]
fn a_return_to_the_last_word_is_not_lost() {
    check(2, || {
        let rig = rig(3, 3);
        let held = [opened(&rig, 1), opened(&rig, 2), opened(&rig, 3)];
        let caller = thread::spawn({
            let rig = rig.clone();
            move || give(get(&rig).expect("nobody refuses"))
        });
        let [one, two, three] = held;
        give(three);
        caller.join().unwrap();
        give(one);
        give(two);
        assert_at_rest(&rig, 3);
    });
}

/// Two callers and one connection: both are served, one after the other.
/// Three threads, one slot. Fails if `give` sets its bit although `WAITING` is up.
#[test]
fn two_waiters_and_one_connection_are_both_served() {
    check(2, || {
        let rig = rig(1, 1);
        let held = opened(&rig, 1);
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let rig = rig.clone();
                thread::spawn(move || give(get(&rig).expect("nobody refuses")))
            })
            .collect();
        give(held);
        for caller in callers {
            caller.join().unwrap();
        }
        assert_at_rest(&rig, 1);
    });
}

/// A newcomer does not get the connection that comes back while somebody waits.
/// Three threads, one slot. Fails if `give` sets its bit although `WAITING` is up.
#[test]
fn a_newcomer_does_not_overtake() {
    check(3, || {
        let rig = rig(1, 1);
        let held = opened(&rig, 1);
        let mut first = pin!(Wait::new(rig.clone()));
        assert!(queue(first.as_mut()).is_none(), "there is no room");
        let returning = thread::spawn(move || give(held));
        let newcomer = thread::spawn({
            let rig = rig.clone();
            move || Core::claim_by(&rig).map(give).is_none()
        });
        returning.join().unwrap();
        assert!(newcomer.join().unwrap(), "whoever waits is served first");
        give(served(first));
        assert_at_rest(&rig, 1);
    });
}
