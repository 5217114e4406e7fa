//! A pool that closes while it is used.

use loom::thread;

use super::{assert_at_rest, check, close, close_now, get, give, opened, queue, rig};
use crate::raw::core::Core;
use crate::raw::wait::Wait;

/// A return that meets the close is closed by one of the two.
/// Two threads, one slot. Fails if `close` does not raise `WAITING`.
#[test]
fn closing_meets_a_return() {
    check(3, || {
        let rig = rig(1, 1);
        let held = opened(&rig, 1);
        let returning = thread::spawn(move || give(held));
        for closing in Core::close(&rig, &"closed") {
            close_now(closing);
        }
        returning.join().unwrap();
        assert_closed(&rig);
    });
}

/// A caller that meets the close gets a connection or a refusal, and never waits on.
/// Three threads, one slot. Fails if `join` does not look whether the pool is closed.
#[test]
fn closing_meets_a_caller_and_a_return() {
    check(2, || {
        let rig = rig(1, 1);
        let held = opened(&rig, 1);
        let caller = thread::spawn({
            let rig = rig.clone();
            move || get(&rig).map(give)
        });
        let returning = thread::spawn(move || give(held));
        for closing in Core::close(&rig, &"closed") {
            close_now(closing);
        }
        returning.join().unwrap();
        caller.join().unwrap();
        assert_closed(&rig);
    });
}

/// A connection that lands in a closed pool is closed.
/// Two threads, one slot. Fails if `offer` sets a bit although the pool is closed.
#[test]
fn closing_meets_a_landing() {
    check(3, || {
        let rig = rig(1, 1);
        let mut wait = Box::pin(Wait::new(rig.clone()));
        let opening = queue(wait.as_mut()).expect("there is room");
        let opener = thread::spawn(move || close(Core::landed(opening, 1, 0)));
        for closing in Core::close(&rig, &"closed") {
            close_now(closing);
        }
        drop(wait);
        opener.join().unwrap();
        assert_closed(&rig);
    });
}

fn assert_closed(rig: &super::Rig) {
    let seen = rig.counts();
    assert!(
        seen.closed && seen.taken == 0 && seen.waiting == 0,
        "nothing is left: {seen:?}"
    );
    assert!(
        Core::claim_by(rig).is_none(),
        "nothing is idle in a closed pool"
    );
}

/// What is checked aside while the pool closes is closed by whoever finishes last.
/// Two threads, one slot. Fails if `ready` does not look whether the pool is closed.
#[test]
fn closing_meets_the_end_of_a_reset() {
    check(3, || {
        let rig = rig(1, 1);
        let aside = Core::set_aside(opened(&rig, 1));
        let resetting = thread::spawn(move || close(Core::ready(aside, 0)));
        for closing in Core::close(&rig, &"closed") {
            close_now(closing);
        }
        resetting.join().unwrap();
        assert_closed(&rig);
    });
}

/// Before anything was closed, a reset that ends makes its connection idle.
#[test]
fn a_reset_meets_a_joining_waiter() {
    check(3, || {
        let rig = rig(1, 1);
        let aside = Core::set_aside(opened(&rig, 1));
        let caller = thread::spawn({
            let rig = rig.clone();
            move || give(get(&rig).expect("nobody refuses"))
        });
        close(Core::ready(aside, 0));
        caller.join().unwrap();
        assert_at_rest(&rig, 1);
    });
}
