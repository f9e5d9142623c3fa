//! What commands ask an agent for, and how a snapshot answers: which stored response has it, and what
//! of that was asked for.
//!
//! A snapshot has the widest answer of each route, for each of its windows. What the server leaves out
//! by a parameter is left out here; a test compares the two for every command. The map around services
//! is drawn from the edges of the window: the stored map has applications only.

use std::fmt::Write as _;

use api_types::{
    BalanceGroup, Conflict, Edge, EdgeTimeouts, EdgeWaits, Edges, Event, EventFilter, Port,
    Reservation, Role, ServiceEndpoint, Timeouts, Timestamp, WindowChoice, is_called,
};
use client::Error;
use serde::Deserialize;

use super::chains::{chains, ends};
use super::{history, raw};

/// The windows that every snapshot has.
pub(super) const WINDOWS: [WindowChoice; 4] =
    [WindowChoice::Last(10), WindowChoice::Last(60), WindowChoice::Last(300), WindowChoice::Start];

/// Seconds of the histories and of the endpoints that every snapshot has.
const HISTORIES: [u64; 3] = [60, 300, 3600];
const ENDPOINTS: [u64; 2] = [3600, 86_400];

/// Series, and events, that an agent gives at most.
const MOST_SERIES: usize = 1000;
const MOST_EVENTS: usize = 10_000;

/// What an agent gives without a parameter.
const USUAL_EVENTS: usize = 1000;
const USUAL_SECONDS: u64 = 60;
const USUAL_ENDPOINTS: &str = "1h";

/// A request, as a snapshot answers it.
#[derive(Debug)]
pub(super) struct Question {
    /// The request whose response is stored.
    pub stored: String,
    /// What of it is wanted.
    pub wanted: Wanted,
}

/// The part of a stored response that was asked for.
#[derive(Debug)]
pub(super) enum Wanted {
    All,
    Edges {
        role: Option<Role>,
        service: Option<String>,
        port: Option<u16>,
    },
    Groups {
        servers: Vec<String>,
    },
    Timeouts {
        services: Vec<String>,
    },
    Ports {
        port: u16,
    },
    Conflicts {
        since: Option<Timestamp>,
        port: Option<u16>,
    },
    Events {
        filter: EventFilter,
        most: usize,
    },
    History(history::Wanted),
    Endpoints {
        services: Vec<String>,
        port: Option<u16>,
        loopback: bool,
    },
    /// The map around these, from edges.
    MapAround {
        services: Vec<String>,
    },
}

/// The parameters of a request.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Query {
    window: Option<String>,
    by: Option<String>,
    role: Option<Role>,
    service: Option<String>,
    client: Option<String>,
    server: Option<String>,
    port: Option<u16>,
    since: Option<Timestamp>,
    kind: Option<String>,
    cause: Option<String>,
    limit: Option<usize>,
    loopback: bool,
}

/// The requests whose responses make a snapshot. `more`: further windows.
pub(super) fn requests(more: &[WindowChoice]) -> Vec<String> {
    let mut windows = WINDOWS.to_vec();
    windows.extend(more);
    let mut all = Vec::new();
    for window in windows {
        for route in ["edges", "services", "balance", "timeouts", "map", "segments"] {
            all.push(format!("/api/v1/{route}?window={window}"));
        }
        if window != WindowChoice::Start {
            all.push(format!("/api/v1/edges?window={window}&by=address"));
        }
    }
    for route in ["status", "listeners", "ports", "conflicts", "reservations", "flows"] {
        all.push(format!("/api/v1/{route}"));
    }
    all.push(events());
    all.extend(HISTORIES.map(stored_history));
    all.extend(ENDPOINTS.map(endpoints));
    all.sort_unstable();
    all.dedup();
    all
}

fn events() -> String {
    format!("/api/v1/events?limit={MOST_EVENTS}")
}

fn stored_history(seconds: u64) -> String {
    format!("/api/v1/history?window={seconds}&limit={MOST_SERIES}")
}

fn endpoints(seconds: u64) -> String {
    format!("/api/v1/endpoints?window={seconds}s&loopback=true")
}

// === impl Question ===

