//! The JSON of `/api/v1/…`: stable names, durations in seconds, sizes in bytes.
//!
//! Fields are only ever added. The command line reads the same types.

use std::collections::BTreeMap;
use std::net::IpAddr;

use agent_common::edge::{CONNECT_OK, CONNECT_RESULT_NAMES, EdgeCounters};
use agent_common::histogram::{BOUNDS_US, Histogram};
use agent_common::ledger::{CLASS_NAMES, REASON_NAMES};
use agent_common::reset::CAUSE_NAMES;
use serde::{Deserialize, Serialize};

use model::service::{Kind, Source};
use model::snapshot::{
    Disabled, EdgeView, HookView, ListenerView, MapView, Role, Snapshot, SourceView,
};
use telemetry::Build;

/// `/api/v1/edges`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edges {
    /// When the snapshot was taken, seconds since the Unix epoch.
    pub taken_seconds: f64,
    /// The edges, sorted by their labels.
    pub edges: Vec<Edge>,
}

/// An edge and its totals since the agent started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// Who connects.
    pub client: String,
    /// Where that name is unique; empty on a plain host.
    pub client_namespace: String,
    /// What that is.
    #[serde(default = "unknown")]
    pub client_kind: Kind,
    /// How that name was found.
    pub client_source: Source,
    /// Who is connected to.
    pub server: String,
    /// Where that name is unique; empty on a plain host.
    pub server_namespace: String,
    /// What that is.
    #[serde(default = "unknown")]
    pub server_kind: Kind,
    /// How that name was found.
    pub server_source: Source,
    /// What the client asked for, if another answered: the name of a Kubernetes Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// Where that name is unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_namespace: Option<String>,
    /// The server's port; 0 on rows that took what found no row of its own.
    pub port: u16,
    /// Which side counted.
    pub role: Role,
    /// Ended attempts by result; a result that is absent never happened, `ok` is always there.
    pub connects: BTreeMap<String, u64>,
    /// Established connections that have not ended yet.
    pub active: u64,
    /// Connections that became established, `preexisting` included.
    pub opened: u64,
    /// Established connections that ended.
    pub closed: u64,
    /// Connections that were there before the agent.
    pub preexisting: u64,
    /// Payload bytes sent, not counting repetitions.
    pub sent_bytes: u64,
    /// Payload bytes received in order.
    pub received_bytes: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Resets sent by cause; a cause that is absent never occurred.
    pub resets_sent: BTreeMap<String, u64>,
    /// Resets received by cause; a cause that is absent never occurred.
    pub resets_received: BTreeMap<String, u64>,
    /// Connection requests dropped by the listener (role `listener`).
    pub listen_overflows: u64,
    /// SYN-ACKs sent again by the listener (role `listener`).
    pub synack_retransmits: u64,
    /// Time to connect.
    pub connect: Latency,
    /// Round trip times.
    pub rtt: Latency,
    /// Request latency.
    pub request: Latency,
}

/// A summary of durations.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Their sum.
    pub sum_seconds: f64,
    /// Half of them took at most this long (a bound of the kernel's grid, so at most 25 % too
    /// high; 100 = 100 s or more); null if none was measured.
    pub p50_seconds: Option<f64>,
    /// 99 of 100 took at most this long.
    pub p99_seconds: Option<f64>,
}

/// `/api/v1/listeners`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listeners {
    /// When the snapshot was taken, seconds since the Unix epoch.
    pub taken_seconds: f64,
    /// The listening sockets.
    pub listeners: Vec<Listener>,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Who listens.
    pub service: String,
    /// Where that name is unique; empty on a plain host.
    pub service_namespace: String,
    /// How that name was found.
    pub source: Source,
    /// The port.
    pub port: u16,
    /// Always `tcp` so far.
    pub protocol: String,
    /// The address, `0.0.0.0` or `::` for all.
    pub address: IpAddr,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Connections waiting to be accepted.
    pub backlog: u32,
    /// How many may wait.
    pub max_backlog: u32,
}

/// `/api/v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Release of the kernel.
    pub kernel: String,
    /// When the snapshot was taken, seconds since the Unix epoch.
    pub taken_seconds: f64,
    /// Hooks, attached or not.
    pub hooks: Vec<HookView>,
    /// What is off on this host, and why.
    pub disabled: Vec<Disabled>,
    /// What became of every fact.
    pub ledger: Vec<LedgerEntry>,
    /// Runs of programs that the kernel skipped.
    pub recursion_misses: u64,
    /// Kernel tables and how full they are.
    pub maps: Vec<MapView>,
    /// The agent's own memory.
    #[serde(default)]
    pub memory: Memory,
    /// Rows of edges.
    pub edges: u64,
    /// Listening sockets.
    pub listeners: u64,
    /// Owners of sockets without a name.
    pub unresolved_owners: u64,
    /// Sources of names and how they are.
    #[serde(default)]
    pub sources: Vec<SourceView>,
    /// Sockets that were there before the agent and have been taken over.
    pub preexisting_sockets: u64,
    /// Reads of the kernel's tables.
    pub drains: u64,
    /// Time spent in them.
    pub drain_seconds: f64,
}

/// The agent's own memory, and what gives way when it runs short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// What counts against the nearest limit; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// That limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// Whether new edges are counted in the rows `other`.
    pub folding: bool,
    /// Free rows that are kept back.
    pub held_rows: u64,
}

