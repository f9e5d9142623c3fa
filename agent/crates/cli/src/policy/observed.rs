//! What was observed, as policies need it: edges of services with all their addresses, merged from
//! the flows of one agent or of several.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use api_types::{Flow, Flows, Kind, Timestamp};

use crate::human;

/// Everything that was observed in a window.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    /// When the first agent began to observe, or the window began.
    pub since: Timestamp,
    /// When the last agent was asked.
    pub until: Timestamp,
    /// How many agents.
    pub agents: usize,
    /// Edges, sorted by client, server and port.
    pub edges: Vec<Edge>,
    /// Labels of pods and containers, by service.
    pub labels: BTreeMap<Name, BTreeMap<String, String>>,
    /// Flows that the agents no longer remember.
    pub forgotten: u64,
}

/// A service by name and namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    /// Where the name is unique; empty on a plain host.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// One end of an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Its name.
    pub name: Name,
    /// Its kind.
    pub kind: Kind,
    /// Where it was seen on this edge.
    pub addresses: BTreeSet<IpAddr>,
}

/// A client, a server and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    /// The client.
    pub client: End,
    /// The server.
    pub server: End,
    /// The server's port.
    pub port: u16,
    /// The virtual service that was asked for at this port, if another service answered.
    pub asked: Option<Name>,
    /// Established connections.
    pub connections: u64,
    /// Failed attempts to connect.
    pub failed: u64,
    /// When it was seen first.
    pub first_seen: Timestamp,
    /// When it was seen last.
    pub last_seen: Timestamp,
}

/// What edges of several flows have in common.
type Key = (Name, Name, u16, Option<Name>);

/// The two sides of an edge, while flows are added up.
#[derive(Default)]
struct Sides {
    counted: (u64, u64),
    other: (u64, u64),
    edge: Option<Edge>,
}

// === impl Observed ===

impl Observed {
    /// Merges what agents answered. With a `window` only flows are taken that were used in it.
    pub(crate) fn of(answers: &[Flows], window: Option<Duration>) -> Self {
        let mut sides: BTreeMap<Key, Sides> = BTreeMap::new();
        let mut labels = BTreeMap::new();
        let (mut since, mut until): (Option<Timestamp>, Option<Timestamp>) = (None, None);
        for answer in answers {
            let began = began(answer, window);
            for flow in answer.flows.iter().filter(|flow| flow.last_seen >= began) {
                sides.entry(key(flow)).or_default().add(flow);
            }
            for one in &answer.labels {
                let name = Name::new(&one.service_namespace, &one.service);
                labels.entry(name).or_insert_with(|| one.labels.clone());
            }
            since = Some(since.map_or(began, |since| since.min(began)));
            until = Some(until.map_or(answer.timestamp, |until| until.max(answer.timestamp)));
        }
        let epoch = Timestamp::from_seconds(0.0);
        Self {
            since: since.unwrap_or(epoch),
            until: until.unwrap_or(epoch),
            agents: answers.len(),
            edges: sides.into_values().filter_map(Sides::edge).collect(),
            labels,
            forgotten: answers.iter().map(|answer| answer.forgotten).sum(),
        }
    }

    /// Each flow as an edge of its own, for verdicts by address; of connections that both sides
    /// show, one.
    pub(crate) fn rows(answers: &[Flows], window: Option<Duration>) -> Vec<Edge> {
        let used = |answer: &Flows| {
            let began = began(answer, window);
            let flows = answer.flows.iter();
            let flows = flows.filter(|flow| flow.last_seen >= began && !flow.other_side);
            flows.map(Edge::of).collect::<Vec<_>>()
        };
        answers.iter().flat_map(used).collect()
    }

    /// Only edges with one of these services at an end; all if there are none.
    pub(crate) fn only(&mut self, services: &[Name]) {
        let is_one = |end: &End| services.iter().any(|wanted| wanted.admits(&end.name));
        if !services.is_empty() {
            self.edges.retain(|edge| is_one(&edge.client) || is_one(&edge.server));
        }
    }

    /// The time that the numbers are of, in one line.
    pub(crate) fn window(&self) -> String {
        let whole = |time: Timestamp| Timestamp::from_seconds(time.seconds().floor());
        let seconds = self.until.seconds_since(self.since).max(0.0);
        format!("{} to {} ({})", whole(self.since), whole(self.until), human::span(seconds))
    }

    /// What is not known although it was asked for, each in a sentence.
    pub(crate) fn gaps(&self) -> Vec<String> {
        let mut gaps = Vec::new();
        if self.forgotten > 0 {
            gaps.push(format!(
                "{} are no longer remembered, because newer ones needed the room: what they did is not in here",
                human::counted(self.forgotten, "flow")
            ));
        }
        gaps
    }
}

/// When the time of an answer begins that counts.
fn began(answer: &Flows, window: Option<Duration>) -> Timestamp {
    let start = answer.window.since;
    window.map_or(start, |window| {
        let since = answer.timestamp.seconds() - window.as_secs_f64();
        Timestamp::from_seconds(since).max(start)
    })
}

fn key(flow: &Flow) -> Key {
    (
        Name::new(&flow.client_namespace, &flow.client),
        Name::new(&flow.server_namespace, &flow.server),
        flow.port,
        asked(flow),
    )
}

