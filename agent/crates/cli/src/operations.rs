//! `portolan operations`: which protocols services speak, and how their requests end.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde::Serialize;

use super::outcome::Report;
use super::table::{self, Column};
use super::target::Target;
use super::window::{self, Over};
use super::{Outcome, Output, edges, human, known, print};
use api_types::{Edge, Edges, Latency, Role, Window, WindowChoice};

const EXAMPLES: &str = "\
Examples:
  portolan operations                              the last minute, errors first
  portolan operations shop/api --window 5m
  portolan operations --exit-code                  exit with 1 if anything was answered with an error
  portolan operations -o json | jq -r '.operations[] | select(.security == \"plaintext\") | .server'

A protocol is recognised by the first bytes that a server of this host sends on a connection: HTTP/1
(by status class), PostgreSQL, MySQL and Redis (ok or error), HTTP/2 and TLS (not looked into),
or unknown. The agent needs `responses = true` for that. RESPONSES counts the first response of each
exchange: pipelined requests have one between them, and an error behind the first bytes of a response
is not seen. ERR% is the share of HTTP 5xx or errors of a database. P50 and P99 are request latencies
of all the edge's connections.

Of services in `protocols.services` of the agent's configuration each HTTP/1 request is counted, with
its method: then a row is one method (OPERATION), and P50 and P99 are those of its requests.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct OperationsArgs {
    #[command(flatten)]
    target: Target,
    /// Services to show, at either end [default: all].
    services: Vec<String>,
    #[command(flatten)]
    over: Over,
    #[command(flatten)]
    report: Report,
}

/// What `--output json` prints.
#[derive(Debug, Serialize)]
struct Operations<'a> {
    /// The time that the numbers cover.
    window: &'a Window,
    /// Errors first, then what is busiest.
    operations: Vec<Operation<'a>>,
}

/// What is exchanged between a client and a server in one protocol.
#[derive(Debug, Serialize)]
struct Operation<'a> {
    client: String,
    server: String,
    port: u16,
    /// A protocol, `tls` or `unknown`.
    protocol: &'a str,
    /// The method, if each request is counted; null if the first response of each exchange is.
    #[serde(rename = "operation")]
    name: Option<&'a str>,
    /// `tls`, `plaintext` or `unknown`.
    security: &'static str,
    /// Connections of this protocol that began in the window.
    connections: u64,
    /// Responses per second.
    rate: f64,
    /// Requests of this protocol without a response when their connection ended, whatever their method;
    /// null if requests are not counted one by one.
    unanswered: Option<u64>,
    /// Responses by status.
    responses: BTreeMap<&'a str, u64>,
    /// Share of responses that are errors of the server; null without any response.
    error_ratio: Option<f64>,
    request: &'a Latency,
}

const COLUMNS: &[Column] = &[
    Column::left("CLIENT"),
    Column::left("SERVER"),
    Column::right("PORT"),
    Column::left("PROTOCOL"),
    Column::left("OPERATION"),
    Column::right("CONNS").rank(4),
    Column::right("RESPONSES"),
    Column::right("RATE").rank(3),
    Column::right("ERR%"),
    Column::left("STATUS"),
    Column::right("P50").rank(2),
    Column::right("P99").rank(1),
];

pub(super) fn run(arguments: &OperationsArgs) -> anyhow::Result<Outcome> {
    let OperationsArgs { target, services, over: Over { window }, report } = arguments;
    let body = target.text(&format!("/api/v1/edges{}", window::query(*window, &[])))?;
    let answer: Edges = client::read(&body)?;
    let names = answer.edges.iter().flat_map(|edge| [client_of(edge), server_of(edge)]);
    known::check(&target.connection, services, &names.collect::<Vec<_>>())?;
    let operations = operations(&answer, services);
    let found = operations.iter().any(|one| one.error_ratio.is_some_and(|share| share > 0.0));
    let text = match target.output {
        Output::Json => {
            let all = Operations { window: &answer.window, operations };
            format!("{}\n", serde_json::to_string_pretty(&all)?)
        }
        Output::Text => text(&operations, &answer, *window, table::room()),
    };
    print(&text)?;
    Ok(report.of(found))
}

fn client_of(edge: &Edge) -> String {
    human::full_name(&edge.client_namespace, &edge.client)
}

fn server_of(edge: &Edge) -> String {
    human::full_name(&edge.server_namespace, &edge.server)
}

