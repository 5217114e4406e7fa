//! What becomes of a cluster whose owner is killed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The binary, running a cluster of its own in a temporary root of its own.
fn up(root: &Path) -> (Child, PathBuf) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_testbed"))
        .args(["up", "--replicas", "1"])
        .env("TMPDIR", root)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut folder = None;
    for line in lines.by_ref().map_while(Result::ok) {
        if let Some(path) = line.strip_prefix("folder") {
            folder = Some(PathBuf::from(path.trim()));
        }
        if line.starts_with("Running") {
            break;
        }
    }
    (child, folder.expect("it prints its folder"))
}

/// A temporary root that the servers' user can enter.
fn root() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    root
}

fn postmaster(folder: &Path) -> String {
    let file = std::fs::read_to_string(folder.join("primary/data/postmaster.pid")).unwrap();
    file.lines().next().unwrap().to_owned()
}

/// Whether a process with this id is there and not only waiting to be reaped.
fn lives(pid: &str) -> bool {
    let listed = Command::new("ps")
        .args(["-o", "stat=", "-p", pid])
        .output()
        .expect("ps");
    let state = String::from_utf8_lossy(&listed.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

fn until(event: &str, happened: impl Fn() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{event} did not happen"
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_killed_owner_takes_its_servers_and_folder_along() {
    let root = root();
    let (mut owner, folder) = up(root.path());
    let server = postmaster(&folder);
    owner.kill().unwrap();
    owner.wait().unwrap();
    until("the end of the server", || !lives(&server));
    until("the removal of the folder", || !folder.exists());
}

#[test]
fn leftovers_of_an_owner_that_died_with_its_watchdog_are_swept() {
    let root = root();
    let (mut owner, folder) = up(root.path());
    let server = postmaster(&folder);
    let watchdog = Command::new("pgrep")
        .args(["-P", &owner.id().to_string(), "-f", "testbed-watchdog"])
        .output()
        .expect("pgrep");
    let watchdog = String::from_utf8_lossy(&watchdog.stdout).trim().to_owned();
    assert!(!watchdog.is_empty(), "the owner has a watchdog");
    // Stopped first, or it would see its owner go.
    assert!(
        Command::new("kill")
            .args(["-STOP", &watchdog])
            .status()
            .unwrap()
            .success()
    );
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(
        Command::new("kill")
            .args(["-KILL", &watchdog])
            .status()
            .unwrap()
            .success()
    );
    assert!(lives(&server), "nobody has stopped it yet");
    let swept = Command::new(env!("CARGO_BIN_EXE_testbed"))
        .arg("sweep")
        .env("TMPDIR", root.path())
        .output()
        .expect("the binary");
    let said = String::from_utf8_lossy(&swept.stdout).into_owned();
    assert!(
        said.contains(&format!("removed {}", folder.display())),
        "{said}"
    );
    assert!(!folder.exists());
    until("the end of the server", || !lives(&server));
}

#[test]
fn a_sweep_leaves_the_living_alone() {
    let root = root();
    let (mut owner, folder) = up(root.path());
    let swept = Command::new(env!("CARGO_BIN_EXE_testbed"))
        .arg("sweep")
        .env("TMPDIR", root.path())
        .output()
        .expect("the binary");
    assert_eq!(
        String::from_utf8_lossy(&swept.stdout),
        "Nothing was left behind.\n"
    );
    assert!(folder.exists());
    let interrupt = Command::new("kill")
        .args(["-INT", &owner.id().to_string()])
        .status();
    assert!(interrupt.unwrap().success());
    assert!(
        owner.wait().unwrap().success(),
        "an interrupted command ends in order"
    );
    assert!(!folder.exists());
}
