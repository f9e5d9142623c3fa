//! Tables that fill up, and packets that get lost on the way.

use api_types::{Finding, Severity, code};
use linux::network::{Fill, Network};

use super::{Checks, Section, Seen, namespaces};
use crate::check::limits::FEW;
use crate::check::report::Found;
use crate::human;

/// Shares of a table in use.
const FULL_WARNING: f64 = 0.8;
const FULL_ERROR: f64 = 0.95;
/// Share of packets that are dropped or broken.
const LOST_SHARE: f64 = 0.001;

pub(super) fn check(seen: &Seen, checks: &mut Checks) {
    conntrack(seen, checks);
    neighbours(seen, checks);
    interfaces(seen, checks);
    memory(seen, checks);
}

fn severity(fill: Fill) -> Option<Severity> {
    match fill.ratio() {
        ratio if ratio >= FULL_ERROR => Some(Severity::Error),
        ratio if ratio >= FULL_WARNING => Some(Severity::Warning),
        _ => None,
    }
}

fn conntrack(seen: &Seen, checks: &mut Checks) {
    let tables = seen.networks.iter().filter_map(|one| Some((one, one.conntrack?)));
    let tables: Vec<(&Network, Fill)> = tables.collect();
    let mut is_well = true;
    for (network, fill) in &tables {
        let Some(severity) = severity(*fill) else { continue };
        is_well = false;
        let name = seen.title(network);
        let subject = format!("connection tracking of {name}");
        let title = format!(
            "{name} tracks {} of {} connections ({}): a full table drops new ones",
            human::count(fill.used),
            human::count(fill.limit),
            human::percent(fill.ratio())
        );
        let mut finding = Finding::new(code::CONNTRACK_FULL, severity, &subject, title)
            .with("used", fill.used)
            .with("limit", fill.limit);
        finding.remediation = Some(
            "raise net.netfilter.nf_conntrack_max (on the host, for all namespaces), shorten net.netfilter.nf_conntrack_tcp_timeout_established, or exempt traffic with notrack"
                .to_owned(),
        );
        checks.found.push(Found::new(finding));
    }
    let fullest = tables.iter().map(|(_, fill)| fill.ratio()).fold(0.0, f64::max);
    if tables.is_empty() {
        checks.skip(Section::Network, "connection tracking", "not in use, or not readable");
    } else if is_well {
        let text = format!("connection tracking: fullest {}", human::percent(fullest));
        checks.pass(Section::Network, text);
    }
}

fn neighbours(seen: &Seen, checks: &mut Checks) {
    let tables = [("IPv4", seen.neighbours.v4), ("IPv6", seen.neighbours.v6)];
    let tables: Vec<_> = tables.iter().filter_map(|(name, fill)| Some((name, (*fill)?))).collect();
    let mut is_well = true;
    for (family, fill) in &tables {
        let Some(severity) = severity(*fill) else { continue };
        is_well = false;
        let subject = format!("neighbours over {family}");
        let title = format!(
            "the table of {subject} has {} of {} entries ({}): a full table refuses new ones",
            human::count(fill.used),
            human::count(fill.limit),
            human::percent(fill.ratio())
        );
        let setting = if **family == "IPv4" { "ipv4" } else { "ipv6" };
        let mut finding = Finding::new(code::NEIGHBOURS_FULL, severity, &subject, title)
            .with("used", fill.used)
            .with("limit", fill.limit);
        finding.remediation =
            Some(format!("raise net.{setting}.neigh.default.gc_thresh1, 2 and 3 on the host"));
        checks.found.push(Found::new(finding));
    }
    if let Some(reason) = &seen.neighbours_denied {
        checks.skip(Section::Network, "neighbours", reason.as_str());
    } else if tables.is_empty() {
        checks.skip(Section::Network, "neighbours", "the kernel does not show the tables");
    } else if is_well {
        let fullest = tables.iter().map(|(_, fill)| fill.ratio()).fold(0.0, f64::max);
        let text = format!("neighbours: fullest {}", human::percent(fullest));
        checks.pass(Section::Network, text);
    }
}

/// Interfaces that drop packets now.
fn interfaces(seen: &Seen, checks: &mut Checks) {
    let (mut looked_at, mut is_well) = (0u64, true);
    for network in &seen.networks {
        for link in network.links.iter().filter(|link| link.is_up) {
            let Some(grown) = seen.grown.get(&(network.inode, link.index)) else { continue };
            looked_at += 1;
            let lost = grown.errors.saturating_add(grown.drops);
            let all = grown.packets.saturating_add(lost);
            if lost < FEW || lost as f64 <= LOST_SHARE * all as f64 {
                continue;
            }
            is_well = false;
            let subject = format!("{} of {}", link.name, seen.title(network));
            let title = format!(
                "{subject} dropped {} and counted {} within a second, of {}",
                human::counted(grown.drops, "packet"),
                human::counted(grown.errors, "error"),
                human::counted(all, "packet")
            );
            let mut finding =
                Finding::new(code::INTERFACE_DROPS, Severity::Warning, &subject, title)
                    .with("drops", grown.drops)
                    .with("errors", grown.errors)
                    .with("packets", grown.packets);
            finding.remediation = Some(format!(
                "look at `ip -s -s link show {}` and `ethtool -S {}` there: ring sizes, cables, a full queue",
                link.name, link.name
            ));
            checks.found.push(Found::new(finding));
        }
    }
    if looked_at > 0 && is_well {
        let text =
            format!("{}: no or few drops and errors now", human::counted(looked_at, "interface"));
        checks.pass(Section::Network, text);
    }
}

/// Namespaces in which TCP is short of memory now.
fn memory(seen: &Seen, checks: &mut Checks) {
    let mut is_well = true;
    for network in &seen.networks {
        let grown = seen.pressure.get(&network.inode).copied().unwrap_or_default();
        if grown == 0 {
            continue;
        }
        is_well = false;
        let name = seen.title(network);
        let subject = format!("TCP memory of {name}");
        let title = format!(
            "TCP was short of memory {} within a second in {name}",
            human::counted(grown, "time")
        );
        let mut finding =
            Finding::new(code::TCP_MEMORY, Severity::Warning, &subject, title).with("times", grown);
        finding.remediation = Some(
            "compare `cat /proc/net/sockstat` with net.ipv4.tcp_mem; find who leaves data unread (`portolan edges`, WHY), or raise net.ipv4.tcp_mem"
                .to_owned(),
        );
        checks.found.push(Found::new(finding));
    }
    if is_well {
        let text = format!("TCP memory: no pressure in {}", namespaces(seen.networks.len()));
        checks.pass(Section::Network, text);
    }
}
