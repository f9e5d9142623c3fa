//! The enumerations that several responses share.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A protocol with ports.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Which side of an edge counted.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
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

/// Kind of a service.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A Kubernetes Deployment.
    Deployment,
    /// A Kubernetes StatefulSet.
    StatefulSet,
    /// A Kubernetes DaemonSet.
    DaemonSet,
    /// A Kubernetes ReplicaSet without a Deployment.
    ReplicaSet,
    /// A Kubernetes CronJob.
    CronJob,
    /// A Kubernetes Job.
    Job,
    /// A Kubernetes workload of another kind.
    Workload,
    /// A Kubernetes pod without an owner.
    Pod,
    /// A Kubernetes Service whose backends are unknown.
    KubernetesService,
    /// A service of a Compose project.
    ComposeService,
    /// A container.
    Container,
    /// A systemd unit.
    Unit,
    /// A program.
    Process,
    /// Declared in the configuration, or registered by hand.
    Declared,
    /// A DNS name.
    DnsName,
    /// An address without a name.
    Address,
    /// Everything outside the internal ranges.
    Internet,
    /// Unknown, or several services in one row.
    Unknown,
}

/// How a name was found, from the surest source to the last resort.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A rule of the configuration.
    Rule,
    /// The pod, from the Kubernetes API.
    Kubernetes,
    /// The container, from Docker.
    Docker,
    /// The container, from Podman.
    Podman,
    /// The pod or container, from the container runtime (CRI).
    Cri,
    /// The container id in the cgroup's path.
    Container,
    /// The systemd unit in the cgroup's path.
    Unit,
    /// The command line of the process.
    Process,
    /// The backends that answered, from connection tracking.
    Conntrack,
    /// The container behind a published port.
    PublishedPort,
    /// A listener of this host, in the right network namespace.
    Listener,
    /// The address of a container or pod.
    ContainerAddress,
    /// A Kubernetes Service: its own address or that of an endpoint.
    ServiceAddress,
    /// A client of this host: the only one that connects there, or one whose own name may still
    /// change.
    LocalClient,
    /// Registered by hand for the address.
    Registered,
    /// A network that the configuration names.
    Network,
    /// The DNS name that a program resolved to the address.
    Dns,
    /// The address itself.
    Address,
    /// Outside the internal ranges.
    Internet,
    /// Unknown, or several services in one row.
    Unknown,
}

/// How a port is held.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    /// A TCP socket that accepts connections.
    Listening,
    /// A socket that is bound and does not listen; for UDP, one that receives.
    Bound,
    /// The local end of a connection.
    Connected,
    /// A closed connection in TIME_WAIT, without a process.
    TimeWait,
    /// Not in use, but reserved.
    Reserved,
}

/// Why a bind or listen failed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum BindFailure {
    /// Both sockets request the same address and port.
    SameAddress,
    /// All addresses were requested, and another socket has one of them.
    WildcardOverSpecific,
    /// One address was requested, and another socket has all of them.
    SpecificUnderWildcard,
    /// An IPv6 socket that takes IPv4 too meets an IPv4 socket.
    DualStack,
    /// `SO_REUSEADDR` is missing on one socket or on both.
    ReuseAddressMissing,
    /// A client got the port that it connects to as its own, and is connected to itself.
    SelfConnected,
    /// An outgoing connection got the port.
    OutgoingConnection,
    /// A container engine has given the port to another container, and did not try to bind it.
    Allocated,
    /// `SO_REUSEPORT` is set on one socket only.
    ReusePortMissing,
    /// `SO_REUSEPORT` is set on both sockets, but they belong to different users.
    ReusePortOtherUser,
    /// Both could bind; the other one listened first.
    ListenLost,
    /// The port needs CAP_NET_BIND_SERVICE.
    Privileged,
    /// The host does not have the address.
    ForeignAddress,
    /// The socket had a port already.
    AlreadyBound,
    /// No ephemeral port was free.
    Exhausted,
    /// A policy denied it.
    Denied,
    /// The socket that held the port is closed by now.
    Gone,
    /// Anything else.
    Other,
}

/// The system call that failed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SystemCall {
    /// bind(2).
    Bind,
    /// listen(2).
    Listen,
}

/// The environment of a host.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// Development.
    Dev,
    /// Production.
    Prod,
}

/// Where a reservation comes from.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The configuration: it cannot be changed while the agent runs.
    Config,
    /// A request to this agent.
    State,
}

// === impl Protocol ===

impl Protocol {
    /// The value in JSON and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

// === impl Role ===

impl Role {
    /// The value in JSON and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Client => "client",
            Self::Server => "server",
            Self::Listener => "listener",
        }
    }
}

// === impl Kind ===

impl Kind {
    /// The value in JSON and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::StatefulSet => "stateful_set",
            Self::DaemonSet => "daemon_set",
            Self::ReplicaSet => "replica_set",
            Self::CronJob => "cron_job",
            Self::Job => "job",
            Self::Workload => "workload",
            Self::Pod => "pod",
            Self::KubernetesService => "kubernetes_service",
            Self::ComposeService => "compose_service",
            Self::Container => "container",
            Self::Unit => "unit",
            Self::Process => "process",
            Self::Declared => "declared",
            Self::DnsName => "dns_name",
            Self::Address => "address",
            Self::Internet => "internet",
            Self::Unknown => "unknown",
        }
    }
}

// === impl Source ===

impl Source {
    /// The value in JSON and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Kubernetes => "kubernetes",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Cri => "cri",
            Self::Container => "container",
            Self::Unit => "unit",
            Self::Process => "process",
            Self::Conntrack => "conntrack",
            Self::PublishedPort => "published_port",
            Self::Listener => "listener",
            Self::ContainerAddress => "container_address",
            Self::ServiceAddress => "service_address",
            Self::LocalClient => "local_client",
            Self::Registered => "registered",
            Self::Network => "network",
            Self::Dns => "dns",
            Self::Address => "address",
            Self::Internet => "internet",
            Self::Unknown => "unknown",
        }
    }
}

// === impl PortState ===

impl PortState {
    /// The value in JSON and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Listening => "listening",
            Self::Bound => "bound",
            Self::Connected => "connected",
            Self::TimeWait => "time_wait",
            Self::Reserved => "reserved",
        }
    }
}

// === impl BindFailure ===

impl BindFailure {
    /// The value in JSON and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SameAddress => "same_address",
            Self::WildcardOverSpecific => "wildcard_over_specific",
            Self::SpecificUnderWildcard => "specific_under_wildcard",
            Self::DualStack => "dual_stack",
            Self::ReuseAddressMissing => "reuse_address_missing",
            Self::SelfConnected => "self_connected",
            Self::OutgoingConnection => "outgoing_connection",
            Self::Allocated => "allocated",
            Self::ReusePortMissing => "reuse_port_missing",
            Self::ReusePortOtherUser => "reuse_port_other_user",
            Self::ListenLost => "listen_lost",
            Self::Privileged => "privileged",
            Self::ForeignAddress => "foreign_address",
            Self::AlreadyBound => "already_bound",
            Self::Exhausted => "exhausted",
            Self::Denied => "denied",
            Self::Gone => "gone",
            Self::Other => "other",
        }
    }
}

// === impl SystemCall ===

impl SystemCall {
    /// The value in JSON and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Listen => "listen",
        }
    }
}

// === impl Environment ===

impl Environment {
    /// The value in JSON and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Prod => "prod",
        }
    }
}

// === impl Origin ===

impl Origin {
    /// The value in JSON and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::State => "state",
        }
    }
}
