//! Service: both sides of every edge of one service.

use super::super::board::{Board, Row};
use super::super::limits::Limits;
use super::super::panel::{Panel, Unit};
use super::{CLUSTER, FROM, NAMESPACE, RESETS, SERVICE, TO, named};

/// The labels that name the other end, for [`named`].
const CLIENT: &[&str] = &["client"];
const SERVER: &[&str] = &["server"];

pub fn board(limits: &Limits) -> Board {
    Board {
        uid: "portolan-service",
        title: "Portolan / Service",
        description: "How do this service and its dependencies respond, and is the time spent in the network or in the server? Needs the recording rules of Portolan.",
        variables: vec![CLUSTER, NAMESPACE, SERVICE],
        explore: "edge_role:portolan_request_duration_seconds:p99_5m",
        rows: vec![
            Row { title: "At a glance", height: 4, panels: glance(limits) },
            Row { title: "Server or network?", height: 9, panels: layers(limits) },
            Row { title: "Clients", height: 8, panels: clients(limits) },
            Row { title: "Responses", height: 8, panels: responses() },
            Row { title: "Operations", height: 8, panels: operations() },
            Row { title: "DNS", height: 8, panels: lookups() },
            Row { title: "Backends", height: 8, panels: backends() },
            Row { title: "Dependencies", height: 8, panels: dependencies(limits) },
        ],
    }
}

/// A quantile of the requests to the service, as one side saw it.
fn quantile(q: &str, role: &str) -> String {
    format!(
        "histogram_quantile({q}, sum by (le) (service_role:portolan_request_duration_seconds_bucket:rate5m{{{TO}, role=\"{role}\"}}))"
    )
}

fn glance(limits: &Limits) -> Vec<Panel> {
    vec![
        Panel::number("Requests", "Requests per second that the service answers. Those of monitoring and system services are not counted (names.monitoring, names.system).", Unit::RequestsPerSecond, 3, format!("sum(service:portolan_request_duration_seconds:rate5m{{{TO}}})")).else_("blue"),
        Panel::number("P99 (server side)", "One request in 100 takes longer, from its first byte in to the first byte of the response out; waiting for dependencies is included, the network to the clients is not.", Unit::Seconds, 4, quantile("0.99", "server")).or_else("no requests of applications").from(limits.latency, "red"),
        Panel::number("P99 (client side)", "One request in 100 takes longer as measured at the clients, the network included.", Unit::Seconds, 4, quantile("0.99", "client")).or_else("no requests of applications").from(limits.latency, "red"),
        Panel::number("Connections", "Inbound connections that are established now.", Unit::Count, 3, format!("sum(portolan_tcp_active_connections{{{TO}, role=\"server\"}}) or sum(portolan_tcp_active_connections{{{TO}, role=\"client\"}})")).else_("blue"),
        Panel::number("Inbound connect errors", "Share of the connects to the service that fail.", Unit::Ratio, 5, format!("sum(pair:portolan_tcp_connects_failures:rate5m{{{TO}}}) / (sum(pair:portolan_tcp_connects_attempts:rate5m{{{TO}}}) > 0)")).or_else("no connects").from(limits.connect_failures, "red"),
        Panel::number("Outbound connect errors", "Share of the connects from the service to others that fail.", Unit::Ratio, 5, format!("sum(pair:portolan_tcp_connects_failures:rate5m{{{FROM}}}) / (sum(pair:portolan_tcp_connects_attempts:rate5m{{{FROM}}}) > 0)")).or_else("no connects").from(limits.connect_failures, "red"),
    ]
}

fn layers(limits: &Limits) -> Vec<Panel> {
    let slowest = |series: &str| format!("max({series}{{{TO}}})");
    vec![
        Panel::lines(
            "Latency by layer",
            "Client side far above server side: the network, or an accept queue. Server side high as well: the server, or its dependencies. RTT high: the network. Logarithmic axis.",
            Unit::Seconds,
            8,
        )
        .query(quantile("0.99", "client"), "request p99 (client side)")
        .query(quantile("0.99", "server"), "request p99 (server side)")
        .query(slowest("edge:portolan_tcp_connect_duration_seconds:p99_5m"), "connect p99")
        .query(slowest("edge:portolan_tcp_rtt_seconds:p50_5m"), "RTT p50")
        .by_factors(),
        Panel::lines("Latency (server side)", "50, 5 and 1 in 100 requests take longer, measured at the server. Logarithmic axis.", Unit::Seconds, 8)
            .query(quantile("0.5", "server"), "p50")
            .query(quantile("0.95", "server"), "p95")
            .query(quantile("0.99", "server"), "p99")
            .from(limits.latency, "red")
            .by_factors(),
        Panel::heat(
            "Latency distribution",
            "Requests per second by duration, measured at the server. Two bands are two kinds of requests, or one slow backend.",
            8,
            format!("sum by (le) (service_role:portolan_request_duration_seconds_bucket:rate5m{{{TO}, role=\"server\"}})"),
        ),
    ]
}

