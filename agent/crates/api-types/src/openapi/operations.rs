//! The table of all operations: a row for each method and path, in the order of the document.

use utoipa::ToSchema as _;
use utoipa::openapi::{ObjectBuilder, Ref, RefOr, Schema, Type};

use super::{Access, Answer, Operation, Parameter, Shape};
use crate::{
    AllocatePorts, AllocatedPorts, Balance, Conflicts, DiscoveryRequest, DiscoveryResponse, Edges,
    Endpoints, Events, Flows, History, Listeners, Map, Ports, Protocol, Register, Registered,
    Release, Renew, Renewed, Reservations, Reserve, Reserved, Role, Segments, Services, Status,
    TargetGroups, Timeouts, Timestamp, Unregister,
};

const SERVICES: Parameter = Parameter {
    name: "service",
    description: "Only these services: names or namespace/name, separated by commas.",
    schema: text,
};
const WINDOW: Parameter = Parameter {
    name: "window",
    description: "Only the last period, at most five minutes: whole seconds or a duration, like 60, 90s or 5m; or `start`, since the agent started. The answer says what it really covers.",
    schema: text,
};
const ENDPOINTS: &[Parameter] = &[
    SERVICES,
    PORT,
    Parameter {
        name: "window",
        description: "Observed endpoints had a connection, or moved a byte, in this time, like 15m or 24h (1h by default).",
        schema: text,
    },
    Parameter {
        name: "loopback",
        description: "`true`: loopback addresses too, which are valid on this host only.",
        schema: boolean,
    },
];
const PORT: Parameter =
    Parameter { name: "port", description: "Only this port.", schema: port_number };

