//! What the upper part of the screen says of all hosts: totals, and problems by their cause.

use api_types::{Edge, Role, Severity};
use cli::judgement::{Found, segments};
use cli::words;
use serde::Serialize;

use crate::agents::{Host, Look};
use crate::spark::{self, Merge, Step};
use crate::views::{busy_seconds, is_own, steps_of};

/// Cells of a sparkline.
const CELLS: usize = 10;

/// Totals over the window, each connection once, without Portolan's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Totals {
    pub requests_per_second: f64,
    /// Failed connects, unanswered requests and error responses, of all connects and requests; null
    /// without any.
    pub failed_ratio: Option<f64>,
    /// The highest 99th percentile of an edge.
    pub highest_p99_seconds: Option<f64>,
    pub open_connections: u64,
    pub connections_per_second: f64,
    pub retransmitted_ratio: Option<f64>,
}

/// A problem that follows from no other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Problem<'a> {
    pub host: usize,
    pub found: &'a Found,
    /// Findings of the same host that follow from it.
    pub effects: usize,
}

/// One number of the totals, and its last minute.
pub(crate) struct Total {
    pub name: &'static str,
    pub value: String,
    pub spark: String,
    pub is_bad: bool,
}

/// Edges that count in totals.
fn edges(look: &Look) -> impl Iterator<Item = &Edge> {
    let counts = |edge: &&Edge| !edge.other_side && edge.role != Role::Listener && !is_own(edge);
    look.answers.edges.edges.iter().filter(counts)
}

fn looks(hosts: &[Host]) -> impl Iterator<Item = &Look> {
    hosts.iter().filter_map(|host| host.look.as_deref())
}

// === impl Totals ===

impl Totals {
    pub fn of(hosts: &[Host]) -> Self {
        let mut totals = Self::default();
        let (mut bad, mut all, mut again, mut sent) = (0_u64, 0_u64, 0_u64, 0.0);
        for look in looks(hosts) {
            let seconds = busy_seconds(look);
            for edge in edges(look) {
                let failed = words::failed(edge).saturating_add(edge.unanswered);
                let connected = words::connected(edge);
                totals.requests_per_second += edge.request.count as f64 / seconds;
                totals.connections_per_second += connected as f64 / seconds;
                totals.open_connections = totals.open_connections.saturating_add(edge.active);
                bad = bad.saturating_add(failed).saturating_add(words::error_responses(edge));
                all = all.saturating_add(failed + connected + edge.request.count);
                again = again.saturating_add(edge.retransmits);
                sent += segments(edge);
                let p99 = edge.request.p99_seconds;
                totals.highest_p99_seconds = match (totals.highest_p99_seconds, p99) {
                    (Some(a), Some(b)) => Some(a.max(b)),
                    (a, b) => a.or(b),
                };
            }
        }
        totals.failed_ratio = (all > 0).then(|| (bad as f64 / all as f64).min(1.0));
        totals.retransmitted_ratio = (sent > 0.0).then(|| again as f64 / sent);
        totals
    }

    /// In words.
    pub fn shown(&self, hosts: &[Host]) -> Vec<Total> {
        let line = |merge, number: fn(&Step) -> f64| {
            // The clocks of hosts differ: each has its own last minute.
            let until = looks(hosts).map(|look| look.trend.until).fold(0.0, f64::max);
            let observed = looks(hosts).map(|look| look.trend.observed_seconds);
            let observed = observed.fold(0.0, f64::max);
            let steps: Vec<Step> = looks(hosts)
                .flat_map(|look| {
                    let shift = until - look.trend.until;
                    let steps = edges(look).flat_map(|edge| steps_of(look, edge));
                    steps.map(move |step| Step { since: step.since + shift, ..*step })
                })
                .collect();
            spark::line(steps.iter(), until, observed, CELLS, merge, number)
        };
        let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), words::percent);
        let is_some = |share: Option<f64>| share.is_some_and(|share| share > 0.0);
        let Self { failed_ratio, highest_p99_seconds, open_connections, .. } = *self;
        vec![
            Total {
                name: "REQ",
                value: format!("{}/s", words::rate(self.requests_per_second)),
                spark: line(Merge::Sum, |step| step.requests as f64),
                is_bad: false,
            },
            Total {
                name: "ERR",
                value: share(failed_ratio),
                spark: line(Merge::Sum, |step| step.failed as f64),
                is_bad: is_some(failed_ratio),
            },
            Total {
                name: "P99 max",
                value: words::quantile(highest_p99_seconds),
                spark: line(Merge::Highest, |step| step.p99.unwrap_or_default()),
                is_bad: false,
            },
            Total {
                name: "CONN",
                value: format!(
                    "{} open +{}/s",
                    words::count(open_connections),
                    words::rate(self.connections_per_second)
                ),
                spark: String::new(),
                is_bad: false,
            },
            Total {
                name: "RETR",
                value: share(self.retransmitted_ratio),
                spark: line(Merge::Sum, |step| step.retransmits as f64),
                is_bad: false,
            },
        ]
    }
}

/// Problems that follow from no other, worst first.
pub(crate) fn problems(hosts: &[Host]) -> Vec<Problem<'_>> {
    let mut problems = Vec::new();
    for (host, one) in hosts.iter().enumerate() {
        let Some(look) = one.look.as_deref() else { continue };
        let causes: Vec<_> = look.found.iter().filter_map(Found::cause).collect();
        let is_root =
            |found: &&Found| found.finding.severity > Severity::Info && found.cause().is_none();
        for found in look.found.iter().filter(is_root) {
            let (code, subject) = (&found.finding.code, &found.finding.subject);
            let effects = causes.iter().filter(|(of, about)| of == code && about == subject);
            problems.push(Problem { host, found, effects: effects.count() });
        }
    }
    // Stable: of one host they are in the order of its report.
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.found.finding.severity));
    problems
}
