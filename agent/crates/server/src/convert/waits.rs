//! After how long callers give up on requests, along a chain of calls.

use std::collections::{BTreeMap, BTreeSet};

use agent_common::histogram::Histogram;
use api_types::{EdgeWaits, Finding, Severity, code};
use model::client_timeout::{ClientTimeout, ENOUGH, longer_than};
use model::full_name::FullName;
use model::recent::WindowRow;
use model::service::Service;
use model::snapshot::Role;

use super::ToApi;

/// Calls of calls that are followed.
const DEEPEST: usize = 8;

/// A service by its namespace and its name.
type Name<'a> = (&'a str, &'a str);
/// Client, server and port.
type Ends<'a> = (Name<'a>, Name<'a>, u16);

/// What both sides of the same connections have counted.
struct Edge<'a> {
    client: &'a Service,
    server: &'a Service,
    unanswered: u64,
    /// Durations on the client's side.
    requests: Histogram,
    /// The same on the server's side, if the agent sees it.
    at_server: Option<Histogram>,
}

/// Edges with requests that were not answered, at whose ends is a service that `is_named`, and what
/// their servers call.
pub(super) fn waits(rows: &[WindowRow], is_named: impl Fn(&Service) -> bool) -> Vec<EdgeWaits> {
    let chosen = chosen(rows, is_named);
    let mut edges: BTreeMap<Ends<'_>, Edge<'_>> = BTreeMap::new();
    // Rows of several names that were asked for (virtual services) are one edge.
    for row in rows.iter().filter(|row| is_client(row) && chosen.contains(&ends(row))) {
        let edge = edges.entry(ends(row)).or_insert_with(|| Edge {
            client: &row.labels.client,
            server: &row.labels.server,
            unanswered: 0,
            requests: Histogram::EMPTY,
            at_server: None,
        });
        edge.unanswered = edge.unanswered.saturating_add(row.counters.unanswered);
        edge.requests.merge(&row.counters.request);
    }
    for row in rows.iter().filter(|row| row.is_other_side && row.labels.role == Role::Server) {
        if let Some(edge) = edges.get_mut(&ends(row)) {
            edge.at_server.get_or_insert(Histogram::EMPTY).merge(&row.counters.request);
        }
    }
    edges.iter().map(|(ends, edge)| edge.to_api(ends.2, &edges)).collect()
}

/// The ends of edges with unanswered requests, then of what their servers call, and so on.
fn chosen<'a>(rows: &'a [WindowRow], is_named: impl Fn(&Service) -> bool) -> BTreeSet<Ends<'a>> {
    let clients = || rows.iter().filter(|row| is_client(row));
    let named = |row: &&WindowRow| is_named(&row.labels.client) || is_named(&row.labels.server);
    let first = clients().filter(|row| row.counters.unanswered > 0).filter(named);
    let mut chosen: BTreeSet<Ends<'a>> = first.map(ends).collect();
    for _ in 0..DEEPEST {
        let servers: BTreeSet<Name<'a>> = chosen.iter().map(|(_, server, _)| *server).collect();
        let before = chosen.len();
        let called = clients().map(ends).filter(|(client, ..)| servers.contains(client));
        chosen.extend(called);
        if chosen.len() == before {
            break;
        }
    }
    chosen
}

/// Whether a row is the client's side, and no user can have made it up.
fn is_client(row: &WindowRow) -> bool {
    let labels = &row.labels;
    labels.role == Role::Client && labels.port != 0 && labels.unverified_user.is_none()
}

fn ends(row: &WindowRow) -> Ends<'_> {
    let labels = &*row.labels;
    (
        (&*labels.client.namespace, &*labels.client.name),
        (&*labels.server.namespace, &*labels.server.name),
        labels.port,
    )
}

// === impl Edge ===

