//! Callers that leave: from the queue, after the hand-over, when their time is over.

use std::pin::pin;

use loom::thread;

use super::{PATIENT, assert_at_rest, check, discard, get, give, opened, poll, queue, rig, served};
use crate::raw::wait::{Ask, Turn, Wait};

/// A waiter that leaves while a connection is handed to it gives it back.
/// Two threads, one slot. Fails if a dropped `Wait` forgets what was handed over.
#[test]
fn leaving_after_the_hand_over_gives_the_connection_back() {
    check(3, || {
        let rig = rig(1, 1);
        let held = opened(&rig, 1);
        let mut wait = Box::pin(Wait::new(rig.clone()));
        assert!(queue(wait.as_mut()).is_none(), "there is no room");
        let returning = thread::spawn(move || give(held));
        drop(wait);
        returning.join().unwrap();
        assert_at_rest(&rig, 1);
    });
}

/// When the chosen one leaves, the next in the queue is served.
/// Two threads, one slot. Fails if a dropped `Wait` puts what was handed to it among the idle.
#[test]
fn leaving_passes_the_turn_to_the_next() {
    check(3, || {
        let rig = rig(1, 1);
        let held = opened(&rig, 1);
        let mut first = Box::pin(Wait::new(rig.clone()));
        let mut second = pin!(Wait::new(rig.clone()));
        assert!(queue(first.as_mut()).is_none(), "there is no room");
        assert!(queue(second.as_mut()).is_none(), "there is no room");
        let returning = thread::spawn(move || give(held));
        drop(first);
        returning.join().unwrap();
        give(served(second));
        assert_at_rest(&rig, 1);
    });
}

/// A waiter that was told to open a connection, and leaves before it does, passes that on.
/// Two threads, one slot, two waiters. Fails if `after_leaving` does not nudge.
#[test]
fn leaving_with_a_nudge_passes_the_nudge_on() {
    check(2, || {
        let rig = rig(1, 1);
        let held = opened(&rig, 1);
        let mut first = Box::pin(Wait::new(rig.clone()));
        assert!(queue(first.as_mut()).is_none(), "there is no room");
        let caller = thread::spawn({
            let rig = rig.clone();
            move || give(get(&rig).expect("nobody refuses"))
        });
        discard(held); // Room: `first` is told to open, or the caller opens by itself...
        drop(first); // ...and `first` leaves without doing so.
        caller.join().unwrap();
        assert_at_rest(&rig, 1);
    });
}

/// A waiter whose time is over while a connection comes back gets the one or the other, and nothing is lost.
/// Two threads, one slot. Fails if `expire` ends a wait that has ended.
#[test]
fn expiring_meets_a_hand_over() {
    check(3, || {
        let rig = rig(1, 1);
        let held = opened(&rig, 1);
        let mut wait = pin!(Wait::new(rig.clone()));
        let impatient = Ask {
            deadline: 5,
            ..PATIENT
        };
        assert!(matches!(
            poll(wait.as_mut(), impatient),
            Turn::Pending(None)
        ));
        let returning = thread::spawn(move || give(held));
        rig.expire(6, 0, |(), _| {});
        returning.join().unwrap();
        match poll(wait, impatient) {
            Turn::Got(claim) => give(claim),
            Turn::Expired => {}
            _ => panic!("its time is over, or it was served"),
        }
        assert_at_rest(&rig, 1);
    });
}

/// A waiter that is polled again with another waker while it is served misses neither.
/// Two threads, one slot. Fails if a second poll overwrites an outcome.
#[test]
fn a_second_poll_meets_a_hand_over() {
    check(3, || {
        let rig = rig(1, 1);
        let held = opened(&rig, 1);
        let mut wait = pin!(Wait::new(rig.clone()));
        assert!(queue(wait.as_mut()).is_none(), "there is no room");
        let returning = thread::spawn(move || give(held));
        let claim = match poll(wait.as_mut(), PATIENT) {
            Turn::Got(claim) => Some(claim),
            Turn::Pending(None) => None,
            _ => panic!("nobody refuses, and there is no room"),
        };
        returning.join().unwrap();
        give(claim.unwrap_or_else(|| served(wait)));
        assert_at_rest(&rig, 1);
    });
}
