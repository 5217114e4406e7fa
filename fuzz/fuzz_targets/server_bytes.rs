//! Any bytes, said by a server to a connection that logs in, queries, copies, is reset and closed.
//!
//! Nothing panics, everything comes to an end, and what a server says is not gathered beyond its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokio::runtime::Builder;

fuzz_target!(|input: &[u8]| {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(pool_postgres::__fuzz::converse(input));
});