fn clients(limits: &Limits) -> Vec<Panel> {
    vec![
        Panel::lines("Requests by client", "Requests per second, by client.", Unit::RequestsPerSecond, 6)
            .query(named(format!("sum by (client, client_namespace) (edge:portolan_request_duration_seconds:rate5m{{{TO}}})"), CLIENT), "{{client}}")
            .stacked(),
        Panel::lines("P99 by client", "One request in 100 takes longer, for each client. Logarithmic axis.", Unit::Seconds, 6)
            .query(named(format!("max by (client, client_namespace) (edge:portolan_request_duration_seconds:p99_5m{{{TO}}})"), CLIENT), "{{client}}")
            .by_factors()
            .from(limits.latency, "red")
            .marked(),
        Panel::lines("Inbound connect errors", "Connects per minute that failed, by client and result.", Unit::PerMinute, 6)
            .query(named(format!("60 * sum by (client, client_namespace, result) (edge:portolan_tcp_connects:rate5m{{{TO}, result!=\"ok\"}}) > 0"), CLIENT), "{{client}}: {{result}}")
            .or_else("none"),
        Panel::lines("Resets and retransmits", "Per minute: resets by cause, each counted once, and segments that either side retransmitted.", Unit::PerMinute, 6)
            .query(format!("60 * sum by (cause) (edge:portolan_tcp_resets:rate5m{{{TO}, {RESETS}}}) > 0"), "reset: {{cause}}")
            .query(format!("60 * sum(edge:portolan_tcp_retransmits:rate5m{{{TO}}})"), "retransmits"),
    ]
}

fn responses() -> Vec<Panel> {
    let connections = |security: &str| {
        format!("sum(rate(portolan_connection_security_total{{{TO}{security}}}[$__rate_interval]))")
    };
    vec![
        Panel::lines("Responses by status", "Responses per second of the service by protocol and status: HTTP/1, PostgreSQL, MySQL and Redis without TLS. Seen on the service's own host; the first response of each exchange.", Unit::RequestsPerSecond, 9)
            .query(format!("sum by (protocol, status) (edge:portolan_responses:rate5m{{{TO}}})"), "{{protocol}} {{status}}")
            .or_else("no recognised protocol")
            .stacked(),
        Panel::lines("Errors by client", "Share of the responses to each client that are errors of the service: HTTP 5xx, errors of a database.", Unit::Ratio, 9)
            .query(named(format!("max by (client, client_namespace, protocol) (edge:portolan_responses_errors:ratio_rate5m{{{TO}}})"), CLIENT), "{{client}}: {{protocol}}")
            .or_else("none"),
        Panel::lines("Connections in plain text", "Share of the new connections to the service, of those whose protocol is recognised, that are not encrypted with TLS.", Unit::Ratio, 6)
            .query(format!("{} / ({} > 0)", connections(", security=\"plaintext\""), connections(", security!=\"unknown\"")), "plain text")
            .or_else("no recognised protocol")
            .between(0.0, 1.0),
    ]
}

fn operations() -> Vec<Panel> {
    vec![
        Panel::lines("Operations by method and status", "Requests per second that the service answers, each one counted (protocols.services in the agent's configuration).", Unit::RequestsPerSecond, 8)
            .query(format!("sum by (operation, status) (rate(portolan_operations_total{{{TO}}}[$__rate_interval]))"), "{{operation}} {{status}}")
            .or_else("not in protocols.services")
            .stacked(),
        Panel::lines("P99 by method", "One request in 100 takes longer, from its first byte in to the first byte of the response out. Logarithmic axis.", Unit::Seconds, 8)
            .query(format!("histogram_quantile(0.99, sum by (operation, le) (rate(portolan_operation_duration_seconds_bucket{{{TO}}}[$__rate_interval])))"), "{{operation}}")
            .or_else("not in protocols.services")
            .by_factors(),
        Panel::lines("Unanswered", "Requests per second that had no response when their connection ended, by client.", Unit::RequestsPerSecond, 8)
            .query(named(format!("sum by (client, client_namespace) (rate(portolan_operations_unanswered_total{{{TO}}}[$__rate_interval]))"), CLIENT), "{{client}}")
            .or_else("not in protocols.services"),
    ]
}

