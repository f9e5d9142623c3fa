//! The picture that every reader sees: complete, immutable, consistent in itself.

use std::sync::Arc;

use agent_common::counters::EdgeCounters;
use agent_common::ledger::{CLASSES, Ledger};
use agent_common::queues::Queues;
use serde::{Deserialize, Serialize};

use super::balance::{Known, Weights};
use super::conditions::ConditionsView;
use super::conflicts::{Conflict, ConflictTotal};
use super::directory::Directory;
use super::ephemeral::EphemeralView;
use super::events::EventsView;
use super::flows::FlowsView;
use super::health::{AcceptQueue, Traffic};
use super::memory::MemoryView;
use super::port::PortView;
use super::probes::ProbesView;
use super::recent::RecentView;
use super::relations::RelationsView;
use super::reservation_status::ReservationStatus;
use super::service::Service;
use super::unverified::ByUser;
use super::violations::SegmentsView;

/// The complete state at one time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was taken, seconds since the Unix epoch.
    pub taken_seconds: f64,
    /// Rows of edges, sorted by their labels.
    pub edges: Vec<EdgeView>,
    /// Listening sockets.
    pub listeners: Vec<ListenerView>,
    /// Ports and their holders, sorted by port.
    pub ports: Vec<PortView>,
    /// Ephemeral ports in use, by network namespace.
    pub ephemeral: Vec<EphemeralView>,
    /// Connection tracking, interfaces and memory of TCP, by the service of a network namespace.
    pub conditions: Arc<ConditionsView>,
    /// Failed binds and listens that happened last, oldest first.
    pub conflicts: Vec<Arc<Conflict>>,
    /// Counters of conflicts by service and reason.
    pub conflict_totals: Vec<ConflictTotal>,
    /// Conflicts that users can have made up, which are in no other counter.
    pub unverified_conflicts: ByUser,
    /// Attempts to connect, and accepted connections, that users can have made up.
    pub unverified_connects: ByUser,
    /// Events by class: seen, exported, lost.
    pub ledger: LedgerView,
    /// Hooks and their state.
    pub hooks: Vec<HookView>,
    /// Features that are off on this host, with the reason.
    pub disabled: Vec<Disabled>,
    /// Kernel tables and how full they are.
    pub maps: Vec<MapView>,
    /// The agent's own memory.
    pub memory: MemoryView,
    /// Statistics of probes.
    pub probes: ProbesView,
    /// Owners without a name.
    pub unresolved_owners: u64,
    /// Sources of names.
    pub sources: Vec<SourceView>,
    /// Pre-existing sockets that were adopted.
    pub preexisting_sockets: u64,
    /// Views computed from the edges.
    pub related: RelatedView,
    /// Drains so far.
    pub drains: u64,
    /// Time spent draining so far, seconds.
    pub drain_seconds: f64,
    /// Reservations, registered services, and breaches.
    pub reservations: ReservationStatus,
    /// What services did since the start.
    pub traffic: Traffic,
    /// What edges counted in the last minutes.
    pub recent: RecentView,
    /// What went wrong and what changed, one by one.
    pub events: EventsView,
}

/// Computed from the edges: relations and, if segments are declared, their violations.
#[derive(Clone, Debug, Default)]
pub struct RelatedView {
    /// Relations between services, by backend.
    pub relations: RelationsView,
    /// Which clients connected to which servers, by address.
    pub flows: FlowsView,
    /// Evaluated segments; `None` if none is declared.
    pub segments: Option<SegmentsView>,
    /// Declared weights of backends.
    pub weights: Arc<Weights>,
    /// Known backends and their names.
    pub known: Arc<Known>,
    /// Class and labels of services.
    pub directory: Arc<Directory>,
}

/// Which side of an edge saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Only on overflow rows.
    Unknown,
    /// The side that connected.
    Client,
    /// The side that accepted.
    Server,
    /// A listening socket: events before a connection exists.
    Listener,
}

impl Snapshot {
    /// Rows of edges without those that a user can have made up.
    pub fn verified_edges(&self) -> impl Iterator<Item = &EdgeView> {
        self.edges.iter().filter(|edge| edge.labels.unverified_user.is_none())
    }
}

impl Role {
    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Client => "client",
            Self::Server => "server",
            Self::Listener => "listener",
        }
    }
}

/// Labels of an edge's row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeLabels {
    /// The client.
    pub client: Service,
    /// The server.
    pub server: Service,
    /// The server's port; 0 on overflow rows.
    pub port: u16,
    /// Which side counted.
    pub role: Role,
    /// The virtual service that the client connected to, if a backend answered: a Kubernetes
    /// Service, a published port. Not part of a row's identity.
    pub virtual_service: Option<Service>,
    /// The user who may have faked everything that this row counts
    /// ([`unverified`](super::unverified)). Part of a row's identity: what is verified is another
    /// row.
    pub unverified_user: Option<u32>,
}

