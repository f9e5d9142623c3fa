//! What the agent knows of a pair: its answers, and the part of them that matters.
//!
//! Long because all that is read of the answers of an agent is in one place.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};

use api_types::{
    Backend, Balance, BalanceVerdict, Change, Conflicts, Edge, Edges, EventKind, Events, Kind,
    Latency, Ports, Role, SegmentVerdict, Segments, Source, Timestamp, WindowChoice,
};

use super::evidence::{Changed, Hop, Listening, Live, Name, Pair, Quantiles, Uneven};
use crate::target::Connection;
use crate::{edges, human, window};

/// How long before now changes may explain a fault.
const BEFORE_SECONDS: f64 = 600.0;
/// Payload of a segment on an Ethernet, as in the alert PortolanRetransmitsHigh.
const SEGMENT_BYTES: u64 = 1448;
/// The agent's own traffic, and that of its commands.
const OURSELVES: &str = "portolan";

/// What the agent has answered.
pub(super) struct Answers {
    /// Length of the window that was asked for. What edges cover of it is less if the agent is young.
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
    /// Asks for all of it.
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

    /// What is known of a pair; `netns`: the network namespace of the server, if it is on this host.
    pub(super) fn live(&self, pair: &Pair, server: Option<u32>, client: Option<u32>) -> Live {
        let near = find(&self.edges, pair, Role::Client);
        let far = find(&self.edges, pair, Role::Server);
        let mut live = Live { seconds: self.edges.window.seconds, ..Live::default() };
        if let Some(main) = near.or(far) {
            live.count(main, near, far);
        }
        let start =
            find(&self.usual, pair, Role::Client).or_else(|| find(&self.usual, pair, Role::Server));
        if let Some(start) = start {
            live.usual = Quantiles::of(&start.request);
            live.usual_rtt = Quantiles::of(&start.rtt);
        }
        live.addresses = self.addresses(pair);
        live.listen_drops = self
            .edges
            .edges
            .iter()
            .filter(|edge| {
                edge.role == Role::Listener
                    && edge.port == pair.port
                    && is_server(edge, &pair.server)
            })
            .map(|edge| edge.listen_overflows)
            .sum();
        live.listeners = self.listeners(pair, server);
        live.sees_listeners =
            self.ports.ports.iter().any(|port| port.state == api_types::PortState::Listening);
        live.is_here = server.is_some() || far.is_some() || !live.listeners.is_empty();
        live.local_ports = self.local_ports(pair, client);
        live.changes = self.changes(pair);
        live.dependencies = self.hops(|edge| is_client(edge, &pair.server));
        live.others = self.others(pair);
        live.uneven = self.uneven(pair);
        live.has_segments = self.segments.is_some();
        live.segments_of = self.segments_of(pair, &live.addresses);
        live
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

    /// Edges as hops, the worst first.
    pub(super) fn hops(&self, wanted: impl Fn(&Edge) -> bool) -> Vec<Hop> {
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

    fn listeners(&self, pair: &Pair, netns: Option<u32>) -> Vec<Listening> {
        use api_types::{PortState, Protocol};
        let is_there = |port: &&api_types::Port| {
            let service = &port.holder.service;
            let is_its =
                (&service.namespace, &service.name) == (&pair.server.namespace, &pair.server.name);
            port.protocol == Protocol::Tcp
                && port.state == PortState::Listening
                && port.port == pair.port
                && netns.map_or(is_its, |netns| port.netns == netns)
        };
        let listening = |port: &api_types::Port| Listening {
            address: port.address,
            v6_only: port.v6_only,
            backlog: port.backlog,
            max_backlog: port.max_backlog,
            pid: port.holder.pid,
            command: port.holder.command.clone(),
        };
        self.ports.ports.iter().filter(is_there).map(listening).collect()
    }

    fn local_ports(&self, pair: &Pair, netns: Option<u32>) -> Option<f64> {
        let client = pair.client.as_ref();
        let is_it = |one: &&api_types::EphemeralPorts| match netns {
            Some(netns) => one.netns == netns,
            None => client.is_some_and(|client| {
                (&one.service.namespace, &one.service.name) == (&client.namespace, &client.name)
            }),
        };
        let found = self.ports.ephemeral_ports.iter().find(is_it)?;
        Some(found.used_ratio().max(found.destination_ratio()))
    }

    /// Changes of the two services, latest first.
    fn changes(&self, pair: &Pair) -> Vec<Changed> {
        let is_ours = |name: &api_types::Service| {
            let is =
                |wanted: &Name| (&name.namespace, &name.name) == (&wanted.namespace, &wanted.name);
            is(&pair.server) || pair.client.as_ref().is_some_and(is)
        };
        let change = |event: &api_types::Event| {
            let service = event.server.as_ref().filter(|service| is_ours(service))?;
            let change = Change {
                time: event.last_seen,
                cause: event.cause.clone(),
                service: service.name.clone(),
                service_namespace: service.namespace.clone(),
                text: event.text.clone(),
            };
            Some(Changed::of(&change, self.changes.timestamp))
        };
        let events = self
            .changes
            .events
            .iter()
            .filter(|event| matches!(event.kind, EventKind::Service | EventKind::Backend));
        let mut changes: Vec<Changed> = events.filter_map(change).collect();
        changes.sort_by(|a, b| a.seconds_ago.total_cmp(&b.seconds_ago));
        changes
    }

    /// The loss of other edges of the client and of the server, to compare with.
    fn others(&self, pair: &Pair) -> Vec<(String, f64)> {
        let shares_an_end = |edge: &&Edge| {
            is_pair(edge)
                && !edge.other_side
                && !is_of(edge, pair)
                && (is_server(edge, &pair.server)
                    || pair.client.as_ref().is_some_and(|client| is_client(edge, client)))
        };
        let loss = |edge: &Edge| {
            let mut live = Live::default();
            live.count(edge, Some(edge), None);
            (self::pair(edge).to_string(), live.loss())
        };
        self.edges
            .edges
            .iter()
            .filter(shares_an_end)
            .filter(|edge| edge.request.count > 0)
            .map(loss)
            .collect()
    }

    /// The worst backend of a pair, if the agent finds its load uneven.
    fn uneven(&self, pair: &Pair) -> Option<Uneven> {
        let client = pair.client.as_ref()?;
        let group = self.balance.groups.iter().find(|group| {
            group.port == pair.port
                && (&group.client_namespace, &group.client) == (&client.namespace, &client.name)
                && (&group.server_namespace, &group.server)
                    == (&pair.server.namespace, &pair.server.name)
        })?;
        type Share = fn(&Backend) -> Option<f64>;
        let (what, share): (&str, Share) = match (group.requests.verdict, group.connections.verdict)
        {
            (BalanceVerdict::Unbalanced, _) => ("requests", |one| one.requests_share),
            (_, BalanceVerdict::Unbalanced) => ("connections", |one| one.connections_share),
            _ => return None,
        };
        let shares = group.backends.iter().filter_map(|one| Some((one, share(one)?)));
        let off = |(one, share): &(&Backend, f64)| (share - one.expected_share).abs();
        let (worst, share) = shares.max_by(|a, b| off(a).total_cmp(&off(b)))?;
        let backend = match &worst.instance {
            Some(instance) => format!("{} ({})", human::readable(instance), worst.backend),
            None => worst.backend.clone(),
        };
        Some(Uneven { backend, what, share, expected: worst.expected_share })
    }

    fn segments_of(
        &self,
        pair: &Pair,
        addresses: &[SocketAddr],
    ) -> Option<(String, String, SegmentVerdict)> {
        let client = pair.client.as_ref()?;
        let is_it = |one: &&api_types::Violation| {
            // Where the server had no name yet it is there by its address.
            let is_address = one
                .server
                .parse()
                .is_ok_and(|server: IpAddr| addresses.iter().any(|address| address.ip() == server));
            let is_server =
                (&one.server_namespace, &one.server) == (&pair.server.namespace, &pair.server.name);
            one.reason == api_types::ViolationReason::NotAllowed
                && one.port == pair.port
                && (&one.client_namespace, &one.client) == (&client.namespace, &client.name)
                && (is_server || is_address)
        };
        let found = self.segments.as_ref()?.violations.iter().find(is_it)?;
        Some((
            found.client_segment.clone(),
            found.server_segment.clone(),
            SegmentVerdict::Violation,
        ))
    }
}

// === impl Live ===

impl Live {
    /// Takes in the counts of an edge: of the side that tells most, and of both.
    fn count(&mut self, main: &Edge, near: Option<&Edge>, far: Option<&Edge>) {
        self.ok = main.connects.get("ok").copied().unwrap_or_default();
        let failed = main.connects.iter().filter(|(result, n)| *result != "ok" && **n > 0);
        self.failed = failed.map(|(result, n)| (result.clone(), *n)).collect();
        self.active = main.active;
        self.opened = main.opened;
        self.requests = main.request.count;
        self.waits = main.waits;
        self.unverified_user = main.unverified_user;
        self.client = near.map(|edge| Quantiles::of(&edge.request)).unwrap_or_default();
        self.server = far.map(|edge| Quantiles::of(&edge.request)).unwrap_or_default();
        self.rtt = Quantiles::of(&main.rtt);
        self.unread = far.and_then(|edge| edge.receive_queue_bytes).unwrap_or_default();
        // Seen at the server; the client's row of the same connections has it from there.
        let answered = far.unwrap_or(main);
        self.responses = edges::responses(answered);
        for (protocol, statuses) in &answered.responses {
            let errors = statuses.iter().filter(|(status, _)| edges::is_error(status));
            self.errors.extend(errors.map(|(status, n)| (format!("{protocol} {status}"), *n)));
        }
        for edge in near.into_iter().chain(far) {
            self.unanswered = self.unanswered.max(edge.unanswered);
            self.close_wait = self.close_wait.max(edge.close_wait.unwrap_or_default());
            let phase =
                |name: &str| edge.retransmits_by_phase.get(name).copied().unwrap_or_default();
            self.syn_retransmits += phase("syn");
            let again = phase("established") + phase("closing");
            self.retransmits += again;
            self.segments += again + edge.sent_bytes / SEGMENT_BYTES + edge.request.count;
            // Both sides count the same reset, each with the cause that it sees. A client that ends
            // a connection of its own with a reset (SO_LINGER 0), as proxies do with idle ones,
            // loses nothing by it; what it had asked for is counted as unanswered.
            if self.resets.is_empty() {
                let is_client = edge.role == Role::Client;
                let by_client = |cause: &str| cause == "aborted";
                let sent = edge.resets_sent.iter();
                let sent = sent.filter(|(cause, _)| !(is_client && by_client(cause)));
                let received = edge.resets_received.iter();
                let received = received.filter(|(cause, _)| is_client || !by_client(cause));
                for (cause, n) in sent.chain(received).filter(|(_, n)| **n > 0) {
                    *self.resets.entry(cause.clone()).or_default() += n;
                }
            }
            for (cause, n) in edge.aborts.iter().filter(|(_, n)| **n > 0) {
                let known = self.aborts.entry(cause.clone()).or_default();
                *known = (*n).max(*known);
            }
        }
    }
}

// === impl Quantiles ===

impl Quantiles {
    fn of(latency: &Latency) -> Self {
        Self { p50: latency.p50_seconds, p99: latency.p99_seconds }
    }
}

/// A connection between two services that is not the agent's own, and that no user can have made up.
fn is_pair(edge: &Edge) -> bool {
    matches!(edge.role, Role::Client | Role::Server)
        && !(edge.client == "any" && edge.client_source == Source::Unknown)
        && edge.client != OURSELVES
        && edge.port != 0
        && edge.unverified_user.is_none()
}

/// The pair of an edge.
pub(super) fn pair(edge: &Edge) -> Pair {
    Pair {
        client: Some(Name::new(&edge.client_namespace, &edge.client)),
        server: Name::new(&edge.server_namespace, &edge.server),
        port: edge.port,
    }
}

fn find<'a>(edges: &'a Edges, pair: &Pair, role: Role) -> Option<&'a Edge> {
    edges.edges.iter().find(|edge| edge.role == role && is_of(edge, pair))
}