impl Question {
    /// What the request for `path` asks for; an error if no snapshot can answer it.
    pub fn of(path: &str) -> Result<Self, Error> {
        let (route, query) = path.split_once('?').unwrap_or((path, ""));
        let refused = |why: String| Error::Refused { said: why };
        let mut query: Query = serde_urlencoded::from_str(query)
            .map_err(|why| refused(format!("{path} cannot be answered from a snapshot: {why}")))?;
        let question = query.answered_by(route)?;
        // What is left was not looked at.
        if query == Query::default() {
            return Ok(question);
        }
        Err(refused(format!(
            "a snapshot has the whole of {route}: it cannot be filtered like {path}"
        )))
    }
}

// === impl Query ===

impl Query {
    /// Takes the parameters that a snapshot can follow on this route.
    fn answered_by(&mut self, route: &str) -> Result<Question, Error> {
        use WindowChoice::{Last, Start};
        let plain = |stored: String| Question { stored, wanted: Wanted::All };
        Ok(match route {
            "/api/v1/edges" => {
                let by = self.by.take();
                let window =
                    self.window_or(if by.is_some() { Last(USUAL_SECONDS) } else { Start })?;
                let mut stored = format!("{route}?window={window}");
                if let Some(by) = by {
                    // Writing into a String cannot fail.
                    let _ = write!(stored, "&by={by}");
                }
                let (role, service, port) =
                    (self.role.take(), self.service.take(), self.port.take());
                Question { stored, wanted: Wanted::Edges { role, service, port } }
            }
            "/api/v1/balance" => {
                let window = self.window_or(Last(WindowChoice::LONGEST_SECONDS))?;
                let servers = names(&self.service.take().unwrap_or_default());
                let stored = format!("{route}?window={window}");
                Question { stored, wanted: Wanted::Groups { servers } }
            }
            "/api/v1/services" => {
                plain(format!("{route}?window={}", self.window_or(Last(USUAL_SECONDS))?))
            }
            "/api/v1/map" => {
                let window = self.window_or(Start)?;
                match names(&self.service.take().unwrap_or_default()) {
                    services if services.is_empty() => plain(format!("{route}?window={window}")),
                    services => {
                        let stored = format!("/api/v1/edges?window={window}");
                        Question { stored, wanted: Wanted::MapAround { services } }
                    }
                }
            }
            "/api/v1/segments" => plain(format!("{route}?window={}", self.window_or(Start)?)),
            "/api/v1/timeouts" => {
                let window = self.window_or(Last(WindowChoice::LONGEST_SECONDS))?;
                let stored = format!("{route}?window={window}");
                let services = names(&self.service.take().unwrap_or_default());
                Question { stored, wanted: Wanted::Timeouts { services } }
            }
            "/api/v1/ports" => {
                let port = self.port.take();
                let wanted = port.map_or(Wanted::All, |port| Wanted::Ports { port });
                Question { stored: route.to_owned(), wanted }
            }
            "/api/v1/conflicts" => {
                let (since, port) = (self.since.take(), self.port.take());
                Question { stored: route.to_owned(), wanted: Wanted::Conflicts { since, port } }
            }
            "/api/v1/events" => {
                let most = self.limit.take().unwrap_or(USUAL_EVENTS);
                let filter = EventFilter {
                    since: self.since.take(),
                    service: self.service.take(),
                    client: self.client.take(),
                    server: self.server.take(),
                    port: self.port.take(),
                    kind: self.kind.take(),
                    cause: self.cause.take(),
                };
                Question { stored: events(), wanted: Wanted::Events { filter, most } }
            }
            "/api/v1/history" => {
                let window = self.window.take();
                let seconds = window.map_or(Some(USUAL_SECONDS), |text| seconds(&text));
                let stored = stored_history(seconds.ok_or_else(|| unreadable(route))?);
                let wanted = history::Wanted {
                    service: self.service.take(),
                    client: self.client.take(),
                    server: self.server.take(),
                    port: self.port.take(),
                    limit: self.limit.take(),
                };
                Question { stored, wanted: Wanted::History(wanted) }
            }
            "/api/v1/endpoints" => {
                let window = self.window.take().unwrap_or_else(|| USUAL_ENDPOINTS.to_owned());
                let seconds = seconds(&window).ok_or_else(|| unreadable(route))?;
                let services = names(&self.service.take().unwrap_or_default());
                let (port, loopback) = (self.port.take(), std::mem::take(&mut self.loopback));
                let wanted = Wanted::Endpoints { services, port, loopback };
                Question { stored: endpoints(seconds), wanted }
            }
            _ => plain(route.to_owned()),
        })
    }