/// A row for each protocol of each edge with one of these services, or of all, or for each operation of a
/// protocol; an edge with both sides here has one.
fn operations<'a>(answer: &'a Edges, services: &[String]) -> Vec<Operation<'a>> {
    let counts = |edge: &&Edge| {
        !edge.other_side
            && edge.role != Role::Listener
            && (services.is_empty() || known::is_any(services, &[client_of(edge), server_of(edge)]))
    };
    let seconds = answer.window.seconds;
    let edges = answer.edges.iter().filter(counts);
    let mut all: Vec<_> = edges.flat_map(|edge| of_edge(edge, seconds)).collect();
    // Stable: otherwise in the order of the answer, which is by name.
    all.sort_by_key(|one| {
        let (errors, sum) = one.sums();
        (Reverse(errors), Reverse(sum), Reverse(one.connections))
    });
    all
}

fn of_edge(edge: &Edge, seconds: f64) -> impl Iterator<Item = Operation<'_>> {
    let protocols = edge.responses.keys().chain(edge.protocols.keys());
    let protocols = protocols.chain(edge.operations.keys());
    let protocols: BTreeSet<_> = protocols.map(String::as_str).collect();
    protocols.into_iter().flat_map(move |protocol| {
        let counted = edge.operations.get(protocol).into_iter().flatten();
        let rows: Vec<_> = counted
            .map(|(name, one)| (Some(name.as_str()), Some(&one.statuses), &one.duration))
            .collect();
        let first_responses = (None, edge.responses.get(protocol), &edge.request);
        let rows = if rows.is_empty() { vec![first_responses] } else { rows };
        rows.into_iter().map(move |row| of_protocol(edge, protocol, row, seconds))
    })
}

/// A row; `operation` is its name, its responses by status, and how long they took.
fn of_protocol<'a>(
    edge: &'a Edge,
    protocol: &'a str,
    operation: (Option<&'a str>, Option<&'a BTreeMap<String, u64>>, &'a Latency),
    seconds: f64,
) -> Operation<'a> {
    let (name, responses, request) = operation;
    let unanswered = || edge.operations_unanswered.get(protocol).copied().unwrap_or_default();
    let responses = responses.into_iter().flatten();
    let mut one = Operation {
        client: client_of(edge),
        server: server_of(edge),
        port: edge.port,
        protocol,
        name,
        security: match protocol {
            "tls" => "tls",
            "unknown" => "unknown",
            _ => "plaintext",
        },
        connections: edge.protocols.get(protocol).copied().unwrap_or_default(),
        rate: 0.0,
        unanswered: name.map(|_| unanswered()),
        responses: responses.map(|(status, count)| (status.as_str(), *count)).collect(),
        error_ratio: None,
        request,
    };
    let (errors, sum) = one.sums();
    one.error_ratio = (sum > 0).then(|| errors as f64 / sum as f64);
    one.rate = if seconds > 0.0 { sum as f64 / seconds } else { 0.0 };
    one
}