fn is_of(edge: &Edge, pair: &Pair) -> bool {
    edge.port == pair.port
        && is_server(edge, &pair.server)
        && pair.client.as_ref().is_some_and(|client| is_client(edge, client))
}

fn is_server(edge: &Edge, name: &Name) -> bool {
    (&edge.server_namespace, &edge.server) == (&name.namespace, &name.name)
}

fn is_client(edge: &Edge, name: &Name) -> bool {
    (&edge.client_namespace, &edge.client) == (&name.namespace, &name.name)
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
        why: why.collect::<Vec<_>>().join(", "),
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
            segments: snapshot.related.segments.as_ref().map(|it| convert::segments(&snapshot, it)),
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

    #[test]
    fn a_client_that_resets_its_own_idle_connections_is_no_fault() {
        let answers = answers();
        let edge = answers.edges.edges.iter().find(|edge| is_pair(edge)).expect("an edge");
        let resets = |role, sent: u64, received: u64| {
            let of = |n| std::collections::BTreeMap::from([("aborted".to_owned(), n)]);
            let (sent, received) = (of(sent), of(received));
            let edge = Edge { role, resets_sent: sent, resets_received: received, ..edge.clone() };
            let mut live = Live::default();
            live.count(&edge, Some(&edge), None);
            live.resets.values().sum::<u64>()
        };
        assert_eq!((resets(Role::Client, 4, 0), resets(Role::Server, 0, 4)), (0, 0));
        assert_eq!((resets(Role::Client, 0, 4), resets(Role::Server, 4, 0)), (4, 4));
    }

    #[test]
    fn hops_that_fail_come_first() {
        let hops = answers().hops(|_| true);
        let failing: Vec<bool> = hops.iter().map(Hop::is_failing).collect();
        assert!(failing.is_sorted_by(|a, b| a >= b) && failing[0], "{failing:?}");
    }
}
