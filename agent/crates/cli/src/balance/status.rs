//! `portolan balance status`: shares, the health of each backend, and what has no second one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Context as _;
use api_types::{Backend, Balance, BalanceGroup, Edge, Edges, Role};
use serde::Serialize;

use super::counts::{FAILURES, mostly_fail};
use super::spread::{self, SpreadArgs};
use crate::{Outcome, Output, human, print, window};

/// A backend of a group, judged.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Health {
    client: String,
    server: String,
    backend: String,
    state: &'static str,
    reason: Option<String>,
}

#[derive(Serialize)]
struct Answer<'a> {
    balance: &'a Balance,
    health: Vec<Health>,
    single_points: Vec<String>,
}

pub(super) fn run(arguments: &SpreadArgs) -> anyhow::Result<Outcome> {
    let SpreadArgs { target, services, window, report } = arguments;
    let (_, balance) = spread::ask(arguments)?;
    let query = format!("{}&by=address", window::query(*window, &[]));
    let edges: Edges = client::read(&target.text(&format!("/api/v1/edges{query}"))?)?;
    let health: Vec<Health> = balance.groups.iter().flat_map(judged).collect();
    let single_points = single_points(&balance.groups, &edges.edges);
    let is_bad = balance.groups.iter().any(spread::is_unbalanced)
        || health.iter().any(|one| one.state == "failing");
    match target.output {
        Output::Json => {
            let answer = Answer { balance: &balance, health, single_points };
            print(&(serde_json::to_string(&answer).context("writing JSON")? + "\n"))?;
        }
        Output::Text => {
            let mut text = spread::text(&balance, *window, !services.is_empty());
            text.push_str(&listed("Unhealthy backends", &unhealthy(&health)));
            text.push_str(&listed("Single points of failure", &single_points));
            print(&text)?;
        }
    }
    Ok(report.of(is_bad))
}

fn listed(title: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return format!("{title}: none\n");
    }
    let mut text = format!("{title}:\n");
    for line in lines {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "  {line}");
    }
    text
}

fn unhealthy(health: &[Health]) -> Vec<String> {
    let line = |one: &Health| {
        let reason = one.reason.as_deref().unwrap_or(one.state);
        format!("{} of {}, from {}: {reason}", one.backend, one.server, one.client)
    };
    health.iter().filter(|one| !matches!(one.state, "ok" | "idle")).map(line).collect()
}

/// The backends of a group, and how they do.
fn judged(group: &BalanceGroup) -> Vec<Health> {
    let client = human::full_name(&group.client_namespace, &group.client);
    let server = human::endpoint(&group.server_namespace, &group.server, group.port);
    let health = |backend: &Backend| {
        let Backend { connections, failed, requests, unanswered, .. } = backend;
        let (attempts, asked) = (connections + failed, requests + unanswered);
        let (state, reason) = if mostly_fail(*connections, *failed) {
            ("failing", Some(format!("{failed} of {attempts} connects failed")))
        } else if *unanswered >= FAILURES && unanswered * 2 > asked {
            ("failing", Some(format!("{unanswered} of {asked} requests had no response")))
        } else if failed + unanswered > 0 {
            let reason = format!(
                "{failed} of {attempts} connects failed, {unanswered} of {asked} requests had no response"
            );
            ("degraded", Some(reason))
        } else if connections + requests == 0 {
            ("idle", None)
        } else {
            ("ok", None)
        };
        let (client, server) = (client.clone(), server.clone());
        Health { client, server, backend: backend.backend.clone(), state, reason }
    };
    group.backends.iter().map(health).collect()
}

