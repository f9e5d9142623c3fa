//! `portolan diagnose --ports`: failed binds, full accept queues, local ports that run out.

use std::fmt::Write as _;

use anyhow::Context as _;
use api_types::{Conflict, Conflicts, EphemeralPorts, Port, PortState, Ports, Severity};
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
struct Fault {
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

// === impl Answer ===

impl Answer {
    fn of(ports: &Ports, conflicts: &Conflicts) -> Self {
        let listening: Vec<&Port> =
            ports.ports.iter().filter(|port| port.state == PortState::Listening).collect();
        let recent = |one: &&Conflict| {
            let seconds_ago = conflicts.timestamp.seconds_since(one.last_seen);
            one.finding.severity == Severity::Error && seconds_ago <= RECENT_SECONDS
        };
        let conflict = |one: &Conflict| {
            let seconds_ago = conflicts.timestamp.seconds_since(one.last_seen).max(0.0);
            Fault {
                cause: "bind_failed",
                title: format!("{} ({} ago)", one.finding.title, ago(seconds_ago)),
                fix: one
                    .finding
                    .remediation
                    .clone()
                    .unwrap_or_else(|| format!("portolan explain {}", one.finding.code)),
            }
        };
        let mut faults: Vec<Fault> =
            conflicts.conflicts.iter().filter(recent).map(conflict).collect();
        faults.extend(listening.iter().filter_map(|port| full_queue(port)));
        faults.extend(ports.ephemeral_ports.iter().filter_map(exhausted));
        Self { listening: listening.len(), namespaces: ports.ephemeral_ports.len(), faults }
    }

    fn text(&self, mark: &str, fix: &str) -> String {
        let mut text = String::new();
        for fault in &self.faults {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{mark}{}\n{fix}{}", fault.title, fault.fix);
        }
        if self.faults.is_empty() {
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
    use model::fixture::snapshot;
    use server::convert::{self, PortFilter, ToApi as _};

    #[test]
    fn recent_conflicts_and_full_queues_are_faults_with_a_fix() {
        let snapshot = snapshot();
        let mut ports = convert::ports(&snapshot, PortFilter::default());
        let all: Vec<Conflict> = snapshot.conflicts.iter().map(|one| one.to_api()).collect();
        let timestamp = all.iter().map(|one| one.last_seen).max().expect("a conflict");
        let mut conflicts = Conflicts { timestamp, host_netns: None, conflicts: all };
        for port in &mut ports.ports {
            port.backlog = 0;
        }
        ports.ephemeral_ports.clear();
        let failed = Answer::of(&ports, &conflicts).faults;
        assert!(failed.iter().any(|fault| fault.cause == "bind_failed"), "{failed:?}");
        assert!(failed.iter().all(|fault| !fault.fix.is_empty()), "{failed:?}");
        conflicts.conflicts.clear();
        let well = Answer::of(&ports, &conflicts);
        assert_eq!(well.faults, []);
        assert!(well.text("", "").starts_with("Nothing is wrong with"), "{well:?}");
        let listening = ports.ports.iter_mut().find(|port| port.state == PortState::Listening);
        let listening = listening.expect("a listener");
        listening.backlog = listening.max_backlog + 1;
        let faults = Answer::of(&ports, &conflicts).faults;
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].cause, "accept_queue_full");
    }
}
