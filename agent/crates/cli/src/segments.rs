//! `portolan segments`: the segment policy, and observed connections.

use std::fmt::Write as _;

use clap::{Args, Subcommand};

use super::outcome::Report;
use super::policy::Scope;
use super::policy::suggest::{self, By};
use super::table::{self, Column};
use super::target::{Connection, Target};
use super::window::{self, Over};
use super::{Outcome, Output, human, print};
use api_types::{SegmentEvent, SegmentPair, SegmentVerdict, Segments, WindowChoice};

const EXAMPLES: &str = "\
Examples:
  portolan segments                                connections of the last minute
  portolan segments --window start                 since the agent started
  portolan segments violations                     the latest ones, however long ago
  portolan segments suggest --window 24h > segments.toml
  portolan segments --output json | jq '.matrix[] | select(.verdict == \"violation\" and .connections > 0)'

Segments are declared in the agent's configuration file:

  [segments]
  allow = [\"frontend -> backend\", \"backend -> database\", \"monitoring -> *\"]
  deny = [\"outside -> database\"]
  [segments.frontend]
  networks = [\"172.20.0.0/16\"]
  [segments.backend]
  networks = [\"172.21.0.0/16\"]
  [segments.database]
  services = [\"postgres\", \"shop/redis\"]
  [segments.monitoring]
  namespaces = [\"monitoring\"]

A service is matched by its name first, then by its namespace, then by the longest network prefix.
Segments may connect to themselves, and to others only if a rule allows it. Traffic from or to
`outside` (in no segment) is checked only by rules that name `outside`. Nothing is ever blocked.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct SegmentsArgs {
    #[command(flatten)]
    over: Over,
    #[command(flatten)]
    report: Report,
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Option<SegmentsCommand>,
}

#[derive(Debug, Subcommand)]
enum SegmentsCommand {
    /// List connections that the rules do not allow, with both ends.
    Violations(ViolationsArgs),
    /// Write segments and rules from what was observed, as sections of the configuration file.
    Suggest(SuggestArgs),
}

#[derive(Debug, Args)]
struct ViolationsArgs {
    #[command(flatten)]
    report: Report,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
struct SuggestArgs {
    /// What becomes a segment.
    #[arg(long, value_enum, default_value_t)]
    by: By,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    connection: Connection,
}

const VIOLATIONS: &[Column] = &[
    Column::left("LAST SEEN").rank(4),
    Column::left("CLIENT"),
    Column::left("ADDRESS").rank(2),
    Column::left("SEGMENT").rank(1),
    Column::left("SERVER"),
    Column::left("ADDRESS").rank(3),
    Column::left("SEGMENT").rank(1),
    Column::right("CONNECTIONS"),
    Column::left("WHY"),
];

pub(super) fn run(arguments: &SegmentsArgs) -> anyhow::Result<Outcome> {
    let SegmentsArgs { over: Over { window }, target, report, command } = arguments;
    let (target, report, window) = match command {
        // A list of what happened, with its times.
        Some(SegmentsCommand::Violations(ViolationsArgs { target, report })) => {
            (target, report, WindowChoice::Start)
        }
        Some(SegmentsCommand::Suggest(SuggestArgs { by, scope, connection })) => {
            print(&suggest::text(&scope.observed(connection)?, *by)?)?;
            return Ok(Outcome::Done);
        }
        None => (target, report, *window),
    };
    let body = target.text(&format!("/api/v1/segments{}", window::query(window, &[])))?;
    let answer: Segments = client::read(&body)?;
    print(&match (target.output, command) {
        (Output::Json, _) => format!("{}\n", body.trim_end()),
        (Output::Text, None) => matrix(&answer, window),
        (Output::Text, Some(_)) => violations(&answer, table::room()),
    })?;
    Ok(report.of(!answer.violations.is_empty()))
}

/// Clients down, servers across.
fn matrix(answer: &Segments, window: WindowChoice) -> String {
    let mut names: Vec<&str> = answer.segments.iter().map(|segment| &*segment.name).collect();
    let outside = |cell: &&SegmentPair| {
        [&cell.client_segment, &cell.server_segment].iter().any(|name| !names.contains(&&***name))
    };
    let other = answer.matrix.iter().find(outside).map(|cell| {
        let is_client = !names.contains(&&*cell.client_segment);
        if is_client { &*cell.client_segment } else { &*cell.server_segment }
    });
    names.extend(other);
    let columns: Vec<String> =
        std::iter::once("from ↓ to →").chain(names.iter().copied()).map(str::to_owned).collect();
    let cell = |client: &str, server: &str| {
        let cell = answer
            .matrix
            .iter()
            .find(|cell| cell.client_segment == client && cell.server_segment == server);
        match cell {
            None => "-".to_owned(),
            Some(cell) => {
                let verdict = match (cell.verdict, cell.connections) {
                    (SegmentVerdict::Allowed, 0) => "ok".to_owned(),
                    (SegmentVerdict::Allowed, n) => format!("ok {}", human::count(n)),
                    (SegmentVerdict::Violation, 0) => "no".to_owned(),
                    (SegmentVerdict::Violation, n) => format!("NO {}", human::count(n)),
                    (SegmentVerdict::NotJudged, n) => human::count(n),
                };
                if cell.require_tls { format!("{verdict} tls") } else { verdict }
            }
        }
    };
    let mut rows = vec![columns];
    for client in &names {
        let cells = names.iter().map(|server| cell(client, server));
        rows.push(std::iter::once((*client).to_owned()).chain(cells).collect());
    }
    let mut text = aligned(&rows);
    let total: u64 = answer.violations.iter().map(|violation| violation.connections).sum();
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "\nok: allowed; no: not allowed; -: no rule; numbers are connections, {}",
        window::covered(&answer.window, window)
    );
    if answer.matrix.iter().any(|cell| cell.require_tls) {
        text.push_str("tls: must be encrypted with TLS\n");
    }
    let _ = if total > 0 {
        writeln!(
            text,
            "{} connections violate the rules; `portolan segments violations` lists them",
            human::count(total)
        )
    } else if answer.events.is_empty() {
        writeln!(text, "all connections were allowed")
    } else {
        let earlier = "`portolan segments violations` lists earlier violations";
        writeln!(text, "all connections of this time were allowed; {earlier}")
    };
    text
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn violations(answer: &Segments, room: Option<usize>) -> String {
    if answer.events.is_empty() {
        return "No violations.\n".to_owned();
    }
    let address = |address: Option<std::net::IpAddr>| {
        address.map_or_else(|| "-".to_owned(), |address| address.to_string())
    };
    let row = |event: &SegmentEvent| {
        let ago = answer.timestamp.seconds_since(event.last_seen).max(0.0);
        vec![
            format!("{} ago", human::span(ago)),
            human::full_name(&event.client_namespace, &event.client),
            address(event.client_address),
            event.client_segment.clone(),
            human::endpoint(&event.server_namespace, &event.server, event.port),
            address(event.server_address),
            event.server_segment.clone(),
            human::count(event.connections),
            event.reason.as_str().to_owned(),
        ]
    };
    // Newest first.
    let rows: Vec<_> = answer.events.iter().rev().map(row).collect();
    let mut text = table::render(VIOLATIONS, &rows, room);
    if answer.dropped_events > 0 {
        let _ = writeln!(text, "({} older ones were dropped)", answer.dropped_events);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::Timestamp;
    use model::fixture::snapshot;
    use server::convert;

    fn answer_of(window: WindowChoice) -> Segments {
        let snapshot = snapshot();
        let view = snapshot.related.segments.as_ref().expect("declared");
        convert::segments(&snapshot, view, window)
    }

    fn answer() -> Segments {
        answer_of(WindowChoice::Start)
    }

    #[test]
    fn the_matrix_shows_what_is_declared_and_what_was_seen() {
        assert_eq!(
            matrix(&answer(), WindowChoice::Start),
            "\
from ↓ to →  frontend  backend  database  monitoring
frontend     ok        ok 30    NO 12     no
backend      no        ok       ok        no
database     no        no       ok        no
monitoring   ok        ok       ok        ok

ok: allowed; no: not allowed; -: no rule; numbers are connections, totals since 2023-11-14T22:13:20Z (1 minute ago)
12 connections violate the rules; `portolan segments violations` lists them
"
        );
    }

    #[test]
    fn the_matrix_of_a_window_has_its_connections_and_says_so() {
        let minute = WindowChoice::Last(60);
        let mut answer = answer_of(minute);
        let text = matrix(&answer, minute);
        assert!(text.contains("frontend     ok        ok 7     NO 2      no\n"), "{text}");
        assert!(
            text.contains("numbers are connections, last 10 s\n2 connections violate"),
            "{text}"
        );
        // Nothing in this time, and something before.
        answer.violations.clear();
        assert!(matrix(&answer, minute).ends_with("\nall connections were allowed\n"));
        answer.events.push(event(&answer));
        let text = matrix(&answer, minute);
        let earlier = "all connections of this time were allowed; `portolan segments violations` lists earlier violations\n";
        assert!(text.ends_with(earlier), "{text}");
    }

    #[test]
    fn the_matrix_shows_where_tls_is_required() {
        let mut answer = answer();
        for cell in &mut answer.matrix {
            cell.require_tls = cell.server_segment == "database";
        }
        let text = matrix(&answer, WindowChoice::Start);
        assert!(text.contains("frontend     ok        ok 30    NO 12 tls  no\n"), "{text}");
        assert!(text.contains("\ntls: must be encrypted with TLS\n"), "{text}");
    }

    fn event(answer: &Segments) -> SegmentEvent {
        let before = |seconds| Timestamp::from_seconds(answer.timestamp.seconds() - seconds);
        let event = serde_json::json!({
            "reason": "plaintext", "first_seen": before(100.0), "last_seen": before(90.0),
            "client_segment": "frontend", "server_segment": "database",
            "client": "shop", "client_namespace": "prod", "client_address": "172.20.0.2",
            "server": "postgres", "server_namespace": "", "server_address": "172.22.0.2",
            "port": 5432, "connections": 12,
        });
        serde_json::from_value(event).expect("an event")
    }

    #[test]
    fn violations_have_both_ends() {
        let mut answer = answer();
        assert_eq!(violations(&answer, None), "No violations.\n");
        answer.events.push(event(&answer));
        assert_eq!(
            violations(&answer, None),
            "\
LAST SEEN  CLIENT     ADDRESS     SEGMENT   SERVER         ADDRESS     SEGMENT   CONNECTIONS  WHY
90 s ago   prod/shop  172.20.0.2  frontend  postgres:5432  172.22.0.2  database           12  plain text
"
        );
    }
}
