//! Everything that the agent knows of one pair: its counts, and what may explain them.

use std::net::{IpAddr, SocketAddr};

use api_types::{Backend, BalanceVerdict, Change, Edge, EventKind, Role, SegmentVerdict};

use super::super::evidence::{Changed, Listening, Live, Name, Pair, Quantiles, Uneven};
use super::Answers;
use super::edge::{find, is_client, is_of, is_pair, is_server, pair as pair_of};
use crate::human;

impl Answers {
    /// What is known of a pair; `netns`: the network namespace of the server, if it is on this host.
    pub(in super::super) fn live(
        &self,
        pair: &Pair,
        server: Option<u32>,
        client: Option<u32>,
    ) -> Live {
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
            (pair_of(edge).to_string(), live.loss())
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
