//! Failed binds, full accept queues, local ports that run out: all of them for `portolan diagnose
//! --ports`, the failed binds for every diagnosis that is not about one edge.

use std::fmt::Write as _;

use anyhow::Context as _;
use api_types::{Conflict, Conflicts, EphemeralPorts, Port, PortState, Ports, Severity, Timestamp};
use notation::duration::ago;
use serde::Serialize;

use super::Format;
use crate::target::Connection;
use crate::{Outcome, human, print};

/// Failed binds that are older are history.
const RECENT_SECONDS: f64 = 300.0;
/// A share of local ports in use that is close to the end; the alert PortolanLocalPortsExhausted
/// has the same.
const FEW_LEFT: f64 = 0.8;

/// A fault of a port, with its fix.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Fault {
    cause: &'static str,
    title: String,
    fix: String,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Answer {
    /// Listening sockets that were looked at.
    listening: usize,
    /// Network namespaces whose local ports were looked at.
    namespaces: usize,
    faults: Vec<Fault>,
}

pub(super) fn run(agent: &Connection, output: Format) -> anyhow::Result<Outcome> {
    let ports: Ports = client::read(&agent.text("/api/v1/ports")?)?;
    let conflicts: Conflicts = client::read(&agent.text("/api/v1/conflicts")?)?;
    let answer = Answer::of(&ports, &conflicts);
    let text = match output {
        Format::Json => serde_json::to_string(&answer).context("writing JSON")? + "\n",
        Format::Text => answer.text("✗ ", "  fix: "),
        Format::Markdown => answer.text("* ", "  Fix: "),
    };
    print(&text)?;
    Ok(if answer.faults.is_empty() { Outcome::Done } else { Outcome::Found })
}

/// Binds that failed in the last `seconds`; of one service, if `wants` says which.
pub(super) fn failed_binds(
    conflicts: &Conflicts,
    seconds: f64,
    wants: impl Fn(&Conflict) -> bool,
) -> Vec<Fault> {
    let Conflicts { timestamp, conflicts, .. } = conflicts;
    let is_recent = |one: &&Conflict| {
        // What a user without privileges may have faked is not a fault.
        one.unverified_user.is_none()
            && one.finding.severity == Severity::Error
            && age(one, *timestamp) <= seconds
    };
    conflicts
        .iter()
        .filter(is_recent)
        .filter(|one| wants(one))
        .map(|one| bind_failed(one, *timestamp))
        .collect()
}

fn bind_failed(one: &Conflict, now: Timestamp) -> Fault {
    let Conflict { finding, .. } = one;
    let explain = || format!("portolan explain {}", finding.code);
    Fault {
        cause: "bind_failed",
        title: format!("{} ({} ago)", finding.title, ago(age(one, now))),
        fix: finding.remediation.clone().unwrap_or_else(explain),
    }
}

/// Seconds since it happened last.
fn age(one: &Conflict, now: Timestamp) -> f64 {
    now.seconds_since(one.last_seen).max(0.0)
}

// === impl Fault ===

impl Fault {
    /// Two lines.
    pub(super) fn text(&self, mark: &str, fix: &str) -> String {
        format!("{mark}{}\n{fix}{}\n", self.title, self.fix)
    }
}

// === impl Answer ===

impl Answer {
    fn of(ports: &Ports, conflicts: &Conflicts) -> Self {
        let listening: Vec<&Port> =
            ports.ports.iter().filter(|port| port.state == PortState::Listening).collect();
        let mut faults = failed_binds(conflicts, RECENT_SECONDS, |_| true);
        faults.extend(listening.iter().filter_map(|port| full_queue(port)));
        faults.extend(ports.ephemeral_ports.iter().filter_map(exhausted));
        Self { listening: listening.len(), namespaces: ports.ephemeral_ports.len(), faults }
    }

    fn text(&self, mark: &str, fix: &str) -> String {
        let mut text = String::new();
        for fault in &self.faults {
            text.push_str(&fault.text(mark, fix));
        }
        if self.faults.is_empty() {
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "Nothing is wrong with {} and the local ports of {}.",
                human::counted(self.listening as u64, "listening socket"),
                human::counted(self.namespaces as u64, "network namespace")
            );
        }
        text
    }
}