fn lookups() -> Vec<Panel> {
    vec![
        Panel::lines("Lookups by result", "DNS lookups per second of the service over UDP, by result. NXDOMAIN in a row with NOERROR is mostly a search path: one name is tried under several suffixes.", Unit::RequestsPerSecond, 12)
            .query(format!("sum by (rcode) (rate(portolan_dns_lookups_total{{{FROM}}}[$__rate_interval]))"), "{{rcode}}")
            .or_else("no lookups")
            .stacked(),
        Panel::lines("P99 by DNS server", "One answered lookup in 100 takes longer, for each server that the service asks. Logarithmic axis.", Unit::Seconds, 12)
            .query(named(format!("histogram_quantile(0.99, sum by (server, server_namespace, le) (rate(portolan_dns_lookup_duration_seconds_bucket{{{FROM}}}[$__rate_interval])))"), SERVER), "{{server}}")
            .or_else("no lookups")
            .by_factors(),
    ]
}

fn backends() -> Vec<Panel> {
    let by = "sum by (client, client_namespace, server, server_namespace, port, backend)";
    let legend = "{{client}}: {{backend}}";
    vec![
        Panel::lines("Share by backend", "Share of the requests of one client that each backend gets within five minutes. Equal lines are an even balance, unless weights are declared.", Unit::Ratio, 8)
            .query(named(format!("backend:portolan_backend_requests:share_5m{{{TO}}}"), CLIENT), legend)
            .between(0.0, 1.0),
        Panel::lines("Requests by backend", "Requests per second by client and backend.", Unit::RequestsPerSecond, 8)
            .query(named(format!("{by} (rate(portolan_backend_requests_total{{{TO}, role=\"client\"}}[$__rate_interval]))"), CLIENT), legend),
        Panel::lines("Connections by backend", "New connections per second by client and backend.", Unit::ConnectionsPerSecond, 8)
            .query(named(format!("{by} (rate(portolan_backend_connections_total{{{TO}, role=\"client\"}}[$__rate_interval]))"), CLIENT), legend),
    ]
}

fn dependencies(limits: &Limits) -> Vec<Panel> {
    vec![
        Panel::lines("Requests by dependency", "Requests per second that the service sends, by server.", Unit::RequestsPerSecond, 6)
            .query(named(format!("sum by (server, server_namespace) (edge:portolan_request_duration_seconds:rate5m{{{FROM}}})"), SERVER), "{{server}}")
            .stacked(),
        Panel::lines("P99 by dependency", "One request in 100 takes longer, for each server that the service calls. Logarithmic axis.", Unit::Seconds, 6)
            .query(named(format!("max by (server, server_namespace) (edge:portolan_request_duration_seconds:p99_5m{{{FROM}}})"), SERVER), "{{server}}")
            .by_factors()
            .from(limits.latency, "red")
            .marked(),
        Panel::lines("Outbound connect errors", "Connects per minute that failed, by server and result.", Unit::PerMinute, 6)
            .query(named(format!("60 * sum by (server, server_namespace, result) (edge:portolan_tcp_connects:rate5m{{{FROM}, result!=\"ok\"}}) > 0"), SERVER), "{{server}}: {{result}}")
            .or_else("none"),
        Panel::lines("Traffic", "Payload bytes per second to and from its dependencies and its clients.", Unit::BytesPerSecond, 6)
            .query(format!("sum(edge:portolan_tcp_sent_bytes:rate5m{{{FROM}}})"), "to dependencies")
            .query(format!("sum(edge:portolan_tcp_received_bytes:rate5m{{{FROM}}})"), "from dependencies")
            .query(format!("sum(edge:portolan_tcp_sent_bytes:rate5m{{{TO}}})"), "from clients")
            .query(format!("sum(edge:portolan_tcp_received_bytes:rate5m{{{TO}}})"), "to clients"),
    ]
}
