//! A pool that hands out nothing for a while.

use std::pin::pin;

use loom::thread;

use super::{assert_at_rest, check, close, get, give, opened, queue, rig, served};
use crate::raw::core::Core;
use crate::raw::wait::Wait;

fn resume(rig: &super::Rig) {
    for surplus in Core::resume(rig, 0) {
        close(Some(surplus));
    }
}

/// Nothing can be had while the pool is suspended, whatever comes back meanwhile.
/// Two threads, two slots. Fails if suspending does not shut the gate before it takes what is idle.
#[test]
fn suspending_meets_a_return() {
    check(3, || {
        let rig = rig(2, 2);
        let (one, two) = (opened(&rig, 1), opened(&rig, 2));
        give(one);
        let other = thread::spawn(move || give(two));
        rig.suspend();
        assert!(Core::claim_by(&rig).is_none(), "suspended");
        other.join().unwrap();
        assert!(Core::claim_by(&rig).is_none(), "suspended");
        resume(&rig);
        assert_at_rest(&rig, 2);
    });
}

/// Whoever waits when the pool resumes is served.
/// Two threads, one slot. Fails if resuming sets bits without looking at the queue.
#[test]
fn resuming_meets_a_joining_waiter() {
    check(3, || {
        let rig = rig(1, 1);
        give(opened(&rig, 1));
        rig.suspend();
        let caller = thread::spawn({
            let rig = rig.clone();
            move || give(get(&rig).expect("nobody refuses"))
        });
        resume(&rig);
        caller.join().unwrap();
        assert_at_rest(&rig, 1);
    });
}

/// A waiter that leaves a suspended pool takes nothing with it.
/// Two threads, one slot. Fails if leaving opens the gate of a suspended pool.
#[test]
fn leaving_a_suspended_pool_meets_a_return() {
    check(3, || {
        let rig = rig(1, 1);
        let held = opened(&rig, 1);
        rig.suspend();
        let other = thread::spawn(move || give(held));
        {
            let mut wait = pin!(Wait::new(rig.clone()));
            assert!(queue(wait.as_mut()).is_none(), "suspended");
        }
        assert!(Core::claim_by(&rig).is_none(), "suspended");
        other.join().unwrap();
        assert!(Core::claim_by(&rig).is_none(), "suspended");
        resume(&rig);
        assert_at_rest(&rig, 1);
    });
}

/// Resuming while a connection comes back serves both who wait.
/// Two threads, two slots. Fails if what was parked is not offered to the queue.
#[test]
fn resuming_meets_a_return_and_two_waiters() {
    check(2, || {
        let rig = rig(2, 2);
        let (one, two) = (opened(&rig, 1), opened(&rig, 2));
        rig.suspend();
        give(one);
        let (mut first, mut second) = (pin!(Wait::new(rig.clone())), pin!(Wait::new(rig.clone())));
        assert!(queue(first.as_mut()).is_none() && queue(second.as_mut()).is_none());
        let other = thread::spawn(move || give(two));
        resume(&rig);
        other.join().unwrap();
        give(served(first.as_mut()));
        give(served(second.as_mut()));
        assert_at_rest(&rig, 2);
    });
}