/// What takes a service with it if it ends: an only backend, an only balancer, an only host.
fn single_points(groups: &[BalanceGroup], edges: &[Edge]) -> Vec<String> {
    type Server<'a> = (&'a str, &'a str, u16);
    let mut backends: BTreeMap<Server<'_>, BTreeSet<&str>> = BTreeMap::new();
    let mut clients: BTreeMap<Server<'_>, BTreeSet<(&str, &str)>> = BTreeMap::new();
    for group in groups {
        let server = (group.server_namespace.as_str(), group.server.as_str(), group.port);
        let used = group.backends.iter().filter(|one| one.connections + one.requests > 0);
        backends.entry(server).or_default().extend(used.map(|one| one.backend.as_str()));
        let client = (group.client_namespace.as_str(), group.client.as_str());
        clients.entry(server).or_default().insert(client);
    }
    // Addresses that processes of this host accept connections at.
    let here: BTreeSet<&str> = edges
        .iter()
        .filter(|edge| edge.role == Role::Server)
        .filter_map(|edge| edge.address.as_deref())
        .collect();
    let mut lines = Vec::new();
    for (server, addresses) in &backends {
        let (namespace, name, port) = *server;
        let title = human::endpoint(namespace, name, port);
        let mut listed = addresses.iter();
        match (listed.next(), listed.next()) {
            (Some(only), None) => lines.push(format!("{title} has one backend, {only}")),
            (Some(_), Some(_)) if addresses.iter().all(|address| here.contains(address)) => {
                lines.push(format!(
                    "{title}: its {} backends are all on this host",
                    addresses.len()
                ));
            }
            _ => {}
        }
        let mut callers = clients.get(server).into_iter().flatten();
        if addresses.len() > 1
            && let (Some(balancer), None) = (callers.next(), callers.next())
            && let Some(instances) = instances(*balancer, &backends)
            && instances == 1
        {
            let balancer = human::full_name(balancer.0, balancer.1);
            lines.push(format!("{title} is reached through one instance of {balancer} only"));
        }
    }
    lines
}

/// At how many addresses clients reach a service; `None` if it has no clients itself.
fn instances(
    service: (&str, &str),
    backends: &BTreeMap<(&str, &str, u16), BTreeSet<&str>>,
) -> Option<usize> {
    let own = backends.iter().filter(|((namespace, name, _), _)| (*namespace, *name) == service);
    own.map(|(_, addresses)| addresses.len()).max().filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::WindowChoice;
    use model::fixture::snapshot;
    use server::convert::{self, EdgeQuery};

    fn group(client: &str, server: &str, backends: &[(&str, u64, u64)]) -> BalanceGroup {
        let mut group = convert::balance(&snapshot(), Some(300), &[]).groups.remove(0);
        let template = group.backends.remove(0);
        client.clone_into(&mut group.client);
        server.clone_into(&mut group.server);
        group.client_namespace.clear();
        group.server_namespace.clear();
        let backend = |(address, connections, failed): &(&str, u64, u64)| Backend {
            backend: (*address).to_owned(),
            connections: *connections,
            failed: *failed,
            requests: 0,
            unanswered: 0,
            ..template.clone()
        };
        group.backends = backends.iter().map(backend).collect();
        group
    }

    #[test]
    fn single_points_are_named_and_spares_are_not() {
        let groups = [
            group("wrk", "nginx", &[("10.0.0.9:5432", 5, 0)]),
            group("nginx", "api", &[("10.0.0.1:5432", 5, 0), ("10.0.0.2:5432", 5, 0)]),
        ];
        assert_eq!(
            single_points(&groups, &[]),
            [
                "api:5432 is reached through one instance of nginx only",
                "nginx:5432 has one backend, 10.0.0.9:5432",
            ]
        );
        let query = EdgeQuery::Rows(WindowChoice::Start);
        let mut edge = convert::edges(&snapshot(), query, |_| true).edges.remove(0);
        edge.role = Role::Server;
        let at = |address: &str| Edge { address: Some(address.to_owned()), ..edge.clone() };
        let here = [at("10.0.0.1:5432"), at("10.0.0.2:5432")];
        assert!(
            single_points(&groups, &here)
                .contains(&"api:5432: its 2 backends are all on this host".to_owned())
        );
        let spare = group("wrk", "nginx", &[("10.0.0.9:5432", 5, 0), ("10.0.0.8:5432", 5, 0)]);
        let lines = single_points(&[spare, groups[1].clone()], &here[..1]);
        assert_eq!(lines, Vec::<String>::new());
    }

    #[test]
    fn a_backend_that_fails_is_told_from_one_without_traffic() {
        let group =
            group("nginx", "api", &[("a:1", 5, 0), ("b:1", 1, 9), ("c:1", 0, 0), ("d:1", 9, 1)]);
        let health = judged(&group);
        let states: Vec<_> = health.iter().map(|one| one.state).collect();
        assert_eq!(states, ["ok", "failing", "idle", "degraded"]);
        assert_eq!(
            unhealthy(&health),
            [
                "b:1 of api:5432, from nginx: 9 of 10 connects failed",
                "d:1 of api:5432, from nginx: 1 of 10 connects failed, 0 of 0 requests had no response",
            ]
        );
    }
}
