//! Kinds of lookups, their outcomes and deadlines.

use std::time::Duration;

/// What is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every network namespace: its addresses and ephemeral ports.
    Addresses,
    /// The cgroup of a process, or the tree of cgroups.
    Cgroup,
    /// Why a namespace refuses to connect to an address.
    ConnectErrno,
    /// Translated connections of every namespace.
    Conntrack,
    /// Ports of a namespace that are free, for the command line.
    FreePorts,
    /// Dropped connection requests of a namespace.
    ListenDrops,
    /// Sockets of a namespace in which a bind failed.
    NamespaceSockets,
    /// Every network namespace: connection tracking, interfaces, memory of TCP.
    NetworkConditions,
    /// Executable and arguments of a process.
    Process,
    /// The process that holds a socket.
    SocketHolder,
}

/// The outcome of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was an answer.
    Ok,
    /// It could not be read, or is gone.
    Failed,
    /// The deadline passed.
    Deadline,
    /// The queue was full.
    QueueFull,
}

// === impl Kind ===

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Addresses,
        Self::Cgroup,
        Self::ConnectErrno,
        Self::Conntrack,
        Self::FreePorts,
        Self::ListenDrops,
        Self::NamespaceSockets,
        Self::NetworkConditions,
        Self::Process,
        Self::SocketHolder,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Addresses => "addresses",
            Self::Cgroup => "cgroup",
            Self::ConnectErrno => "connect_errno",
            Self::Conntrack => "conntrack",
            Self::FreePorts => "free_ports",
            Self::ListenDrops => "listen_drops",
            Self::NamespaceSockets => "namespace_sockets",
            Self::NetworkConditions => "network_conditions",
            Self::Process => "process",
            Self::SocketHolder => "socket_holder",
        }
    }

    /// The deadline, including the time in the queue.
    pub(super) const fn deadline(self) -> Duration {
        match self {
            Self::Addresses | Self::Conntrack | Self::NetworkConditions => Duration::from_secs(10),
            Self::FreePorts => Duration::from_secs(4),
            _ => Duration::from_secs(2),
        }
    }

    /// Whether the answer improves a snapshot.
    pub(super) const fn is_for_snapshots(self) -> bool {
        !matches!(self, Self::Conntrack | Self::FreePorts | Self::NetworkConditions)
    }
}

// === impl Outcome ===

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Failed, Self::Deadline, Self::QueueFull];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Deadline => "deadline",
            Self::QueueFull => "queue_full",
        }
    }
}
