//! `portolan timeouts`: how long idle connections last and are used, how long clients wait for
//! responses, and where that does not fit.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::Args;

use super::outcome::Report;
use super::table::{self, Column};
use super::target::Target;
use super::{Outcome, Output, human, known, print, window};
use api_types::{EdgeTimeouts, EdgeWaits, Finding, IdleTimes, KeepAlive, Timeouts, WindowChoice};

const EXAMPLES: &str = "\
Examples:
  portolan timeouts
  portolan timeouts shop/api
  portolan timeouts --exit-code                          exit with 1 if there is a mismatch
  portolan timeouts --output json | jq '.edges[] | select(.verdict == \"mismatch\") | .finding'

SERVER CLOSES and CLIENT CLOSES say after how long each end closes connections on which nothing is
sent any more, as observed; - while too few were closed. USED AFTER is the longest pause after which
a client sent a request again. A server that closes first, and a client that comes back after about
as long, meet sooner or later: then a request is reset. Columns count connections whose pauses were
at least half a second.

Below that are clients that got no answer to some requests, each followed by what its server calls.
WAITS AT LEAST is the longest that a client waited for a response; AT MOST is what a server took when
its client was gone, which shows where the agent sees both. Along a chain these have to shrink: a
service that waits longer for a dependency than its own caller waits for it works for an answer that
is thrown away.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct TimeoutsArgs {
    #[command(flatten)]
    target: Target,
    /// Services to show, at either end [default: all].
    services: Vec<String>,
    /// Time that the numbers cover: 1m, 5m (at most), or start, since the agent started. From start on
    /// there are also timeouts that were changed since, and rare pauses.
    #[arg(long, value_name = "WINDOW", default_value = "5m", value_parser = window::parse)]
    window: WindowChoice,
    #[command(flatten)]
    report: Report,
}

const COLUMNS: &[Column] = &[
    Column::left("CLIENT"),
    Column::left("SERVER"),
    Column::right("SERVER CLOSES"),
    Column::right("COUNT").rank(3),
    Column::right("CLIENT CLOSES"),
    Column::right("COUNT").rank(3),
    Column::right("USED AFTER"),
    Column::right("COUNT").rank(3),
    Column::right("REQUEST P99").rank(2),
    Column::right("RESET").rank(1),
    Column::left("VERDICT"),
];

const WAITS: &[Column] = &[
    Column::left("CLIENT"),
    Column::left("SERVER"),
    Column::right("UNANSWERED"),
    Column::right("TOO LATE").rank(1),
    Column::right("WAITS AT LEAST"),
    Column::right("AT MOST"),
    Column::right("REQUEST P99").rank(2),
];

pub(super) fn run(arguments: &TimeoutsArgs) -> anyhow::Result<Outcome> {
    let TimeoutsArgs { target, services, window, report } = arguments;
    let query = window::query(*window, services);
    let body = target.text(&format!("/api/v1/timeouts{query}"))?;
    let answer: Timeouts = client::read(&body)?;
    let ends = |edge: &EdgeTimeouts| {
        [
            human::full_name(&edge.client_namespace, &edge.client),
            human::full_name(&edge.server_namespace, &edge.server),
        ]
    };
    let ends_of_waits = |edge: &EdgeWaits| {
        [
            human::full_name(&edge.client_namespace, &edge.client),
            human::full_name(&edge.server_namespace, &edge.server),
        ]
    };
    let names = answer.edges.iter().flat_map(ends);
    let names = names.chain(answer.waits.iter().flat_map(ends_of_waits));
    known::check(&target.connection, services, &names.collect::<Vec<_>>())?;
    match target.output {
        Output::Json => print(&format!("{}\n", body.trim_end()))?,
        Output::Text => print(&text(&answer, *window, table::room()))?,
    }
    Ok(report.of(answer.edges.iter().any(|edge| edge.verdict == KeepAlive::Mismatch)))
}

