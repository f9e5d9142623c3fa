//! What an event is, and when two are the same.

use std::sync::Arc;

use agent_common::share::Tenant;

use crate::relations::ServiceName;
use crate::service::Service;
use crate::snapshot::Role;

/// What kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A connect failed.
    Connect,
    /// A connection was reset.
    Reset,
    /// The kernel gave a connection up.
    Abort,
    /// A request got no response.
    Unanswered,
    /// A response was an error of the server.
    Response,
    /// A DNS lookup got no answer.
    Dns,
    /// A listener dropped a connection request.
    ListenDrop,
    /// A bind or listen failed.
    Bind,
    /// A connection that the segments do not allow.
    Violation,
    /// The agent itself has a problem.
    Agent,
    /// A service started, stopped, or has another command line.
    Service,
    /// A backend of a service came or went.
    Backend,
    /// An edge was seen first or last.
    Edge,
}

/// Something that happened, once or repeatedly.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Tells events apart.
    pub id: u64,
    /// Grows with each event, and each time that an event is shown to followers again. It goes on
    /// after a restart of the agent.
    pub cursor: u64,
    /// When it was noticed first, seconds since the Unix epoch.
    pub first_seconds: f64,
    /// When it was noticed last.
    pub last_seconds: f64,
    /// How often it happened.
    pub count: u64,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub struct What {
    /// The kind.
    pub kind: Kind,
    /// The cause, a word for programs: `connect_refused`, `service_started`.
    pub cause: &'static str,
    /// The service that connects.
    pub client: Option<Service>,
    /// The service that is connected to, that binds a port, or that changed.
    pub server: Option<Service>,
    /// The service that has the port, of a failed bind.
    pub holder: Option<Service>,
    /// The port.
    pub port: Option<u16>,
    /// Which side of an edge noticed.
    pub role: Option<Role>,
    /// The verdict in words.
    pub text: Arc<str>,
    /// Who caused it, and whose share of events it counts against; `None`: the agent's own.
    pub tenant: Option<Tenant>,
}

/// A problem of the agent that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its cause.
    pub cause: &'static str,
    /// In words.
    pub text: String,
    /// What tells it apart from others of its cause.
    pub subject: String,
}

/// What repetitions of an event have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) cause: &'static str,
    pub(super) services: [Option<ServiceName>; 3],
    port: Option<u16>,
    role: Option<Role>,
}

// === impl Kind ===

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Connect,
        Self::Reset,
        Self::Abort,
        Self::Unanswered,
        Self::Response,
        Self::Dns,
        Self::ListenDrop,
        Self::Bind,
        Self::Violation,
        Self::Agent,
        Self::Service,
        Self::Backend,
        Self::Edge,
    ];

    /// The word in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Abort => "abort",
            Self::Unanswered => "unanswered",
            Self::Response => "response",
            Self::Dns => "dns",
            Self::ListenDrop => "listen_drop",
            Self::Bind => "bind",
            Self::Violation => "violation",
            Self::Agent => "agent",
            Self::Service => "service",
            Self::Backend => "backend",
            Self::Edge => "edge",
        }
    }

    /// Whether it is a change, and not a failure.
    pub const fn is_change(self) -> bool {
        matches!(self, Self::Service | Self::Backend | Self::Edge)
    }

    /// The kind of a cause of [`why`]; `None` of what only waits.
    pub(super) fn of_cause(cause: &str) -> Option<Self> {
        let begins = |prefix| cause.starts_with(prefix);
        match cause {
            "listen_drop" => Some(Self::ListenDrop),
            _ if begins("connect_") => Some(Self::Connect),
            _ if begins("reset_") => Some(Self::Reset),
            _ if begins("abort_") => Some(Self::Abort),
            _ if begins("request_") => Some(Self::Unanswered),
            _ if begins("response_") => Some(Self::Response),
            _ if begins("dns_") => Some(Self::Dns),
            _ => None,
        }
    }
}

// === impl What ===

impl What {
    /// A change of a service.
    pub(super) fn of_service(kind: Kind, cause: &'static str, server: Service, text: &str) -> Self {
        Self {
            kind,
            cause,
            client: None,
            server: Some(server),
            holder: None,
            port: None,
            role: None,
            text: text.into(),
            tenant: None,
        }
    }

    /// The services it is about.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        [&self.client, &self.server, &self.holder].into_iter().flatten()
    }

    pub(super) fn key(&self) -> Key {
        let Self { kind: _, cause, client, server, holder, port, role, text: _, tenant: _ } = self;
        let services = [client, server, holder].map(|it| it.as_ref().map(ServiceName::from));
        Key { cause, services, port: *port, role: *role }
    }
}