/// One class of the ledger: seen = exported + lost when nothing is in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Class of facts.
    pub class: String,
    /// Met by the kernel programs.
    pub seen: u64,
    /// Found in the tables.
    pub exported: u64,
    /// Lost by reason; a reason that is absent never occurred.
    pub lost: BTreeMap<String, u64>,
}

/// Any answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// One sentence.
    pub error: String,
}

// === impl Edge ===

impl From<&EdgeView> for Edge {
    fn from(view: &EdgeView) -> Self {
        let labels = &view.labels;
        let EdgeCounters {
            connects,
            opened,
            closed,
            preexisting,
            sent_bytes,
            received_bytes,
            retransmits,
            resets_sent,
            resets_received,
            listen_drops,
            synack_retransmits,
            unsent: _,
            connect,
            rtt,
            request,
        } = &*view.counters;
        let mut connects = named(&CONNECT_RESULT_NAMES, connects);
        if let Some(ok) = CONNECT_RESULT_NAMES.get(usize::from(CONNECT_OK)) {
            connects.entry((*ok).to_owned()).or_default();
        }
        Self {
            client: labels.client.name.to_string(),
            client_namespace: labels.client.namespace.to_string(),
            client_kind: labels.client.kind,
            client_source: labels.client.source,
            server: labels.server.name.to_string(),
            server_namespace: labels.server.namespace.to_string(),
            server_kind: labels.server.kind,
            server_source: labels.server.source,
            asked: labels.asked.as_ref().map(|asked| asked.name.to_string()),
            asked_namespace: labels.asked.as_ref().map(|asked| asked.namespace.to_string()),
            port: labels.port,
            role: labels.role,
            connects,
            active: view.counters.active(),
            opened: *opened,
            closed: *closed,
            preexisting: *preexisting,
            sent_bytes: *sent_bytes,
            received_bytes: *received_bytes,
            retransmits: *retransmits,
            resets_sent: named(&CAUSE_NAMES, resets_sent),
            resets_received: named(&CAUSE_NAMES, resets_received),
            listen_overflows: *listen_drops,
            synack_retransmits: *synack_retransmits,
            connect: connect.into(),
            rtt: rtt.into(),
            request: request.into(),
        }
    }
}

/// What an agent that does not tell the kind of a service knows of it.
const fn unknown() -> Kind {
    Kind::Unknown
}

/// Counts by name, without zeros.
fn named(names: &[&str], counts: &[u64]) -> BTreeMap<String, u64> {
    let moved = names.iter().zip(counts).filter(|(_, count)| **count > 0);
    moved.map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

// === impl Latency ===

impl From<&Histogram> for Latency {
    fn from(histogram: &Histogram) -> Self {
        let last_us = BOUNDS_US.last().copied().map_or(f64::MAX, f64::from);
        let quantile = |q| histogram.quantile_us(q).map(|us| us.min(last_us) / 1e6);
        Self {
            count: histogram.count(),
            sum_seconds: histogram.sum_us as f64 / 1e6,
            p50_seconds: quantile(0.5),
            p99_seconds: quantile(0.99),
        }
    }
}

// === impl Listener ===

impl From<&ListenerView> for Listener {
    fn from(view: &ListenerView) -> Self {
        let ListenerView { service, port, address, netns, backlog, max_backlog } = view;
        Self {
            service: service.name.to_string(),
            service_namespace: service.namespace.to_string(),
            source: service.source,
            port: *port,
            protocol: "tcp".to_owned(),
            address: *address,
            netns: *netns,
            backlog: *backlog,
            max_backlog: *max_backlog,
        }
    }
}

// === impl Status ===

impl Status {
    /// The status that `snapshot` shows.
    pub fn new(build: &Build, snapshot: &Snapshot) -> Self {
        let Snapshot {
            taken_seconds,
            edges,
            listeners,
            ledger,
            hooks,
            disabled,
            maps,
            memory,
            unresolved_owners,
            sources,
            preexisting_sockets,
            related: _,
            drains,
            drain_seconds,
            ports: _,
            ephemeral: _,
            conflicts: _,
            conflict_totals: _,
            kept: _,
            probes: _,
            health: _,
        } = snapshot;
        let classes = CLASS_NAMES.iter().zip(ledger.kernel.seen).zip(ledger.exported);
        let entries = classes.zip(&ledger.kernel.lost).map(|(((class, seen), exported), lost)| {
            let lost = named(&REASON_NAMES, lost);
            LedgerEntry { class: (*class).to_owned(), seen, exported, lost }
        });
        Self {
            version: build.version.clone(),
            kernel: build.kernel.clone(),
            taken_seconds: *taken_seconds,
            hooks: hooks.clone(),
            disabled: disabled.clone(),
            ledger: entries.collect(),
            recursion_misses: ledger.recursion_misses,
            maps: maps.clone(),
            memory: Memory {
                used_bytes: memory.usage.map(|usage| usage.used),
                limit_bytes: memory.usage.map(|usage| usage.limit),
                folding: memory.folding,
                held_rows: memory.held_rows,
            },
            edges: edges.len() as u64,
            listeners: listeners.len() as u64,
            unresolved_owners: *unresolved_owners,
            sources: sources.clone(),
            preexisting_sockets: *preexisting_sockets,
            drains: *drains,
            drain_seconds: *drain_seconds,
        }
    }
}
