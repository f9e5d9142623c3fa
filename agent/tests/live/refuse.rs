//! Refusals: one sentence with the fix, an exit code, and nothing left in the kernel.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::agent::{self, Agent, Ended};
use crate::facts::KernelObjects;

/// Runs an agent that must refuse with one line that has all of these words.
#[track_caller]
fn refuses(command: &mut Command, words: &[&str]) -> Ended {
    let before = KernelObjects::now();
    let ended = agent::run_to_end(command);
    assert!(!ended.status.success(), "it ended with {}", ended.status);
    assert!(ended.status.code().is_some(), "it was killed: {}", ended.status);
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "one line, please:\n{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "nothing of {word:?} in: {}", ended.stderr);
    }
    before.nothing_new_stays();
    ended
}

/// A fresh directory and a free port.
struct Place {
    directory: tempfile::TempDir,
    listen: String,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, listen: format!("127.0.0.1:{}", agent::free_port()) }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn command(&self) -> Command {
        let run = self.path("run");
        agent::command(&[("run_directory", &run), ("web.listen_address", &self.listen)])
    }
}

#[test]
fn without_capabilities() {
    needs_kernel!();
    let place = Place::new();
    // A directory without access.
    fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = place.directory.path().join("portolan");
    fs::copy(agent::binary(), &binary).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
    command.arg(&binary).args(["agent", "--run-directory"]).arg(place.path("run"));
    command.args(["--web.listen-address", &place.listen]);
    agent::forget_our_variables(&mut command);
    refuses(&mut command, &["CAP_BPF", "run as root"]);
}

#[test]
fn with_the_port_taken() {
    needs_kernel!();
    let place = Place::new();
    let taken = TcpListener::bind(&place.listen).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    refuses(&mut place.command(), &[port.as_str(), "--web.listen-address"]);
}

#[test]
fn beside_a_second_instance() {
    needs_kernel!();
    let first = Agent::start();
    let place = Place::new();
    let run = first.run_directory().display().to_string();
    let mut command =
        agent::command(&[("run_directory", &run), ("web.listen_address", &place.listen)]);
    refuses(&mut command, &["another", "--run-directory"]);
    // The first did not notice.
    assert!(first.scrape().has("portolan_build_info", &[]));
    first.stop();
}

#[test]
fn with_a_run_directory_that_is_none() {
    needs_kernel!();
    let place = Place::new();
    fs::write(place.path("run"), "a file").unwrap();
    refuses(&mut place.command(), &["run", "--run-directory"]);
}

#[test]
fn with_a_configuration_that_is_not_there() {
    needs_kernel!();
    let place = Place::new();
    let missing = place.path("none.toml");
    refuses(place.command().args(["--config", &missing]), &["none.toml"]);
}

#[test]
fn with_a_configuration_that_has_an_unknown_key() {
    needs_kernel!();
    let place = Place::new();
    let file = place.path("portolan.toml");
    fs::write(&file, "[limits]\nedgs = 100\n").unwrap();
    // The most similar key is the fix.
    let ended = refuses(place.command().args(["--config", &file]), &["edgs", "limits.edges"]);
    assert_eq!(ended.status.code(), Some(2));
}

#[test]
fn with_a_value_that_is_none() {
    needs_kernel!();
    let place = Place::new();
    let mut command = place.command();
    command.env("PORTOLAN_LIMITS_EDGES", "many");
    refuses(&mut command, &["many", "PORTOLAN_LIMITS_EDGES"]);
}
