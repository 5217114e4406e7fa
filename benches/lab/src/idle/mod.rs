//! Idle structures that are not ours: which slots hold a connection that nobody uses.
//!
//! Each is a file here and one line in [`every!`], and must pass `conformance.rs`, where the line makes its tests.
//! What is asked of one stands at [`pool_core::lab::IdleSet`].

mod bitmap;
#[cfg(all(test, not(pool_loom)))]
mod conformance;
#[cfg(not(pool_loom))]
mod deque;
mod gate;
mod gated;
#[cfg(all(test, pool_loom))]
mod models;
#[cfg(not(pool_loom))]
mod queues;
mod sharded;
#[cfg(not(pool_loom))]
pub mod table;
mod treiber;
mod words;

pub use bitmap::Bitmap;
#[cfg(not(pool_loom))]
pub use deque::Deque;
#[cfg(not(pool_loom))]
pub use queues::{Array, Segments};
pub use sharded::Sharded;
pub use treiber::Treiber;
pub use words::Words;

/// What a structure promises, for the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Traits {
    /// What is claimed next.
    pub order: &'static str,
    /// Why a slot that was taken and put back meanwhile does no harm.
    pub aba: &'static str,
    /// What taking one slot out of the middle costs.
    pub middle: &'static str,
}

/// An idle structure that can be put to the test.
pub trait Candidate: pool_core::lab::IdleSet + Sized + 'static {
    /// What the table calls it.
    const NAME: &'static str;
    /// What it promises.
    const TRAITS: Traits;

    /// For so many slots, none of them idle.
    fn of(slots: usize) -> Self;

    /// How many bytes it takes for so many slots.
    fn bytes(slots: usize) -> usize;
}

/// Calls a macro with every structure: its module's name, and the type. The one line of a new one goes here.
#[cfg(not(pool_loom))]
#[macro_export]
macro_rules! every {
    ($call:ident) => {
        $call!(words, $crate::idle::Words);
        $call!(treiber, $crate::idle::Treiber);
        $call!(array, $crate::idle::Array);
        $call!(segments, $crate::idle::Segments);
        $call!(deque, $crate::idle::Deque);
        $call!(sharded, $crate::idle::Sharded);
        $call!(bitmap, $crate::idle::Bitmap);
    };
}
