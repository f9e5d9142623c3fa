//! `portolan timeouts`: how long idle connections last and are used, and where that does not fit.

use std::fmt::Write as _;

use clap::Args;

use super::outcome::Report;
use super::table::{self, Column};
use super::target::Target;
use super::{Outcome, Output, human, known, print, window};
use api_types::{EdgeTimeouts, IdleTimes, KeepAlive, Timeouts, WindowChoice};

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
at least half a second.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct TimeoutsArgs {
    #[command(flatten)]
    target: Target,
    /// Services to show, at either end [default: all].
    services: Vec<String>,
    /// Time that the numbers cover: 1m, 5m (at most), or start, since the agent started. Pauses are
    /// mostly longer than minutes, so it is start by default.
    #[arg(long, value_name = "WINDOW", default_value = "start", value_parser = window::parse)]
    window: WindowChoice,
    #[command(flatten)]
    report: Report,
}

const fn left(title: &'static str) -> Column {
    Column { title, left: true, rank: 0 }
}

const fn right(title: &'static str, rank: u8) -> Column {
    Column { title, left: false, rank }
}

const COLUMNS: &[Column] = &[
    left("CLIENT"),
    left("SERVER"),
    right("SERVER CLOSES", 0),
    right("COUNT", 3),
    right("CLIENT CLOSES", 0),
    right("COUNT", 3),
    right("USED AFTER", 0),
    right("COUNT", 3),
    right("REQUEST P99", 2),
    right("RESET", 1),
    left("VERDICT"),
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
    known::check(
        &target.connection,
        services,
        &answer.edges.iter().flat_map(ends).collect::<Vec<_>>(),
    )?;
    match target.output {
        Output::Json => print(&format!("{}\n", body.trim_end()))?,
        Output::Text => print(&text(&answer, *window, table::room()))?,
    }
    Ok(report.of(answer.edges.iter().any(|edge| edge.verdict == KeepAlive::Mismatch)))
}

fn text(answer: &Timeouts, choice: WindowChoice, room: Option<usize>) -> String {
    let covered = window::covered(&answer.window, choice);
    if answer.edges.is_empty() {
        return format!(
            "No connection was idle for half a second and then used again or closed; {covered}.\n"
        );
    }
    let mut edges: Vec<&EdgeTimeouts> = answer.edges.iter().collect();
    // Stable: what is worse first, otherwise in the order of the answer.
    edges.sort_by_key(|edge| match edge.verdict {
        KeepAlive::Mismatch => 0,
        KeepAlive::ServerFirst => 1,
        KeepAlive::ClientFirst => 2,
        KeepAlive::Unknown => 3,
    });
    let rows: Vec<Vec<String>> = edges.iter().map(|edge| row(edge)).collect();
    let mut text = table::render(COLUMNS, &rows, room);
    for finding in edges.iter().filter_map(|edge| edge.finding.as_ref()) {
        // Writing into a String cannot fail.
        let _ = write!(text, "\n! {} {}\n", finding.code, finding.title);
        if let Some(remediation) = &finding.remediation {
            let _ = writeln!(text, "  fix: {remediation}");
        }
        let _ = writeln!(text, "  more: portolan explain {}", finding.code);
    }
    let _ = writeln!(text, "\n{covered}");
    text
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
}
