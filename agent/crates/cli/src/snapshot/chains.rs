//! Whose requests had no response, followed from service to service as the agent does.

use std::collections::BTreeSet;

use api_types::EdgeWaits;

use super::question::is_one_of;

/// A service: its namespace and its name.
pub(super) type Name<'a> = (&'a str, &'a str);

/// The ends of edges on which requests had no response, at whose ends is one of `services`; then of what
/// their servers call, and so on, as far as the agent follows them.
pub(super) fn chains<'a>(
    all: &'a [EdgeWaits],
    services: &[String],
) -> BTreeSet<(Name<'a>, Name<'a>, u16)> {
    /// As in the agent.
    const DEEPEST: usize = 8;
    let is_named = |(client, server, _): &(Name<'_>, Name<'_>, u16)| {
        is_one_of(*client, services) || is_one_of(*server, services)
    };
    let first = all.iter().filter(|edge| edge.unanswered > 0).map(ends).filter(is_named);
    let mut chosen: BTreeSet<_> = first.collect();
    for _ in 0..DEEPEST {
        let servers: BTreeSet<Name<'_>> = chosen.iter().map(|(_, server, _)| *server).collect();
        chosen.extend(all.iter().map(ends).filter(|(client, ..)| servers.contains(client)));
    }
    chosen
}

/// The ends of an edge.
pub(super) fn ends(edge: &EdgeWaits) -> (Name<'_>, Name<'_>, u16) {
    let client = (&*edge.client_namespace, &*edge.client);
    (client, (&*edge.server_namespace, &*edge.server), edge.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(edges: &[(&str, &str, u64)]) -> Vec<EdgeWaits> {
        let edge = |(client, server, unanswered): &(&str, &str, u64)| {
            serde_json::json!({
                "client": client, "client_namespace": "", "server": server,
                "server_namespace": "shop", "port": 80, "unanswered": unanswered, "late": 0,
                "request": {"count": 0, "sum_seconds": 0.0, "p50_seconds": null, "p99_seconds": null},
                "at_least_seconds": null, "at_most_seconds": null,
            })
        };
        let edges = edges.iter().map(edge).collect();
        serde_json::from_value(edges).expect("edges")
    }

    #[test]
    fn unanswered_requests_are_followed_to_what_their_servers_call() {
        let mut all = waits(&[
            ("web", "api", 5),
            ("api", "db", 0),
            ("db", "disk", 0),
            ("other", "db", 0),
            ("job", "queue", 1),
        ]);
        // Servers have a namespace, and are clients in it.
        for edge in &mut all[1..3] {
            "shop".clone_into(&mut edge.client_namespace);
        }
        let check = |services: &[&str], expected: &[&str]| {
            let services: Vec<String> = services.iter().map(|one| (*one).to_owned()).collect();
            let found = chains(&all, &services);
            let found: Vec<String> = found
                .iter()
                .map(|((_, client), (_, server), _)| format!("{client}>{server}"))
                .collect();
            assert_eq!(found, expected, "{services:?}");
        };
        check(&["web"], &["web>api", "api>db", "db>disk"]);
        check(&["shop/api"], &["web>api", "api>db", "db>disk"]);
        check(&["shop/queue", "nobody"], &["job>queue"]);
        // Nothing is unanswered there.
        check(&["disk"], &[]);
        check(&["other/web"], &[]);
    }
}
