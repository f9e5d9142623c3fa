//! Edges by their ends: each pair of services and a port once, with what both sides counted.

use std::collections::BTreeMap;

use api_types::{Cause, Change, Edge, Kind, Role, Source};

use super::name::Name;
use crate::edges;

/// The rows of two services and a port.
#[derive(Clone, Debug)]
pub(super) struct Pair<'a> {
    pub client: Name,
    pub server: Name,
    pub port: u16,
    /// Rows that have each connection once.
    once: Vec<&'a Edge>,
    /// The other side of the same connections.
    others: Vec<&'a Edge>,
    /// Whether clients are those of the internet.
    pub is_internet: bool,
}

/// The pairs in an answer, without listeners, resets without a connection, and what a user can have
/// made up.
pub(super) fn pairs(edges: &[Edge]) -> Vec<Pair<'_>> {
    let mut pairs: BTreeMap<(Name, Name, u16), Pair<'_>> = BTreeMap::new();
    for edge in edges.iter().filter(|edge| is_of_a_pair(edge)) {
        let client = Name::new(&edge.client_namespace, &edge.client);
        let server = Name::new(&edge.server_namespace, &edge.server);
        let key = (client.clone(), server.clone(), edge.port);
        let pair = pairs.entry(key).or_insert_with(|| Pair {
            client,
            server,
            port: edge.port,
            once: Vec::new(),
            others: Vec::new(),
            is_internet: edge.client_kind == Kind::Internet,
        });
        if edge.other_side { &mut pair.others } else { &mut pair.once }.push(edge);
    }
    pairs.into_values().collect()
}

/// Whether a row is about a client and its server.
fn is_of_a_pair(edge: &Edge) -> bool {
    let is_without_client = edge.client == "any" && edge.client_source == Source::Unknown;
    edge.role != Role::Listener && edge.unverified_user.is_none() && !is_without_client
}

impl<'a> Pair<'a> {
    /// Its name in titles.
    pub fn subject(&self) -> String {
        format!("{} → {}", self.client, self.server.at(self.port))
    }

    /// Connects with one of these results.
    pub fn connects(&self, results: &[&str]) -> u64 {
        let of = |edge: &&Edge| {
            results.iter().filter_map(|result| edge.connects.get(*result)).sum::<u64>()
        };
        self.once.iter().map(of).sum()
    }

    /// Connects that count: those to a server that stops do not.
    pub fn attempts(&self) -> u64 {
        let of = |edge: &&Edge| edge.connects.values().sum::<u64>();
        let all: u64 = self.once.iter().map(of).sum();
        all.saturating_sub(self.connects(&["stopping"]))
    }

    /// Retransmitted SYNs.
    pub fn syn_retransmits(&self) -> u64 {
        let of = |edge: &&Edge| edge.retransmits_by_phase.get("syn").copied();
        self.once.iter().filter_map(of).sum()
    }

    /// Requests with a response.
    pub fn requests(&self) -> u64 {
        self.once.iter().map(|edge| edge.request.count).sum()
    }

    /// Requests without one, by the side that knows of more.
    pub fn unanswered(&self) -> u64 {
        let sum = |rows: &[&Edge]| rows.iter().map(|edge| edge.unanswered).sum::<u64>();
        sum(&self.once).max(sum(&self.others))
    }

    /// Responses that are errors of the server, and all of which the status is known; seen on the
    /// server's side, and shown on either.
    pub fn error_responses(&self) -> (u64, u64) {
        let all =
            |edge: &&Edge| edge.responses.values().flat_map(|counts| counts.values()).sum::<u64>();
        let of = |rows: &[&Edge]| {
            (rows.iter().copied().map(edges::error_responses).sum(), rows.iter().map(all).sum())
        };
        of(&self.once).max(of(&self.others))
    }

    /// Requests that may be long polling.
    pub fn waits(&self) -> u64 {
        let sum = |rows: &[&Edge]| rows.iter().map(|edge| edge.waits).sum::<u64>();
        sum(&self.once).max(sum(&self.others))
    }

    /// Seconds that all requests took.
    pub fn request_seconds(&self) -> f64 {
        self.once.iter().map(|edge| edge.request.sum_seconds).sum()
    }

    /// The 99th percentile of request latency, of the worst row.
    pub fn p99(&self) -> Option<f64> {
        worst(self.once.iter().filter_map(|edge| edge.request.p99_seconds))
    }

    /// The same as the server's own side sees it, if it is another row.
    pub fn server_p99(&self) -> Option<f64> {
        worst(self.others.iter().filter_map(|edge| edge.request.p99_seconds))
    }

    /// Causes in WHY whose name passes.
    pub fn causes(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        let causes = self.once.iter().flat_map(|edge| &edge.why);
        causes.filter(|Cause { cause, .. }| wanted(cause)).map(|cause| cause.count).sum()
    }

    /// Retransmitted segments of both sides, and the fewest that they can have sent.
    pub fn segments(&self) -> (u64, f64) {
        let rows = || self.once.iter().chain(&self.others).copied();
        (rows().map(|edge| edge.retransmits).sum(), rows().map(segments).sum())
    }

    /// Every row.
    pub fn rows(&self) -> impl Iterator<Item = &'a Edge> {
        self.once.iter().chain(&self.others).copied()
    }

    /// What changed at its services before.
    pub fn changes(&self) -> impl Iterator<Item = &'a Change> {
        self.rows().flat_map(|edge| &edge.changes_before)
    }
}

/// The fewest segments that the side of a row can have sent.
pub fn segments(edge: &Edge) -> f64 {
    let Edge { retransmits, sent_bytes, request, .. } = edge;
    let data = *sent_bytes as f64 / super::limits::SEGMENT_BYTES;
    *retransmits as f64 + data + request.count as f64
}

fn worst(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::WindowChoice;
    use model::fixture::snapshot;
    use server::convert::{self, EdgeQuery};

    #[test]
    fn a_pair_has_its_rows_once_and_nothing_that_a_user_made_up() {
        let query = EdgeQuery::Rows(WindowChoice::Last(60));
        let mut answer = convert::edges(&snapshot(), query, |_| true);
        let client =
            answer.edges.iter().find(|edge| edge.server == "postgres" && edge.client == "shop");
        let client = client.expect("an edge").clone();
        let other = Edge { role: Role::Server, other_side: true, unanswered: 7, ..client.clone() };
        let invented = Edge { unverified_user: Some(1000), client: "x".into(), ..client };
        answer.edges.extend([other, invented]);
        let pairs = pairs(&answer.edges);
        let subjects: Vec<_> = pairs.iter().map(Pair::subject).collect();
        assert_eq!(subjects, ["internet → prod/shop:8080", "prod/shop → postgres:5432"]);
        let pair = &pairs[1];
        assert_eq!((pair.attempts(), pair.connects(&["refused", "timeout"])), (13, 3));
        assert_eq!((pair.requests(), pair.unanswered(), pair.waits()), (7, 7, 2));
        assert_eq!((pair.segments().0, pair.syn_retransmits()), (6, 1));
        assert_eq!((pair.p99(), pair.server_p99()), (Some(10.0), Some(10.0)));
        assert_eq!(pair.causes(|cause| cause.starts_with("reset_")), 3);
        assert!(pairs[0].is_internet && !pair.is_internet);
    }
}
