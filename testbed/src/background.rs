//! The runtime that carries what must outlive one test: proxies, TLS fronts, the shared cluster.
//!
//! Each `#[tokio::test]` has a runtime of its own that ends with it, and may have a single thread that the
//! test keeps busy. What stands between a client and its server must not depend on either.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

/// The process's own background runtime, started at its first use.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let built = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("testbed")
            .enable_all()
            .build();
        built.expect("a runtime needs one thread and an event queue; without them no test can run")
    })
}