/// Every operation, in the order of the document.
pub const OPERATIONS: &[Operation] = &[
    get(
        "/api/v1/status",
        "status",
        "What the agent observes, and what it cannot",
        Shape::of::<Status>(),
    ),
    get(
        "/api/v1/edges",
        "edges",
        "Clients, servers and their traffic, since the agent started or over a window",
        Shape::of::<Edges>(),
    )
    .with(&[
        Parameter { name: "role", description: "Only edges that this side counted.", schema: role },
        Parameter {
            name: "service",
            description: "Only edges with a service of this name at either end.",
            schema: text,
        },
        PORT,
        WINDOW,
        Parameter {
            name: "by",
            description: "`address`: one edge for each address of the server, over the last minute or a window.",
            schema: text,
        },
    ]),
    get("/api/v1/listeners", "listeners", "Listening sockets", Shape::of::<Listeners>()),
    get("/api/v1/ports", "ports", "Bound ports and their holders", Shape::of::<Ports>()).with(&[
        PORT,
        Parameter { name: "protocol", description: "Only this protocol.", schema: protocol },
    ]),
    get(
        "/api/v1/conflicts",
        "conflicts",
        "Binds and listens that failed",
        Shape::of::<Conflicts>(),
    )
    .with(&[
        Parameter {
            name: "since",
            description: "Only conflicts last seen at this time or later.",
            schema: time,
        },
        PORT,
    ]),
    get(
        "/api/v1/events",
        "events",
        "What went wrong and what changed, one by one; with `Accept: text/event-stream` a stream of events from now on (`data` of each is an Event, `id` its cursor)",
        Shape::of::<Events>(),
    )
    .with(&[
        Parameter {
            name: "after",
            description: "Only events with a larger cursor: `cursor` of the response before.",
            schema: number,
        },
        Parameter {
            name: "since",
            description: "Only events that happened at this time or later.",
            schema: time,
        },
        Parameter {
            name: "service",
            description: "Only events of this service, at whichever end: name or namespace/name.",
            schema: text,
        },
        Parameter { name: "client", description: "Only events with this client.", schema: text },
        Parameter { name: "server", description: "Only events with this server.", schema: text },
        PORT,
        Parameter {
            name: "kind",
            description: "Only events of these kinds, separated by commas.",
            schema: text,
        },
        Parameter {
            name: "cause",
            description: "Only events of these causes, separated by commas.",
            schema: text,
        },
        Parameter {
            name: "limit",
            description: "At most so many events (1000 by default): with `after` the first, else the last ones.",
            schema: number,
        },
    ]),
    get(
        "/api/v1/history",
        "history",
        "What edges or services counted, step by step: seconds in the last minute, ten seconds in the last hour",
        Shape::of::<History>(),
    )
    .with(&[
        Parameter {
            name: "service",
            description: "Only edges with this service at either end: name or namespace/name.",
            schema: text,
        },
        Parameter { name: "client", description: "Only edges of this client.", schema: text },
        Parameter { name: "server", description: "Only edges of this server.", schema: text },
        PORT,
        Parameter {
            name: "by",
            description: "`edge` (default), or `service`: one series for each server.",
            schema: text,
        },
        Parameter {
            name: "window",
            description: "Only the last period, a minute by default, at most an hour: whole seconds or a duration, like 60 or 1h. The answer says what it really covers.",
            schema: text,
        },
        Parameter {
            name: "limit",
            description: "At most so many series, the busiest (20 by default, 1000 at most).",
            schema: number,
        },
    ]),
    get(
        "/api/v1/reservations",
        "reservations",
        "Reserved ports and breaches",
        Shape::of::<Reservations>(),
    ),
    get(
        "/api/v1/services",
        "services",
        "Services with ports and health, over a window (1m by default)",
        Shape::of::<Services>(),
    )
    .with(&[
        Parameter {
            name: "service",
            description: "Only this service: name or namespace/name.",
            schema: text,
        },
        WINDOW,
    ]),
    get(
        "/api/v1/map",
        "map",
        "The graph of services, since the agent started or over a window; monitoring and system services only around those that are asked for",
        Shape::of::<Map>(),
    )
    .with(&[WINDOW, SERVICES]),
    get(
        "/api/v1/balance",
        "balance",
        "How load is distributed over backends, over a window (5m by default)",
        Shape::of::<Balance>(),
    )
    .with(&[WINDOW, SERVICES]),
    get(
        "/api/v1/endpoints",
        "endpoints",
        "Where services can be reached: addresses and ports from traffic, listening sockets and registrations",
        Shape::of::<Endpoints>(),
    )
    .with(ENDPOINTS),
    get(
        "/api/v1/sd/prometheus",
        "prometheusTargets",
        "The endpoints as targets for Prometheus (`http_sd_configs`)",
        Shape::of::<TargetGroups>(),
    )
    .with(ENDPOINTS),
    get(
        "/api/v1/sd/envoy",
        "envoyClusters",
        "The endpoints as clusters for Envoy, each service with each of its ports",
        Shape::of::<DiscoveryResponse>(),
    )
    .with(ENDPOINTS),
    ask(
        "/v3/discovery:endpoints",
        "envoyEndpoints",
        "The endpoints of the clusters that Envoy asks for (EDS over REST); changes nothing",
        Shape::of::<DiscoveryRequest>(),
        Shape::of::<DiscoveryResponse>(),
    ),
    get(
        "/api/v1/flows",
        "flows",
        "Which services connected to which, from which address to which, since the agent started: what policies are made from",
        Shape::of::<Flows>(),
    )
    .with(&[SERVICES]),
    get(
        "/api/v1/timeouts",
        "timeouts",
        "After how long idle connections are closed and are still used, in the last five minutes by default",
        Shape::of::<Timeouts>(),
    )
    .with(&[WINDOW, SERVICES]),
    get(
        "/api/v1/segments",
        "segments",
        "Declared segments and violations, since the agent started by default; 404 if none is declared",
        Shape::of::<Segments>(),
    )
    .with(&[WINDOW]),
    change(
        "POST",
        "/api/v1/reservations",
        "reserve",
        "Reserve a port",
        Shape::of::<Reserve>(),
        Shape::of::<Reserved>(),
    ),
    change(
        "DELETE",
        "/api/v1/reservations",
        "release",
        "Remove a reservation",
        Shape::of::<Release>(),
        Shape::of::<Reserved>(),
    ),
    change(
        "POST",
        "/api/v1/ports/free",
        "allocatePorts",
        "Allocate free ports",
        Shape::of::<AllocatePorts>(),
        Shape::of::<AllocatedPorts>(),
    ),
    change(
        "POST",
        "/api/v1/services",
        "register",
        "Name addresses by hand",
        Shape::of::<Register>(),
        Shape::of::<Registered>(),
    ),
    change(
        "POST",
        "/api/v1/services/renew",
        "renew",
        "Let addresses that were registered with a TTL last for it again, from now on",
        Shape::of::<Renew>(),
        Shape::of::<Renewed>(),
    ),
    change(
        "DELETE",
        "/api/v1/services",
        "unregister",
        "Remove a name given by hand",
        Shape::of::<Unregister>(),
        Shape::of::<Registered>(),
    ),
    media("/api/v1/openapi.json", "openapi", "This document", "application/json"),
    media(
        "/metrics",
        "metrics",
        "Metrics for Prometheus; OpenMetrics if the client accepts it",
        "text/plain",
    ),
    media("/healthz", "healthz", "Liveness: the process runs and still collects", "text/plain"),
    media("/-/healthy", "healthy", "The same as /healthz", "text/plain"),
    media("/readyz", "readyz", "Whether the kernel's tables have been read", "text/plain"),
    media("/-/ready", "ready", "The same as /readyz", "text/plain"),
];

const fn get(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    answer: Shape,
) -> Operation {
    let access = Access::Network;
    let answer = Answer::Json(answer);
    Operation { method: "GET", path, access, id, summary, query: &[], request: None, answer }
}

const fn media(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    media: &'static str,
) -> Operation {
    let access = Access::Network;
    let answer = Answer::Media(media);
    Operation { method: "GET", path, access, id, summary, query: &[], request: None, answer }
}

/// A query with a body.
const fn ask(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    request: Shape,
    answer: Shape,
) -> Operation {
    Operation { access: Access::Network, ..change("POST", path, id, summary, request, answer) }
}

const fn change(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    request: Shape,
    answer: Shape,
) -> Operation {
    let access = Access::ControlSocket;
    let answer = Answer::Json(answer);
    Operation { method, path, access, id, summary, query: &[], request: Some(request), answer }
}

fn text() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).into()
}

fn number() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).into()
}

fn boolean() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::Boolean).into()
}

fn port_number() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(65_535)).into()
}

fn time() -> RefOr<Schema> {
    Ref::from_schema_name(Timestamp::name()).into()
}

fn role() -> RefOr<Schema> {
    Ref::from_schema_name(Role::name()).into()
}

fn protocol() -> RefOr<Schema> {
    Ref::from_schema_name(Protocol::name()).into()
}
