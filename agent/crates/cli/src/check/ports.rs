//! Ports: failed binds, local ports that run out, reservations.

use api_types::{Evidence, Finding, Severity, code};

use super::answers::Answers;
use super::limits::{LOCAL_PORTS_SHARE, LOCAL_PORTS_SHARE_ERROR};
use super::name::Name;
use super::report::{Checks, Found};
use super::section::Section;
use crate::human;

pub(super) fn check(answers: &Answers, checks: &mut Checks) {
    conflicts(answers, checks);
    local_ports(answers, checks);
    reservations(answers, checks);
}

/// Binds that failed in the window; what a user can have made up is left out.
fn conflicts(answers: &Answers, checks: &mut Checks) {
    let conflicts = &answers.conflicts.conflicts;
    let mut seen = Vec::new();
    // The latest of a claimant and port stands for all of them.
    for one in conflicts.iter().rev().filter(|one| one.unverified_user.is_none()) {
        let key = (&one.claimant.service, one.port, one.protocol, one.netns);
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let mut finding = one.finding.clone();
        let claimant = Name::from(&one.claimant.service);
        let port = one.port;
        // A program may fail for several ports: the subject says which.
        finding.subject = format!("{claimant} at {}/{}", port, one.protocol.as_str());
        finding.evidence.insert("port".to_owned(), Evidence::Number(u64::from(port)));
        checks.found.push(Found {
            finding,
            clients: one.holder.iter().map(|holder| Name::from(&holder.service)).collect(),
            server: Some(claimant),
            port: Some(port),
        });
    }
    if seen.is_empty() {
        checks.pass(Section::Ports, "binds: none failed");
    }
}

/// Ranges of local ports that are nearly used up.
fn local_ports(answers: &Answers, checks: &mut Checks) {
    let ranges = &answers.ports.ephemeral_ports;
    let used = |one: &api_types::EphemeralPorts| one.used_ratio().max(one.destination_ratio());
    for one in ranges.iter().filter(|one| used(one) > LOCAL_PORTS_SHARE) {
        let name = Name::from(&one.service);
        let size = human::count(u64::from(one.size()));
        let (ratio, to) = match one.busiest_destination {
            Some(to) if one.destination_ratio() >= one.used_ratio() => {
                (one.destination_ratio(), format!(" for connections to {}", to.address))
            }
            _ => (one.used_ratio(), String::new()),
        };
        let subject = format!("local ports of {name}");
        // Every program of the namespace takes them: which has taken most is not known.
        let title = format!(
            "{} of {size} local ports are in use in the network namespace of {name}{to}",
            human::percent(ratio)
        );
        let is_error = ratio >= LOCAL_PORTS_SHARE_ERROR;
        let severity = if is_error { Severity::Error } else { Severity::Warning };
        let mut finding = Finding::new(code::LOCAL_PORTS_LOW, severity, &subject, title)
            .with("used_tcp", u64::from(one.used_tcp))
            .with("used_udp", u64::from(one.used_udp))
            .with("time_wait", u64::from(one.time_wait))
            .with("first", u64::from(one.first))
            .with("last", u64::from(one.last));
        finding.remediation = Some(
            "keep connections open and use them again; widen net.ipv4.ip_local_port_range there; set net.ipv4.tcp_tw_reuse to 1"
                .to_owned(),
        );
        let port = one.busiest_destination.map(|to| to.address.port());
        checks.found.push(Found { server: Some(name), port, ..Found::new(finding) });
    }
    let worst = ranges.iter().max_by(|a, b| used(a).total_cmp(&used(b)));
    match worst {
        Some(worst) if used(worst) <= LOCAL_PORTS_SHARE => {
            let text = format!(
                "local ports: worst {}, {} of {}",
                Name::from(&worst.service),
                human::percent(used(worst)),
                human::count(u64::from(worst.size()))
            );
            checks.pass(Section::Ports, text);
        }
        Some(_) => {}
        None => checks.skip(Section::Ports, "local ports", "not counted yet"),
    }
}

/// Breaches in the window, and reservations that are not in force.
fn reservations(answers: &Answers, checks: &mut Checks) {
    let since = answers.edges.window.since;
    let recent = answers.reservations.breaches.iter().filter(|breach| breach.timestamp >= since);
    let mut seen = Vec::new();
    for breach in recent {
        let key = (&breach.offender, breach.port, breach.protocol, breach.netns);
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let mut finding = breach.finding.clone();
        finding.subject =
            format!("{} at {}/{}", breach.offender, breach.port, breach.protocol.as_str());
        let (namespace, name) = breach.offender.split_once('/').unwrap_or(("", &breach.offender));
        checks.found.push(Found {
            server: Some(Name::new(namespace, name)),
            port: Some(breach.port),
            ..Found::new(finding)
        });
    }
    let all = &answers.reservations.reservations;
    for one in all.iter().filter(|one| !one.in_force) {
        let reservation = &one.reservation;
        let port = format!("{}/{}", reservation.port, reservation.protocol.as_str());
        let title =
            format!("the reservation of {port} for {} is not in force here", reservation.service);
        let mut finding = Finding::new(code::RESERVATION_INACTIVE, Severity::Info, &port, title);
        finding.remediation = Some(format!(
            "remove it (portolan ports release {port}), or reserve the port again for this environment or a later time"
        ));
        checks.found.push(Found::new(finding));
    }
    if !all.is_empty() && seen.is_empty() {
        let kept = human::counted(all.len() as u64, "reservation");
        checks.pass(Section::Ports, format!("reservations: {kept}, no breach in the window"));
    }
}