impl EdgeLabels {
    /// Two ends and a port, without anything in between.
    pub fn new(client: Service, server: Service, port: u16, role: Role) -> Self {
        Self { client, server, port, role, virtual_service: None, unverified_user: None }
    }

    /// What distinguishes rows: all but how a name was found and what was asked for.
    pub(super) fn names(&self) -> (&str, &str, &str, &str, u16, Role, Option<u32>) {
        let Self { client, server, port, role, virtual_service: _, unverified_user } = self;
        let (client, server) =
            ((&client.name, &client.namespace), (&server.name, &server.namespace));
        (client.0, client.1, server.0, server.1, *port, *role, *unverified_user)
    }

    /// The same but for the side: both rows of the same connections have it.
    pub(super) fn ends(&self) -> (&str, &str, &str, &str, u16, Option<u32>) {
        let (client, client_namespace, server, server_namespace, port, _, user) = self.names();
        (client, client_namespace, server, server_namespace, port, user)
    }

    /// The overflow row of a role.
    pub fn other(role: Role) -> Self {
        Self::new(Service::other(), Service::other(), 0, role)
    }
}

/// One row: an edge and its totals since the agent started.
#[derive(Clone, Debug)]
pub struct EdgeView {
    /// Client, server, port.
    pub labels: Arc<EdgeLabels>,
    /// Totals. For `Role::Listener` only `listen_drops`, `synack_retransmits` and resets move.
    pub counters: Arc<EdgeCounters>,
    /// What waits in its connections now; `None` without connections or a socket iteration.
    pub queues: Option<Queues>,
}

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListenerView {
    /// The service.
    pub service: Service,
    /// The port.
    pub port: u16,
    /// The address, `0.0.0.0` or `::` for all.
    pub address: std::net::IpAddr,
    /// Network namespace inode.
    pub netns: u32,
    /// Connections waiting to be accepted.
    pub backlog: u32,
    /// Backlog limit: how many connections may wait.
    pub max_backlog: u32,
    /// The user who may have faked it ([`unverified`](super::unverified)).
    pub unverified_user: Option<u32>,
}

// === impl ListenerView ===

impl ListenerView {
    /// Its accept queue.
    pub fn accept_queue(&self) -> AcceptQueue {
        AcceptQueue { length: self.backlog, limit: self.max_backlog }
    }
}

/// The ledger: `seen = exported + Σ lost` per class when nothing is in flight.
#[derive(Clone, Debug)]
pub struct LedgerView {
    /// Events counted by the BPF programs.
    pub kernel: Ledger,
    /// Events found in the tables, by class.
    pub exported: [u64; CLASSES],
    /// Runs the kernel skipped because the program was already running on that CPU, by hook.
    pub recursion_misses: u64,
}

/// One hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HookView {
    /// Name of the hook (the tracepoint).
    pub name: String,
    /// Whether it is attached.
    pub attached: bool,
    /// Why not, if not.
    pub reason: Option<String>,
    /// What is not observed without it.
    pub lost_without: String,
    /// Runs so far, if the kernel's run-time statistics are on.
    pub runs: u64,
    /// Time spent in it, seconds, if the kernel's run-time statistics are on.
    pub run_seconds: f64,
    /// Runs the kernel skipped (`recursion_misses`).
    pub misses: u64,
}

/// A source of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceView {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: SourceState,
    /// The reason of the state, or what it does not provide.
    pub detail: Option<String>,
    /// Names and addresses that it provides.
    pub entries: u64,
    /// Entries that did not fit into its table.
    pub dropped: u64,
    /// Questions so far.
    pub lookups: u64,
    /// Queries without a valid response.
    pub errors: u64,
}

/// How a source of names is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// It has not answered yet.
    Starting,
    /// Providing names.
    Up,
    /// Not found on this host; the agent keeps looking for it.
    Absent,
    /// Failing and retried; its last inventory stays valid.
    Down,
}

impl SourceState {
    /// The value in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Absent => "absent",
            Self::Down => "down",
        }
    }
}

/// A feature that is off on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// What is not observed, or takes more CPU time.
    pub what: String,
    /// Why.
    pub why: String,
    /// Whether everything is observed nevertheless, and only takes more CPU time.
    pub is_observed: bool,
}

/// A kernel table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapView {
    /// Its name.
    pub name: String,
    /// Rows in use.
    pub entries: u64,
    /// Rows it can hold.
    pub capacity: u64,
}

impl MapView {
    /// Whether there is no room, or hardly any. A few rows of a table are reserved, so it is never
    /// in use as a whole.
    pub fn is_full(&self) -> bool {
        self.capacity > 0 && self.entries.saturating_mul(20) >= self.capacity.saturating_mul(19)
    }

    /// What follows if the table is full.
    pub fn consequence(&self) -> &'static str {
        match self.name.as_str() {
            "histograms" => "further durations count in the rows `other`",
            "bind_failures" => "further failed binds count in one row, without claimant and port",
            _ => "what needs another row counts in the rows `other`",
        }
    }
}
