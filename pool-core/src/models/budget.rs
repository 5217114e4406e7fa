//! Two pools under one budget.

use std::sync::{Arc as StdArc, Weak};

use loom::thread;

use super::{Rig, assert_at_rest, check, close_now, get, give, opened};
use crate::raw::budget::{Budget, Sharer};
use crate::raw::core::Core;
use crate::raw::rare::{Limits, Order};
use crate::sync::Arc;

/// A pool, as its budget reaches it. The model checker's counts have no weak handles, so this has one of its
/// own.
struct Member(std::sync::Mutex<Option<Rig>>);

impl Member {
    fn rig(&self) -> Option<Rig> {
        self.0.lock().unwrap().clone()
    }
}

impl Sharer for Member {
    fn give_way(&self, any: bool) {
        if let Some(closing) = self.rig().and_then(|rig| Core::give_way(&rig, 0, any)) {
            close_now(closing);
        }
    }

    fn offer_room(&self) {
        if let Some(rig) = self.rig() {
            rig.offer_room();
        }
    }
}

/// Two pools of up to `capacity` each, under a budget of `total`. The members are dropped at the end of the
/// story, before their pools.
fn two(total: usize, capacity: usize) -> ([Rig; 2], [StdArc<Member>; 2], Arc<Budget>) {
    several(total, capacity)
}

fn several<const N: usize>(
    total: usize,
    capacity: usize,
) -> ([Rig; N], [StdArc<Member>; N], Arc<Budget>) {
    let budget = Arc::new(Budget::new(total));
    let mut members = Vec::new();
    let rigs = [(); N].map(|()| {
        let member = StdArc::new(Member(std::sync::Mutex::new(None)));
        let weak: Weak<dyn Sharer> = StdArc::downgrade(&member) as Weak<dyn Sharer>;
        let ticket = Budget::join(&budget, weak, 1, 0).expect("nothing is promised");
        let limits = Limits::plain(capacity, capacity);
        let rig = Arc::new(Core::new(limits, Order::Packed, Some(ticket)));
        *member.0.lock().unwrap() = Some(rig.clone());
        members.push(member);
        rig
    });
    let members = members.try_into().ok().expect("one for each");
    (rigs, members, budget)
}

fn forget(members: &[StdArc<Member>]) {
    for member in members {
        member.0.lock().unwrap().take();
    }
}

/// The only permit is in use in one pool while the other wants it; it goes over when the connection comes back.
/// Two threads, two pools of one slot. Fails if a pool that was asked lets a return set its bit.
#[test]
fn a_return_in_one_pool_meets_a_starving_other() {
    check(2, || {
        let ([rich, poor], members, budget) = two(1, 1);
        let held = opened(&rich, 1);
        let caller = thread::spawn(move || {
            give(get(&poor).expect("nobody refuses"));
            poor
        });
        give(held);
        let poor = caller.join().unwrap();
        assert_at_rest(&poor, 1);
        assert_at_rest(&rich, 0);
        let seen = budget.numbers();
        assert_eq!((seen.free, seen.starving), (0, 0));
        forget(&members);
    });
}

/// A permit that comes free while another pool starts to starve is not lost.
/// Two threads, two pools of one slot. Fails if freeing a permit does not look at the line.
#[test]
fn a_freed_permit_meets_a_starving_pool() {
    check(2, || {
        let ([rich, poor], members, budget) = two(1, 1);
        let held = opened(&rich, 1);
        let caller = thread::spawn(move || {
            give(get(&poor).expect("nobody refuses"));
            poor
        });
        super::discard(held);
        let poor = caller.join().unwrap();
        assert_at_rest(&poor, 1);
        assert_eq!(budget.numbers().free, 0);
        forget(&members);
    });
}

/// A waiter that leaves gives up its pool's place in the line, and what was granted to it.
/// Two threads, two pools of one slot. Fails if a pool nobody waits in keeps what was granted.
#[test]
fn a_grant_meets_a_leaving_waiter() {
    check(2, || {
        let ([rich, poor], members, budget) = two(1, 1);
        let held = opened(&rich, 1);
        let mut wait = Box::pin(crate::raw::wait::Wait::new(poor.clone()));
        assert!(super::queue(wait.as_mut()).is_none(), "no permit");
        let leaving = thread::spawn(move || drop(wait));
        super::discard(held);
        leaving.join().unwrap();
        let seen = budget.numbers();
        assert_eq!(
            (seen.free, seen.starving),
            (1, 0),
            "nothing is held for nobody"
        );
        forget(&members);
    });
}

/// Never more connections than permits, whoever asks.
/// Three threads, two pools of one slot. Fails if a permit is looked at apart from being taken.
#[test]
fn two_pools_open_under_one_permit() {
    check(1, || {
        let ([one, two], members, budget) = two(1, 1);
        let callers = [one.clone(), two.clone()].map(|rig| {
            thread::spawn(move || {
                let held = get(&rig).expect("nobody refuses");
                give(held);
            })
        });
        for caller in callers {
            caller.join().unwrap();
        }
        assert_eq!(one.counts().taken + two.counts().taken, 1);
        assert_eq!(budget.numbers().free, 0);
        forget(&members);
    });
}

/// A permit that comes free goes to the pool that has starved for it, not to one that asks just then.
/// Two threads, three pools of one slot. Fails if a pool takes what is free past those that starve.
#[test]
fn a_freed_permit_goes_past_a_newcomer_to_the_pool_that_starves() {
    check(2, || {
        let ([rich, poor, late], members, budget) = several::<3>(1, 1);
        let held = opened(&rich, 1);
        let mut first = Box::pin(crate::raw::wait::Wait::new(poor.clone()));
        assert!(super::queue(first.as_mut()).is_none(), "no permit");
        let newcomer = thread::spawn(move || {
            let mut second = Box::pin(crate::raw::wait::Wait::new(late));
            let opening = super::queue(second.as_mut());
            assert!(opening.is_none(), "another has starved for longer");
        });
        super::discard(held);
        newcomer.join().unwrap();
        let opening = super::queue(first.as_mut()).expect("its turn");
        Core::give_up(opening);
        drop(first);
        let seen = budget.numbers();
        assert_eq!((seen.free, seen.starving), (1, 0));
        forget(&members);
    });
}