    fn window_or(&mut self, usual: WindowChoice) -> Result<WindowChoice, Error> {
        let Some(text) = self.window.take() else { return Ok(usual) };
        text.parse().map_err(|said| Error::Refused { said })
    }
}

fn unreadable(route: &str) -> Error {
    let said = format!("cannot read the window of {route}; write {}", notation::duration::FORM);
    Error::Refused { said }
}

/// Seconds with a unit or without.
fn seconds(text: &str) -> Option<u64> {
    let with_unit = || notation::duration::parse(text).map(|duration| duration.as_secs());
    text.parse().ok().or_else(with_unit)
}

/// Names with commas between them.
fn names(text: &str) -> Vec<String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

pub(super) fn is_one_of((namespace, name): (&str, &str), services: &[String]) -> bool {
    services.iter().any(|wanted| is_called((namespace, name), wanted))
}

// === impl Wanted ===

impl Wanted {
    /// What of a stored response was asked for.
    pub fn of(&self, body: &str) -> Result<String, Error> {
        match self {
            Self::All
            | Self::Edges { role: None, service: None, port: None }
            | Self::Conflicts { since: None, port: None } => Ok(body.to_owned()),
            Self::Groups { servers: names } | Self::Timeouts { services: names }
                if names.is_empty() =>
            {
                Ok(body.to_owned())
            }
            Self::Edges { role, service, port } => raw::keep(body, "edges", |edge: &Edge| {
                role.is_none_or(|role| role == edge.role)
                    && port.is_none_or(|port| port == edge.port)
                    && service
                        .as_ref()
                        .is_none_or(|name| *name == edge.client || *name == edge.server)
            }),
            Self::Groups { servers } => raw::keep(body, "groups", |group: &BalanceGroup| {
                is_one_of((&group.server_namespace, &group.server), servers)
            }),
            Self::Timeouts { services } => {
                let all: Timeouts = client::read(body)?;
                let chosen = chains(&all.waits, services);
                let edges = raw::keep(body, "edges", |edge: &EdgeTimeouts| {
                    let client = (&*edge.client_namespace, &*edge.client);
                    let server = (&*edge.server_namespace, &*edge.server);
                    is_one_of(client, services) || is_one_of(server, services)
                })?;
                raw::keep(&edges, "waits", |edge: &EdgeWaits| chosen.contains(&ends(edge)))
            }
            Self::Ports { port } => {
                let ports = raw::keep(body, "ports", |one: &Port| one.port == *port)?;
                raw::keep(&ports, "unused_reservations", |one: &Reservation| one.port == *port)
            }
            Self::Conflicts { since, port } => raw::keep(body, "conflicts", |one: &Conflict| {
                since.is_none_or(|since| one.last_seen >= since)
                    && port.is_none_or(|port| port == one.port)
            }),
            Self::Events { filter, most } => {
                let admitted =
                    raw::keep(body, "events", |event: &Event| filter.admits(&event.facts()))?;
                raw::keep_last(&admitted, "events", *most)
            }
            Self::History(wanted) => wanted.of(body),
            Self::MapAround { services } => {
                let edges: Edges = client::read(body)?;
                let map = recorded::around(&edges, services);
                serde_json::to_string(&map).map_err(|why| Error::Version { why: why.to_string() })
            }
            Self::Endpoints { services, port, loopback } => {
                raw::keep(body, "endpoints", |one: &ServiceEndpoint| {
                    let is_wanted = || is_one_of((&one.service_namespace, &one.service), services);
                    (*loopback || !one.address.is_loopback())
                        && port.is_none_or(|port| port == one.port)
                        && (services.is_empty() || is_wanted())
                })
            }
        }
    }
}
