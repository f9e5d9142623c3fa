//! Problems that remain after a reservation was made.

use api_types::{Finding, Severity, code};
use model::full_name::FullName;
use model::port::Port;
use model::port_ranges::PortRules;

/// A finding if the kernel may use these ports for outgoing connections.
pub(super) fn exposed(rules: &PortRules, ports: &[Port]) -> Vec<Finding> {
    let numbers: Vec<u16> = ports.iter().map(|port| port.number).collect();
    let subject: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let finding = rules.advice(&numbers).map(|advice| Finding {
        remediation: Some(advice.fix),
        ..Finding::new(
            code::RESERVED_EPHEMERAL,
            Severity::Warning,
            &subject.join(", "),
            advice.problem,
        )
    });
    finding.into_iter().collect()
}

/// The limit of enforcement: the kernel half knows a workload by its cgroup and its command.
pub(super) fn by_name(port: Port, owner: &FullName) -> Finding {
    let title = format!(
        "enforcement stops accidents, not attacks: a program that calls itself like {owner} gets the port"
    );
    Finding::new(code::ENFORCED_BY_NAME, Severity::Info, &port.to_string(), title)
}