fn full_queue(port: &Port) -> Option<Fault> {
    let Port { backlog, max_backlog, holder, .. } = port;
    // One more may wait than the limit.
    (backlog > max_backlog).then(|| {
        let name = human::endpoint(&holder.service.namespace, &holder.service.name, port.port);
        Fault {
            cause: "accept_queue_full",
            title: format!(
                "the accept queue of {} (pid {}) is full: {backlog} connections wait, {max_backlog} may",
                human::readable(&name),
                holder.pid
            ),
            fix: "portolan explain PortolanListenOverflow".to_owned(),
        }
    })
}

fn exhausted(ports: &EphemeralPorts) -> Option<Fault> {
    let used = ports.used_ratio().max(ports.destination_ratio());
    (used >= FEW_LEFT).then(|| {
        let to = ports
            .busiest_destination
            .map_or_else(String::new, |to| format!("; most to {}", to.address));
        let service = human::full_name(&ports.service.namespace, &ports.service.name);
        Fault {
            cause: "no_local_port",
            title: format!(
                "{} of the local ports of {} are in use{to}",
                human::percent(used),
                human::readable(&service)
            ),
            fix: "portolan explain PortolanLocalPortsExhausted".to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn holder() -> Value {
        let service =
            json!({"name": "legacy", "namespace": "", "kind": "process", "source": "process"});
        json!({"service": service, "pid": 7, "command": "legacy"})
    }

    fn ports(backlog: u32, used: u32) -> Ports {
        let port = json!({
            "port": 3002, "protocol": "tcp", "address": "0.0.0.0", "v6_only": false, "netns": 1,
            "state": "listening", "holder": holder(), "uid": 0, "since": null, "sockets": 1,
            "backlog": backlog, "max_backlog": 8, "reserved_for": null, "last_conflict": null,
        });
        let ephemeral = json!({
            "netns": 1, "service": holder()["service"], "first": 1000, "last": 1099,
            "used_tcp": used, "used_udp": 0, "time_wait": 0,
            "busiest_destination": {"address": "10.0.0.2:5432", "used": used},
        });
        let all = json!({
            "timestamp": "2026-12-01T10:00:00Z", "host_netns": 1, "ports": [port],
            "unused_reservations": [], "ephemeral_ports": [ephemeral],
        });
        serde_json::from_value(all).expect("the answer of an agent")
    }

    fn conflicts(last_seen: &str) -> Conflicts {
        let finding = json!({
            "code": "PO301", "severity": "error", "title": "legacy failed to bind 0.0.0.0:3002",
            "subject": "legacy", "evidence": {}, "caused_by": null,
            "remediation": "use 3003", "docs": null, "since": null,
        });
        let conflict = json!({
            "first_seen": last_seen, "last_seen": last_seen, "count": 3, "claimant": holder(),
            "port": 3002, "protocol": "tcp", "address": "0.0.0.0", "netns": 1,
            "system_call": "bind", "errno": "EADDRINUSE", "inferred": false,
            "reason": "same_address", "holder": null, "next_free": 3003, "finding": finding,
        });
        let all = json!({
            "timestamp": "2026-12-01T10:00:00Z", "host_netns": 1, "conflicts": [conflict],
        });
        serde_json::from_value(all).expect("the answer of an agent")
    }

    #[test]
    fn recent_conflicts_full_queues_and_used_up_ranges_are_faults_with_a_fix() {
        let check = |ports: &Ports, conflicts: &Conflicts, expected: &[&str]| {
            let answer = Answer::of(ports, conflicts);
            let causes: Vec<&str> = answer.faults.iter().map(|fault| fault.cause).collect();
            assert_eq!(causes, expected);
            assert!(answer.faults.iter().all(|fault| !fault.fix.is_empty()), "{answer:?}");
            answer.text("✗ ", "  fix: ")
        };
        let (recent, old) = (conflicts("2026-12-01T09:59:50Z"), conflicts("2026-12-01T09:00:00Z"));
        let text = check(&ports(0, 0), &old, &[]);
        let expected = "Nothing is wrong with 1 listening socket and the local ports of 1 network namespace.\n";
        assert_eq!(text, expected);
        let text =
            check(&ports(9, 85), &recent, &["bind_failed", "accept_queue_full", "no_local_port"]);
        let expected = "\
✗ legacy failed to bind 0.0.0.0:3002 (10 seconds ago)
  fix: use 3003
✗ the accept queue of legacy:3002 (pid 7) is full: 9 connections wait, 8 may
  fix: portolan explain PortolanListenOverflow
✗ 85% of the local ports of legacy are in use; most to 10.0.0.2:5432
  fix: portolan explain PortolanLocalPortsExhausted
";
        assert_eq!(text, expected);
    }
}
