//! Claims and returns that meet on one word.

use loom::thread;

use super::{assert_at_rest, check, discard, give, opened, rig};
use crate::raw::core::Core;

/// Two callers want the one idle connection; exactly one gets it.
/// Two threads, one slot. Fails if `claim_in` takes the bit to be its own without looking at what the exchange
/// found.
#[test]
fn two_claims_of_one_slot_have_one_winner() {
    check(3, || {
        let rig = rig(1, 1);
        give(opened(&rig, 1));
        let other = thread::spawn({
            let rig = rig.clone();
            move || {
                Core::claim_by(&rig).is_some_and(|mut claim| {
                    *claim.value_mut() = Some(2);
                    give(claim);
                    true
                })
            }
        });
        let mine = Core::claim_by(&rig).map(|mut claim| {
            *claim.value_mut() = Some(3);
            give(claim);
        });
        let theirs = other.join().unwrap();
        assert!(
            mine.is_some() || theirs,
            "one idle connection serves one of two"
        );
        assert_at_rest(&rig, 1);
    });
}

/// What an owner wrote before its return is there for the next.
/// Two threads, one slot. Fails if the exchange in `give` releases nothing, or the one in `claim_in` acquires
/// nothing.
#[test]
fn a_claim_sees_what_the_last_owner_wrote() {
    check(3, || {
        let rig = rig(1, 1);
        let mut held = opened(&rig, 1);
        let other = thread::spawn(move || {
            *held.value_mut() = Some(42);
            give(held);
        });
        if let Some(claim) = Core::claim_by(&rig) {
            assert_eq!(
                claim.value(),
                Some(&42),
                "only a returned connection is idle"
            );
            give(claim);
        }
        other.join().unwrap();
        assert_at_rest(&rig, 1);
    });
}

/// A connection that is closed on the spot is gone, and the other stays.
/// Two threads, two slots in one word. Fails if vacating a slot touches another's bit.
#[test]
fn a_discard_leaves_the_neighbours_bit_alone() {
    check(3, || {
        let rig = rig(2, 2);
        let (one, two) = (opened(&rig, 1), opened(&rig, 2));
        let other = thread::spawn(move || discard(one));
        give(two);
        other.join().unwrap();
        assert_at_rest(&rig, 1);
    });
}
