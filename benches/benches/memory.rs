//! How much memory a waiter takes, a connection and a prepared statement. Apart from the other comparisons, since an allocator that counts slows down those
//! contenders that allocate.

use std::alloc::System;

use anyhow::Result;
use benches::{runner, waiters, weight};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> Result<()> {
    runner::run(&[
        ("memory", |_| waiters::memory(allocated)),
        ("weight", |_| weight::compare(allocated)),
    ])
}

/// Bytes that the heap holds now.
fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}
