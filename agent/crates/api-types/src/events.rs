//! `/api/v1/events`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Role, Service, Severity, Timestamp};

/// What went wrong and what changed, one by one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Events {
    /// When the list was read.
    pub timestamp: Timestamp,
    /// What to pass as `after` to read on from here.
    pub cursor: u64,
    /// Whether there are more events after `cursor` already, because of `limit`.
    pub more: bool,
    /// Whether events after the `after` of the request were overwritten before they were read.
    pub overwritten: bool,
    /// The events, in the order of their cursors.
    pub events: Vec<Event>,
}

/// Something that happened, once or repeatedly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number. An event that repeats within a minute keeps it, for up to five minutes, and is
    /// listed again with a higher `count` and `cursor`.
    pub id: u64,
    /// Its position in the order of events.
    pub cursor: u64,
    /// When it was noticed first.
    pub first_seen: Timestamp,
    /// When it was noticed last.
    pub last_seen: Timestamp,
    /// How often it happened.
    pub count: u64,
    /// How bad it is.
    pub severity: Severity,
    /// What kind of event it is.
    pub kind: EventKind,
    /// The cause, a word for programs; of edges the same as in `why` of `/api/v1/edges`.
    #[schema(example = "connect_refused")]
    pub cause: String,
    /// The verdict in words.
    #[schema(example = "refused")]
    pub text: String,
    /// The service that connects; null if there is none.
    pub client: Option<Service>,
    /// The service that is connected to, that failed to bind a port, or that changed.
    pub server: Option<Service>,
    /// The service that has the port, of a failed bind.
    pub holder: Option<Service>,
    /// The port.
    pub port: Option<u16>,
    /// Which side of an edge noticed it.
    pub role: Option<Role>,
    /// What changed at these services in the ten minutes before, latest first, five at most. Empty of
    /// changes themselves, and of events in a stream or a log.
    pub changes_before: Vec<Change>,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// When it was noticed.
    pub time: Timestamp,
    /// What changed, a word for programs.
    #[schema(example = "service_restarted")]
    pub cause: String,
    /// The service.
    pub service: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub service_namespace: String,
    /// In words.
    #[schema(example = "restarted")]
    pub text: String,
}

/// What kind of event.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A connect failed.
    Connect,
    /// A connection was reset.
    Reset,
    /// The kernel gave a connection up because the other end did not answer.
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

impl EventKind {
    /// All kinds.
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

    /// The word in JSON and in queries.
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
}