fn text(answer: &Timeouts, choice: WindowChoice, room: Option<usize>) -> String {
    let covered = window::covered(&answer.window, choice);
    let none = "No connection was idle for half a second and then used again or closed";
    if answer.edges.is_empty() && answer.waits.is_empty() {
        return format!("{none}; {covered}.\n");
    }
    let mut text =
        if answer.edges.is_empty() { format!("{none}.\n") } else { idle(&answer.edges, room) };
    if !answer.waits.is_empty() {
        let _ = write!(text, "\nRequests without an answer:\n{}", waits(&answer.waits, room));
    }
    let _ = writeln!(text, "\n{covered}");
    text
}

/// Idle connections, and what is wrong with them.
fn idle(edges: &[EdgeTimeouts], room: Option<usize>) -> String {
    let mut edges: Vec<&EdgeTimeouts> = edges.iter().collect();
    // Stable: what is worse first, otherwise in the order of the answer.
    edges.sort_by_key(|edge| match edge.verdict {
        KeepAlive::Mismatch => 0,
        KeepAlive::ServerFirst => 1,
        KeepAlive::ClientFirst => 2,
        KeepAlive::Unknown => 3,
    });
    let rows: Vec<Vec<String>> = edges.iter().map(|edge| row(edge)).collect();
    let mut text = table::render(COLUMNS, &rows, room);
    write_findings(&mut text, edges.iter().filter_map(|edge| edge.finding.as_ref()));
    text
}

/// Chains of callers, and services that wait longer than their callers.
fn waits(waits: &[EdgeWaits], room: Option<usize>) -> String {
    let mut rows = Vec::new();
    let mut first: Vec<&EdgeWaits> = waits.iter().filter(|one| one.unanswered > 0).collect();
    // Stable, and a caller that is not called itself before what it calls.
    first.sort_by_cached_key(|one| (is_called(one, waits), std::cmp::Reverse(one.unanswered)));
    let mut shown = BTreeSet::new();
    for one in first {
        follow(one, waits, 0, &mut shown, &mut rows);
    }
    let mut text = table::render(WAITS, &rows, room);
    write_findings(&mut text, waits.iter().filter_map(|one| one.finding.as_ref()));
    text
}

/// Whether the client of an edge is itself waited for.
fn is_called(one: &EdgeWaits, all: &[EdgeWaits]) -> bool {
    all.iter().any(|other| other.unanswered > 0 && calls(other, one))
}

/// Whether `next` is what the server of `one` calls.
fn calls(one: &EdgeWaits, next: &EdgeWaits) -> bool {
    (&one.server, &one.server_namespace) == (&next.client, &next.client_namespace)
}

/// The row of an edge, and those of what its server calls below it, each once.
fn follow<'a>(
    one: &'a EdgeWaits,
    all: &'a [EdgeWaits],
    depth: usize,
    shown: &mut BTreeSet<(&'a str, &'a str, &'a str, &'a str, u16)>,
    rows: &mut Vec<Vec<String>>,
) {
    let EdgeWaits { client, client_namespace, server, server_namespace, port, .. } = one;
    if !shown.insert((client_namespace, client, server_namespace, server, *port)) {
        return;
    }
    let seconds = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), human::duration);
    rows.push(vec![
        format!("{}{}", "  ".repeat(depth), human::full_name(client_namespace, client)),
        human::endpoint(server_namespace, server, *port),
        human::count(one.unanswered),
        human::count(one.late),
        seconds(one.at_least_seconds),
        seconds(one.at_most_seconds),
        human::quantile(one.request.p99_seconds),
    ]);
    for next in all.iter().filter(|next| calls(one, next)) {
        follow(next, all, depth + 1, shown, rows);
    }
}

fn write_findings<'a>(text: &mut String, findings: impl Iterator<Item = &'a Finding>) {
    for finding in findings {
        // Writing into a String cannot fail.
        let _ = write!(text, "\n! {} {}\n", finding.code, finding.title);
        if let Some(remediation) = &finding.remediation {
            let _ = writeln!(text, "  fix: {remediation}");
        }
        let _ = writeln!(text, "  more: portolan explain {}", finding.code);
    }
}

