//! What the agent knows of a pair: its answers, and the part of them that matters.

mod counts;
mod edge;
mod hops;
mod one_pair;

use std::cmp::Reverse;
use std::net::SocketAddr;

use api_types::{
    Balance, Conflicts, Edges, Events, Kind, Ports, Role, Segments, Timestamp, WindowChoice,
};

use self::edge::{find, is_of, is_pair};
use super::evidence::{Name, Pair};
use crate::target::Connection;
use crate::window;

pub(super) use self::edge::pair;

/// Changes within this time before now may explain a fault.
const BEFORE_SECONDS: f64 = 600.0;

/// The answers of the agent.
pub(super) struct Answers {
    /// Length of the requested window. Edges cover less of it if the agent started later.
    pub(super) asked_seconds: f64,
    /// Over the window.
    pub(super) edges: Edges,
    /// The same by the server's address.
    pub(super) by_address: Edges,
    /// Since the agent started.
    pub(super) usual: Edges,
    pub(super) ports: Ports,
    /// Failed binds.
    pub(super) conflicts: Conflicts,
    /// How load spreads over backends, over the window.
    pub(super) balance: Balance,
    /// `None` if none are declared.
    pub(super) segments: Option<Segments>,
    /// Changes of services and backends.
    pub(super) changes: Events,
}

// === impl Answers ===

impl Answers {
    /// Requests all of them.
    pub(super) fn ask(agent: &Connection, choice: WindowChoice) -> anyhow::Result<Self> {
        let over = window::query(choice, &[]);
        let edges: Edges = client::read(&agent.text(&format!("/api/v1/edges{over}"))?)?;
        let since = edges.timestamp.seconds() - BEFORE_SECONDS;
        let since = window::encoded(&[Timestamp::from_seconds(since).to_string()]);
        Ok(Self {
            asked_seconds: match choice {
                WindowChoice::Last(seconds) => seconds as f64,
                WindowChoice::Start => f64::INFINITY,
            },
            by_address: client::read(&agent.text(&format!("/api/v1/edges{over}&by=address"))?)?,
            usual: client::read(&agent.text("/api/v1/edges?window=start")?)?,
            ports: client::read(&agent.text("/api/v1/ports")?)?,
            conflicts: client::read(&agent.text("/api/v1/conflicts")?)?,
            balance: client::read(&agent.text(&format!("/api/v1/balance{over}"))?)?,
            segments: match agent.text("/api/v1/segments") {
                Ok(body) => Some(client::read(&body)?),
                Err(error) if crate::class(&error) == Some(client::Class::Refused) => None,
                Err(error) => return Err(error),
            },
            changes: client::read(
                &agent.text(&format!("/api/v1/events?kind=service,backend&since={since}"))?,
            )?,
            edges,
        })
    }

    /// Every pair with a connection, each once.
    pub(super) fn pairs(&self) -> Vec<Pair> {
        let mut pairs: Vec<Pair> =
            self.edges.edges.iter().filter(|edge| is_pair(edge)).map(pair).collect();
        pairs.sort();
        pairs.dedup();
        pairs
    }

    /// The name to resolve, if the server is known by its DNS name.
    pub(super) fn dns_name(&self, pair: &Pair) -> Option<String> {
        let edge = find(&self.edges, pair, Role::Client)?;
        (edge.server_kind == Kind::DnsName).then(|| edge.server.clone())
    }

    /// A process of a service that holds a port.
    pub(super) fn process(&self, name: &Name, port: u16) -> Option<u32> {
        let is_its = |one: &&api_types::Port| {
            let service = &one.holder.service;
            (&service.namespace, &service.name) == (&name.namespace, &name.name)
                && one.holder.pid != 0
        };
        let mut held: Vec<&api_types::Port> = self.ports.ports.iter().filter(is_its).collect();
        held.sort_by_key(|one| one.port != port);
        held.first().map(|one| one.holder.pid)
    }

    /// Where the client connects to: what fails most first, then the busiest.
    pub(super) fn addresses(&self, pair: &Pair) -> Vec<SocketAddr> {
        let of = |role: Role| {
            let ours =
                self.by_address.edges.iter().filter(|edge| edge.role == role && is_of(edge, pair));
            let mut found: Vec<(u64, u64, SocketAddr)> = ours
                .filter_map(|edge| {
                    let failed: u64 = edge.why.iter().map(|cause| cause.count).sum();
                    let used =
                        edge.connects.values().sum::<u64>() + edge.active + edge.request.count;
                    Some((failed, used, edge.address.as_ref()?.parse().ok()?))
                })
                .collect();
            found.sort_by_key(|(failed, used, address)| {
                (Reverse(*failed), Reverse(*used), *address)
            });
            found.into_iter().map(|(_, _, address)| address).collect::<Vec<_>>()
        };
        let near = of(Role::Client);
        if near.is_empty() { of(Role::Server) } else { near }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use model::fixture::snapshot;
    use server::convert::{self, EdgeQuery, EventRange, PortFilter};

    /// The answers of an agent with a shop, its database and its clients from outside.
    pub(in super::super) fn answers() -> Answers {
        let snapshot = snapshot();
        let edges = |query| convert::edges(&snapshot, query, |_| true);
        Answers {
            asked_seconds: 60.0,
            edges: edges(EdgeQuery::Rows(WindowChoice::Last(60))),
            by_address: edges(EdgeQuery::ByAddress(60)),
            usual: edges(EdgeQuery::Rows(WindowChoice::Start)),
            ports: convert::ports(&snapshot, PortFilter::default()),
            conflicts: serde_json::from_str(include_str!("../../../server/golden/conflicts.json"))
                .expect("the answer of an agent"),
            balance: convert::balance(&snapshot, Some(60), &[]),
            segments: snapshot
                .related
                .segments
                .as_ref()
                .map(|it| convert::segments(&snapshot, it, WindowChoice::Start)),
            changes: convert::events(&snapshot, EventRange { after: None, limit: 1000 }, |_| true),
        }
    }

    #[test]
    fn each_pair_is_there_once_and_has_the_counts_of_its_edges() {
        let answers = answers();
        let pairs = answers.pairs();
        assert!(pairs.len() > 1, "{pairs:?}");
        for pair in &pairs {
            let same = pairs.iter().filter(|other| *other == pair).count();
            assert_eq!(same, 1, "{pair}");
            let live = answers.live(pair, None, None);
            let edge = find(&answers.edges, pair, Role::Client)
                .or_else(|| find(&answers.edges, pair, Role::Server));
            let edge = edge.expect("the edge of the pair");
            assert_eq!(live.requests, edge.request.count, "{pair}");
            let stopping = edge.connects.get("stopping").copied().unwrap_or_default();
            assert_eq!(live.attempts(), edge.connects.values().sum::<u64>() - stopping, "{pair}");
        }
        let postgres = pairs.iter().find(|pair| pair.server.name == "postgres").expect("there");
        let live = answers.live(postgres, None, None);
        assert!(live.failed.values().sum::<u64>() > 0, "{live:?}");
        assert!(live.changes.iter().any(|change| change.cause == "service_restarted"), "{live:?}");
    }
}
