//! Every comparison but that of memory, which needs an allocator that counts (`benches/memory.rs`).

use anyhow::Result;
use benches::{
    cycle, opening, overhead, overload, plenty, postgres, queueing, resting, reuse, round_trips,
    routing, runner, shared, slots, waiters,
};

fn main() -> Result<()> {
    runner::run(&[
        ("resting", resting::compare),
        ("cycle", cycle::compare),
        ("slots", slots::compare),
        ("reuse", reuse::compare),
        ("plenty", plenty::compare),
        ("scarce", queueing::scarce),
        ("crowd", queueing::crowd),
        ("waiters", waiters::compare),
        ("opening", opening::compare),
        ("overload", overload::compare),
        ("postgres", postgres::compare),
        ("shared", shared::compare),
        ("overhead", overhead::compare),
        ("transactions", overhead::transactions),
        ("routing", routing::compare),
        ("trips", round_trips::compare),
    ])
}
