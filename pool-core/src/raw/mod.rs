//! The protocol: who owns which slot, who waits, and who gets what next.
//!
//! Everything that needs `unsafe` or a memory ordering lives here. The code knows no backend, no hook and
//! no clock: connections are opaque values, times are numbers that the caller brings.
//!
//! Where to look:
//! - [`word`]: the layout of one word.
//! - [`slot`]: slots, the pages that hold them, and the token that owns one ([`slot::Seat`]).
//! - [`idle`]: the lock-free part, claiming an idle slot and giving it back.
//! - [`wait`]: the future that stands in the wait queue, and [`queue`], the queue itself.
//! - [`rare`]: what the mutex guards.
//! - [`core`](self::core): checking out and returning under the mutex; the only place where room is freed.
//! - [`opening`]: vacant slots, and what should be opened.
//! - [`ending`]: waits that end without a connection.
//! - [`whole`]: what concerns all slots at once.
//! - [`budget`]: a number of connections that many pools share.
//! - `driven`: the idle words for a fuzzer.
//! - `swapped` and `reordered`: the doors to other idle structures and orders of waiting, for the laboratory.
//! - [`claim`]: what the safe code above sees of an owned slot.
//!
//! # The rule that makes it work
//! While somebody waits, every word carries `WAITING`, and nobody sets an idle bit in a word that carries
//! it: a return must take the mutex, where it meets the queue. `WAITING` is raised only by
//! compare-exchange from a word without an idle bit. So an idle connection beside a waiting caller cannot
//! be written down, and no newcomer can overtake the queue.

pub(crate) mod budget;
pub(crate) mod claim;
pub(crate) mod core;
#[cfg(fuzzing)]
pub(crate) mod driven;
mod ending;
mod idle;
mod opening;
mod queue;
pub(crate) mod rare;
#[cfg(feature = "lab")]
mod reordered;
pub(crate) mod slot;
#[cfg(feature = "lab")]
mod swapped;
pub(crate) mod wait;
pub(crate) mod whole;
mod word;

/// The types that the layer above fills in.
pub(crate) trait Parts: Sized + 'static {
    /// What a slot holds: the connection, and facts that only its owner touches.
    type Value: Send;
    /// Facts about a slot that others may read while it is in use.
    type Facts: Default + Send + Sync;
    /// What a waiter is told when it gets no connection.
    type Refusal: Clone + Send;
    /// What the layer above keeps under the same mutex as the wait queue.
    type Guarded: Default + Send;
    /// What the layer above keeps beside the core.
    type Outside: Send + Sync;

    /// What is kept of a waiter, to be noted with a slot that is handed to it.
    type Mark: Copy + Send;

    /// By how much the times that callers bring may lag behind.
    const COARSE: u64;

    /// The exact time, where `coarse` was brought. May be called under the mutex.
    fn exact(coarse: u64) -> u64;

    /// The core's membership in a budget, if it has one.
    fn ticket(outside: &Self::Outside) -> Option<&budget::Ticket>;

    /// Notes whose a slot is from now on, which is being handed over. Called under the mutex.
    fn handed(facts: &Self::Facts, mark: Self::Mark, now: u64);

    /// Takes a slot that was handed to a waiter which left without it.
    ///
    /// Called outside the mutex, from the waiter's destructor.
    fn stray<H: claim::Holder<Self>>(claim: claim::Claim<Self, H>);
}
