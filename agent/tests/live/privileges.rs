//! The privileges of the running agent as the kernel shows them, and that they suffice.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::agent::{self, Agent};
use crate::namespace::Pair;
use crate::net;

/// Bits of include/uapi/linux/capability.h.
const DAC_READ_SEARCH: u64 = 1 << 2;
const NET_ADMIN: u64 = 1 << 12;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
/// Capabilities that features use while the agent runs.
const NEEDED: u64 = DAC_READ_SEARCH | SYS_PTRACE | SYS_ADMIN;
/// The same without entering network namespaces.
const OUTSIDE: u64 = DAC_READ_SEARCH | SYS_PTRACE;

/// `/proc/PID/task/TID/status` of every thread; some live for one look into a namespace and are gone.
fn threads(agent: &Agent) -> Vec<BTreeMap<String, String>> {
    let folder = format!("/proc/{}/task", agent.pid());
    let tasks = fs::read_dir(folder).unwrap();
    let status = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    let fields = |text: String| {
        let field = |line: &str| line.split_once(":\t").map(|(k, v)| (k.to_owned(), v.to_owned()));
        text.lines().filter_map(field).collect()
    };
    status.map(fields).collect()
}

/// Every thread has this and no more.
#[track_caller]
fn every_thread_has(agent: &Agent, capabilities: u64, seccomp: &str) {
    let threads = threads(agent);
    assert!(threads.len() >= 2, "the loop and HTTP: {threads:?}");
    for thread in threads {
        for (set, expected) in
            [("CapEff", capabilities), ("CapPrm", capabilities), ("CapInh", 0), ("CapAmb", 0)]
        {
            let hex = &thread[set];
            assert_eq!(u64::from_str_radix(hex, 16), Ok(expected), "{set} of {}", thread["Name"]);
        }
        assert_eq!(thread["NoNewPrivs"], "1", "{}", thread["Name"]);
        assert_eq!(thread["Seccomp"], seccomp, "{}", thread["Name"]);
    }
}

/// Traffic from before and after the start is counted under its names.
fn sees_connections(agent: &Agent, net: &Pair) {
    let listener = net.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let client = net.client.connect((net.server.v4, port)).unwrap();
    let server = listener.accept().unwrap();
    agent.eventually(1, |now| {
        now.edge(&net.client.service, &net.server.service, port, "client").connects("ok")
    });
    drop((client, server));
    agent.ledger_adds_up();
}

#[test]
fn it_keeps_what_features_need_and_no_more() {
    needs_kernel!();
    let agent = Agent::with(&[("names.conntrack", "true")]);
    agent.scrape();
    every_thread_has(&agent, NEEDED | NET_ADMIN, "2");
    // It was given CAP_SETPCAP, which this takes.
    assert!(threads(&agent).iter().all(|thread| thread["CapBnd"] == "0000000000000000"));
    agent.stop();
}

#[test]
fn names_of_new_namespaces_take_no_sys_admin() {
    needs_kernel!();
    let agent = Agent::with(&[("enter_namespaces", "false")]);
    // Namespaces that were not there when it could still enter them.
    let net = Pair::new();
    sees_connections(&agent, &net);
    every_thread_has(&agent, OUTSIDE, "2");
    agent.stop();
}

#[test]
fn without_any_capability_it_still_counts_and_reports_what_is_missing() {
    needs_kernel!();
    let net = Pair::new();
    let agent = Agent::with(&[("privileges", "none")]);
    every_thread_has(&agent, 0, "2");
    // Addresses were read at startup.
    sees_connections(&agent, &net);
    let status = agent.json("/api/v1/status").to_string();
    assert!(status.contains("CAP_SYS_PTRACE is dropped after startup"), "{status}");
    agent.stop();
}

#[test]
fn what_is_shown_is_what_is_kept() {
    needs_kernel!();
    let settings =
        [("enter_namespaces", "false"), ("seccomp", "log"), ("names.conntrack", "false")];
    let shown = agent::command(&settings).args(["--show-privileges", "--output", "json"]).output();
    let shown: Value = serde_json::from_slice(&shown.unwrap().stdout).unwrap();
    assert_eq!(shown["kept"], serde_json::json!(["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]));
    let agent = Agent::with(&settings);
    every_thread_has(&agent, OUTSIDE, "2");
    agent.stop();
}

#[test]
fn it_can_be_configured_to_keep_everything() {
    needs_kernel!();
    let agent = Agent::with(&[("privileges", "all"), ("seccomp", "off")]);
    for thread in threads(&agent) {
        assert_eq!(thread["Seccomp"], "0", "{}", thread["Name"]);
        let effective = u64::from_str_radix(&thread["CapEff"], 16).unwrap();
        assert_ne!(effective & SYS_ADMIN, 0, "{}", thread["Name"]);
    }
    agent.stop();
}

/// A runtime that does not know CAP_BPF: CAP_SYS_ADMIN replaces it.
#[test]
fn the_capabilities_it_shows_are_enough_to_start_and_so_is_the_old_form() {
    needs_kernel!();
    let shown = agent::command(&[]).args(["--show-privileges", "--output", "json"]).output();
    let shown: Value = serde_json::from_slice(&shown.unwrap().stdout).unwrap();
    let listed = shown["start"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
    let listed = listed.map(|name| name.trim_start_matches("CAP_").to_lowercase());
    let new: Vec<String> = listed.collect();
    let old: Vec<String> =
        new.iter().filter(|name| *name != "bpf" && *name != "perfmon").cloned().collect();
    for granted in [new, old] {
        let net = Pair::new();
        let agent = Agent::launch(&agent::Start { granted: Some(&granted), ..Default::default() });
        every_thread_has(&agent, NEEDED, "2");
        sees_connections(&agent, &net);
        let status = agent.json("/api/v1/status");
        let missing = status["findings"].to_string();
        assert!(!missing.contains("CAP_"), "with {granted:?}: {missing}");
        agent.stop();
    }
}

#[test]
fn it_runs_as_another_user_with_just_these() {
    needs_kernel!();
    if Command::new("setpriv").arg("--version").output().is_err() {
        println!("SKIPPED: no setpriv");
        return;
    }
    let granted = ["bpf", "perfmon", "net_admin", "sys_ptrace", "dac_read_search", "sys_admin"]
        .map(str::to_owned);
    let start =
        agent::Start { granted: Some(&granted), user: Some(65_534), ..agent::Start::default() };
    let net = Pair::new();
    let agent = Agent::launch(&start);
    assert!(threads(&agent).iter().all(|thread| thread["Uid"].starts_with("65534")));
    for thread in threads(&agent) {
        assert_eq!(u64::from_str_radix(&thread["CapEff"], 16), Ok(NEEDED));
    }
    sees_connections(&agent, &net);
    agent.stop();
}