fn row(edge: &EdgeTimeouts) -> Vec<String> {
    let seconds = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), human::duration);
    let count = |times: &IdleTimes| human::count(times.count);
    let longest = |times: &IdleTimes| seconds(times.longest_seconds);
    let verdict = match edge.verdict {
        KeepAlive::Mismatch => "mismatch: resets ahead",
        KeepAlive::ServerFirst => "server first, never used so late",
        KeepAlive::ClientFirst => "ok: client first",
        KeepAlive::Unknown => "not known yet",
    };
    vec![
        human::full_name(&edge.client_namespace, &edge.client),
        human::endpoint(&edge.server_namespace, &edge.server, edge.port),
        seconds(edge.server_timeout_seconds),
        count(&edge.closed_by_server),
        seconds(edge.client_timeout_seconds),
        count(&edge.closed_by_client),
        longest(&edge.reuse),
        count(&edge.reuse),
        human::quantile(edge.request.p99_seconds),
        human::count(edge.idle_reuse_resets),
        verdict.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fixture::snapshot;
    use server::convert;

    #[test]
    fn a_mismatch_has_its_evidence_and_its_fix() {
        let answer = convert::timeouts(&snapshot(), WindowChoice::Start, &[]);
        assert_eq!(
            text(&answer, WindowChoice::Start, None),
            "\
CLIENT     SERVER         SERVER CLOSES  COUNT  CLIENT CLOSES  COUNT  USED AFTER  COUNT  REQUEST P99  RESET  VERDICT
prod/shop  postgres:5432         5.01 s      4              -      1         4 s      3       > 10 s      2  mismatch: resets ahead

! PP231 postgres:5432 closes connections that were idle for 5 s, prod/shop uses some after 4 s and more: a request will be reset
  fix: let prod/shop close idle connections after at most 4 s, or let postgres keep them for longer than prod/shop does
  more: portolan explain PP231

Requests without an answer:
CLIENT     SERVER         UNANSWERED  TOO LATE  WAITS AT LEAST  AT MOST  REQUEST P99
prod/shop  postgres:5432           3         0            10 s        -       > 10 s

totals since 2023-11-14T22:13:20Z (1 minute ago)
"
        );
    }

    #[test]
    fn without_idle_connections_the_text_says_so() {
        let answer = convert::timeouts(&snapshot(), WindowChoice::Last(60), &["nobody".to_owned()]);
        assert_eq!(
            text(&answer, WindowChoice::Last(60), None),
            "No connection was idle for half a second and then used again or closed; last 100 s.\n"
        );
    }

    #[test]
    fn a_chain_is_indented_and_who_waits_longer_than_its_caller_is_named() {
        let wait = |client: &str, server: &str, unanswered, at_least, at_most| EdgeWaits {
            client: client.to_owned(),
            client_namespace: String::new(),
            server: server.to_owned(),
            server_namespace: String::new(),
            port: 80,
            request: api_types::Latency {
                count: 9,
                sum_seconds: 9.0,
                p50_seconds: Some(1.0),
                p99_seconds: Some(2.0),
            },
            unanswered,
            late: unanswered,
            at_least_seconds: at_least,
            at_most_seconds: at_most,
            finding: None,
        };
        let mut answer =
            convert::timeouts(&snapshot(), WindowChoice::Start, &["nobody".to_owned()]);
        // A circle ends.
        answer.waits = vec![
            wait("api", "db", 0, Some(4.0), None),
            wait("db", "api", 0, Some(0.1), None),
            wait("web", "api", 5, Some(0.6), Some(4.0)),
        ];
        answer.waits[2].finding = Some(Finding::new(
            api_types::code::WAITS_LONGER,
            api_types::Severity::Info,
            "api",
            "web gives up on api:80".to_owned(),
        ));
        assert_eq!(
            text(&answer, WindowChoice::Start, None),
            "\
No connection was idle for half a second and then used again or closed.

Requests without an answer:
CLIENT  SERVER  UNANSWERED  TOO LATE  WAITS AT LEAST  AT MOST  REQUEST P99
web     api:80           5         5          600 ms      4 s          2 s
  api   db:80            0         0             4 s        -          2 s
    db  api:80           0         0          100 ms        -          2 s

! PP232 web gives up on api:80
  more: portolan explain PP232

totals since 2023-11-14T22:13:20Z (1 minute ago)
"
        );
    }
}
