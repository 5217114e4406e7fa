//! Everything that must pass, in the order in which a mistake shows soonest.

use crate::steps::{self, Steps, cargo, target};
use crate::{chaos, crates, examples, fuzz, licences, settings, setup, tidy, tour};

/// How long the parser of URLs and what a server may say are fuzzed.
const FUZZ_SECONDS: u32 = 60;
/// How long servers and network are troubled under the router.
const CHAOS_MINUTES: f64 = 0.15;
/// How many random schedules run in all.
const SCHEDULES: u32 = 2_000;

/// Everything but the packages that bring other people's pools and drivers, what a tool of theirs has written, and
/// the laboratory, whose feature of pool-core would be in all other tests too.
const OURS: [&str; 9] = [
    "--workspace",
    "--exclude",
    "benches",
    "--exclude",
    "neighbours",
    "--exclude",
    "clorinde",
    "--exclude",
    "lab",
];

fn all(steps: &mut Steps) -> anyhow::Result<()> {
    steps.step("PostgreSQL for the tests", || setup::postgres(None))?;
    steps.step("PgBouncer for the tests", setup::pgbouncer)?;
    steps.step("format", || steps::run(cargo(&["fmt", "--all", "--check"])))?;
    house(steps)?;
    steps.step("clippy", || {
        let mut clippy = cargo(&["clippy", "--all-targets"]);
        clippy.args(OURS).args(["--", "-D", "warnings"]);
        steps::run(clippy)
    })?;
    steps.step("docs", || {
        let mut doc = cargo(&["doc", "--no-deps"]);
        doc.args(OURS);
        doc.env("RUSTDOCFLAGS", "-D warnings");
        steps::run(doc)
    })?;
    steps.step("tests, examples and doc tests", || {
        let mut tests = cargo(&["test"]);
        tests.args(OURS);
        steps::run(tests)
    })?;
    steps.step("examples on real servers", examples::run)?;
    steps.step("pool-core with all of its features", features)?;
    steps.step("pool-postgres with all of its features", postgres_features)?;
    steps.step("pool-router with all of its features", router_features)?;
    steps.step("laboratory", laboratory)?;
    steps.step("models", models)?;
    steps.step("schedules", || schedules(SCHEDULES))?;
    steps.step("tour", || {
        let json = target().join("tour.json");
        tour::run(&tour::Args {
            seconds: 15,
            json: Some(json),
            pg_bin: None,
            keep: false,
            serve: false,
        })
    })?;
    steps.step("chaos", || chaos::run(&chaos::Args::lasting(CHAOS_MINUTES)))?;
    steps.step("fuzz", || {
        fuzz::run(&["engine_url", "server_bytes"], FUZZ_SECONDS)
    })?;
    steps.step("package", || {
        steps::run(cargo(&[
            "publish",
            "--dry-run",
            "--allow-dirty",
            "-p",
            "pool-core",
        ]))
    })
}

/// The rules of the house.
fn house(steps: &mut Steps) -> anyhow::Result<()> {
    steps.step("tidy", tidy::check)?;
    steps.step("settings", settings::check)?;
    steps.step("licences", licences::check)?;
    steps.step("crates", crates::check)
}

pub(crate) fn tidy() -> anyhow::Result<()> {
    let mut steps = Steps::default();
    house(&mut steps)?;
    steps.finish();
    Ok(())
}

pub(crate) fn run() -> anyhow::Result<()> {
    let mut steps = Steps::default();
    all(&mut steps)?;
    steps.finish();
    Ok(())
}

/// What the features of pool-core add: adapters, spans, metrics, serialization.
fn features() -> anyhow::Result<()> {
    featured("pool-core", &[&["--lib", "--test", "it", "features::"]])
}

/// What the features of pool-postgres add: the layer for web services and the examples that use it.
fn postgres_features() -> anyhow::Result<()> {
    featured(
        "pool-postgres",
        &[
            &["--lib", "--example", "axum_tested"],
            &["--test", "it", "--", "types::", "web::", "service::"],
        ],
    )
}

/// What the features of pool-router add: numbers for dashboards, and the page.
fn router_features() -> anyhow::Result<()> {
    featured(
        "pool-router",
        &[&[
            "--test",
            "it",
            "--",
            "metrics::",
            "console::",
            "tenants::web",
        ]],
    )
}

/// Checks a package with all of its features, and runs these of its tests and all in its documentation.
fn featured(package: &str, tests: &[&[&str]]) -> anyhow::Result<()> {
    let with = ["-p", package, "--all-features"];
    let mut clippy = cargo(&["clippy", "--all-targets"]);
    clippy.args(with).args(["--", "-D", "warnings"]);
    steps::run(clippy)?;
    for chosen in tests.iter().chain([&["--doc"][..]].iter()) {
        let mut tests = cargo(&["test"]);
        tests.args(with).args(*chosen);
        steps::run(tests)?;
    }
    Ok(())
}

/// The laboratory: the pool against theory, in virtual time.
fn laboratory() -> anyhow::Result<()> {
    let mut clippy = cargo(&["clippy", "-p", "lab", "--release", "--all-targets"]);
    clippy.args(["--", "-D", "warnings"]);
    steps::run(clippy)?;
    // With optimizations: millions of requests.
    steps::run(cargo(&["test", "-p", "lab", "--release"]))
}

/// The models of the pool's protocol, over the code that ships.
pub(crate) fn models() -> anyhow::Result<()> {
    let mut models = cargo(&["test", "-p", "pool-core", "--lib", "--release", "models::"]);
    // A build of its own: the flag swaps `sync.rs` for the model checker's primitives.
    models.env("CARGO_TARGET_DIR", target().join("models"));
    models.env("RUSTFLAGS", "--cfg pool_loom");
    steps::run(models)
}

/// Random schedules of the pool, over the code that ships.
pub(crate) fn schedules(count: u32) -> anyhow::Result<()> {
    let mut schedules = cargo(&["test", "-p", "pool-core", "--lib", "--release"]);
    schedules.arg("schedules::");
    // A build of its own, as for the models.
    schedules.env("CARGO_TARGET_DIR", target().join("schedules"));
    schedules.env("RUSTFLAGS", "--cfg pool_shuttle");
    schedules.env("POOL_SCHEDULES", count.to_string());
    steps::run(schedules)
}

/// The benchmarks; the peers are built here and nowhere else.
pub(crate) fn bench() -> anyhow::Result<()> {
    steps::run(cargo(&["bench", "-p", "benches"]))
}
