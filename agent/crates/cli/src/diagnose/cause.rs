//! What a diagnosis can find: one word for programs, and the step that it belongs to.

use serde::Serialize;

/// What is wrong between two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cause {
    /// The server's process is stopped (SIGSTOP, a debugger).
    ProcessStopped,
    /// The server's name does not resolve.
    NameNotResolved,
    /// The OOM killer has killed the server.
    OomKilled,
    /// No local port is left at the client.
    NoLocalPort,
    /// The client binds a source address or port that it cannot have.
    SourceAddress,
    /// A policy of the client's host refuses the connect.
    Denied,
    /// An interface of the client or the server is down, or has no carrier.
    LinkDown,
    /// There is no route to the server, or one that forbids it.
    NoRoute,
    /// The server has no route back.
    NoRouteBack,
    /// No answer for the server's address (ARP, neighbour discovery).
    HostGone,
    /// Nothing listens on the port.
    NothingListens,
    /// The server listens on the loopback only.
    LoopbackOnly,
    /// The server listens on another address, or for another address family.
    OtherAddress,
    /// The server listens and the connect is refused all the same.
    Rejected,
    /// It was refused, and no longer is.
    WasNotListening,
    /// The accept queue is full.
    AcceptQueueFull,
    /// A full table of connection tracking drops new connections.
    TrackingFull,
    /// SYNs get no answer.
    Dropped,
    /// Some packets are lost.
    Loss,
    /// The certificate has expired.
    CertificateExpired,
    /// The certificate is for another name.
    CertificateName,
    /// The TLS handshake fails in another way.
    TlsFails,
    /// Idle connections are closed by the server and used again by the client.
    KeepaliveMismatch,
    /// The server has hardly any descriptor left.
    OutOfDescriptors,
    /// The server does not read what it has received.
    NotReading,
    /// The server does not answer requests.
    NeverAnswers,
    /// Established connections die.
    ConnectionsDie,
    /// Connections are reset.
    Resets,
    /// The server answers with an error.
    ServerError,
    /// The server is slow because its cgroup is throttled.
    CpuThrottled,
    /// The server is slow because of a service that it calls.
    SlowDependency,
    /// The server itself is slow.
    SlowServer,
    /// The network is slow.
    SlowPath,
    /// The client spreads its load unevenly over the backends of the server.
    Uneven,
    /// The segments do not allow the connection.
    Forbidden,
    /// A program does not close connections.
    NotClosed,
    /// Nothing is wrong.
    Healthy,
    /// Nothing is known.
    NotEnoughData,
}

/// A step from the name to the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    Name,
    Route,
    Port,
    Tcp,
    Path,
    Tls,
    Http,
    Application,
    Host,
    Policy,
}

// === impl Cause ===

impl Cause {
    /// Whether something has to be fixed.
    pub(super) const fn is_fault(self) -> bool {
        !matches!(self, Self::Healthy | Self::NotEnoughData)
    }

    /// Where it is.
    pub(super) const fn step(self) -> Option<Step> {
        Some(match self {
            Self::NameNotResolved => Step::Name,
            Self::LinkDown | Self::NoRoute | Self::NoRouteBack => Step::Route,
            Self::NothingListens
            | Self::LoopbackOnly
            | Self::OtherAddress
            | Self::WasNotListening
            | Self::AcceptQueueFull => Step::Port,
            Self::NoLocalPort
            | Self::SourceAddress
            | Self::Denied
            | Self::HostGone
            | Self::Rejected
            | Self::TrackingFull
            | Self::Dropped
            | Self::ConnectionsDie
            | Self::Resets
            | Self::KeepaliveMismatch => Step::Tcp,
            Self::Loss | Self::SlowPath => Step::Path,
            Self::CertificateExpired | Self::CertificateName | Self::TlsFails => Step::Tls,
            Self::ServerError
            | Self::NeverAnswers
            | Self::NotReading
            | Self::SlowDependency
            | Self::SlowServer
            | Self::Uneven
            | Self::NotClosed => Step::Application,
            Self::ProcessStopped
            | Self::OomKilled
            | Self::OutOfDescriptors
            | Self::CpuThrottled => Step::Host,
            Self::Forbidden => Step::Policy,
            Self::Healthy | Self::NotEnoughData => return None,
        })
    }
}

// === impl Step ===

impl Step {
    /// All of them, in their order.
    pub(super) const ALL: [Self; 10] = [
        Self::Name,
        Self::Route,
        Self::Port,
        Self::Tcp,
        Self::Path,
        Self::Tls,
        Self::Http,
        Self::Application,
        Self::Host,
        Self::Policy,
    ];

    /// Its title.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Route => "route",
            Self::Port => "port",
            Self::Tcp => "TCP",
            Self::Path => "path",
            Self::Tls => "TLS",
            Self::Http => "HTTP",
            Self::Application => "app",
            Self::Host => "host",
            Self::Policy => "policy",
        }
    }

    /// What it is about, to say that it is not the cause.
    pub(super) const fn subject(self) -> &'static str {
        match self {
            Self::Name => "the name",
            Self::Route => "the route",
            Self::Port => "the port or its accept queue",
            Self::Tcp => "connecting",
            Self::Path => "packet loss",
            Self::Tls => "TLS",
            Self::Http => "HTTP",
            Self::Application => "the program",
            Self::Host => "CPU, memory or descriptors of the server",
            Self::Policy => "the segments",
        }
    }
}
