//! A copy of the package, and what goes red in it.

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
}

/// The models, built.
pub(crate) struct Built {
    executable: PathBuf,
    /// The path of each test, by its name.
    names: BTreeMap<String, String>,
}

impl Copy {
    /// Copies the package as it is now.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let place = target().join("mutate");
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        for file in files_of("pool-core")? {
            let to = place.join(&file);
            fs::create_dir_all(to.parent().context("a file without a folder")?)?;
            fs::copy(root().join(&file), to)?;
        }
        let manifest = fs::read_to_string(root().join("Cargo.toml"))?;
        fs::write(place.join("Cargo.toml"), trimmed(&manifest)?)?;
        fs::copy(root().join("Cargo.lock"), place.join("Cargo.lock"))?;
        Ok(Self { place })
    }

    pub(crate) fn package(&self) -> PathBuf {
        self.place.join("pool-core")
    }

    /// Builds the models of the copy.
    pub(crate) fn models(&self) -> anyhow::Result<Built> {
        let mut build = self.cargo(&["test", "-p", "pool-core", "--lib", "--release"]);
        // The dependencies are those of `cargo xtask models`, built once for both.
        build.env("CARGO_TARGET_DIR", target().join("models"));
        build.env("RUSTFLAGS", "--cfg pool_loom");
        built(build)
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
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

fn built(mut build: Command) -> anyhow::Result<Built> {
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

/// The workspace's manifest with one member, and without what the other members bring.
fn trimmed(manifest: &str) -> anyhow::Result<String> {
    let mut manifest: toml::Table = toml::from_str(manifest)?;
    let workspace = manifest
        .get_mut("workspace")
        .and_then(toml::Value::as_table_mut)
        .context("the root's Cargo.toml has no workspace")?;
    workspace.insert("members".into(), toml::Value::from(vec!["pool-core"]));
    workspace.remove("default-members");
    workspace.remove("exclude");
    if let Some(dependencies) = workspace
        .get_mut("dependencies")
        .and_then(toml::Value::as_table_mut)
    {
        dependencies.retain(|name, value| name == "pool-core" || value.get("path").is_none());
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
