//! A pool that is made smaller or larger while others use it.

use loom::thread;

use super::{assert_at_rest, check, close, get, give, opened, rig, rig_with, served};
use crate::raw::core::Core;
use crate::raw::rare::{Limits, Order, Shed};
use crate::raw::wait::{Turn, Wait};
use std::pin::pin;

fn resize(rig: &super::Rig, keep: usize, capacity: usize) {
    for surplus in Core::resize(rig, (keep, keep), capacity) {
        close(Some(surplus));
    }
}

/// A return that meets a pool being made smaller: one connection is left, whichever comes first.
/// Two threads, two slots. Fails if shrinking keeps what is idle.
#[test]
fn shrinking_meets_a_return() {
    check(3, || {
        let rig = rig(2, 2);
        let (one, two) = (opened(&rig, 1), opened(&rig, 2));
        give(one);
        let other = thread::spawn(move || give(two));
        resize(&rig, 1, 1);
        other.join().unwrap();
        assert_at_rest(&rig, 1);
    });
}

/// What is too many is closed when the first comes back, and not only when the last does.
/// Two threads, two slots. Fails if shrinking does not shut the gate.
#[test]
fn shrinking_meets_the_return_of_what_is_too_many() {
    check(3, || {
        let rig = rig(2, 2);
        let (one, two) = (opened(&rig, 1), opened(&rig, 2));
        let other = thread::spawn(move || give(one));
        resize(&rig, 1, 1);
        other.join().unwrap();
        assert_eq!(rig.counts().taken, 1, "one is in use, and none beside it");
        give(two);
        assert_at_rest(&rig, 1);
    });
}

/// A return in overflow that meets a smaller `keep`: the surplus is closed by one of both.
/// Two threads, two slots of one word. Fails if a return does not look at `keep` again after its exchange.
#[test]
fn keeping_fewer_meets_a_return_in_overflow() {
    check(3, || {
        let rig = rig(1, 2);
        let (one, two) = (opened(&rig, 1), opened(&rig, 2));
        let other = thread::spawn(move || {
            give(one);
            give(two);
        });
        resize(&rig, 0, 2);
        other.join().unwrap();
        assert_at_rest(&rig, 0);
    });
}

/// A return meets a `keep` that falls while `CAREFUL` is up before and after.
/// Two threads, three slots in two words would hide it, so one word of two. Fails as the one above.
#[test]
fn keeping_fewer_twice_meets_two_returns() {
    check(2, || {
        let rig = rig(1, 2);
        let (one, two) = (opened(&rig, 1), opened(&rig, 2));
        let other = thread::spawn(move || give(one));
        resize(&rig, 0, 2);
        resize(&rig, 1, 2);
        give(two);
        other.join().unwrap();
        let idle = rig.counts().idle;
        assert!(idle <= 1, "no more than are kept");
        assert_at_rest(&rig, idle);
    });
}

/// Room that appears while a caller joins the queue is used.
/// Two threads, one slot, then two. Fails if growing does not nudge.
#[test]
fn growing_meets_a_joining_waiter() {
    check(3, || {
        let rig = rig(1, 1);
        let held = opened(&rig, 1);
        let caller = thread::spawn({
            let rig = rig.clone();
            move || get(&rig).expect("nobody refuses")
        });
        resize(&rig, 2, 2);
        let second = caller.join().unwrap();
        give(held);
        give(second);
        assert_at_rest(&rig, 2);
    });
}

/// Connections that come back last are handed out last, and a return that meets a caller is not lost.
/// Two threads, two slots with an order. Fails if a caller that joins does not look at what is parked.
#[test]
fn a_return_in_order_meets_a_caller() {
    check(3, || {
        let rig = rig_with(Limits::plain(2, 2), Order::Fifo);
        let (one, two) = (opened(&rig, 1), opened(&rig, 2));
        let other = thread::spawn(move || give(one));
        let first = get(&rig).expect("nobody refuses");
        other.join().unwrap();
        give(two);
        give(first);
        let rest = rig.counts();
        assert_eq!((rest.idle, rest.in_use(), rest.waiting), (rest.taken, 0, 0));
    });
}

/// A caller with a limit on the queue is refused or served, and the queue is left in order.
/// Two threads, one slot. Fails if the bound counts those that are being served.
#[test]
fn a_full_queue_meets_a_return() {
    check(3, || {
        let mut limits = Limits::plain(1, 1);
        limits.waiting = 1;
        let rig = rig_with(limits, Order::Packed);
        let held = opened(&rig, 1);
        let mut first = pin!(Wait::new(rig.clone()));
        assert!(super::queue(first.as_mut()).is_none(), "there is no room");
        let late = thread::spawn({
            let rig = rig.clone();
            move || get(&rig).map(give)
        });
        give(held);
        give(served(first.as_mut()));
        late.join().unwrap();
        assert_at_rest(&rig, 1);
    });
}

/// A waiter that is sent away while a connection comes back: it has the one or the other, and nothing is lost.
/// Two threads, one slot. Fails if somebody who is sent away leaves the gate shut.
#[test]
fn shedding_meets_a_return() {
    check(3, || {
        let mut limits = Limits::plain(1, 1);
        limits.shed = Some(Shed {
            target: 1,
            interval: 1,
            floor: 0,
            shadow: false,
        });
        let rig = rig_with(limits, Order::Packed);
        let held = opened(&rig, 1);
        let mut wait = pin!(Wait::new(rig.clone()));
        assert!(super::queue(wait.as_mut()).is_none(), "there is no room");
        let timer = thread::spawn({
            let rig = rig.clone();
            move || rig.expire(100, 0, |(), _| {})
        });
        give(held);
        timer.join().unwrap();
        match super::poll(wait.as_mut(), super::PATIENT) {
            Turn::Got(claim) => give(claim),
            Turn::Shed => {}
            _ => panic!("it was sent away or served"),
        }
        assert_at_rest(&rig, 1);
    });
}