impl Edge<'_> {
    fn timeout(&self) -> ClientTimeout {
        ClientTimeout::new(&self.requests, self.at_server.as_ref(), self.unanswered)
    }

    fn to_api(&self, port: u16, all: &BTreeMap<Ends<'_>, Edge<'_>>) -> EdgeWaits {
        let Self { client, server, unanswered, requests, .. } = self;
        let timeout = self.timeout();
        let seconds = |us: Option<u64>| us.map(|us| us as f64 / 1e6);
        EdgeWaits {
            client: client.name.to_string(),
            client_namespace: client.namespace.to_string(),
            server: server.name.to_string(),
            server_namespace: server.namespace.to_string(),
            port,
            request: requests.to_api(),
            unanswered: *unanswered,
            late: timeout.late,
            at_least_seconds: seconds(timeout.at_least_us),
            at_most_seconds: seconds(timeout.at_most_us),
            finding: self.finding(port, timeout, all),
        }
    }

    /// What the server calls and waits longer for than its client has waited for any response.
    fn finding(
        &self,
        port: u16,
        timeout: ClientTimeout,
        all: &BTreeMap<Ends<'_>, Edge<'_>>,
    ) -> Option<Finding> {
        let ClientTimeout { answered_within_us, late, .. } = timeout;
        let within = answered_within_us.filter(|_| late >= ENOUGH)?;
        let called = all.iter().filter(|(_, other)| {
            other.client.name == self.server.name && other.client.namespace == self.server.namespace
        });
        let slow = called
            .map(|((.., port), other)| (*port, other, longer_than(&other.requests, within)))
            .filter(|(.., count)| *count >= ENOUGH);
        let (called_port, called, count) = slow.max_by_key(|(.., count)| *count)?;
        let (client, server) = (FullName::from(self.client), FullName::from(self.server));
        let called = FullName::from(called.server);
        let within = match within {
            0..1_000_000 => format!("{} ms", within / 1000),
            _ => format!("{} s", (within as f64 / 1e5).round() / 10.0),
        };
        let title = format!(
            "{server} answered {late} requests at port {port} after {client} had given up, and waits longer for {called}:{called_port}: {count} requests there took more than {within}, longer than any response that {client} waited for"
        );
        let finding = Finding::new(code::WAITS_LONGER, Severity::Info, &server.to_string(), title)
            .with("answered_within", within.as_str())
            .with("late", late)
            .with("unanswered", self.unanswered)
            .with("called", format!("{called}:{called_port}").as_str())
            .with("longer", count);
        Some(finding.remediation(format!(
            "let {server} give up on {called} before {client} gives up on {server} (timeouts have to shrink from caller to callee), or let {client} wait longer"
        )))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use agent_common::counters::EdgeCounters;
    use model::service::Source;
    use model::snapshot::EdgeLabels;

    use super::*;

    const MS: u64 = 1000;

    fn row(client: &str, server: &str, role: Role, durations_ms: &[u64]) -> WindowRow {
        let service = |name: &str| Service::new(name, Source::Process);
        let mut counters = EdgeCounters::ZERO;
        for ms in durations_ms {
            counters.request.observe(ms * MS);
        }
        WindowRow {
            labels: Arc::new(EdgeLabels::new(service(client), service(server), 80, role)),
            counters: Arc::new(counters),
            active: 0,
            queues: None,
            is_other_side: role == Role::Server,
            address: None,
        }
    }

    fn unanswered(mut row: WindowRow, count: u64) -> WindowRow {
        Arc::make_mut(&mut row.counters).unanswered = count;
        row
    }

    fn all(rows: &[WindowRow]) -> Vec<EdgeWaits> {
        waits(rows, |_| true)
    }

    /// web waits for a second, api for as long as db takes.
    fn chain() -> Vec<WindowRow> {
        vec![
            unanswered(row("web", "api", Role::Client, &[20, 700]), 5),
            row("web", "api", Role::Server, &[19, 699, 3_900, 3_900, 3_900]),
            row("api", "db", Role::Client, &[5, 600, 3_800, 3_800, 4_500, 4_500, 4_500]),
            row("db", "disk", Role::Client, &[2]),
            row("other", "db", Role::Client, &[3]),
        ]
    }

    #[test]
    fn a_chain_is_followed_from_what_was_not_answered() {
        let found = all(&chain());
        let ends: Vec<_> =
            found.iter().map(|one| (one.client.as_str(), one.server.as_str())).collect();
        assert_eq!(ends, [("api", "db"), ("db", "disk"), ("web", "api")]);
        let [of_api, _, of_web] = &found[..] else { panic!("{found:?}") };
        assert_eq!((of_web.at_least_seconds, of_web.at_most_seconds), (Some(0.6), Some(4.0)));
        assert_eq!((of_web.unanswered, of_web.late), (5, 3));
        assert_eq!((of_api.at_least_seconds, of_api.at_most_seconds), (Some(4.0), None));
        // Every request was answered.
        assert_eq!(all(&chain()[1..]), []);
        let of = |name: &str| waits(&chain(), |service| *service.name == *name).len();
        assert_eq!((of("web"), of("api"), of("db")), (3, 3, 0));
    }

    #[test]
    fn who_waits_longer_than_its_caller_is_named_with_the_fix() {
        let finding = |rows: &[WindowRow]| {
            let found = all(rows);
            let finding = found.into_iter().find_map(|one| Some((one.client, one.finding?)));
            finding.map(|(client, finding)| {
                assert_eq!(client, "web");
                finding
            })
        };
        let found = finding(&chain()).expect("a finding");
        assert_eq!((found.code.as_str(), found.subject.as_str()), ("PP232", "api"));
        let title = "api answered 3 requests at port 80 after web had given up, and waits longer for db:80: 5 requests there took more than 800 ms, longer than any response that web waited for";
        assert_eq!(found.title, title);
        assert!(found.remediation.is_some_and(|fix| fix.starts_with("let api give up on db")));
        // What it calls is fast, or the server's side is not seen.
        let mut early = chain();
        early[2] = row("api", "db", Role::Client, &[5, 600, 790, 790, 790]);
        assert_eq!(finding(&early), None);
        let mut unseen = chain();
        unseen.remove(1);
        assert_eq!(finding(&unseen), None);
        // Twice is chance.
        let mut rare = chain();
        rare[2] = row("api", "db", Role::Client, &[5, 4_500, 4_500]);
        assert_eq!(finding(&rare), None);
    }

    #[test]
    fn rows_that_a_user_can_have_made_up_are_left_out() {
        let mut rows = chain();
        for row in &mut rows {
            Arc::make_mut(&mut row.labels).unverified_user = Some(1000);
        }
        assert_eq!(all(&rows), []);
    }
}