fn text(
    operations: &[Operation<'_>],
    answer: &Edges,
    choice: WindowChoice,
    room: Option<usize>,
) -> String {
    let covered = window::covered(&answer.window, choice);
    if operations.is_empty() {
        return format!(
            "No responses of a server on this host ({covered}). They are read only by agents with \
             `responses = true` (portolan agent --responses), and for services in `protocols.services`.\n"
        );
    }
    let rows: Vec<Vec<String>> = operations.iter().map(Operation::row).collect();
    format!("{}{covered}\n", table::render(COLUMNS, &rows, room))
}

// === impl Operation ===

impl Operation<'_> {
    /// Errors, and all responses.
    fn sums(&self) -> (u64, u64) {
        let all = self.responses.values().sum();
        let errors = self.responses.iter().filter(|(status, _)| edges::is_error(status));
        (errors.map(|(_, count)| count).sum(), all)
    }

    fn row(&self) -> Vec<String> {
        let (_, sum) = self.sums();
        let status = |(status, count): (&&str, &u64)| format!("{status} {}", human::count(*count));
        let statuses: Vec<_> = self.responses.iter().map(status).collect();
        let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let share = |share: f64| human::percent(share).trim_end_matches('%').to_owned();
        vec![
            self.client.clone(),
            self.server.clone(),
            self.port.to_string(),
            self.protocol.to_owned(),
            self.name.unwrap_or("-").to_owned(),
            human::count(self.connections),
            if sum > 0 { human::count(sum) } else { "-".to_owned() },
            if sum > 0 { human::rate(self.rate) } else { "-".to_owned() },
            self.error_ratio.map_or_else(|| "-".to_owned(), share),
            or_none(statuses.join(", ")),
            human::quantile(self.request.p50_seconds),
            human::quantile(self.request.p99_seconds),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::OperationCounts;
    use serde_json::json;

    fn answer() -> Edges {
        let mut edges: serde_json::Value =
            serde_json::from_str(include_str!("../../server/golden/edges.json"))
                .expect("a golden file");
        let shown = edges["edges"].as_array_mut().expect("edges");
        for edge in shown.iter_mut() {
            edge["responses"] = json!({});
            edge["protocols"] = json!({});
            edge["operations"] = json!({});
            edge["operations_unanswered"] = json!({});
        }
        let client = shown.iter_mut().find(|edge| edge["role"] == "client").expect("a client");
        client["responses"] = json!({"postgresql": {"ok": 970, "error": 30}});
        client["protocols"] = json!({"postgresql": 7, "tls": 2});
        serde_json::from_value(edges).expect("edges")
    }

    #[test]
    fn errors_come_first_and_tls_has_no_statuses() {
        let answer = answer();
        let operations = operations(&answer, &[]);
        let text = text(&operations, &answer, WindowChoice::Last(60), None);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect())
            .collect();
        assert_eq!(lines[1][2..6], ["5432", "postgresql", "-", "7"], "{text}");
        assert_eq!((lines[1][6], lines[1][8]), ("1000", "3"), "{text}");
        assert!(lines[1].contains(&"error 30, ok 970"), "{text}");
        assert_eq!(lines[2][2..9], ["5432", "tls", "-", "2", "-", "-", "-"], "{text}");
        assert_eq!(operations[1].security, "tls");
    }

    #[test]
    fn a_service_whose_requests_are_counted_has_a_row_for_each_method() {
        let mut answer = answer();
        let duration = answer.edges.first().expect("an edge").request;
        let counts = |statuses: &[(&str, u64)]| OperationCounts {
            statuses: statuses.iter().map(|(status, n)| ((*status).to_owned(), *n)).collect(),
            duration,
        };
        answer.edges.retain(|edge| edge.role == Role::Client && !edge.responses.is_empty());
        let edge = answer.edges.first_mut().expect("a client");
        edge.responses = BTreeMap::from([("http".to_owned(), BTreeMap::from([("2xx".into(), 7)]))]);
        edge.protocols = BTreeMap::from([("http".to_owned(), 3)]);
        let get = ("GET".to_owned(), counts(&[("2xx", 90), ("4xx", 10)]));
        let post = ("POST".to_owned(), counts(&[("2xx", 30), ("5xx", 10)]));
        edge.operations = BTreeMap::from([("http".to_owned(), BTreeMap::from([get, post]))]);
        edge.operations_unanswered = BTreeMap::from([("http".to_owned(), 2)]);
        let operations = operations(&answer, &[]);
        let shown: Vec<_> = operations
            .iter()
            .map(|one| (one.name, one.sums(), one.error_ratio, one.unanswered))
            .collect();
        let expected = [
            (Some("POST"), (10, 40), Some(0.25), Some(2)),
            (Some("GET"), (0, 100), Some(0.0), Some(2)),
        ];
        assert_eq!(shown, expected);
        assert!((operations[1].rate - 100.0 / answer.window.seconds).abs() < 1e-9);
        let text = text(&operations, &answer, WindowChoice::Last(60), None);
        assert!(text.contains("OPERATION") && text.contains("5xx 10"), "{text}");
    }

    #[test]
    fn services_are_chosen_with_their_namespace_or_without() {
        let answer = answer();
        let rows = |services: &[&str]| {
            let services: Vec<_> = services.iter().map(ToString::to_string).collect();
            operations(&answer, &services).len()
        };
        let edge = answer.edges.iter().find(|edge| !edge.responses.is_empty()).expect("one");
        let (client, server) = (client_of(edge), server_of(edge));
        for services in [&[&*client][..], &[&server], &[&edge.client], &["other", &server]] {
            assert_eq!(rows(services), 2, "{services:?}");
        }
        assert_eq!(rows(&["other"]), 0);
    }

    #[test]
    fn the_other_side_of_the_same_connections_is_no_second_row() {
        let mut answer = answer();
        for edge in &mut answer.edges {
            edge.other_side = true;
        }
        assert!(operations(&answer, &[]).is_empty());
        let text = text(&[], &answer, WindowChoice::Last(60), None);
        assert!(text.starts_with("No responses of a server on this host"), "{text}");
    }
}
