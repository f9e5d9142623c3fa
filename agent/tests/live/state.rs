//! `portolan state`: what one agent has is brought back in another one, by file.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use crate::agent::{Agent, binary, forget_our_variables};

fn portolan(agent: &Agent, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    forget_our_variables(&mut command);
    let socket = agent.run_directory().join("control.sock");
    command.args(arguments).arg("--socket").arg(socket).output().expect("starting portolan")
}

/// Its output; panics with the error if it fails.
#[track_caller]
fn output(agent: &Agent, arguments: &[&str]) -> String {
    let output = portolan(agent, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

/// What an agent exports, without the time.
fn exported(agent: &Agent) -> Value {
    let mut state: Value =
        serde_json::from_str(&output(agent, &["state", "export"])).expect("JSON");
    state["exported"].take();
    state
}

#[test]
fn what_an_agent_exports_another_one_has_after_the_import() {
    needs_kernel!();
    let first = Agent::start();
    // A reservation of the configuration is none of the state.
    let second = Agent::with(&[("ports.reservations", "8125/udp shop/statsd")]);
    for command in [
        "services register billing --address 203.0.113.7:443,203.0.113.8:443 --ttl 1h --check tcp",
        "services register acme/partner --address 198.51.100.0/24",
        "ports reserve 5432 --for postgres --netns host",
        "ports reserve 8126/udp --for shop/statsd --env prod --until 2036-12-01 --netns host",
    ] {
        output(&first, &command.split(' ').collect::<Vec<_>>());
    }
    output(&second, &["ports", "reserve", "9999", "--for", "other", "--netns", "host"]);
    let state = exported(&first);
    assert_eq!(state["services"].as_array().map(Vec::len), Some(2), "{state:#}");
    assert_eq!(state["reservations"].as_array().map(Vec::len), Some(2), "{state:#}");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let directory = folder.path().to_str().expect("a plain path");
    let said = output(&first, &["state", "backup", directory]);
    let file = said.trim().strip_prefix("written to ").expect("where");

    let tried = output(&second, &["state", "import", file, "--dry-run"]);
    assert_eq!(tried.lines().filter(|line| line.starts_with("would be ")).count(), 4, "{tried}");
    assert_eq!(exported(&second)["services"], Value::Array(Vec::new()), "nothing has changed");
    let done = output(&second, &["state", "import", file]);
    assert!(done.contains("registered: acme/partner at 198.51.100.0/24\n"), "{done}");
    assert!(done.contains("reserved: 8126/udp for shop/statsd\n"), "{done}");
    assert_eq!(exported(&second)["reservations"].as_array().map(Vec::len), Some(3));
    let done = output(&second, &["state", "import", file, "--replace"]);
    assert_eq!(done, "released: 9999/tcp\n");
    assert_eq!(exported(&second), state);
    assert_eq!(
        output(&second, &["state", "import", file, "--replace"]),
        "the agent has all of it\n"
    );

    // What is in the way is named, and the rest is done.
    output(&second, &["services", "unregister", "billing"]);
    output(&second, &["ports", "release", "5432", "--netns", "host"]);
    output(&second, &["ports", "reserve", "5432", "--for", "mysql", "--netns", "host"]);
    let refused = portolan(&second, &["state", "import", file]);
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && why.contains("reserved: 5432/tcp for postgres"), "{why}");
    assert_eq!(exported(&second)["services"], state["services"]);
    // A file that was edited wrongly is refused as a whole.
    let broken = fs::read_to_string(file).expect("the backup");
    let path = folder.path().join("broken.json");
    fs::write(&path, broken.replace("enforce", "enforced")).expect("written");
    let refused = portolan(&second, &["state", "import", path.to_str().expect("a plain path")]);
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(why.contains("unknown field `enforced`") && why.contains("line "), "{why}");
    first.stop();
    second.stop();
}
