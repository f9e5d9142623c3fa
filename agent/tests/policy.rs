//! Policies by the program itself, from flows in files: what one command writes another one, and the
//! systems that it is for, accept. Needs neither root nor an agent.

#![expect(clippy::unwrap_used, reason = "all of this crate is tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// A flow as the API shows it.
fn flow(client: (&str, &str, &str), server: (&str, &str, &str), port: u16, count: u64) -> Value {
    let kind = |namespace: &str| if namespace.is_empty() { "process" } else { "deployment" };
    json!({
        "client": client.1, "client_namespace": client.0, "client_kind": kind(client.0),
        "client_source": "process", "client_address": client.2,
        "server": server.1, "server_namespace": server.0, "server_kind": kind(server.0),
        "server_source": "process", "server_address": server.2,
        "port": port, "role": "client", "other_side": false, "connections": count, "failed": 0,
        "first_seen": "2026-11-30T01:00:00Z", "last_seen": "2026-11-30T01:30:00Z",
    })
}

/// The file of an agent that observed these flows for an hour.
fn flows(folder: &Path, flows: &[Value]) -> String {
    let label = |namespace: &str, name: &str| json!({"service": name, "service_namespace": namespace, "labels": {"app": name}});
    let answer = json!({
        "timestamp": "2026-11-30T02:00:00Z",
        "window": {"since": "2026-11-30T01:00:00Z", "until": "2026-11-30T02:00:00Z", "seconds": 3600.0},
        "flows": flows, "forgotten": 0,
        "labels": [label("shop", "web"), label("shop", "api"), label("data", "db")],
    });
    let path = folder.join("flows.json");
    fs::write(&path, answer.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Four edges: two between pods, two of programs.
fn shop(folder: &Path) -> String {
    let web = ("shop", "web", "10.0.0.1");
    let api = ("shop", "api", "10.0.0.2");
    let all = [
        flow(web, api, 8080, 40),
        flow(api, ("data", "db", "10.1.0.5"), 5432, 12),
        flow(("", "backup", "10.2.0.9"), ("data", "db", "10.1.0.5"), 5432, 1),
        flow(("", "o'brien \"the\" # 1", "10.2.0.9"), ("", "ntp", "10.2.0.1"), 123, 1),
    ];
    flows(folder, &all)
}

/// Exit code, standard output, standard error.
fn portolan(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
    let output = command.args(arguments).env_clear().stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// Writes what a command prints into a file.
fn written(folder: &Path, name: &str, arguments: &[&str]) -> String {
    let (code, text, said) = portolan(arguments);
    assert_eq!(code, 0, "{said}");
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn suggested_segments_are_accepted_by_the_agent_and_report_nothing_of_the_past() {
    let folder = tempfile::tempdir().unwrap();
    let flows = shop(folder.path());
    for by in ["namespace", "service"] {
        let suggest = ["segments", "suggest", "--by", by, "--flows", &flows];
        let file = written(folder.path(), "segments.toml", &suggest);
        let (code, _, said) = portolan(&["config", "check", "--config", &file]);
        assert_eq!(code, 0, "{said}\n{}", fs::read_to_string(&file).unwrap());
        let test = ["policy", "test", &file, "--flows", &flows, "--exit-code"];
        let (code, text, said) = portolan(&test);
        assert_eq!(code, 0, "{text}{said}");
        assert!(text.starts_with("0 connections would be cut, 54 allowed, 0 undecided"), "{text}");
        // Without one of its rules it reports the connections of that rule, and says so.
        let text = fs::read_to_string(&file).unwrap();
        let to_data = |line: &str| line.contains("-> data") && line.trim_start().starts_with('"');
        let without: Vec<&str> = text.lines().filter(|line| !to_data(line)).collect();
        let without = without.join("\n") + "\n";
        fs::write(&file, without).unwrap();
        let (code, text, _) = portolan(&test);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("13 connections would be cut, 41 allowed"), "{text}");
    }
}

#[test]
fn the_same_flows_make_the_same_policy() {
    let folder = tempfile::tempdir().unwrap();
    let flows = shop(folder.path());
    for system in ["kubernetes", "nftables"] {
        let generate = ["policy", "generate", "--for", system, "--flows", &flows];
        assert_eq!(portolan(&generate), portolan(&generate), "{system}");
    }
}

#[test]
fn network_policies_cut_what_no_selector_can_name() {
    let folder = tempfile::tempdir().unwrap();
    let flows = shop(folder.path());
    let generate = ["policy", "generate", "--for", "kubernetes", "--flows", &flows];
    let file = written(folder.path(), "policy.yaml", &generate);
    let (code, text, _) = portolan(&["policy", "test", &file, "--flows", &flows, "-o", "json"]);
    assert_eq!(code, 0);
    let trial: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(trial["allowed_connections"], 40 + 12 + 1, "{text}");
    // A program of a host is no peer that a selector can name.
    assert_eq!(trial["cut"][0]["client"], "backup", "{text}");
}

#[test]
fn what_is_no_policy_or_no_flows_is_refused_with_the_fix() {
    let folder = tempfile::tempdir().unwrap();
    let flows = shop(folder.path());
    let check = |name: &str, content: &str, expected: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let path = path.to_str().unwrap();
        let (code, _, said) = portolan(&["policy", "test", path, "--flows", &flows]);
        assert!(code != 0 && said.contains(expected), "{name}: {said}");
    };
    check("a.conf", "", "end its name with what it is");
    check("a.toml", "", "no segments are declared");
    check("a.toml", "[segments]\nallow = [\"a -> b\"]\n", "not declared");
    check("a.yaml", "kind: Pod\n", "line 1: \"Pod\" cannot be tested");
    check("a.nft", "flush ruleset\n", "line 1: only rules that");
    let nothing = folder.path().join("nothing.json");
    fs::write(&nothing, "{}").unwrap();
    let generate =
        ["policy", "generate", "--for", "nftables", "--flows", nothing.to_str().unwrap()];
    let (code, _, said) = portolan(&generate);
    assert!(code == 1 && said.contains("write it with `portolan policy flows > FILE`"), "{said}");
}
