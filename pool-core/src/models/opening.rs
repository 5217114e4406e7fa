//! Connections that are being opened, and room that comes free.

use loom::thread;

use super::{assert_at_rest, check, close, discard, get, give, opened, queue, rig};
use crate::raw::core::Core;
use crate::raw::wait::Wait;

/// A connection that lands while its caller leaves is put to use.
/// Two threads, one slot. Fails if a dropped `Wait` forgets what was handed over.
#[test]
fn a_connection_lands_while_its_caller_leaves() {
    check(3, || {
        let rig = rig(1, 1);
        let mut wait = Box::pin(Wait::new(rig.clone()));
        let opening = queue(wait.as_mut()).expect("there is room");
        let opener = thread::spawn(move || close(Core::landed(opening, 1, 0)));
        drop(wait);
        opener.join().unwrap();
        assert_at_rest(&rig, 1);
    });
}

/// Room that comes free while a caller joins the queue is used: a lost nudge shows as a deadlock.
/// Two threads, one slot. Fails if `free_room` does not nudge.
#[test]
fn room_coming_free_meets_a_joining_waiter() {
    check(3, || {
        let rig = rig(1, 1);
        let held = opened(&rig, 1);
        let caller = thread::spawn({
            let rig = rig.clone();
            move || give(get(&rig).expect("nobody refuses"))
        });
        discard(held);
        caller.join().unwrap();
        assert_at_rest(&rig, 1);
    });
}

/// An opener that gives up lets the next caller try.
/// Two threads, one slot. Fails if `give_up` does not nudge.
#[test]
fn an_opener_giving_up_meets_a_joining_waiter() {
    check(3, || {
        let rig = rig(1, 1);
        let mut wait = Box::pin(Wait::new(rig.clone()));
        let opening = queue(wait.as_mut()).expect("there is room");
        drop(wait);
        let caller = thread::spawn({
            let rig = rig.clone();
            move || give(get(&rig).expect("nobody refuses"))
        });
        Core::give_up(opening);
        caller.join().unwrap();
        assert_at_rest(&rig, 1);
    });
}

/// A caller takes whichever comes first, the return or its own new connection; the other is put to use.
/// Three threads, two slots. Fails if joining waits for its own opening alone.
#[test]
fn a_return_meets_an_opening() {
    check(2, || {
        let rig = rig(2, 2);
        let held = opened(&rig, 1);
        let mut wait = Box::pin(Wait::new(rig.clone()));
        let opening = queue(wait.as_mut()).expect("there is room");
        let opener = thread::spawn(move || close(Core::landed(opening, 2, 0)));
        give(held);
        give(super::served(wait.as_mut()));
        opener.join().unwrap();
        drop(wait);
        assert_at_rest(&rig, 2);
    });
}

/// Two callers open into two slots at the same time; never more than the capacity.
/// Three threads, two slots. Fails if a vacant slot is chosen outside the mutex.
#[test]
fn two_openings_take_two_slots() {
    check(2, || {
        let rig = rig(2, 2);
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let rig = rig.clone();
                thread::spawn(move || give(get(&rig).expect("nobody refuses")))
            })
            .collect();
        for caller in callers {
            caller.join().unwrap();
        }
        let idle = rig.counts().idle;
        assert!(
            (1..=2).contains(&idle),
            "one or two were opened, and all came back"
        );
        assert_at_rest(&rig, idle);
    });
}
