//! The page of an edge: how connects ended, latency on both sides, failures, the network, who listens,
//! backends, the last minute, findings and events.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use api_types::{Backend, BalanceGroup, Edge, Latency, Port, PortState, Service, Violation};
use cli::fit::Column;
use cli::judgement::Name;
use cli::words;
use ratatui_core::text::Line;

use super::Page;
use crate::rows::{Mark, Row, number, text};
use crate::screen::{finding_lines, labelled, small_table};
use crate::spark::{self, Merge, Step};
use crate::text::{Text, bold, dim, of_mark, plain, styled};
use crate::views::{busy_seconds, steps_of};

/// Listeners and backends of a page.
const LISTENERS: usize = 4;
const BACKENDS: usize = 12;
/// Cells of a sparkline of the last minute: one a second.
const CELLS: usize = 60;

const COLUMNS: &[Column] = &[
    text("BACKEND", 0),
    number("SHARE", 0),
    number("EXPECTED", 0),
    number("CONNECTIONS", 1),
    number("REQUESTS", 1),
    number("FAILED", 0),
    number("UNANS", 0),
];

/// A number of the last minute: its name, how it is merged, what it is, how its highest value is said.
type Series = (&'static str, Merge, fn(&Step) -> f64, fn(f64) -> String);

const SERIES: [Series; 4] = [
    ("load", Merge::Sum, Step::load, per_second),
    ("failed", Merge::Sum, |step| step.failed as f64, per_second),
    ("p99", Merge::Highest, |step| step.p99.unwrap_or_default(), words::duration),
    ("retransmits", Merge::Sum, |step| step.retransmits as f64, per_second),
];

impl Page<'_> {
    pub(super) fn edge(&self, row: &Row<'_>, edge: &Edge) -> Vec<Text> {
        let seconds = busy_seconds(self.look);
        let rate = |count: u64| format!("{}/s", words::rate(count as f64 / seconds));
        let why = words::why(edge);
        let mut lines = vec![self.state(row, if why == "-" { "" } else { &why })];
        self.add(&mut lines, "CONNECT", &{
            let all: u64 = edge.connects.values().sum();
            let part = |count: u64| words::percent(count as f64 / all.max(1) as f64);
            let results = edge.connects.iter().map(|(result, count)| {
                format!("{} {} ({})", result.replace('_', " "), words::count(*count), part(*count))
            });
            let results: Vec<String> = results.collect();
            format!(
                "{}  {}  {}",
                rate(all),
                results.join("  "),
                quantiles(&edge.connect).map_or_else(String::new, |text| format!("takes {text}"))
            )
        });
        self.add(
            &mut lines,
            "CONNECTIONS",
            &format!(
                "{} open  {} opened  {} closed  {} sent  {} received",
                words::count(edge.active),
                words::count(edge.opened),
                words::count(edge.closed),
                words::bytes(edge.sent_bytes),
                words::bytes(edge.received_bytes)
            ),
        );
        self.requests(&mut lines, edge, &rate(edge.request.count));
        let resets = |resets: &BTreeMap<String, u64>| {
            let some = resets.iter().filter(|(_, count)| **count > 0);
            let some: Vec<String> = some
                .map(|(cause, count)| {
                    format!("{} {}", cause.replace('_', " "), words::count(*count))
                })
                .collect();
            if some.is_empty() { "none".to_owned() } else { some.join(", ") }
        };
        self.add(
            &mut lines,
            "FAILURES",
            &format!(
                "unanswered {}  resets received: {}  sent: {}  died: {}",
                words::count(edge.unanswered),
                resets(&edge.resets_received),
                resets(&edge.resets_sent),
                resets(&edge.aborts)
            ),
        );
        let phases = edge.retransmits_by_phase.iter().filter(|(_, count)| **count > 0);
        let phases: Vec<String> = phases
            .map(|(phase, count)| format!("{} {}", phase.replace('_', " "), words::count(*count)))
            .collect();
        let phases =
            if phases.is_empty() { String::new() } else { format!(" ({})", phases.join(", ")) };
        self.add(
            &mut lines,
            "NETWORK",
            &format!(
                "RTT {}  retransmits {}{phases}  timeouts {}  received twice {}",
                quantiles(&edge.rtt).unwrap_or_else(|| "-".to_owned()),
                words::count(edge.retransmits),
                words::count(edge.timeouts),
                words::count(edge.dsacks)
            ),
        );
        let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), words::bytes);
        self.add(
            &mut lines,
            "QUEUES NOW",
            &format!(
                "unread {}  unacknowledged {}  CLOSE_WAIT {}",
                bytes(edge.receive_queue_bytes),
                bytes(edge.send_queue_bytes),
                edge.close_wait.map_or_else(|| "-".to_owned(), words::count)
            ),
        );
        self.listeners(&mut lines, edge);
        self.backends(&mut lines, edge);
        self.segment(&mut lines, edge);
        self.past(&mut lines, edge);
        let client = Name::new(&edge.client_namespace, &edge.client);
        let server = Name::new(&edge.server_namespace, &edge.server);
        for found in &self.look.found {
            let is_it = found.clients.contains(&client)
                && found.server.as_ref() == Some(&server)
                && found.port == Some(edge.port);
            if is_it {
                lines.push(Line::default());
                lines.extend(finding_lines(found, self.room));
            }
        }
        self.changes(&mut lines, &edge.changes_before);
        let is_named = |service: &Option<Service>, name: &Name| {
            service.as_ref().is_some_and(|one| Name::from(one) == *name)
        };
        self.events(&mut lines, |event| {
            is_named(&event.server, &server)
                && event.port.is_none_or(|port| port == edge.port)
                && (event.client.is_none() || is_named(&event.client, &client))
        });
        lines
    }

    /// Request latency on both sides: the difference is the way between them.
    fn requests(&self, lines: &mut Vec<Text>, edge: &Edge, rate: &str) {
        let mut said = vec![rate.to_owned()];
        let side = |edge: &Edge| {
            let text = quantiles(&edge.request)?;
            Some(format!("{} side {text}", edge.role.as_str()))
        };
        said.extend(side(edge));
        let other = self.look.answers.edges.edges.iter().find(|other| {
            other.role != edge.role
                && other.port == edge.port
                && (&other.client, &other.client_namespace)
                    == (&edge.client, &edge.client_namespace)
                && (&other.server, &other.server_namespace)
                    == (&edge.server, &edge.server_namespace)
        });
        match other.and_then(side) {
            Some(other) => said.push(format!("{other} (the difference is the way)")),
            None => said.push("the other side is not on this host".to_owned()),
        }
        if edge.waits > 0 {
            said.push(format!("{} may be long polling", words::count(edge.waits)));
        }
        self.add(lines, "REQUEST", &said.join(" │ "));
    }

    fn listeners(&self, lines: &mut Vec<Text>, edge: &Edge) {
        let ports = &self.look.answers.ports;
        let is_it = |port: &&Port| {
            let service = &port.holder.service;
            port.port == edge.port
                && port.state == PortState::Listening
                && (&service.name, &service.namespace) == (&edge.server, &edge.server_namespace)
        };
        for port in ports.ports.iter().filter(is_it).take(LISTENERS) {
            let is_host = ports.host_netns == Some(port.netns);
            let netns = if is_host { "host".to_owned() } else { port.netns.to_string() };
            let address = SocketAddr::new(port.address, port.port);
            self.add(
                lines,
                "LISTENER",
                &format!(
                    "{address}  pid {} ({})  netns {netns}  backlog {}/{}",
                    port.holder.pid, port.holder.command, port.backlog, port.max_backlog
                ),
            );
        }
    }

    fn backends(&self, lines: &mut Vec<Text>, edge: &Edge) {
        let is_it = |group: &&BalanceGroup| {
            group.port == edge.port
                && group.role == edge.role
                && (&group.client, &group.client_namespace)
                    == (&edge.client, &edge.client_namespace)
                && (&group.server, &group.server_namespace)
                    == (&edge.server, &edge.server_namespace)
        };
        let Some(group) = self.look.answers.balance.groups.iter().find(is_it) else { return };
        let row = |one: &Backend| {
            let share =
                if group.requests.total > 0 { one.requests_share } else { one.connections_share };
            vec![
                one.instance
                    .as_ref()
                    .map_or_else(|| one.backend.clone(), |name| format!("{} {name}", one.backend)),
                share.map_or_else(|| "-".to_owned(), words::percent),
                words::percent(one.expected_share),
                words::count(one.connections),
                words::count(one.requests),
                words::count(one.failed),
                words::count(one.unanswered),
            ]
        };
        let rows: Vec<Vec<String>> = group.backends.iter().map(row).collect();
        lines.push(Line::default());
        lines.extend(small_table(COLUMNS, &rows, self.room, BACKENDS));
    }

    /// What the segments say, if a rule was broken here.
    fn segment(&self, lines: &mut Vec<Text>, edge: &Edge) {
        let Some(segments) = &self.look.answers.segments else { return };
        let is_it = |one: &&Violation| {
            one.port == edge.port
                && (&one.client, &one.client_namespace) == (&edge.client, &edge.client_namespace)
                && (&one.server, &one.server_namespace) == (&edge.server, &edge.server_namespace)
        };
        match segments.violations.iter().find(is_it) {
            Some(one) => {
                let said = format!(
                    "✗ {} → {}: {} ({} connections since the start)",
                    one.client_segment,
                    one.server_segment,
                    one.reason.as_str(),
                    words::count(one.connections)
                );
                lines.extend(labelled("SEGMENT", &said, self.room, of_mark(Mark::Error)));
            }
            None => self.add(lines, "SEGMENT", "no violation"),
        }
    }

    /// The last minute, a second in a cell.
    fn past(&self, lines: &mut Vec<Text>, edge: &Edge) {
        let steps = steps_of(self.look, edge);
        if steps.is_empty() {
            return;
        }
        let cells = CELLS.min(self.room.saturating_sub(32).max(10));
        let trend = &self.look.trend;
        lines.push(Line::default());
        lines.push(Line::styled("THE LAST 60 s", bold()));
        for (name, merge, number, say) in SERIES {
            let most = steps.iter().map(|step| match merge {
                Merge::Sum => number(step) / step.seconds.max(0.1),
                Merge::Highest => number(step),
            });
            let most = most.fold(0.0, f64::max);
            let shown = spark::line(
                steps.iter(),
                trend.until,
                trend.observed_seconds,
                cells,
                merge,
                number,
            );
            let said = if most > 0.0 { format!("most {}", say(most)) } else { "none".to_owned() };
            lines.push(Line::from(vec![
                styled(&format!("{name:<12} "), dim()),
                plain(&shown),
                plain(&format!(" {said}")),
            ]));
        }
    }
}

fn per_second(number: f64) -> String {
    format!("{}/s", words::rate(number))
}

/// Median and 99th percentile, if anything was measured.
fn quantiles(latency: &Latency) -> Option<String> {
    latency.p50_seconds?;
    let (p50, p99) = (words::quantile(latency.p50_seconds), words::quantile(latency.p99_seconds));
    Some(format!("p50 {p50} p99 {p99}"))
}
