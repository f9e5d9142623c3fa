//! `portolan operations`: which protocols services speak, and how their requests end.

use std::cmp::Reverse;
use std::collections::BTreeMap;

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
or unknown. The agent needs `responses = true` for that. RESPONSES counts the first response of each exchange: pipelined requests have one between
them, and an error behind the first bytes of a response is not seen. ERR% is the share of HTTP 5xx or
errors of a database. P50 and P99 are request latencies of all the edge's connections.";

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
    /// `tls`, `plaintext` or `unknown`.
    security: &'static str,
    /// Connections that began in the window.
    connections: u64,
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
    Column::right("CONNS").rank(3),
    Column::right("RESPONSES"),
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
    let operations = operations(&answer.edges, services);
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

/// A row for each protocol of each edge with one of these services, or of all; an edge with both sides
/// here has one.
fn operations<'a>(edges: &'a [Edge], services: &[String]) -> Vec<Operation<'a>> {
    let counts = |edge: &&Edge| {
        !edge.other_side
            && edge.role != Role::Listener
            && (services.is_empty() || known::is_any(services, &[client_of(edge), server_of(edge)]))
    };
    let mut all: Vec<_> = edges.iter().filter(counts).flat_map(of_edge).collect();
    // Stable: otherwise in the order of the answer, which is by name.
    all.sort_by_key(|one| {
        let (errors, sum) = one.sums();
        (Reverse(errors), Reverse(sum), Reverse(one.connections))
    });
    all
}

fn of_edge(edge: &Edge) -> impl Iterator<Item = Operation<'_>> {
    let protocols = edge.responses.keys().chain(edge.protocols.keys());
    let protocols: std::collections::BTreeSet<_> = protocols.map(String::as_str).collect();
    protocols.into_iter().map(move |protocol| {
        let responses = edge.responses.get(protocol).into_iter().flatten();
        let mut one = Operation {
            client: client_of(edge),
            server: server_of(edge),
            port: edge.port,
            protocol,
            security: match protocol {
                "tls" => "tls",
                "unknown" => "unknown",
                _ => "plaintext",
            },
            connections: edge.protocols.get(protocol).copied().unwrap_or_default(),
            responses: responses.map(|(status, count)| (status.as_str(), *count)).collect(),
            error_ratio: None,
            request: &edge.request,
        };
        let (errors, sum) = one.sums();
        one.error_ratio = (sum > 0).then(|| errors as f64 / sum as f64);
        one
    })
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
             `responses = true` (portolan agent --responses).\n"
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
            human::count(self.connections),
            if sum > 0 { human::count(sum) } else { "-".to_owned() },
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
    use serde_json::json;

    fn answer() -> Edges {
        let mut edges: serde_json::Value =
            serde_json::from_str(include_str!("../../server/golden/edges.json"))
                .expect("a golden file");
        let shown = edges["edges"].as_array_mut().expect("edges");
        for edge in shown.iter_mut() {
            edge["responses"] = json!({});
            edge["protocols"] = json!({});
        }
        let client = shown.iter_mut().find(|edge| edge["role"] == "client").expect("a client");
        client["responses"] = json!({"postgresql": {"ok": 970, "error": 30}});
        client["protocols"] = json!({"postgresql": 7, "tls": 2});
        serde_json::from_value(edges).expect("edges")
    }

    #[test]
    fn errors_come_first_and_tls_has_no_statuses() {
        let answer = answer();
        let operations = operations(&answer.edges, &[]);
        let text = text(&operations, &answer, WindowChoice::Last(60), None);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect())
            .collect();
        assert_eq!(lines[1][2..7], ["5432", "postgresql", "7", "1000", "3"], "{text}");
        assert!(lines[1].contains(&"error 30, ok 970"), "{text}");
        assert_eq!(lines[2][2..7], ["5432", "tls", "2", "-", "-"], "{text}");
        assert_eq!(operations[1].security, "tls");
    }

    #[test]
    fn services_are_chosen_with_their_namespace_or_without() {
        let answer = answer();
        let rows = |services: &[&str]| {
            let services: Vec<_> = services.iter().map(ToString::to_string).collect();
            operations(&answer.edges, &services).len()
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
        assert!(operations(&answer.edges, &[]).is_empty());
        let text = text(&[], &answer, WindowChoice::Last(60), None);
        assert!(text.starts_with("No responses of a server on this host"), "{text}");
    }
}