fn asked(flow: &Flow) -> Option<Name> {
    let namespace = flow.virtual_service_namespace.as_deref().unwrap_or_default();
    flow.virtual_service.as_deref().map(|name| Name::new(namespace, name))
}

// === impl Sides ===

impl Sides {
    fn add(&mut self, flow: &Flow) {
        let counts = if flow.other_side { &mut self.other } else { &mut self.counted };
        counts.0 = counts.0.saturating_add(flow.connections);
        counts.1 = counts.1.saturating_add(flow.failed);
        let one = Edge::of(flow);
        match &mut self.edge {
            Some(edge) => {
                edge.client.addresses.extend(one.client.addresses);
                edge.server.addresses.extend(one.server.addresses);
                edge.first_seen = edge.first_seen.min(one.first_seen);
                edge.last_seen = edge.last_seen.max(one.last_seen);
            }
            none => *none = Some(one),
        }
    }

    /// The edge with the numbers of one side: those of the side that counts, if it was seen. None
    /// while nothing has come of it.
    fn edge(self) -> Option<Edge> {
        let Self { counted, other, edge } = self;
        let (connections, failed) = if counted == (0, 0) { other } else { counted };
        let has_happened = (connections, failed) != (0, 0);
        edge.filter(|_| has_happened).map(|edge| Edge { connections, failed, ..edge })
    }
}

// === impl Edge ===

impl Edge {
    /// The edge that a single flow is.
    pub(crate) fn of(flow: &Flow) -> Self {
        let end = |name, namespace, kind, address: Option<IpAddr>| End {
            name: Name::new(namespace, name),
            kind,
            addresses: address.map(|address| address.to_canonical()).into_iter().collect(),
        };
        let (client_kind, server_kind) = (flow.client_kind, flow.server_kind);
        Self {
            client: end(&flow.client, &flow.client_namespace, client_kind, flow.client_address),
            server: end(&flow.server, &flow.server_namespace, server_kind, flow.server_address),
            port: flow.port,
            asked: asked(flow),
            connections: flow.connections,
            failed: flow.failed,
            first_seen: flow.first_seen,
            last_seen: flow.last_seen,
        }
    }

    /// The edge as text: `web -> db:5432`.
    pub(crate) fn ends(&self) -> String {
        format!("{} -> {}", self.client.name, self.server.name.at(self.port))
    }

    /// The edge and what speaks for it, in one line.
    pub(crate) fn evidence(&self) -> String {
        let whole = |time: Timestamp| Timestamp::from_seconds(time.seconds().floor());
        let failed = match self.failed {
            0 => String::new(),
            failed => format!(" and {failed} failed"),
        };
        format!(
            "{}: {}{failed}, {} to {}",
            self.ends(),
            connections(self.connections),
            whole(self.first_seen),
            whole(self.last_seen)
        )
    }
}

/// A number of connections, exactly: a policy is held against it.
pub(crate) fn connections(count: u64) -> String {
    format!("{count} connection{}", if count == 1 { "" } else { "s" })
}

// === impl End ===

impl End {
    /// Whether it is one service with a name that the host or its runtime gave it: not an address,
    /// not a name that was looked up, not a row for several.
    pub(crate) fn is_service(&self) -> bool {
        let stands_for_many = matches!(self.name.name.as_str(), "other" | "any" | "none" | "");
        let kind = match self.kind {
            Kind::DnsName | Kind::Address | Kind::Internet | Kind::Unknown => false,
            Kind::Deployment
            | Kind::StatefulSet
            | Kind::DaemonSet
            | Kind::ReplicaSet
            | Kind::CronJob
            | Kind::Job
            | Kind::Workload
            | Kind::Pod
            | Kind::KubernetesService
            | Kind::ComposeService
            | Kind::Container
            | Kind::Unit
            | Kind::Process
            | Kind::Declared => true,
        };
        kind && !(stands_for_many && self.name.namespace.is_empty())
    }

    /// Whether it is a workload of Kubernetes.
    pub(crate) fn is_pod(&self) -> bool {
        let is_workload = matches!(
            self.kind,
            Kind::Deployment
                | Kind::StatefulSet
                | Kind::DaemonSet
                | Kind::ReplicaSet
                | Kind::CronJob
                | Kind::Job
                | Kind::Workload
                | Kind::Pod
        );
        is_workload && !self.name.namespace.is_empty()
    }

    /// Whether it gets new addresses when it is started again.
    pub(crate) fn is_ephemeral(&self) -> bool {
        self.is_pod() || matches!(self.kind, Kind::ComposeService | Kind::Container)
    }
}

// === impl Name ===

impl Name {
    /// A name in a namespace.
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The name with a port.
    pub(crate) fn at(&self, port: u16) -> String {
        human::endpoint(&self.namespace, &self.name, port)
    }

    /// Whether this, as written on a command line, is meant: without a namespace it is of any.
    fn admits(&self, other: &Self) -> bool {
        self.name == other.name && (self.namespace.is_empty() || self.namespace == other.namespace)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&human::full_name(&self.namespace, &self.name))
    }
}
