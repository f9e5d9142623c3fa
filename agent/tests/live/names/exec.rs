//! A process that execs another program: its open sockets keep their owner, and a script that comes
//! from a descriptor has no name.

use std::fs;
use std::process::Stdio;

use super::{edges, end, lacking};
use crate::agent::Agent;
use crate::namespace::Pair;
use crate::net;

#[test]
fn a_connection_stays_with_the_program_that_opened_it() {
    needs_kernel!();
    if let Some(program) = lacking(&["bash", "busybox"]) {
        println!("SKIPPED: {program} is not installed");
        return;
    }
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen("0.0.0.0:0");
    let (ip, port) = (pair.server.v4, net::port(&listener));
    // Unique names, so that no other program of this host matches.
    let folder = tempfile::tempdir().expect("a temporary directory");
    let tag = std::process::id();
    let (before, after) = (format!("bef{tag}"), format!("aft{tag}"));
    fs::copy("/bin/bash", folder.path().join(&before)).expect("bash is installed");
    fs::copy("/bin/busybox", folder.path().join(&after)).expect("busybox is installed");
    let next = folder.path().join(&after).display().to_string();
    let script = format!("exec 3<>/dev/tcp/{ip}/{port}; exec -a nc {next} {ip} {port}");
    let mut command = pair.client.command(&folder.path().join(&before).to_string_lossy());
    command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().expect("starting a copy of bash");
    let connections = [net::accept(&listener), net::accept(&listener)];

    let rows = |wanted: &str| -> Vec<(u64, u64)> {
        let all = edges(&agent);
        let ours = all.iter().filter(|row| {
            row["role"] == "client" && end(row, "client") == pair.client.full_name(wanted)
        });
        let number = |row: &serde_json::Value, field: &str| row[field].as_u64().unwrap_or(u64::MAX);
        ours.map(|row| (number(row, "opened"), number(row, "active"))).collect()
    };
    super::until("each has one", || rows(&before) == [(1, 1)] && rows(&after) == [(1, 1)]);
    child.kill().expect("it runs");
    child.wait().expect("a child of ours");
    drop(connections);
    super::until("both have ended", || rows(&before) == [(1, 0)] && rows(&after) == [(1, 0)]);
    agent.stop();
}

/// As of `bash <(curl …)`. The number of a descriptor is another one at the next start.
#[test]
fn a_script_from_a_descriptor_is_called_by_its_interpreter() {
    needs_kernel!();
    if let Some(program) = lacking(&["bash"]) {
        println!("SKIPPED: {program} is not installed");
        return;
    }
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen("0.0.0.0:0");
    let (ip, port) = (pair.server.v4, net::port(&listener));
    let script = format!("exec 4<>/dev/tcp/{ip}/{port}; read");
    let mut command = pair.client.command("bash");
    command.args(["-c", &format!("exec bash /dev/fd/3 3<<< '{script}'")]).stdin(Stdio::piped());
    let mut child = command.spawn().expect("starting bash");
    let connection = net::accept(&listener);
    let expected = pair.client.full_name("bash");
    super::until("its client is bash", || {
        let all = edges(&agent);
        let mut ours = all.iter().filter(|row| row["role"] == "client" && row["port"] == port);
        ours.next().is_some_and(|row| end(row, "client") == expected) && ours.next().is_none()
    });
    child.kill().expect("it runs");
    child.wait().expect("a child of ours");
    drop(connection);
    agent.stop();
}
