//! A copy of a package, and what goes red in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use wait_timeout::ChildExt;

use crate::steps::{cargo, root, target};

/// The longest that one model may take. The slowest takes some seconds where nothing is broken.
const MODEL: Duration = Duration::from_secs(90);

/// A workspace of one package.
pub(crate) struct Copy {
    place: PathBuf,
    package: &'static str,
}

/// The models, built.
pub(crate) struct Built {
    pub(crate) executable: PathBuf,
    /// The path of each test, by its name.
    names: BTreeMap<String, String>,
}

impl Copy {
    /// Copies a package as it is now, by its folder.
    pub(crate) fn new(package: &'static str) -> anyhow::Result<Self> {
        let place = target().join(format!("mutate-{package}"));
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        // Tests hold the pages against the code.
        let pages = files_of("docs")?;
        for file in files_of(package)?.into_iter().chain(pages) {
            let to = place.join(&file);
            fs::create_dir_all(to.parent().context("a file without a folder")?)?;
            fs::copy(root().join(&file), to)?;
        }
        let manifest = fs::read_to_string(root().join("Cargo.toml"))?;
        fs::write(place.join("Cargo.toml"), trimmed(&manifest, package)?)?;
        fs::copy(root().join("Cargo.lock"), place.join("Cargo.lock"))?;
        Ok(Self { place, package })
    }

    pub(crate) fn package(&self) -> PathBuf {
        self.place.join(self.package)
    }

    /// Builds the models of the copy.
    pub(crate) fn models(&self) -> anyhow::Result<Built> {
        let mut build = self.cargo(&["test", "-p", "pool-core", "--lib", "--release"]);
        // The dependencies are those of `cargo xtask models`, built once for both.
        build.env("CARGO_TARGET_DIR", target().join("models"));
        build.env("RUSTFLAGS", "--cfg pool_loom");
        built(build)
    }

    /// A cargo command in the copy.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = cargo(arguments);
        command.current_dir(&self.place);
        // Each mutation changes a line or two.
        command.env("CARGO_INCREMENTAL", "1");
        command
    }
}

impl Built {
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Whether one model fails. One that does not end is no failure: it would hide what it hangs on.
    pub(crate) fn is_red(&self, name: &str) -> anyhow::Result<bool> {
        let Some(path) = self.names.get(name) else {
            return Ok(false);
        };
        let mut command = Command::new(&self.executable);
        command.args(["--exact", path]).stdin(Stdio::null());
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = quiet.spawn().context("a model could not be started")?;
        if let Some(status) = child.wait_timeout(MODEL)? {
            return Ok(!status.success());
        }
        child.kill()?;
        child.wait()?;
        Ok(false)
    }
}

/// What cargo says of something that it built.
#[derive(Deserialize)]
struct Artifact {
    executable: Option<PathBuf>,
}

/// Builds a package's unit tests.
pub(crate) fn built(mut build: Command) -> anyhow::Result<Built> {
    build.args(["--no-run", "--message-format=json-render-diagnostics"]);
    let output = build.output().context("cargo could not be started")?;
    if !output.status.success() {
        bail!("{}", tail(&String::from_utf8_lossy(&output.stderr)));
    }
    let said = String::from_utf8(output.stdout)?;
    let artifacts = said
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
    let executable = artifacts
        .filter_map(|artifact| artifact.executable)
        .next_back()
        .context("cargo built no test")?;
    let list = Command::new(&executable).arg("--list").output()?;
    let names = String::from_utf8(list.stdout)?
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(|path| {
            let name = path.rsplit("::").next().unwrap_or(path);
            (name.to_owned(), path.to_owned())
        })
        .collect();
    Ok(Built { executable, names })
}

/// The end of what a command said.
fn tail(said: &str) -> String {
    let lines: Vec<_> = said.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// The workspace's manifest with one member, which finds the others where they are.
fn trimmed(manifest: &str, member: &str) -> anyhow::Result<String> {
    let mut manifest: toml::Table = toml::from_str(manifest)?;
    let workspace = manifest
        .get_mut("workspace")
        .and_then(toml::Value::as_table_mut)
        .context("the root's Cargo.toml has no workspace")?;
    workspace.insert("members".into(), toml::Value::from(vec![member]));
    workspace.remove("default-members");
    workspace.remove("exclude");
    if let Some(dependencies) = workspace
        .get_mut("dependencies")
        .and_then(toml::Value::as_table_mut)
    {
        for (_, dependency) in dependencies.iter_mut() {
            let Some(path) = dependency.get_mut("path") else {
                continue;
            };
            if let Some(folder) = path.as_str().filter(|folder| *folder != member) {
                *path = toml::Value::from(root().join(folder).to_string_lossy().into_owned());
            }
        }
    }
    Ok(toml::to_string(&manifest)?)
}

/// The files of a folder that git knows, or would add.
fn files_of(folder: &str) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .arg(folder)
        .current_dir(root())
        .output()
        .context("git could not be started")?;
    let listed = String::from_utf8(output.stdout)?;
    let there = |file: &&str| Path::new(&root()).join(file).is_file();
    Ok(listed.lines().filter(there).map(PathBuf::from).collect())
}
