//! What is looked at, what comes of it, and how long it may take.

use std::time::Duration;

/// What is looked at.
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
    /// Executable and arguments of a process.
    Process,
    /// The process that holds a socket.
    SocketHolder,
}

/// What became of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was an answer.
    Ok,
    /// What was looked for could not be read, or is gone.
    Failed,
    /// There was no answer in time.
    Deadline,
    /// Too many looks were waiting.
    QueueFull,
}

// === impl Kind ===

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Addresses,
        Self::Cgroup,
        Self::ConnectErrno,
        Self::Conntrack,
        Self::FreePorts,
        Self::ListenDrops,
        Self::NamespaceSockets,
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
            Self::Process => "process",
            Self::SocketHolder => "socket_holder",
        }
    }

    /// How long one may take, its time in the queue included.
    pub(super) const fn deadline(self) -> Duration {
        match self {
            Self::Addresses | Self::Conntrack => Duration::from_secs(10),
            Self::FreePorts => Duration::from_secs(4),
            _ => Duration::from_secs(2),
        }
    }

    /// Whether a snapshot is better with the answer.
    pub(super) const fn is_for_snapshots(self) -> bool {
        !matches!(self, Self::Conntrack | Self::FreePorts)
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
