//! The tables of an HTML report.

use std::fmt::Write as _;

use api_types::{Cause, NameSourceState, PortState, SegmentVerdict};

use super::super::escape::xml;
use super::super::text::mark;
use super::map::severity;
use crate::check::answers::Answers;
use crate::check::name::Name;
use crate::check::network::Seen;
use crate::check::pairs::Pair;
use crate::check::report::Report;
use crate::human;

/// Rows of a table at most.
const MOST: usize = 200;
/// Addresses of a namespace in its row.
const ADDRESSES: usize = 6;

/// Edges, those with findings first.
pub(super) fn edges(pairs: &[Pair<'_>], report: &Report) -> String {
    let mut rows: Vec<_> = pairs
        .iter()
        .filter(|pair| pair.attempts() + pair.requests() + pair.unanswered() > 0)
        .map(|pair| (severity(pair, report), pair))
        .collect();
    rows.sort_by_key(|(severity, pair)| {
        (std::cmp::Reverse(*severity), std::cmp::Reverse(pair.requests()))
    });
    let cells = rows.iter().map(|(severity, pair)| {
        let failed = pair.attempts().saturating_sub(pair.connects(&["ok"]));
        let why: Vec<String> = pair
            .rows()
            .filter(|edge| !edge.other_side)
            .flat_map(|edge| &edge.why)
            .map(|Cause { text, count, .. }| format!("{} {text}", human::count(*count)))
            .collect();
        vec![
            severity.map_or("✓", |severity| mark(severity).0).to_owned(),
            pair.client.to_string(),
            pair.server.at(pair.port),
            human::count(pair.attempts()),
            human::count(failed),
            human::count(pair.requests()),
            human::count(pair.unanswered()),
            human::quantile(pair.p99()),
            human::count(pair.segments().0),
            why.join(", "),
        ]
    });
    let heads = [
        "",
        "Client",
        "Server",
        "#Connects",
        "#Failed",
        "#Requests",
        "#Unanswered",
        "#P99",
        "#Retransmits",
        "Why",
    ];
    table(&heads, cells.collect())
}

/// Listening ports.
pub(super) fn ports(answers: &Answers) -> String {
    let listening = answers.ports.ports.iter().filter(|port| port.state == PortState::Listening);
    let cells = listening.map(|port| {
        vec![
            port.port.to_string(),
            port.protocol.as_str().to_owned(),
            port.address.to_string(),
            Name::from(&port.holder.service).to_string(),
            match port.holder.pid {
                0 => String::new(),
                pid => pid.to_string(),
            },
            format!("{}/{}", port.backlog, port.max_backlog),
            port.reserved_for.clone().unwrap_or_default(),
        ]
    });
    let heads = ["#Port", "Protocol", "Address", "Service", "#Pid", "#Backlog", "Reserved for"];
    table(&heads, cells.collect())
}

/// Pairs of segments with connections, and those that are not allowed.
pub(super) fn segments(answers: &Answers) -> String {
    let matrix = answers.segments.iter().flat_map(|declared| &declared.matrix);
    let pairs = matrix.filter(|pair| pair.connections > 0);
    let cells = pairs.map(|pair| {
        let verdict = match pair.verdict {
            SegmentVerdict::Allowed => "✓ allowed",
            SegmentVerdict::Violation => "✗ violation",
            SegmentVerdict::NotJudged => "· not judged",
        };
        vec![
            pair.client_segment.clone(),
            pair.server_segment.clone(),
            if pair.require_tls { format!("{verdict}, TLS required") } else { verdict.to_owned() },
            human::count(pair.connections),
        ]
    });
    table(&["Client", "Server", "Verdict", "#Connections since the start"], cells.collect())
}

/// Network namespaces of this host.
pub(super) fn namespaces(seen: &Seen) -> String {
    let cells = seen.networks.iter().map(|network| {
        let mut addresses: Vec<String> = network
            .addresses
            .iter()
            .filter(|one| !linux::network::is_shared(one.address))
            .map(|one| format!("{}/{}", one.address, one.prefix))
            .collect();
        let more = addresses.len().saturating_sub(ADDRESSES);
        addresses.truncate(ADDRESSES);
        if more > 0 {
            addresses.push(format!("and {more} more"));
        }
        vec![
            seen.title(network),
            network.inode.to_string(),
            addresses.join(", "),
            match network.has_default_route {
                Some(true) => "yes",
                Some(false) => "no",
                None => "",
            }
            .to_owned(),
            network.conntrack.map(|fill| human::percent(fill.ratio())).unwrap_or_default(),
            network.local_ports.map(|(a, b)| format!("{a}–{b}")).unwrap_or_default(),
        ]
    });
    let heads = ["Namespace", "#Inode", "Addresses", "Default route", "#Conntrack", "Local ports"];
    table(&heads, cells.collect())
}

/// Hooks that are off, sources of names, losses.
pub(super) fn coverage(answers: &Answers) -> String {
    let status = &answers.status;
    let on = status.hooks.iter().filter(|hook| hook.attached).count();
    let mut text = format!(
        "<p>Agent {} on kernel {}: {on} of {} hooks attached, {}, {}.</p>\n",
        xml(&status.version),
        xml(&status.kernel),
        status.hooks.len(),
        human::counted(status.edges, "edge"),
        human::counted(status.listeners, "listener")
    );
    let off = status.hooks.iter().filter(|hook| !hook.attached).map(|hook| {
        let reason = hook.reason.clone().unwrap_or_default();
        vec![hook.name.clone(), hook.observes.clone(), reason]
    });
    text.push_str(&table(&["Hook that is off", "Not observed", "Reason"], off.collect()));
    let known = status.name_sources.iter().filter(|one| one.state != NameSourceState::Absent);
    let sources = known.map(|one| {
        vec![
            one.name.clone(),
            one.state.as_str().to_owned(),
            human::count(one.entries),
            one.detail.clone().unwrap_or_default(),
        ]
    });
    text.push_str(&table(&["Source of names", "State", "#Entries", ""], sources.collect()));
    let ledger = status.ledger.iter().map(|one| {
        let lost: Vec<String> = one
            .lost
            .iter()
            .map(|(reason, count)| format!("{reason} {}", human::count(*count)))
            .collect();
        vec![
            one.class.clone(),
            human::count(one.seen),
            human::count(one.exported),
            human::count(one.lost.values().sum()),
            lost.join(", "),
        ]
    });
    text.push_str(&table(
        &["Events", "#Seen", "#Exported", "#Dropped", "Reason"],
        ledger.collect(),
    ));
    text
}

/// A table; headings of numbers begin with `#`. Nothing without rows.
fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let class = |head: &str| if head.starts_with('#') { " class=\"n\"" } else { "" };
    let mut text = "<div class=\"scroll\"><table>\n<tr>".to_owned();
    for head in heads {
        // Writing into a String cannot fail.
        let _ = write!(text, "<th{}>{}</th>", class(head), head.trim_start_matches('#'));
    }
    text.push_str("</tr>\n");
    let more = rows.len().saturating_sub(MOST);
    for row in rows.into_iter().take(MOST) {
        text.push_str("<tr>");
        for (head, cell) in heads.iter().zip(row) {
            let _ = write!(text, "<td{}>{}</td>", class(head), xml(&cell));
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</table></div>\n");
    if more > 0 {
        let _ = writeln!(text, "<p>and {} more</p>", human::count(more as u64));
    }
    text
}
