//! Service: both sides of every edge of one service.

use super::super::board::{Board, Row};
use super::super::limits::Limits;
use super::super::panel::{Panel, Unit};
use super::{CLUSTER, FROM, NAMESPACE, SERVICE, TO};

pub fn board(limits: &Limits) -> Board {
    Board {
        uid: "portolan-service",
        title: "Portolan / Service",
        description: "How does this service answer, how do those that it calls answer, and is it the network or the program? Needs the recording rules of Portolan.",
        variables: vec![CLUSTER, NAMESPACE, SERVICE],
        explore: "edge_role:portolan_request_duration_seconds:p99_5m",
        rows: vec![
            Row { title: "At a glance", height: 4, panels: glance(limits) },
            Row { title: "Is it the network or the program?", height: 9, panels: layers(limits) },
            Row { title: "Those who call it", height: 8, panels: callers(limits) },
            Row { title: "Its backends", height: 8, panels: backends() },
            Row { title: "Those it calls", height: 8, panels: called(limits) },
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
        Panel::number("Requests", "Requests a second it answers.", Unit::RequestsPerSecond, 4, format!("sum(service:portolan_request_duration_seconds:rate5m{{{TO}}})")).else_("blue"),
        Panel::number("P99, its own", "One request in a hundred takes it longer, from the first byte in to the first byte out.", Unit::Seconds, 4, quantile("0.99", "server")).from(limits.latency, "red"),
        Panel::number("P99, clients", "One request in a hundred takes longer, the network included.", Unit::Seconds, 4, quantile("0.99", "client")).from(limits.latency, "red"),
        Panel::number("Open connections", "Connections to it that are established now.", Unit::Count, 4, format!("sum(portolan_tcp_active_connections{{{TO}, role=\"server\"}}) or sum(portolan_tcp_active_connections{{{TO}, role=\"client\"}})")).else_("blue"),
        Panel::number("Connects to it failing", "Share of the attempts to connect to it that fail.", Unit::Ratio, 4, format!("sum(pair:portolan_tcp_connects_failures:rate5m{{{TO}}}) / (sum(pair:portolan_tcp_connects_attempts:rate5m{{{TO}}}) > 0)")).or_else("no attempts").from(limits.connect_failures, "red"),
        Panel::number("Its connects failing", "Share of its attempts to connect to others that fail.", Unit::Ratio, 4, format!("sum(pair:portolan_tcp_connects_failures:rate5m{{{FROM}}}) / (sum(pair:portolan_tcp_connects_attempts:rate5m{{{FROM}}}) > 0)")).or_else("no attempts").from(limits.connect_failures, "red"),
    ]
}

fn layers(limits: &Limits) -> Vec<Panel> {
    let slowest = |series: &str| format!("max({series}{{{TO}}})");
    vec![
        Panel::lines(
            "Where the time goes",
            "Client far above server: the way there, or queues before the program. Server high as well: the program, or what it waits for. Round trip high: the network. Each step of the axis is a factor.",
            Unit::Seconds,
            8,
        )
        .query(quantile("0.99", "client"), "request, as clients see it (p99)")
        .query(quantile("0.99", "server"), "request, its own time (p99)")
        .query(slowest("edge:portolan_tcp_connect_duration_seconds:p99_5m"), "connect (p99)")
        .query(slowest("edge:portolan_tcp_rtt_seconds:p50_5m"), "round trip (half)")
        .by_factors(),
        Panel::lines("Its own time", "Half, 5 in 100 and 1 in 100 of the requests take it longer, as seen on its host.", Unit::Seconds, 8)
            .query(quantile("0.5", "server"), "p50")
            .query(quantile("0.95", "server"), "p95")
            .query(quantile("0.99", "server"), "p99")
            .from(limits.latency, "red")
            .by_factors(),
        Panel::heat(
            "How requests spread",
            "Requests a second by how long they took, as seen on its host. Two bands are two kinds of requests, or one backend that is ill.",
            8,
            format!("sum by (le) (service_role:portolan_request_duration_seconds_bucket:rate5m{{{TO}, role=\"server\"}})"),
        ),
    ]
}

fn callers(limits: &Limits) -> Vec<Panel> {
    vec![
        Panel::lines("Requests by client", "Requests a second, by who asks.", Unit::RequestsPerSecond, 6)
            .query(format!("sum by (client, client_namespace) (edge:portolan_request_duration_seconds:rate5m{{{TO}}})"), "{{client}}")
            .stacked(),
        Panel::lines("P99 by client", "One request in a hundred takes longer, for each who asks.", Unit::Seconds, 6)
            .query(format!("max by (client, client_namespace) (edge:portolan_request_duration_seconds:p99_5m{{{TO}}})"), "{{client}}")
            .by_factors()
            .from(limits.latency, "red")
            .marked(),
        Panel::lines("Failed connects to it", "Attempts a second that failed, by client and result.", Unit::PerSecond, 6)
            .query(format!("sum by (client, result) (edge:portolan_tcp_connects:rate5m{{{TO}, result!=\"ok\"}}) > 0"), "{{client}}: {{result}}")
            .or_else("none"),
        Panel::lines("Resets and segments sent again", "A second: resets by cause, each counted once; segments sent again by either side.", Unit::PerSecond, 6)
            .query(format!("sum by (cause) (edge:portolan_tcp_resets:rate5m{{{TO}}}) > 0"), "reset: {{cause}}")
            .query(format!("sum(edge:portolan_tcp_retransmits:rate5m{{{TO}}})"), "sent again"),
    ]
}

fn backends() -> Vec<Panel> {
    let by = "sum by (client, server, port, backend)";
    let legend = "{{client}}: {{backend}}";
    vec![
        Panel::lines("Share of each backend", "What each address gets of the requests of one client within five minutes: equal lines are an even balance, unless weights are declared.", Unit::Ratio, 8)
            .query(format!("backend:portolan_backend_requests:share_5m{{{TO}}}"), legend)
            .between(0.0, 1.0),
        Panel::lines("Requests by backend", "Requests a second by the address that answered, for each who asks.", Unit::RequestsPerSecond, 8)
            .query(format!("{by} (rate(portolan_backend_requests_total{{{TO}, role=\"client\"}}[$__rate_interval]))"), legend),
        Panel::lines("Connections by backend", "New connections a second by the address that took them, for each who connects.", Unit::PerSecond, 8)
            .query(format!("{by} (rate(portolan_backend_connections_total{{{TO}, role=\"client\"}}[$__rate_interval]))"), legend),
    ]
}

fn called(limits: &Limits) -> Vec<Panel> {
    vec![
        Panel::lines("Requests by server", "Requests a second that it sends, by who answers.", Unit::RequestsPerSecond, 6)
            .query(format!("sum by (server, server_namespace) (edge:portolan_request_duration_seconds:rate5m{{{FROM}}})"), "{{server}}")
            .stacked(),
        Panel::lines("P99 by server", "One request in a hundred takes longer, for each it asks: what it waits for.", Unit::Seconds, 6)
            .query(format!("max by (server, server_namespace) (edge:portolan_request_duration_seconds:p99_5m{{{FROM}}})"), "{{server}}")
            .by_factors()
            .from(limits.latency, "red")
            .marked(),
        Panel::lines("Its failed connects", "Attempts a second that failed, by server and result.", Unit::PerSecond, 6)
            .query(format!("sum by (server, result) (edge:portolan_tcp_connects:rate5m{{{FROM}, result!=\"ok\"}}) > 0"), "{{server}}: {{result}}")
            .or_else("none"),
        Panel::lines("Traffic", "Payload bytes a second between it and those it calls (out, in) and those who call it.", Unit::BytesPerSecond, 6)
            .query(format!("sum(edge:portolan_tcp_sent_bytes:rate5m{{{FROM}}})"), "to servers")
            .query(format!("sum(edge:portolan_tcp_received_bytes:rate5m{{{FROM}}})"), "from servers")
            .query(format!("sum(edge:portolan_tcp_sent_bytes:rate5m{{{TO}}})"), "from clients")
            .query(format!("sum(edge:portolan_tcp_received_bytes:rate5m{{{TO}}})"), "to clients"),
    ]
}
