//! Edges as hops of a request, the worst first.

use api_types::Edge;

use super::super::evidence::{Hop, Pair};
use super::Answers;
use super::edge::{is_pair, pair};
use crate::{edges, human};

impl Answers {
    /// Edges as hops, the worst first.
    pub(in super::super) fn hops(&self, wanted: impl Fn(&Edge) -> bool) -> Vec<Hop> {
        let seconds = self.edges.window.seconds.max(1.0);
        let busy = |edge: &&Edge| is_pair(edge) && !edge.other_side && wanted(edge);
        let mut hops: Vec<Hop> =
            self.edges.edges.iter().filter(busy).map(|edge| hop(edge, seconds)).collect();
        let key = |hop: &Hop| (hop.is_failing(), hop.p99_seconds.unwrap_or_default());
        hops.sort_by(|a, b| {
            let (a, b) = (key(a), key(b));
            b.0.cmp(&a.0).then(b.1.total_cmp(&a.1))
        });
        hops
    }
}

fn hop(edge: &Edge, seconds: f64) -> Hop {
    let Pair { client, server, port } = pair(edge);
    let stopping = edge.connects.get("stopping").copied().unwrap_or_default();
    let attempts = edge.connects.values().sum::<u64>() - stopping;
    let ok = edge.connects.get("ok").copied().unwrap_or_default();
    let why = edge
        .why
        .iter()
        .take(2)
        .map(|cause| format!("{} {}", human::count(cause.count), cause.text));
    Hop {
        client: client.map_or_else(String::new, |client| client.to_string()),
        server: server.to_string(),
        port,
        requests_per_second: edge.request.count as f64 / seconds,
        p50_seconds: edge.request.p50_seconds,
        p99_seconds: edge.request.p99_seconds,
        attempts,
        requests: edge.request.count,
        failed: attempts.saturating_sub(ok),
        unanswered: edge.unanswered,
        responses: edges::responses(edge),
        errors: edges::error_responses(edge),
        waits: edge.waits,
        why: why.collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::answers;
    use super::*;

    #[test]
    fn hops_that_fail_come_first() {
        let hops = answers().hops(|_| true);
        let failing: Vec<bool> = hops.iter().map(Hop::is_failing).collect();
        assert!(failing.is_sorted_by(|a, b| a >= b) && failing[0], "{failing:?}");
    }
}
